"""``Client``: the same client for code that is not async.

It holds no logic: an ``AsyncClient`` runs on the event loop of a thread of its own, and every
method here hands its call over and waits. A test compares both classes' methods.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    Self,
    TypeVar,
    overload,
)

from tenure.client import fork
from tenure.client.client import AsyncClient, JobVerdict
from tenure.client.cluster import ClusterView
from tenure.client.context import current_job
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import JobDef
from tenure.client.middleware import Middleware
from tenure.client.watch import JobEvent
from tenure.protocol.errors import Rejected, TenureError, Unavailable
from tenure.protocol.refusal import Reason
from tenure.protocol.tls import Tls
from tenure.protocol.vocabulary import JobState
from tenure.v1 import cluster_pb2, jobs_pb2

if TYPE_CHECKING:
    from pathlib import Path

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_EXHAUSTED: Final[Any] = object()


class _Portal:
    """An event loop in a thread, and the way to run coroutines on it from other threads.

    The thread starts with the first of them, so a client that is made before a fork works after it.
    """

    def __init__(self) -> None:
        # The collector may end an iterator of ours in a thread that has the lock.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine over there and waits for it. An interrupt here cancels it there."""
        try:
            future = self._schedule(work)
        except TenureError:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            # Nobody cancels it but the end of the loop.
            raise _closed() from None
        except BaseException:
            future.cancel()
            raise

    def run_wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The same for what may take as long as another job does."""
        if current_job().id and _in_loop():
            work.close()
            raise Rejected(
                "expected a coroutine job to wait with AsyncClient: with Client it would hold up "
                "the worker's other coroutine jobs, perhaps the one it waits for",
                reason=Reason.INVALID_ARGUMENT,
            )
        return self.run(work)

    def wind_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs what ends something that is given up, if it can be run, and waits if that may be.

        The collector gives things up, too, in any thread: in ours nothing may wait for ours.
        """
        try:
            if threading.current_thread() is self._thread:
                self._schedule(work)
            else:
                self.run(work)
        except TenureError:
            work.close()  # The client is closed already, and its tasks with it; or this is a fork.

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs a last coroutine, if any was run, and ends the thread. Idempotent."""
        if self._thread is not None:
            try:
                fork.claim()
            except Rejected:
                return  # After a fork nothing of ours is left to end, and the lock may stay held.
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._thread is None or self._loop is None or self._stop is None:
                return
            if threading.current_thread() is self._thread:
                # The collector found the client over there, where nothing may wait for its end.
                self._stop.set()
                return
            future = asyncio.run_coroutine_threadsafe(last(), self._loop)
        try:
            future.result()
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _schedule(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        fork.claim()
        # Under the lock nothing is scheduled behind the last coroutine, where it might never run.
        with self._lock:
            if self._closed:
                raise _closed()
            return asyncio.run_coroutine_threadsafe(work, self._loop or self._start())

    def _start(self) -> asyncio.AbstractEventLoop:
        started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(started)), name="tenure-client", daemon=True
        )
        self._thread.start()
        started.wait()
        if self._loop is None:
            raise TenureError("expected the client's thread to start, but it did not")
        return self._loop

    async def _main(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        started.set()
        await self._stop.wait()


def _closed() -> Unavailable:
    return Unavailable(
        "expected an open client, but it was closed; make a new one", reason=Reason.UNREACHABLE
    )


def _in_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class JobHandle(Generic[R_co]):
    """A job that the cluster has accepted; see ``AsyncJobHandle`` for each method's contract.

    Attributes:
        id: The job's id.
        name: The job's name.
        inner: The same handle for the client's own event loop.
    """

    __slots__ = ("_client", "_portal", "id", "inner", "name")

    def __init__(self, client: Client, portal: _Portal, handle: AsyncJobHandle[R_co]) -> None:
        """Used by ``Client``, which stays open for as long as one of its handles is kept."""
        self._client = client
        self._portal = portal
        self.inner: Final = handle
        self.id: Final = handle.id
        self.name: Final = handle.name

    def result(self, timeout: float | None = None) -> R_co:
        """Waits until the job has ended, through failovers, and returns what it returned."""
        return self._portal.run_wait(self.inner.result(timeout))

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the job has ended. False: it has not within ``timeout`` seconds."""
        return self._portal.run_wait(self.inner.wait(timeout))

    def status(self) -> JobState:
        """The job's present state."""
        return self._portal.run(self.inner.status())

    def progress(self) -> float:
        """The last percentage that the running attempt reported; 0 if none runs. Best effort."""
        return self._portal.run(self.inner.progress())

    def events(self) -> Iterator[JobEvent]:
        """The job's states as they change, its present one first, until it has ended."""
        yield from _iterate(self._portal, self.inner.events())

    def cancel(self, reason: str = "") -> JobState:
        """Asks the job to stop, and returns its state after that."""
        return self._portal.run(self.inner.cancel(reason))

    def requeue(self) -> JobState:
        """Runs a FAILED or CANCELLED job again, with a fresh budget."""
        return self._portal.run(self.inner.requeue())

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
        middleware: Iterable[Middleware] = (),
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
            middleware: What surrounds each submit, the outermost first (docs/middleware.md); it
                runs in the client's own thread, with the caller's context variables.

        Raises:
            Rejected: The address is not of that form, or the token or a file cannot be used
                (CREDENTIALS_UNUSABLE).
        """
        self._client = AsyncClient(
            address, token=token, tls=tls, timeout=timeout, middleware=middleware
        )
        self._portal = _Portal()
        # Runs at exit, too, for those who forget to close.
        self._finalizer = weakref.finalize(self, self._portal.close, self._client.close)

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

    @property
    def cluster(self) -> Cluster:
        """The cluster itself: masters, leaders, workers."""
        return Cluster(self, self._portal, self._client)

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

    def as_completed(
        self, handles: Iterable[JobHandle[R]], timeout: float | None = None
    ) -> Iterator[JobHandle[R]]:
        """Yields handles as their jobs end; ``result()`` of such a handle returns at once."""
        given = [*handles]
        ours = {handle.inner: handle for handle in given}
        theirs = [handle.inner for handle in given]
        for piece in _iterate(self._portal, self._client.completions(theirs, timeout)):
            for done in piece:
                yield ours[done]

    def wait_any(
        self, handles: Iterable[JobHandle[R]], timeout: float | None = None
    ) -> JobHandle[R] | None:
        """Waits until one of the jobs has ended. None: none has within ``timeout`` seconds."""
        ours = {handle.inner: handle for handle in handles}
        done = self._portal.run_wait(self._client.wait_any(ours, timeout))
        return None if done is None else ours[done]

    def wait_all(self, handles: Iterable[JobHandle[Any]], timeout: float | None = None) -> bool:
        """Waits until all of the jobs have ended. False: they have not in ``timeout`` seconds."""
        ours = [handle.inner for handle in handles]
        return self._portal.run_wait(self._client.wait_all(ours, timeout))

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
        yield from _iterate(
            self._portal,
            self._client.list(filter=filter, states=states, queue=queue, name=name, tenant=tenant),
            waits=False,
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
        """Changes of jobs as they are committed, each once, until the caller stops."""
        yield from _iterate(
            self._portal,
            self._client.watch(
                cursor=cursor, filter=filter, states=states, queue=queue, name=name, tenant=tenant
            ),
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
        return JobHandle(self, self._portal, handle)

    def _handles(self, handles: Iterable[AsyncJobHandle[R]]) -> Sequence[JobHandle[R]]:
        return [JobHandle(self, self._portal, handle) for handle in handles]


class Cluster:
    """A look at the cluster itself; see ``ClusterView`` for the contracts."""

    def __init__(self, owner: Client, portal: _Portal, client: AsyncClient) -> None:
        """Used by ``Client``, which stays open for as long as this is kept."""
        self._owner = owner
        self._portal = portal
        self._client = client

    def topology(self) -> cluster_pb2.GetTopologyResponse:
        """Partitions, their leaders, the masters' addresses and the cluster's clock."""
        return self._ask(ClusterView.topology)

    def members(self) -> Sequence[cluster_pb2.Member]:
        """The masters that live."""
        return self._ask(ClusterView.members)

    def unserved(self, job: jobs_pb2.Job) -> str | None:
        """Why no connected worker takes a PENDING job, in words; None: one does, or may."""
        return self._ask(lambda view: view.unserved(job))

    def status(self) -> tuple[list[cluster_pb2.GetStatusResponse], dict[str, TenureError]]:
        """Every known master's own view, and why those that did not answer did not."""
        return self._ask(ClusterView.status)

    def _ask(self, question: Callable[[ClusterView], Coroutine[Any, Any, T]]) -> T:
        async def asking() -> T:
            return await question(self._client.cluster)

        return self._portal.run(asking())


def _iterate(portal: _Portal, items: AsyncIterator[T], *, waits: bool = True) -> Iterator[T]:
    """An async iterator's items, one hand-over each; closed when the caller stops.

    Args:
        portal: Where it runs.
        items: The iterator.
        waits: The next item may take as long as another job does.
    """
    run = portal.run_wait if waits else portal.run

    async def following() -> T:
        return await anext(items, _EXHAUSTED)

    async def close() -> None:
        if isinstance(items, AsyncGenerator):
            await items.aclose()

    try:
        while (item := run(following())) is not _EXHAUSTED:
            yield item
    finally:
        portal.wind_up(close())
