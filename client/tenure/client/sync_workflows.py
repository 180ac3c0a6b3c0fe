"""``Workflow`` and the like for code that is not async; see the async ones for the contracts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from tenure.client.frontier import Frontier
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import Flow, JobDef
from tenure.client.portal import Portal
from tenure.client.workflow import AsyncStartedFlow, AsyncWorkflow, AsyncWorkflows
from tenure.protocol.vocabulary import JobState, WorkflowState
from tenure.v1 import workflows_pb2

if TYPE_CHECKING:
    from tenure.client.sync import Client, JobHandle

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Workflow:
    """A workflow: what builds it, and what tells of it. See ``AsyncWorkflow``."""

    def __init__(self, client: Client, portal: Portal, inner: AsyncWorkflow) -> None:
        """Used by ``Client``, which stays open for as long as one of its workflows is kept."""
        self._client = client
        self._portal = portal
        self.inner: Final = inner
        self.name: Final = inner.name
        self.tenant: Final = inner.tenant

    @property
    def id(self) -> str:
        """The workflow's id; empty before it is opened."""
        return self.inner.id

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._portal.run(self.inner.__aexit__(kind, error, trace))

    def open(self) -> Self:
        """Begins the workflow: from now on it may get members. Once is enough."""
        self._portal.run(self.inner.open())
        return self

    def add(self, job: JobDef[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Adds a job. It is submitted by ``flush`` or ``seal``, within five minutes."""
        return _plain(self._client, self._portal, self._portal.run(self._add(job, args, kwargs)))

    def map(self, job: JobDef[Concatenate[T, ...], R], items: Iterable[T]) -> list[JobHandle[R]]:
        """Adds one job for each item, its first argument."""

        async def adding() -> list[AsyncJobHandle[R]]:
            return self.inner.map(job, given)

        given = [*items]
        return [_plain(self._client, self._portal, handle) for handle in self._portal.run(adding())]

    def put(self, flow: Flow[R]) -> StartedFlow[R]:
        """Adds all jobs of a step, chain, group or chord."""

        async def putting() -> AsyncStartedFlow[R]:
            return self.inner.put(flow)

        return StartedFlow(self._client, self._portal, self._portal.run(putting()))

    def flush(self) -> None:
        """Submits what was added; it waits for the seal."""
        self._portal.run(self.inner.flush())

    def seal(self) -> None:
        """Submits what was added, and lets the members run; no more may come."""
        self._portal.run(self.inner.seal())

    def describe(self) -> workflows_pb2.Workflow:
        """What its home knows of it."""
        return self._portal.run(self.inner.describe())

    def counts(self) -> dict[JobState, int]:
        """How many of its members are in each state."""
        return self._portal.run(self.inner.counts())

    def state(self) -> WorkflowState:
        """How it does."""
        return self._portal.run(self.inner.state())

    def members(self) -> Iterator[workflows_pb2.WorkflowMember]:
        """Its graph: each member with its state and its parents."""
        yield from self._portal.run(_all(self.inner.members()))

    def explain(self, *, first: int = 10) -> Frontier:
        """How far it is: what runs, what is next, and what keeps the first of that."""
        return self._portal.run(self.inner.explain(first=first))

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until all members have ended. False: they have not in ``timeout`` seconds."""
        return self._portal.run_wait(self.inner.wait(timeout), timeout)

    def cancel(self, reason: str = "") -> None:
        """Cancels all members that have not ended; it takes no more."""
        self._portal.run(self.inner.cancel(reason))

    def retry(self) -> int:
        """Gives members that are FAILED or CANCELLED a new run; says how many."""
        return self._portal.run(self.inner.retry())

    async def _add(
        self, job: JobDef[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncJobHandle[R]:
        return self.inner.add(job, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.id}>"


class StartedFlow(Generic[R_co]):
    """A flow that was started. See ``AsyncStartedFlow``.

    Attributes:
        workflow: What its jobs are members of.
        handles: Of the jobs whose results are its result.
    """

    def __init__(self, client: Client, portal: Portal, inner: AsyncStartedFlow[R_co]) -> None:
        """Used by ``Client``."""
        self._portal = portal
        self.inner: Final = inner
        self.workflow: Final = Workflow(client, portal, inner.workflow)
        self.handles: Final = [_plain(client, portal, handle) for handle in inner.handles]

    def result(self, timeout: float | None = None) -> R_co:
        """Waits for what it comes to: the last job's result, or a group's list of them."""
        return self._portal.run_wait(self.inner.result(timeout), timeout)


class Workflows:
    """The workflows of a cluster."""

    def __init__(self, client: Client, portal: Portal, inner: AsyncWorkflows) -> None:
        """Used by ``Client``."""
        self._client = client
        self._portal = portal
        self._inner = inner

    def get(self, workflow_id: str) -> Workflow:
        """A workflow that was opened here or elsewhere."""
        found = self._portal.run(self._inner.get(workflow_id))
        return Workflow(self._client, self._portal, found)

    def list(
        self, *, tenant: str = ""
    ) -> Iterator[tuple[workflows_pb2.Workflow, dict[JobState, int]]]:
        """Workflows and their members counted by state, newest first in each partition."""
        yield from self._portal.run(_all(self._inner.list(tenant=tenant)))


def _plain(client: Client, portal: Portal, handle: AsyncJobHandle[R]) -> JobHandle[R]:
    """The plain handle of an async one."""
    from tenure.client.sync import JobHandle

    return JobHandle(client, portal, handle)


async def _all(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]
