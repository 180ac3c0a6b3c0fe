"""Workflows: jobs that wait for each other, held back until all of them are there.

```
 open ──add, add, …──► flush (submits what was added, any number of times) ──► seal: they may run
```
The home partition keeps the workflow; its members live with their queues. So how it does is put
together here, from all partitions: counts are exact once all members have ended, for an end stays,
until members are purged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from google.protobuf.message import Message

from tenure.client.codec import encode_args
from tenure.client.errors import BatchFailed, Reason, Rejected, invalid
from tenure.client.explain import Explanation
from tenure.client.flow import lay
from tenure.client.frontier import Frontier, counts_of, next_of
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import Flow, JobDef
from tenure.client.middleware import Call, submit_through
from tenure.client.options import check_name
from tenure.client.parent_result import parents_of
from tenure.client.row import Member
from tenure.protocol import limits
from tenure.protocol.errors import error_of
from tenure.protocol.ids import is_job_id, partition_of
from tenure.protocol.vocabulary import TERMINAL, JobState, WorkflowState
from tenure.v1 import workflows_pb2

if TYPE_CHECKING:
    from tenure.client.client import AsyncClient

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
M = TypeVar("M", bound=Message)

_SERVICE: Final = "/tenure.v1.WorkflowService/"
_EXPLAINED_MOST: Final = 100
_RETRIED: Final = (JobState.FAILED, JobState.CANCELLED)
_ENDED: Final = (WorkflowState.COMPLETED, WorkflowState.FAILED, WorkflowState.ENDED)
_GONE: Final = (Reason.NOT_FOUND, Reason.RESULT_EXPIRED)
_SEAL_MOST: Final = timedelta(milliseconds=limits.SEAL_WITHIN_MS_MAX)


class _Added:
    """A member that was not submitted yet."""

    __slots__ = ("call", "handle", "job", "parents")

    def __init__(
        self,
        handle: AsyncJobHandle[Any],
        job: JobDef[..., Any],
        call: Call,
        parents: Sequence[str],
    ) -> None:
        self.handle = handle
        self.job = job
        self.call = call
        self.parents = parents


class AsyncWorkflow:
    """A workflow: what builds it, and what tells of it.

    ``async with client.workflow(…) as w:`` opens it, and seals it in the end; if the block raises,
    it is cancelled.

    Attributes:
        name: For people.
        tenant: Whose it is.
    """

    def __init__(
        self,
        client: AsyncClient,
        name: str,
        *,
        tenant: str = limits.DEFAULT_TENANT,
        seal_within: timedelta | None = None,
        id: str = "",
    ) -> None:
        """Used by ``AsyncClient``."""
        check_name("name", name)
        check_name("tenant", tenant)
        if seal_within is not None and not timedelta(0) < seal_within <= _SEAL_MOST:
            raise invalid("seal_within", f"a timedelta up to {_SEAL_MOST}, got {seal_within!r}")
        self._client = client
        self._seal_within = seal_within
        self._added: list[_Added] = []
        self._id = id
        self.name: Final = name
        self.tenant: Final = tenant

    @property
    def id(self) -> str:
        """The workflow's id; empty before it is opened."""
        return self._id

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.seal()
        elif isinstance(error, Exception):
            await self.cancel("it was not built to its end")

    # Building.

    async def open(self) -> Self:
        """Begins the workflow: from now on it may get members. Once is enough."""
        core = await self._client.core()
        self._id = core.mint(core.router.topology.home(self.tenant, self.name))
        request = workflows_pb2.OpenWorkflowRequest(
            workflow_id=self.id,
            name=self.name,
            tenant=self.tenant,
            seal_within=self._seal_within,
        )
        await self._home("OpenWorkflow", request, workflows_pb2.OpenWorkflowResponse)
        return self

    def add(self, job: JobDef[P, R], /, *args: P.args, **kwargs: P.kwargs) -> AsyncJobHandle[R]:
        """Adds a job. It is submitted by ``flush`` or ``seal``, within five minutes.

        Args:
            job: What to run; ``job.options(after=[…])`` says after which others.
            *args: For the function; ``result_of(handle)`` stands for another member's result.
            **kwargs: For the function.

        Raises:
            Rejected: The function does not take the arguments, or the job has a key.
        """
        settings = job.settings
        if settings.key:
            raise invalid("key", "none: a member of a workflow is told from others by its place")
        # What cannot be encoded is refused where it is added.
        encode_args(job, args, kwargs)
        core = self._client.started_core
        if not self.id:
            raise invalid("workflow", "opened first: async with client.workflow(…) as w")
        job_id = core.mint(core.router.topology.home(settings.tenant, settings.queue))
        handle: AsyncJobHandle[R] = AsyncJobHandle(self._client, job_id, job.name, job)
        parents = tuple(dict.fromkeys((*settings.after, *parents_of(args, kwargs))))
        if len(parents) > limits.PARENTS_MAX:
            raise invalid("after", f"at most {limits.PARENTS_MAX} jobs, got {len(parents)}")
        self._added.append(_Added(handle, job, Call(args, kwargs), parents))
        for callback, callback_args in job.callbacks(handle.id):
            self.add(callback, *callback_args.args, **callback_args.kwargs)
        return handle

    def map(
        self, job: JobDef[Concatenate[T, ...], R], items: Iterable[T]
    ) -> list[AsyncJobHandle[R]]:
        """Adds one job for each item, its first argument."""
        whole: JobDef[..., R] = job
        return [self.add(whole, item) for item in items]

    def put(self, flow: Flow[R]) -> AsyncStartedFlow[R]:
        """Adds all jobs of a step, chain, group or chord."""
        return AsyncStartedFlow(self, lay(flow, self))

    async def flush(self) -> None:
        """Submits what was added; it waits for the seal.

        Raises:
            BatchFailed: Some were not accepted; it has the handles of the others.
        """
        added, self._added = self._added, []
        if not added:
            return
        core = await self._client.core()
        members: list[Member] = []
        for job, some in groupby(added, key=lambda each: each.job):
            members += await self._members(job, [*some])
        rows = await core.submitter.submit_members(members)
        refused = {i: row.refusal for i, row in enumerate(rows) if row.refusal is not None}
        if refused:
            accepted = [each.handle for i, each in enumerate(added) if i not in refused]
            raise BatchFailed(accepted, {i: error_of(why) for i, why in refused.items()})

    async def seal(self) -> None:
        """Submits what was added, and lets the members run; no more may come.

        Raises:
            BatchFailed: As ``flush``; the workflow stays open.
            Rejected: WRONG_STATE: it was cancelled, or not sealed in time.
        """
        await self.flush()
        members = sum((await self.counts()).values())
        request = workflows_pb2.SealWorkflowRequest(workflow_id=self.id, members=members)
        await self._home("SealWorkflow", request, workflows_pb2.SealWorkflowResponse)

    async def _members(self, job: JobDef[..., Any], added: Sequence[_Added]) -> list[Member]:
        """Members of one job, as they are submitted: through the client's middleware."""
        handles = [each.handle for each in added]
        found: list[Member] = []

        async def collect(
            job: JobDef[..., Any], calls: Sequence[Call]
        ) -> Sequence[AsyncJobHandle[Any]]:
            keys = job.row_keys(calls) or [("", "")] * len(calls)
            for each, call, (limit, sticky) in zip(added, calls, keys, strict=True):
                payload = encode_args(job, *call)
                if job.signature.stands_in:
                    await self._client.started_core.published.check(job.name, *call)
                found.append(
                    Member(each.handle.id, job.wire, payload, each.parents, self.id, limit, sticky)
                )
            return handles

        layers = self._client.layers
        calls = [each.call for each in added]
        if layers:
            await submit_through(layers, job, calls, collect)
        else:
            await collect(job, calls)
        return found

    # Looking.

    async def describe(self) -> workflows_pb2.Workflow:
        """What its home knows of it.

        Raises:
            Rejected: NOT_FOUND.
        """
        request = workflows_pb2.GetWorkflowRequest(workflow_id=self.id)
        answer = await self._home("GetWorkflow", request, workflows_pb2.GetWorkflowResponse)
        return answer.workflow

    async def counts(self) -> dict[JobState, int]:
        """How many of its members are in each state."""
        return (await count_members(self._client, [self.id]))[self.id]

    async def state(self) -> WorkflowState:
        """How it does."""
        # The members first: an end stays, and so the answer is of one moment after it.
        counts = await self.counts()
        return state_of(await self.describe(), counts)

    async def members(self) -> AsyncIterator[workflows_pb2.WorkflowMember]:
        """Its graph: each member with its state and its parents."""
        router = await self._client.router()
        for partition in range(router.topology.partitions):
            request = workflows_pb2.ListWorkflowMembersRequest(
                partition=partition, workflow_id=self.id, page_size=limits.PAGE_SIZE_MAX
            )
            while True:
                page = await self._ask(
                    partition,
                    "ListWorkflowMembers",
                    request,
                    workflows_pb2.ListWorkflowMembersResponse,
                )
                for member in page.members:
                    yield member
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token

    async def explain(self, *, first: int = 10) -> Frontier:
        """How far it is: what runs, what is next, and what keeps the first of that.

        Args:
            first: Of so many members at most their leaders are asked what keeps them (1 to 100).
        """
        if not 1 <= first <= _EXPLAINED_MOST:
            raise invalid("first", f"a number from 1 to {_EXPLAINED_MOST}, got {first}")
        members = [member async for member in self.members()]
        counts, ahead = counts_of(members), next_of(members)
        explanations: list[Explanation] = []
        for member in ahead[:first]:
            try:
                explanations.append(await self._client.explain(member.job_id))
            except Rejected as error:
                # It has ended since, and was forgotten at once.
                if error.reason not in _GONE:
                    raise
        return Frontier(
            workflow_id=self.id,
            state=state_of(await self.describe(), counts),
            counts=counts,
            running=[each for each in members if JobState(each.state) is JobState.RUNNING],
            next=ahead,
            explanations=explanations,
        )

    async def wait(self, timeout: float | None = None) -> bool:
        """Waits until all members have ended. False: they have not in ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                handles = [
                    AsyncJobHandle[Any](self._client, member.job_id, member.name, None)
                    async for member in self.members()
                ]
                return await self._client.wait_all(handles)
        except TimeoutError:
            return False

    # Changing.

    async def cancel(self, reason: str = "") -> None:
        """Cancels all members that have not ended; it takes no more.

        Those that wait go first, so that no error branch starts because of this. A workflow that
        has ended stays what it is.
        """
        self._added.clear()
        if await self.state() in _ENDED:
            return
        request = workflows_pb2.CancelWorkflowRequest(workflow_id=self.id, reason=reason)
        answer = await self._home("CancelWorkflow", request, workflows_pb2.CancelWorkflowResponse)
        if not answer.workflow.HasField("sealed_at"):
            return
        for first in (True, False):
            job_ids = [
                member.job_id
                async for member in self.members()
                if _waits(JobState(member.state), blocked_only=first)
            ]
            # Children come after their parents: a parent's end must find them cancelled.
            for piece in _pieces(job_ids[::-1]):
                await self._client.cancel(piece, reason=reason)

    async def retry(self) -> int:
        """Gives members that are FAILED or CANCELLED a new run; says how many.

        Raises:
            Rejected: WRONG_STATE: it was never sealed.
        """
        request = workflows_pb2.RetryWorkflowRequest(workflow_id=self.id)
        await self._home("RetryWorkflow", request, workflows_pb2.RetryWorkflowResponse)
        members = {m.job_id: m async for m in self.members() if JobState(m.state) in _RETRIED}
        retried = 0
        # One partition after the other as parents ask for it: a child that comes back before its
        # parent would find that still FAILED.
        order = parents_first(members)
        for _, run in groupby(order, key=partition_of):
            for piece in _pieces([*run]):
                verdicts = await self._client.requeue(piece)
                retried += sum(verdict.error is None for verdict in verdicts)
        return retried

    async def _home(self, method: str, request: Message, response_type: type[M]) -> M:
        if not is_job_id(self.id):
            raise invalid("workflow_id", f"a workflow's id (a UUIDv7), got {self.id!r}")
        topology = (await self._client.router()).topology
        return await self._ask(topology.home_of_id(self.id), method, request, response_type)

    async def _ask(self, partition: int, method: str, request: Message, kind: type[M]) -> M:
        router = await self._client.router()
        return await router.call(
            partition, _SERVICE + method, request, kind, self._client.timeout_s
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.id}>"


class AsyncStartedFlow(Generic[R_co]):
    """A flow that was started.

    Attributes:
        workflow: What its jobs are members of.
        handles: Of the jobs whose results are its result.
    """

    def __init__(
        self, workflow: AsyncWorkflow, laid: AsyncJobHandle[Any] | list[AsyncJobHandle[Any]]
    ) -> None:
        self.workflow: Final = workflow
        self.handles: Final = [laid] if isinstance(laid, AsyncJobHandle) else laid
        self._single = isinstance(laid, AsyncJobHandle)

    async def result(self, timeout: float | None = None) -> R_co:
        """Waits for what it comes to: the last job's result, or a group's list of them.

        Raises:
            JobFailed: As ``AsyncJobHandle.result``, of the first job that has none.
        """
        values: list[Any] = []
        async with asyncio.timeout(None) if timeout is None else asyncio.timeout(timeout):
            for handle in self.handles:
                values.append(await handle.result())
        found: R_co = values[0] if self._single else values  # type: ignore[assignment]
        return found


class AsyncWorkflows:
    """The workflows of a cluster."""

    def __init__(self, client: AsyncClient) -> None:
        """Used by ``AsyncClient``."""
        self._client = client

    async def get(self, workflow_id: str) -> AsyncWorkflow:
        """A workflow that was opened here or elsewhere.

        Raises:
            Rejected: NOT_FOUND.
        """
        unnamed = AsyncWorkflow(self._client, "unnamed", id=workflow_id)
        found = await unnamed.describe()
        return AsyncWorkflow(self._client, found.name, tenant=found.tenant, id=workflow_id)

    async def list(
        self, *, tenant: str = ""
    ) -> AsyncIterator[tuple[workflows_pb2.Workflow, dict[JobState, int]]]:
        """Workflows and their members counted by state, newest first in each partition.

        Args:
            tenant: Only this one's.
        """
        router = await self._client.router()
        for partition in range(router.topology.partitions):
            request = workflows_pb2.ListWorkflowsRequest(partition=partition, tenant=tenant)
            while True:
                page = await router.call(
                    partition,
                    _SERVICE + "ListWorkflows",
                    request,
                    workflows_pb2.ListWorkflowsResponse,
                    self._client.timeout_s,
                )
                ids = [workflow.workflow_id for workflow in page.workflows]
                counts = await count_members(self._client, ids)
                for workflow in page.workflows:
                    yield workflow, counts[workflow.workflow_id]
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token


def state_of(workflow: workflows_pb2.Workflow, counts: Mapping[JobState, int]) -> WorkflowState:
    """How a workflow does, from what its home knows and from its members."""
    if workflow.HasField("cancelled_at"):
        return WorkflowState.CANCELLED
    if not workflow.HasField("sealed_at"):
        return WorkflowState.OPEN
    if any(count for state, count in counts.items() if state not in TERMINAL):
        return WorkflowState.RUNNING
    if counts.get(JobState.FAILED):
        return WorkflowState.FAILED
    # Of members that were purged nobody knows any more what they had come to.
    complete = sum(counts.values()) >= workflow.members
    return WorkflowState.COMPLETED if complete else WorkflowState.ENDED


async def count_members(
    client: AsyncClient, workflow_ids: Sequence[str]
) -> dict[str, dict[JobState, int]]:
    """The members of workflows, by state, from all partitions."""
    counts: dict[str, dict[JobState, int]] = {each: {} for each in workflow_ids}
    router = await client.router()
    for partition in range(router.topology.partitions) if workflow_ids else ():
        answer = await router.call(
            partition,
            _SERVICE + "CountWorkflowMembers",
            workflows_pb2.CountWorkflowMembersRequest(
                partition=partition, workflow_ids=workflow_ids
            ),
            workflows_pb2.CountWorkflowMembersResponse,
            client.timeout_s,
        )
        for found in answer.workflows:
            total = counts[found.workflow_id]
            for row in found.counts:
                state = JobState(row.state)
                total[state] = total.get(state, 0) + row.count
    return counts


def parents_first(members: Mapping[str, workflows_pb2.WorkflowMember]) -> list[str]:
    """Members in an order in which each comes after its parents among them."""
    order: dict[str, None] = {}
    for start in members:
        todo = [start]
        while todo:
            job_id = todo[-1]
            missing = [p for p in members[job_id].parents if p in members and p not in order]
            if missing and job_id not in order:
                todo += missing
                continue
            order[todo.pop()] = None
    return list(order)


def _waits(state: JobState, *, blocked_only: bool) -> bool:
    return state is JobState.BLOCKED if blocked_only else state not in TERMINAL


def _pieces(job_ids: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(job_ids), limits.BATCH_JOBS_MAX):
        yield job_ids[start : start + limits.BATCH_JOBS_MAX]
