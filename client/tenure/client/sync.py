"""``Client``: the same client for code that is not async.

It holds no logic: an ``AsyncClient`` runs on the event loop of a thread of its own, and every
method here hands its call over and waits. A test compares both classes' methods.
"""

from __future__ import annotations

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

from tenure.client.change import JobVerdict
from tenure.client.client import AsyncClient
from tenure.client.cluster import ClusterView
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import Flow, JobDef, Step
from tenure.client.middleware import Middleware
from tenure.client.portal import Portal, ThreadPortal
from tenure.protocol.errors import TenureError
from tenure.protocol.limits import DEFAULT_TENANT
from tenure.protocol.tls import Tls
from tenure.protocol.vocabulary import JobState
from tenure.v1 import cluster_pb2, jobs_pb2

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from tenure.client.explain import Explanation
    from tenure.client.logs import LogLine
    from tenure.client.sync_batches import Batches
    from tenure.client.sync_queues import JobTypes, Queues, Tenants
    from tenure.client.sync_schedules import Schedules
    from tenure.client.sync_workers import Workers
    from tenure.client.sync_workflows import StartedFlow, Workflow, Workflows
    from tenure.client.watch import JobEvent

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_EXHAUSTED: Final[Any] = object()


class JobHandle(Generic[R_co]):
    """A job that the cluster has accepted; see ``AsyncJobHandle`` for each method's contract.

    Attributes:
        id: The job's id.
        name: The job's name.
        inner: The same handle for the client's own event loop.
    """

    __slots__ = ("_client", "_portal", "id", "inner", "name")

    def __init__(self, client: Client, portal: Portal, handle: AsyncJobHandle[R_co]) -> None:
        """Used by ``Client``, which stays open for as long as one of its handles is kept."""
        self._client = client
        self._portal = portal
        self.inner: Final = handle
        self.id: Final = handle.id
        self.name: Final = handle.name

    def result(self, timeout: float | None = None) -> R_co:
        """Waits until the job has ended, through failovers, and returns what it returned."""
        return self._portal.run_wait(self.inner.result(timeout), timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the job has ended. False: it has not within ``timeout`` seconds."""
        return self._portal.run_wait(self.inner.wait(timeout), timeout)

    def status(self) -> JobState:
        """The job's present state."""
        return self._portal.run(self.inner.status())

    def explain(self) -> Explanation:
        """Why the job does not run: its place, all that blocks it, and an estimate."""
        return self._portal.run(self.inner.explain())

    def progress(self) -> float:
        """The last percentage that the running attempt reported; 0 if none runs. Best effort."""
        return self._portal.run(self.inner.progress())

    def events(self) -> Iterator[JobEvent]:
        """The job's states as they change, its present one first, until it has ended."""
        yield from _iterate(self._portal, self.inner.events())

    def logs(
        self,
        *,
        follow: bool = False,
        attempt: int | None = None,
        after: LogLine | None = None,
    ) -> Iterator[LogLine]:
        """What the job's attempts have logged and printed, in order, each line once."""
        lines = self.inner.logs(follow=follow, attempt=attempt, after=after)
        yield from _iterate(self._portal, lines)

    def cancel(self, reason: str = "") -> JobState:
        """Asks the job to stop, and returns its state after that."""
        return self._portal.run(self.inner.cancel(reason))

    def requeue(self, step: Step[Any] | None = None) -> JobState:
        """Runs a FAILED or CANCELLED job again, with a fresh budget."""
        return self._portal.run(self.inner.requeue(step))

    def boost(self, *, priority: int | None = None, delay: timedelta | None = None) -> JobState:
        """Gives the job another place while it waits, and returns its state after that."""
        return self._portal.run(self.inner.boost(priority=priority, delay=delay))

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
        self._open(
            AsyncClient(address, token=token, tls=tls, timeout=timeout, middleware=middleware),
            ThreadPortal(),
        )

    def _open(self, client: AsyncClient, portal: Portal) -> None:
        self._client = client
        self._portal = portal
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

    @property
    def queues(self) -> Queues:
        """Queues: how they do, and how they are run."""
        from tenure.client.sync_queues import Queues

        return Queues(self, self._portal, self._client.queues)

    @property
    def batches(self) -> Batches:
        """One thing done to all jobs that match a filter."""
        from tenure.client.sync_batches import Batches

        return Batches(self, self._portal, self._client.batches)

    @property
    def schedules(self) -> Schedules:
        """Jobs by the calendar."""
        from tenure.client.sync_schedules import Schedules

        return Schedules(self, self._portal, self._client.schedules)

    @property
    def tenants(self) -> Tenants:
        """Tenants: how they do, and how they are run."""
        from tenure.client.sync_queues import Tenants

        return Tenants(self, self._portal, self._client.tenants)

    @property
    def job_types(self) -> JobTypes:
        """Job types, a tenant's jobs of one name: how they do, and how they are run."""
        from tenure.client.sync_queues import JobTypes

        return JobTypes(self, self._portal, self._client.job_types)

    @property
    def workers(self) -> Workers:
        """Workers: how they do, what they run, and whether they get work."""
        from tenure.client.sync_workers import Workers

        return Workers(self, self._portal, self._client.workers)

    @property
    def workflows(self) -> Workflows:
        """Workflows that were opened, here or elsewhere."""
        from tenure.client.sync_workflows import Workflows

        return Workflows(self, self._portal, self._client.workflows)

    def workflow(
        self,
        name: str,
        *,
        tenant: str = DEFAULT_TENANT,
        seal_within: timedelta | None = None,
    ) -> Workflow:
        """A new workflow; a ``with`` block opens it, and seals it in the end."""
        from tenure.client.sync_workflows import Workflow

        inner = self._client.workflow(name, tenant=tenant, seal_within=seal_within)
        return Workflow(self, self._portal, inner)

    def start(self, flow: Flow[R], *, name: str = "flow") -> StartedFlow[R]:
        """Starts a chain, a group or a chord as a workflow."""
        from tenure.client.sync_workflows import StartedFlow

        started = self._portal.run(self._client.start(flow, name=name))
        return StartedFlow(self, self._portal, started)

    def submit(self, job: JobDef[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Submits one job; returns when it is durably accepted."""
        return self._handle(self._portal.run(self._client.submit(job, *args, **kwargs)))

    def map(
        self, job: JobDef[Concatenate[T, ...], R], items: Iterable[T]
    ) -> Sequence[JobHandle[R]]:
        """Submits one job for each item, in few requests; returns when all are accepted."""
        return self._handles(self._portal.run(self._client.map(job, [*items])))

    def submit_many(
        self,
        job: JobDef[..., R],
        calls: Iterable[Sequence[Any]],
        *,
        all_or_nothing: bool = False,
    ) -> Sequence[JobHandle[R]]:
        """Submits one job for each sequence of positional arguments."""
        sent = self._client.submit_many(job, [*calls], all_or_nothing=all_or_nothing)
        return self._handles(self._portal.run(sent))

    def as_completed(
        self, handles: Iterable[JobHandle[R]], timeout: float | None = None
    ) -> Iterator[JobHandle[R]]:
        """Yields handles as their jobs end; ``result()`` of such a handle returns at once."""
        given = [*handles]
        ours = {handle.inner: handle for handle in given}
        theirs = [handle.inner for handle in given]
        pieces = self._client.completions(theirs, timeout)
        for piece in _iterate(self._portal, pieces, timeout_s=timeout):
            for done in piece:
                yield ours[done]

    def wait_any(
        self, handles: Iterable[JobHandle[R]], timeout: float | None = None
    ) -> JobHandle[R] | None:
        """Waits until one of the jobs has ended. None: none has within ``timeout`` seconds."""
        ours = {handle.inner: handle for handle in handles}
        done = self._portal.run_wait(self._client.wait_any(ours, timeout), timeout)
        return None if done is None else ours[done]

    def wait_all(self, handles: Iterable[JobHandle[Any]], timeout: float | None = None) -> bool:
        """Waits until all of the jobs have ended. False: they have not in ``timeout`` seconds."""
        ours = [handle.inner for handle in handles]
        return self._portal.run_wait(self._client.wait_all(ours, timeout), timeout)

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

    def explain(self, job_id: str) -> Explanation:
        """Why a job does not run: its place, all that blocks it, and an estimate."""
        return self._portal.run(self._client.explain(job_id))

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

    def boost(
        self,
        job_ids: Iterable[str],
        *,
        priority: int | None = None,
        delay: timedelta | None = None,
    ) -> Sequence[JobVerdict]:
        """Gives jobs that wait another place. One verdict for each id, in order."""
        return self._portal.run(self._client.boost([*job_ids], priority=priority, delay=delay))

    def _handle(self, handle: AsyncJobHandle[R]) -> JobHandle[R]:
        return JobHandle(self, self._portal, handle)

    def _handles(self, handles: Iterable[AsyncJobHandle[R]]) -> Sequence[JobHandle[R]]:
        return [JobHandle(self, self._portal, handle) for handle in handles]


def client_over(client: AsyncClient, portal: Portal) -> Client:
    """A plain client that works through a given async one; for ``tenure.testing``."""
    plain = Client.__new__(Client)
    plain._open(client, portal)  # pyright: ignore[reportPrivateUsage]
    return plain


class Cluster:
    """A look at the cluster itself; see ``ClusterView`` for the contracts."""

    def __init__(self, owner: Client, portal: Portal, client: AsyncClient) -> None:
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

    def transfer_leader(
        self, partition: int, master: str = ""
    ) -> cluster_pb2.TransferLeaderResponse:
        """Has a partition's leader hand it over, in order; returns when it has."""
        return self._ask(lambda view: view.transfer_leader(partition, master))

    def backup(self) -> Iterator[bytes]:
        """The file of a backup, piece by piece, from a master that answers."""
        yield from _iterate(self._portal, self._client.cluster.backup(), waits=False)

    def _ask(self, question: Callable[[ClusterView], Coroutine[Any, Any, T]]) -> T:
        async def asking() -> T:
            return await question(self._client.cluster)

        return self._portal.run(asking())


def _iterate(
    portal: Portal,
    items: AsyncIterator[T],
    *,
    waits: bool = True,
    timeout_s: float | None = None,
) -> Iterator[T]:
    """An async iterator's items, one hand-over each; closed when the caller stops.

    Args:
        portal: Where it runs.
        items: The iterator.
        waits: The next item may take as long as another job does.
        timeout_s: It ends after so long by itself; None: it may wait for ever.
    """

    async def following() -> T:
        return await anext(items, _EXHAUSTED)

    async def close() -> None:
        if isinstance(items, AsyncGenerator):
            await items.aclose()

    try:
        while True:
            if waits:
                item = portal.run_wait(following(), timeout_s)
            else:
                item = portal.run(following())
            if item is _EXHAUSTED:
                return
            yield item
    finally:
        portal.wind_up(close())
