"""What etcd says when it does not do what was asked: codes and texts of its v3 API (rpctypes)."""

import grpc
import grpc.aio


class Refusal(Exception):
    """A call's error as it travels: becomes an ``AioRpcError`` at the client."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    def rpc_error(self) -> grpc.aio.AioRpcError:
        """What grpc.aio raises for it."""
        return grpc.aio.AioRpcError(
            self.code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=self.detail
        )


def no_space() -> Refusal:
    """The quota is reached."""
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")


def compacted() -> Refusal:
    """The revision asked for is gone."""
    return Refusal(
        grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"
    )


def future_revision() -> Refusal:
    """The revision asked for is not there yet."""
    return Refusal(
        grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision"
    )


def lease_not_found() -> Refusal:
    """The lease has ended, or never was."""
    return Refusal(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")


def lease_exists() -> Refusal:
    """The lease id is taken."""
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: lease already exists")


def duplicate_key() -> Refusal:
    """A transaction writes a key twice."""
    return Refusal(
        grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request"
    )


def request_too_large() -> Refusal:
    """More than a raft entry may hold."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large")


def message_too_large(size: int, limit: int) -> Refusal:
    """More than Go's gRPC server reads."""
    return Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"grpc: received message larger than max ({size} vs. {limit})",
    )


def no_leader() -> Refusal:
    """The member knows of no leader, and the caller wants one."""
    return Refusal(grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader")


def deadline_exceeded() -> Refusal:
    """No answer came in time."""
    return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def connection_refused(address: str) -> Refusal:
    """Nobody listens there."""
    return Refusal(
        grpc.StatusCode.UNAVAILABLE, f"failed to connect to all addresses: {address}: refused"
    )


def connection_lost(why: str) -> Refusal:
    """The connection broke under the call."""
    return Refusal(grpc.StatusCode.UNAVAILABLE, why)
