"""What a call to etcd can end in, told apart by what the caller must do next.

Every class says through ``outcome_unknown`` whether the call may have taken effect. Only the
caller can resolve that (send the same bytes again, then read back): the client never does.
"""

from __future__ import annotations

import grpc


class EtcdError(Exception):
    """Etcd did not do what was asked.

    Attributes:
        outcome_unknown: whether the call may have taken effect all the same.
        detail: the server's or gRPC's own words.
    """

    outcome_unknown: bool = False

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Unavailable(EtcdError):
    """No answer, and nothing was changed: a read, or a call refused before it was proposed."""


class OutcomeUnknown(EtcdError):
    """A mutation got no answer: it may have been applied, or may yet be."""

    outcome_unknown = True


class NoSpace(EtcdError):
    """The database is over its quota: nothing that stores is taken until space is freed.

    The outcome of a mutation is unknown: the server's applier reports the quota *after* it has
    applied the transaction that first crossed it.
    """

    outcome_unknown = True


class Compacted(EtcdError):
    """The revision asked for has been compacted away: list again.

    Attributes:
        compact_revision: the oldest revision that can still be read; 0 when the server did not
            say.
    """

    def __init__(self, detail: str, compact_revision: int = 0) -> None:
        super().__init__(detail)
        self.compact_revision = compact_revision


class FutureRevision(EtcdError):
    """The revision asked for does not exist yet."""


class LeaseNotFound(EtcdError):
    """The lease has expired or was revoked; its keys are gone."""


class LeaseExists(EtcdError):
    """The lease id is taken: by an earlier grant of unknown outcome, if the id was our own."""


class HistoryRewound(EtcdError):
    """A member answered from another cluster, or from a past this client has already left.

    Etcd promises neither can happen; a restored backup or a version that loses writes does it.
    """


class Refused(EtcdError):
    """The server will never take this request as it is (too large, not permitted, malformed)."""


_DEFINITE = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}

# Said by the server's interceptors and admission checks, before anything is proposed to raft.
_NOT_PROPOSED = ("etcdserver: no leader", "etcdserver: too many requests")


def error_of(code: grpc.StatusCode, detail: str, *, mutates: bool) -> EtcdError:
    """Classify a failed call.

    Args:
        code: the gRPC status of the call.
        detail: its message; etcd's texts are part of its API (rpctypes).
        mutates: whether the request could have changed anything.
    """
    if "database space exceeded" in detail:
        return NoSpace(detail)
    if "has been compacted" in detail:
        return Compacted(detail)
    if "is a future revision" in detail:
        return FutureRevision(detail)
    if "requested lease not found" in detail:
        return LeaseNotFound(detail)
    if "lease already exists" in detail:
        return LeaseExists(detail)
    # Go's server turns an oversized message down before any handler sees it.
    if code in _DEFINITE or detail.startswith("grpc: received message larger than max"):
        return Refused(detail)
    text = f"{code.name}: {detail}"
    if mutates and not detail.startswith(_NOT_PROPOSED):
        return OutcomeUnknown(text)
    return Unavailable(text)
