"""The client: one try a call, under a deadline, on the current endpoint; the next call after a
failure goes to the next endpoint.

It deliberately does not retry. A transaction without an answer may have been applied; only its
sender knows which keys to read to find out, and a blind second try has lost data in other
clients. So a call ends in its answer or in one of the classes of ``errors``.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.etcd.errors import (
    Compacted,
    EtcdError,
    HistoryRewound,
    LeaseNotFound,
    OutcomeUnknown,
    Unavailable,
    error_of,
)
from tenure.protocol.security import Watched
from tenure.protocol.tls import Pem

_log = logging.getLogger(__name__)

#: Long enough for an fsync under load, short enough to leave a frozen member well inside a
#: leader's ``valid_until``.
CALL_TIMEOUT_S = 1.2

#: Older servers can lose acknowledged writes or rewind revisions.
VERSION_FLOOR = (3, 5, 14)
_VERSION_ADVICE = "use 3.5.33 or newer, or 3.6.14 or newer"

# A member that has lost its leader says so at once instead of letting the call time out.
_REQUIRE_LEADER = (("hasleader", "true"),)

_CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # A retry below us would send a transaction twice behind our back.
    ("grpc.enable_retries", 0),
    # Etcd closes connections that ping more often than every 5 s, or without a stream.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Connections are never shared with another client of this process.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 64 * 1024 * 1024),
)

_Q = TypeVar("_Q", bound=Message)
_R = TypeVar("_R", bound=Message)


@dataclass(frozen=True, slots=True)
class _Method(Generic[_Q, _R]):
    """One RPC of etcd: where it lives, and what it takes and returns."""

    path: str
    request: type[_Q]
    response: type[_R]
    mutates: bool = False


_RANGE = _Method("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse)
_TXN_READ = _Method("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse)
_TXN = _Method("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse, True)
_COMPACT = _Method("/etcdserverpb.KV/Compact", pb.CompactionRequest, pb.CompactionResponse, True)
_GRANT = _Method(
    "/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse, True
)
_REVOKE = _Method(
    "/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse, True
)
_TIME_TO_LIVE = _Method(
    "/etcdserverpb.Lease/LeaseTimeToLive", pb.LeaseTimeToLiveRequest, pb.LeaseTimeToLiveResponse
)
_ALARM = _Method("/etcdserverpb.Maintenance/Alarm", pb.AlarmRequest, pb.AlarmResponse, True)
_STATUS = _Method("/etcdserverpb.Maintenance/Status", pb.StatusRequest, pb.StatusResponse)
_DEFRAGMENT = _Method(
    "/etcdserverpb.Maintenance/Defragment", pb.DefragmentRequest, pb.DefragmentResponse, True
)
_KEEP_ALIVE = _Method(
    "/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse
)
_WATCH = _Method("/etcdserverpb.Watch/Watch", pb.WatchRequest, pb.WatchResponse)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchBatch:
    """Changes of one or more revisions, in order.

    The first batch of a watch is empty: it says that the watch is in place.
    """

    #: Everything up to this revision has been delivered.
    revision: int
    events: Sequence[pb.Event]


class Channel(Protocol):
    """What the client asks of grpc.aio's channels."""

    def unary_unary(
        self, method: str, *, request_serializer: Any, response_deserializer: Any
    ) -> Any:
        """Calls with one request and one answer."""

    def stream_stream(
        self, method: str, *, request_serializer: Any, response_deserializer: Any
    ) -> Any:
        """Calls with messages both ways."""

    async def close(self) -> None:
        """Cancels the calls under way."""


class Dial(Protocol):
    """Makes a channel to one member."""

    def __call__(self, address: str, pem: Pem | None) -> Channel:
        """A new channel, with certificates or in clear text."""


def dial(address: str, pem: Pem | None) -> Channel:
    """A channel of grpc.aio."""
    if pem is None:
        return grpc.aio.insecure_channel(address, _CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert)
    return grpc.aio.secure_channel(address, credentials, _CHANNEL_OPTIONS)


class _Endpoint:
    """One member's address, with its channel once it has been used.

    Renewed certificates get a new channel. The old one is only let go: gRPC closes it when nobody
    holds it any more, and calls that are open on it go on.
    """

    def __init__(self, address: str, tls: Watched[Pem] | None, dial: Dial) -> None:
        self.address = address
        self._tls = tls
        self._dial = dial
        self._pem: Pem | None = None
        self._channel: Channel | None = None
        self._unary: dict[str, Any] = {}

    def channel(self) -> Channel:
        pem = self._tls.now() if self._tls is not None else None
        if self._channel is None or pem is not self._pem:
            self._unary.clear()
            self._pem = pem
            self._channel = self._dial(self.address, pem)
        return self._channel

    def unary(self, method: _Method[Any, Any]) -> Any:
        channel = self.channel()
        stub = self._unary.get(method.path)
        if stub is None:
            stub = self._unary[method.path] = channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return stub

    def stream(self, method: _Method[Any, Any]) -> Any:
        return self.channel().stream_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        self._unary.clear()
        if channel is not None:
            await channel.close()


class EtcdClient:
    """A client of one etcd cluster, to be used from one event loop.

    Args:
        endpoints: ``host:port`` of the members, at least one; used in this order.
        tls: certificates, read again when they change; None talks in clear text.
        call_timeout_s: the deadline of every call, in seconds.
        dial: makes the channels.

    Raises (every method):
        EtcdError: see ``errors``. A cancelled call's outcome is unknown too.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: Watched[Pem] | None = None,
        call_timeout_s: float = CALL_TIMEOUT_S,
        dial: Dial = dial,
    ) -> None:
        if not endpoints:
            raise ValueError("expected at least one etcd endpoint, but got none")
        self._endpoints = [_Endpoint(address, tls, dial) for address in endpoints]
        self._current = 0
        self._call_timeout_s = call_timeout_s
        self._closed = False
        self._cluster_id = 0
        # The newest revision that an answer has shown.
        self._revision = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def endpoints(self) -> list[str]:
        """The addresses, in the order of rotation."""
        return [endpoint.address for endpoint in self._endpoints]

    @property
    def cluster_id(self) -> int:
        """The id of the cluster that answered first; 0 before any answer."""
        return self._cluster_id

    async def close(self) -> None:
        """Close all channels; calls under way end as if their connection had broken."""
        self._closed = True
        for endpoint in self._endpoints:
            await endpoint.close()

    # Keys.

    async def range(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        descending: bool = False,
        serializable: bool = False,
        timeout_s: float | None = None,
    ) -> pb.RangeResponse:
        """Read ``key`` or ``[key, range_end)``, in key order; linearizable by default."""
        request = pb.RangeRequest(
            key=key,
            range_end=range_end,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            count_only=count_only,
            serializable=serializable,
            sort_order=pb.RangeRequest.DESCEND if descending else pb.RangeRequest.NONE,
        )
        floor = 0 if serializable else self._revision
        response = await self._call(_RANGE, request, timeout_s=timeout_s)
        self._check_history(response.header, floor)
        return response

    async def txn(
        self,
        compare: Sequence[pb.Compare] = (),
        success: Sequence[pb.RequestOp] = (),
        failure: Sequence[pb.RequestOp] = (),
    ) -> pb.TxnResponse:
        """Run one of two branches, atomically. A put or delete is a transaction of one.

        Raises:
            ValueError: There is no operation in it. Etcd would answer such a transaction from what
                one member happens to have: its compares would not be linearizable.
        """
        if not success and not failure:
            raise ValueError("expected a transaction with an operation, but got only compares")
        request = pb.TxnRequest(compare=compare, success=success, failure=failure)
        reads = all(op.WhichOneof("request") == "request_range" for op in (*success, *failure))
        floor = self._revision
        response = await self._call(_TXN_READ if reads else _TXN, request)
        self._check_history(response.header, floor)
        return response

    async def compact(self, revision: int) -> None:
        """Forget superseded revisions before ``revision``; what is current stays.

        Raises:
            Compacted: this or a newer compaction has been made already.
        """
        await self._call(_COMPACT, pb.CompactionRequest(revision=revision))

    # Leases.

    async def lease_grant(self, ttl_s: int, lease_id: int = 0) -> pb.LeaseGrantResponse:
        """Create a lease. Choose the id yourself to know it when the outcome is unknown."""
        return await self._call(_GRANT, pb.LeaseGrantRequest(ttl=ttl_s, id=lease_id))

    async def lease_revoke(self, lease_id: int) -> None:
        """End a lease and delete its keys."""
        await self._call(_REVOKE, pb.LeaseRevokeRequest(id=lease_id))

    async def lease_ttl(self, lease_id: int) -> pb.LeaseTimeToLiveResponse:
        """How long a lease has left.

        Raises:
            LeaseNotFound: it has ended.
        """
        response = await self._call(_TIME_TO_LIVE, pb.LeaseTimeToLiveRequest(id=lease_id))
        if response.ttl < 0:
            raise LeaseNotFound(f"expected lease {lease_id:x} to be alive, but it has ended")
        return response

    async def lease_keepalive(self, lease_id: int) -> int:
        """Renew a lease once and return its new TTL in seconds.

        One short stream a call: nothing renews in the background, so a renewal proves that the
        caller's loop turned.

        Raises:
            LeaseNotFound: it has ended.
        """
        request = pb.LeaseKeepAliveRequest(id=lease_id)
        endpoint = self._at(None)
        call = endpoint.stream(_KEEP_ALIVE)(timeout=self._call_timeout_s, metadata=_REQUIRE_LEADER)
        try:
            await call.write(request)
            response = await call.read()
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            raise self._failure(endpoint, error, mutates=False) from error
        finally:
            call.cancel()
        if response is grpc.aio.EOF:
            self._rotate(endpoint)
            raise Unavailable("the keepalive's stream ended without an answer")
        if response.ttl <= 0:
            raise LeaseNotFound(f"expected lease {lease_id:x} to be alive, but it has ended")
        return int(response.ttl)

    # Watches.

    async def watch(
        self, key: bytes, range_end: bytes = b"", *, start_revision: int = 0
    ) -> AsyncGenerator[WatchBatch, None]:
        """Follow the changes of ``key`` or ``[key, range_end)``; an empty batch comes first.

        Close the iterator (``contextlib.aclosing``) to end the watch. To resume after Unavailable,
        watch again from the last batch's revision + 1.

        Args:
            key: the first key.
            range_end: the end of the range, exclusive; empty: the one key.
            start_revision: inclusive; 0: from now on.

        Raises:
            Compacted: ``start_revision`` is no longer there: list, then watch from the list's
                revision + 1. Etcd says so only after the first, empty batch.
            Unavailable: the watch broke.
        """
        create = pb.WatchCreateRequest(
            key=key, range_end=range_end, start_revision=start_revision, progress_notify=True
        )
        endpoint = self._at(None)
        call = endpoint.stream(_WATCH)(metadata=_REQUIRE_LEADER)
        try:
            async with asyncio.timeout(self._call_timeout_s):
                await call.write(pb.WatchRequest(create_request=create))
                response = await call.read()
            while response is not grpc.aio.EOF:
                if response.compact_revision:
                    raise Compacted(
                        f"expected to watch from revision {start_revision}, but etcd keeps"
                        f" nothing before {response.compact_revision}",
                        response.compact_revision,
                    )
                if response.canceled:
                    raise Unavailable(f"watch cancelled by etcd: {response.cancel_reason}")
                yield WatchBatch(revision=response.header.revision, events=response.events)
                response = await call.read()
            raise Unavailable(f"watch ended by etcd: {await call.details()}")
        except Unavailable:
            self._rotate(endpoint)
            raise
        except TimeoutError as error:
            self._rotate(endpoint)
            raise Unavailable(f"watch not created in {self._call_timeout_s} s") from error
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            raise self._failure(endpoint, error, mutates=False) from error
        finally:
            call.cancel()

    # Maintenance.

    async def alarms(self) -> Sequence[pb.AlarmMember]:
        """The alarms raised now, by member."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET)
        return (await self._call(_ALARM, request)).alarms

    async def disarm(self, alarm: pb.AlarmMember) -> None:
        """Take one alarm back, after its cause has been removed."""
        request = pb.AlarmRequest(
            action=pb.AlarmRequest.DEACTIVATE, member_id=alarm.member_id, alarm=alarm.alarm
        )
        await self._call(_ALARM, request)

    async def status(self, address: str | None = None) -> pb.StatusResponse:
        """What one member says of itself: version, sizes, leader.

        Args:
            address: one of ``endpoints``; None asks the current one.
        """
        return await self._call(_STATUS, pb.StatusRequest(), endpoint=self._at(address))

    async def defragment(self, address: str, *, timeout_s: float = 60.0) -> None:
        """Give one member's free database pages back to its file system; it stalls meanwhile."""
        await self._call(
            _DEFRAGMENT,
            pb.DefragmentRequest(),
            endpoint=self._at(address),
            timeout_s=timeout_s,
        )

    async def check_versions(self) -> dict[str, str]:
        """Read the version of every member that answers, and warn about those too old.

        Returns:
            address → version, without the members that did not answer.
        """
        versions: dict[str, str] = {}
        for address in self.endpoints:
            try:
                versions[address] = (await self.status(address)).version
            except EtcdError as error:
                _log.warning(
                    "etcd member %s did not tell its version: %s",
                    address,
                    error,
                    extra={"action": "etcd_version"},
                )
                continue
            if warning := version_warning(versions[address]):
                _log.warning(
                    "etcd member %s: %s", address, warning, extra={"action": "etcd_version"}
                )
        return versions

    # How a call is made.

    def _at(self, address: str | None) -> _Endpoint:
        if self._closed:
            raise Unavailable("the client is closed")
        if address is None:
            return self._endpoints[self._current]
        for endpoint in self._endpoints:
            if endpoint.address == address:
                return endpoint
        raise ValueError(f"expected one of {self.endpoints}, but got {address}")

    async def _call(
        self,
        method: _Method[_Q, _R],
        request: _Q,
        *,
        endpoint: _Endpoint | None = None,
        timeout_s: float | None = None,
    ) -> _R:
        endpoint = endpoint or self._at(None)
        try:
            response: _R = await endpoint.unary(method)(
                request, timeout=timeout_s or self._call_timeout_s, metadata=_REQUIRE_LEADER
            )
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            raise self._failure(endpoint, error, mutates=method.mutates) from error
        return response

    def _failure(
        self, endpoint: _Endpoint, error: BaseException, *, mutates: bool
    ) -> BaseException:
        """The error to raise for a failed call; moves on to the next endpoint if that may help."""
        if isinstance(error, grpc.aio.AioRpcError):
            known = error_of(error.code(), error.details() or "", mutates=mutates)
        else:
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                return error
            # Closing a channel cancels its calls without cancelling the tasks that wait for them.
            detail = "the client was closed during the call"
            known = OutcomeUnknown(detail) if mutates else Unavailable(detail)
        if isinstance(known, Unavailable | OutcomeUnknown):
            self._rotate(endpoint)
        return known

    def _check_history(self, header: pb.ResponseHeader, floor: int) -> None:
        """Refuse an answer that linearizability rules out.

        Args:
            header: the answer's.
            floor: the newest revision seen when the call was made.
        """
        self._cluster_id = self._cluster_id or header.cluster_id
        if header.cluster_id != self._cluster_id:
            raise HistoryRewound(
                f"expected answers from etcd cluster {self._cluster_id:x}, but a member of"
                f" {header.cluster_id:x} answered; was a backup restored?"
            )
        if header.revision < floor:
            raise HistoryRewound(
                f"expected a revision of at least {floor}, but got {header.revision}; was a"
                f" backup restored, or does this etcd lose writes?"
            )
        self._revision = max(self._revision, header.revision)

    def _rotate(self, failed: _Endpoint) -> None:
        # Several calls may fail on one endpoint together; only the first of them moves on.
        if self._endpoints[self._current] is failed:
            self._current = (self._current + 1) % len(self._endpoints)


def version_warning(version: str) -> str | None:
    """What is wrong with running on this etcd version; None when nothing is."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        return f"version {version!r} is not understood; {_VERSION_ADVICE}"
    if tuple(map(int, found.groups())) < VERSION_FLOOR:
        floor = ".".join(map(str, VERSION_FLOOR))
        return (
            f"version {version} is older than {floor} and can lose leases or rewind revisions;"
            f" {_VERSION_ADVICE}"
        )
    return None
