"""Everything that happens to a cluster's keys in etcd, from revision 1 on, seen from outside.

The watch is the oracle's own: synchronous gRPC in a thread, on whichever member answers, resumed
at the revision after the last one seen. It knows where the keys lie (the store's layout is part of
its contract, see ``store_keys``) and shares no code with the product.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from tenure.etcdapi import etcd_pb2 as pb
from tests.oracles.journal import Change
from tests.oracles.store_keys import KeyReader

_CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
)
_CALL_TIMEOUT_S = 2.0


class WatchBroken(RuntimeError):
    """The oracle did not see everything: nothing can be said about the run."""


class StoreWatch:
    """Collects every change under a prefix while a run goes on.

    Args:
        endpoints: ``host:port`` of the members.
        prefix: What the cluster's keys start with.
    """

    def __init__(self, endpoints: Sequence[str], prefix: str = "/tenure") -> None:
        self.changes: list[Change] = []
        self._endpoints = list(endpoints)
        self._prefix = prefix.encode()
        self._marker = self._prefix + b"/oracle"
        self._reader = KeyReader(self._prefix)
        self._seen = 0
        self._failure = ""
        self._progress = threading.Condition()
        self._stopping = threading.Event()
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name="store-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        with self._progress:
            if self._call is not None:
                self._call.cancel()
        self._thread.join(timeout=10)

    @property
    def halted(self) -> set[int]:
        """The partitions that were ever marked as HALTED."""
        return self._reader.halted

    def finish(self, timeout_s: float = 20.0) -> list[Change]:
        """Every change up to now: a key of the oracle's own marks where now is.

        Raises:
            WatchBroken: the watch lost something, or the marker did not come.
        """
        deadline = time.monotonic() + timeout_s
        marker = self._put_marker(deadline)
        with self._progress:
            self._progress.wait_for(
                lambda: self._failure or self._seen >= marker, timeout=deadline - time.monotonic()
            )
            if self._failure or self._seen < marker:
                raise WatchBroken(self._failure or f"revision {marker} did not come in time")
            return [change for change in self.changes if change.revision <= marker]

    def _put_marker(self, deadline: float) -> int:
        request = pb.PutRequest(key=self._marker, value=b"end")
        for endpoint in self._rotate():
            try:
                with grpc.insecure_channel(endpoint, _CHANNEL_OPTIONS) as channel:
                    put = channel.unary_unary(
                        "/etcdserverpb.KV/Put",
                        request_serializer=pb.PutRequest.SerializeToString,
                        response_deserializer=pb.PutResponse.FromString,
                    )
                    return int(put(request, timeout=_CALL_TIMEOUT_S).header.revision)
            except grpc.RpcError as error:
                if time.monotonic() > deadline:
                    raise WatchBroken(f"etcd took no marker: {error}") from error
        raise WatchBroken("there is no etcd member to ask")

    def _rotate(self) -> Iterator[str]:
        for endpoint in itertools.cycle(self._endpoints):
            if self._stopping.is_set():
                return
            yield endpoint

    def _run(self) -> None:
        for endpoint in self._rotate():
            # A member that is gone or frozen costs a moment; the next one goes on where it ended.
            with contextlib.suppress(grpc.RpcError):
                self._follow(endpoint)
            if self._failure:
                return
            self._stopping.wait(timeout=0.1)

    def _follow(self, endpoint: str) -> None:
        requests: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        create = pb.WatchCreateRequest(
            key=self._prefix,
            range_end=self._prefix[:-1] + bytes([self._prefix[-1] + 1]),
            start_revision=self._seen + 1,
        )
        requests.put(pb.WatchRequest(create_request=create))
        with grpc.insecure_channel(endpoint, _CHANNEL_OPTIONS) as channel:
            watch: Callable[..., Any] = channel.stream_stream(
                "/etcdserverpb.Watch/Watch",
                request_serializer=pb.WatchRequest.SerializeToString,
                response_deserializer=pb.WatchResponse.FromString,
            )
            # A member without a leader ends the stream instead of keeping it open in silence.
            call = watch(iter(requests.get, None), metadata=(("hasleader", "true"),))
            with self._progress:
                self._call = call
                if self._stopping.is_set():
                    call.cancel()
            try:
                for response in call:
                    with self._progress:
                        self._take(response)
                        self._progress.notify_all()
                    if self._failure or response.canceled:
                        return
            finally:
                requests.put(None)
                call.cancel()

    def _take(self, response: pb.WatchResponse) -> None:
        if response.compact_revision:
            self._failure = (
                f"revisions {self._seen + 1} to {response.compact_revision} were compacted away"
                " before the oracle saw them"
            )
            return
        for event in response.events:
            kv, put = event.kv, event.type == pb.Event.PUT
            change = self._reader.read(kv.mod_revision, put, kv.key, kv.value, kv.create_revision)
            if change is not None:
                self.changes.append(change)
            self._seen = kv.mod_revision
