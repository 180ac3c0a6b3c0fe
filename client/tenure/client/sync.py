"""``Client``: the same client for code that is not async.

It holds no logic: an ``AsyncClient`` runs on the event loop of a thread of its own, and every
method here hands its call over and waits. A test compares both classes' methods.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar, overload

from tenure.client.client import AsyncClient, JobVerdict
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import JobDef
from tenure.client.security import Tls
from tenure.client.watch import JobEvent
from tenure.protocol.errors import Rejected, Unavailable
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState
from tenure.v1 import jobs_pb2

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_EXHAUSTED: Final[Any] = object()


class _Portal:
    """An event loop in a thread, and the way to run coroutines on it from other threads."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main()), name="tenure-client", daemon=True
        )
        self._thread.start()
        self._started.wait()

    @property
    def is_open(self) -> bool:
        """Whether coroutines can be run."""
        return self._loop is not None and self._thread.is_alive() and os.getpid() == self._pid

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine over there and waits for it. An interrupt here cancels it there."""
        loop = self._loop
        if os.getpid() != self._pid:
            work.close()
            raise Rejected(
                "expected a client made in this process, but it was made before a fork; gRPC does "
                "not survive one: make a new Client in the child, or start children by spawn",
                reason=Reason.INVALID_ARGUMENT,
            )
        if loop is None or not self._thread.is_alive():
            work.close()
            raise Unavailable(
                "expected an open client, but it was closed; make a new one",
                reason=Reason.UNREACHABLE,
            )
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Ends the loop and the thread. Idempotent."""
        loop, self._loop = self._loop, None
        if loop is not None and self._stop is not None and os.getpid() == self._pid:
            loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._started.set()
        await self._stop.wait()


def _shut(portal: _Portal, client: AsyncClient) -> None:
    """Closes both, in order; runs at exit for those who forget to."""
    try:
        portal.run(client.close())
    except (Rejected, Unavailable):
        pass  # After a fork, or a second close: nothing of ours is left to end.
    portal.close()


class JobHandle(Generic[R_co]):
    """A job that the cluster has accepted; see ``AsyncJobHandle`` for each method's contract.

    Attributes:
        id: The job's id.
        name: The job's name.
    """

    __slots__ = ("_handle", "_portal", "id", "name")

    def __init__(self, portal: _Portal, handle: AsyncJobHandle[R_co]) -> None:
        self._portal = portal
        self._handle = handle
        self.id = handle.id
        self.name = handle.name

    def result(self, timeout: float | None = None) -> R_co:
        """Waits for the job's end and returns what it returned, or raises why it did not."""
        return self._portal.run(self._handle.result(timeout))

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the job's end; False: it has not ended within ``timeout`` seconds."""
        return self._portal.run(self._handle.wait(timeout))

    def status(self) -> JobState:
        """The job's present state."""
        return self._portal.run(self._handle.status())

    def cancel(self, reason: str = "") -> JobState:
        """Asks the job to stop, and returns its state after that."""
        return self._portal.run(self._handle.cancel(reason))

    def requeue(self) -> JobState:
        """Runs a FAILED or CANCELLED job again, with a fresh budget."""
        return self._portal.run(self._handle.requeue())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.id}>"


class Client:
    """A connection to a cluster. Use it from any thread; see ``AsyncClient`` for the contracts."""

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | Path | None = None,
        tls: Tls | None = None,
        timeout: float = 30.0,
    ) -> None:
        """Connects at first use.

        Args:
            address: ``HOST:PORT`` of any master, or several, comma-separated; None reads
                TENURE_ADDRESS, then takes 127.0.0.1:7400.
            token: The cluster's bearer token, or the path of a file that holds it, which is read
                again when it changes; None reads the file that TENURE_TOKEN_FILE names, or takes
                TENURE_TOKEN.
            tls: Files to trust the masters by, and to prove who one is; None takes TENURE_TLS_CA,
                TENURE_TLS_CERT and TENURE_TLS_KEY, and plaintext if the first is not set.
            timeout: Seconds that one operation may take, failovers included. Waiting for a result
                has its own.

        Raises:
            Rejected: The address is not of that form, or the token or a file cannot be used
                (CREDENTIALS_UNUSABLE).
        """
        self._client = AsyncClient(address, token=token, tls=tls, timeout=timeout)
        self._portal = _Portal()
        self._finalizer = weakref.finalize(self, _shut, self._portal, self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all streams; who still waits gets Unavailable. Idempotent."""
        self._finalizer()

    def submit(self, job: JobDef[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Submits one job; returns when it is durably accepted."""
        return self._handle(self._portal.run(self._client.submit(job, *args, **kwargs)))

    def map(
        self, job: JobDef[Concatenate[T, ...], R], items: Iterable[T]
    ) -> Sequence[JobHandle[R]]:
        """Submits one job for each item, in few requests; returns when all are accepted."""
        return self._handles(self._portal.run(self._client.map(job, [*items])))

    def submit_many(
        self, job: JobDef[..., R], calls: Iterable[Sequence[Any]]
    ) -> Sequence[JobHandle[R]]:
        """Submits one job for each sequence of positional arguments."""
        return self._handles(self._portal.run(self._client.submit_many(job, [*calls])))

    def as_completed(self, handles: Iterable[JobHandle[R]]) -> Iterator[JobHandle[R]]:
        """Yields handles as their jobs end; ``result()`` of such a handle returns at once."""
        ours = {handle._handle: handle for handle in handles}
        for done in self._iterate(self._client.as_completed(ours)):
            yield ours[done]

    @overload
    def get(self, job_id: str) -> JobHandle[Any]: ...
    @overload
    def get(self, job_id: str, job: JobDef[..., R]) -> JobHandle[R]: ...
    def get(self, job_id: str, job: JobDef[..., Any] | None = None) -> JobHandle[Any]:
        """A handle of a job that was submitted earlier, here or elsewhere."""
        if job is None:
            return self._handle(self._portal.run(self._client.get(job_id)))
        return self._handle(self._portal.run(self._client.get(job_id, job)))

    def describe(self, job_id: str, *, with_payload: bool = False) -> jobs_pb2.Job:
        """Everything that the cluster knows of a job: state, options, attempts, error."""
        return self._portal.run(self._client.describe(job_id, with_payload=with_payload))

    def list(
        self,
        *,
        filter: str = "",
        states: Iterable[JobState] = (),
        queue: str = "",
        name: str = "",
        tenant: str = "",
    ) -> Iterator[jobs_pb2.Job]:
        """Jobs, newest first, without payloads; pages are fetched as they are needed."""
        return self._iterate(
            self._client.list(filter=filter, states=states, queue=queue, name=name, tenant=tenant)
        )

    def count(
        self,
        *,
        filter: str = "",
        states: Iterable[JobState] = (),
        queue: str = "",
        name: str = "",
        tenant: str = "",
    ) -> dict[JobState, int]:
        """How many jobs are in each state; filters as in ``list``."""
        return self._portal.run(
            self._client.count(filter=filter, states=states, queue=queue, name=name, tenant=tenant)
        )

    def watch(
        self,
        *,
        cursor: str | None = None,
        filter: str = "",
        states: Iterable[JobState] = (),
        queue: str = "",
        name: str = "",
        tenant: str = "",
    ) -> Iterator[JobEvent]:
        """Changes of jobs as they are committed, until the caller stops."""
        return self._iterate(
            self._client.watch(
                cursor=cursor, filter=filter, states=states, queue=queue, name=name, tenant=tenant
            )
        )

    def cancel(self, job_ids: Iterable[str], *, reason: str = "") -> Sequence[JobVerdict]:
        """Asks jobs to stop. One verdict for each id, in order."""
        return self._portal.run(self._client.cancel([*job_ids], reason=reason))

    def requeue(self, job_ids: Iterable[str]) -> Sequence[JobVerdict]:
        """Gives FAILED or CANCELLED jobs a new run. One verdict for each id, in order."""
        return self._portal.run(self._client.requeue([*job_ids]))

    def purge(self, job_ids: Iterable[str]) -> Sequence[JobVerdict]:
        """Forgets jobs that have ended. One verdict for each id, in order."""
        return self._portal.run(self._client.purge([*job_ids]))

    def _handle(self, handle: AsyncJobHandle[R]) -> JobHandle[R]:
        return JobHandle(self._portal, handle)

    def _handles(self, handles: Iterable[AsyncJobHandle[R]]) -> Sequence[JobHandle[R]]:
        return [JobHandle(self._portal, handle) for handle in handles]

    def _iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """An async iterator's items, one hand-over each; closed when the caller stops."""

        async def following() -> T:
            return await anext(items, _EXHAUSTED)

        async def close() -> None:
            if isinstance(items, AsyncGenerator):
                await items.aclose()

        try:
            while (item := self._portal.run(following())) is not _EXHAUSTED:
                yield item
        finally:
            # The last reference may go when the client is closed already, and its tasks with it.
            if self._portal.is_open:
                self._portal.run(close())
