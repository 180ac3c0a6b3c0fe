"""Workflows over three partitions, in one process on virtual time, with leaders that die."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from tenure.client import (
    AsyncClient,
    BatchFailed,
    BlockerKind,
    JobDef,
    JobFailed,
    Reason,
    Rejected,
    Retry,
    chain,
    chord,
    group,
    job,
    result_of,
    results_of,
)
from tenure.protocol.ids import home_partition, partition_of
from tenure.protocol.limits import PARENTS_MAX
from tenure.protocol.vocabulary import JobState, WorkflowState
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.process import elapse, run_processes

PARTITIONS = 3
BROKEN: set[str] = set()
RAN: list[str] = []


def queue_of(partition: int) -> str:
    """A queue that lives in a partition."""
    names = (f"q{n}" for n in range(1_000))
    return next(q for q in names if home_partition("default", q, PARTITIONS) == partition)


@job(name="double", queue=queue_of(0))
async def double(number: int) -> int:
    """A small step."""
    RAN.append(f"double {number}")
    await elapse(0.1)
    return 2 * number


@job(name="add_up", queue=queue_of(1))
def add_up(numbers: Iterable[int]) -> int:
    """Takes results one by one, in another partition."""
    return sum(numbers)


@job(name="tell", queue=queue_of(2))
async def tell(number: int, unit: str = "m") -> str:
    """Takes one result, in a third partition."""
    return f"{number} {unit}"


@job(name="fragile", queue=queue_of(1), retry=Retry(max_attempts=1))
async def fragile(name: str) -> str:
    """Fails while it is broken."""
    if name in BROKEN:
        raise ValueError(name)
    return name


@job(name="note", queue=queue_of(2))
async def note(text: str) -> str:
    """Leaves a trace."""
    RAN.append(text)
    return text


JOBS: list[JobDef[..., Any]] = [double, add_up, tell, fragile, note]


def in_cluster(test: object, seed: int = 5) -> None:
    """Runs a test with a client of a cluster of three partitions."""

    async def main() -> None:
        RAN.clear()
        BROKEN.clear()
        async with simulated_cluster(
            seed=seed, jobs=JOBS, masters=3, workers=2, partitions=PARTITIONS
        ) as cluster:
            await test(cluster, cluster.client())  # type: ignore[operator]

    run_processes(main)


def test_flows_come_to_their_results() -> None:
    """Chains hand results on; groups keep their order; a chord's callback gets all of them."""

    async def test(cluster: SimCluster, client: AsyncClient) -> None:
        assert await (await client.start(chain(double.bind(3), double, tell))).result(60) == "12 m"
        both = await client.start(group([double.bind(1), double.bind(2)]))
        assert await both.result(60) == [2, 4]
        parts = [chain(double.bind(n), double) for n in range(5)]
        total = await client.start(chain(chord(parts, add_up), tell))
        assert await total.result(60) == "40 m"
        assert await total.workflow.wait(60)
        assert await total.workflow.state() is WorkflowState.COMPLETED
        assert await total.workflow.counts() == {JobState.COMPLETED: 12}

    in_cluster(test)


def test_members_wait_for_the_seal_and_no_more_come_after_it() -> None:
    """Nothing runs before the seal; afterwards a member is refused, in any partition."""

    async def test(cluster: SimCluster, client: AsyncClient) -> None:
        workflow = await client.workflow("parts").open()
        first = workflow.add(double, 1)
        workflow.add(tell, result_of(first))
        await workflow.flush()
        await elapse(5)
        assert await workflow.state() is WorkflowState.OPEN
        assert await workflow.counts() == {JobState.BLOCKED: 2}
        # Another process goes on with it.
        elsewhere = await cluster.client().workflows.get(workflow.id)
        elsewhere.add(note, "more")
        await elsewhere.seal()
        assert await workflow.wait(60)
        assert (await workflow.describe()).members == 3
        assert await first.result(1) == 2
        for late in (double, tell):
            workflow.add(late, 1)
            with pytest.raises(BatchFailed) as refused:
                await workflow.flush()
            (error,) = refused.value.errors.values()
            assert isinstance(error, Rejected)
            assert (error.reason, error.field) == (Reason.WORKFLOW_SEALED, "workflow_id")
        assert sum((await workflow.counts()).values()) == 3

    in_cluster(test)


def test_a_member_waits_for_a_thousand_others_at_most() -> None:
    """So many a chord may have; one more is refused where it is added, by its field."""

    async def test(cluster: SimCluster, client: AsyncClient) -> None:
        workflow = await client.workflow("wide").open()
        handles = workflow.map(double, range(PARENTS_MAX))
        total = workflow.add(add_up, results_of(handles))
        with pytest.raises(Rejected) as refused:
            workflow.add(add_up, results_of([*handles, workflow.add(double, 1)]))
        assert (refused.value.reason, refused.value.field) == (Reason.INVALID_ARGUMENT, "after")
        await workflow.seal()
        assert await total.result(600) == PARENTS_MAX * (PARENTS_MAX - 1)

    in_cluster(test)


def test_what_is_not_sealed_in_time_is_cancelled() -> None:
    """Its members are cancelled with it, those that run always, too; it cannot be sealed."""

    async def test(cluster: SimCluster, client: AsyncClient) -> None:
        brief = client.workflow("brief", seal_within=timedelta(seconds=3))
        workflow = await brief.open()
        first = workflow.add(double, 1)
        workflow.add(note.options(after=[first], run_if="always"), "never")
        await workflow.flush()
        assert await workflow.wait(60)
        assert await workflow.state() is WorkflowState.CANCELLED
        assert await workflow.counts() == {JobState.CANCELLED: 2}
        with pytest.raises(Rejected, match="not sealed in time") as late:
            await workflow.seal()
        assert late.value.reason is Reason.WRONG_STATE
        assert RAN == []

    in_cluster(test)


def test_a_workflow_is_cancelled_and_retried_as_a_whole() -> None:
    """A cancel starts no error branch; a retry runs what failed, and what waited for it."""

    async def test(cluster: SimCluster, client: AsyncClient) -> None:
        BROKEN.add("x")
        async with client.workflow("order") as workflow:
            slow = workflow.add(note.options(delay=timedelta(hours=1)), "slow")
            broken = workflow.add(fragile, "x")
            workflow.add(note.options(after=[slow], run_if="any_failed"), "branch")
            last = workflow.add(tell, 1, unit=result_of(broken))
        with pytest.raises(JobFailed):
            await last.result(60)
        assert await workflow.state() is WorkflowState.RUNNING
        await workflow.cancel("enough")
        assert await workflow.wait(60)
        assert await workflow.state() is WorkflowState.CANCELLED
        assert RAN == []
        BROKEN.clear()
        assert await workflow.retry() == 4
        assert await (await client.get(last.id, tell)).result(60) == "1 x"
        assert await workflow.wait(60)
        assert await workflow.state() is WorkflowState.COMPLETED
        assert RAN == ["slow"]

    in_cluster(test)


def test_a_workflow_that_has_ended_stays_what_it_is() -> None:
    """A cancel that comes too late changes nothing; a retry is not held up by it."""

    async def test(cluster: SimCluster, client: AsyncClient) -> None:
        BROKEN.add("x")
        async with client.workflow("fine") as fine:
            fine.add(double, 1)
        async with client.workflow("broken") as broken:
            failed = broken.add(fragile, "x")
            broken.add(note.options(after=[failed]), "never")
        ends = {fine: WorkflowState.COMPLETED, broken: WorkflowState.FAILED}
        for workflow, state in ends.items():
            assert await workflow.wait(60)
            await workflow.cancel("too late")
            assert await workflow.state() is state
            assert not (await workflow.describe()).HasField("cancelled_at")
        BROKEN.clear()
        assert await broken.retry() == 2
        assert await broken.wait(60)
        assert await broken.state() is WorkflowState.COMPLETED

    in_cluster(test)


def test_a_workflow_whose_members_were_forgotten_is_not_said_to_have_completed() -> None:
    """One of these may have failed, as here; a failure that is still known stays one."""

    async def test(cluster: SimCluster, client: AsyncClient) -> None:
        BROKEN.add("x")
        brief = timedelta(seconds=30)
        async with client.workflow("short-memory") as workflow:
            workflow.add(double, 1)
            workflow.add(fragile.options(result_ttl=brief), "x")
        async with client.workflow("long-memory") as other:
            other.add(double.options(result_ttl=brief), 1)
            other.add(fragile, "x")
        for each in (workflow, other):
            assert await each.wait(60)
            assert await each.state() is WorkflowState.FAILED
        await elapse(60)
        assert await workflow.counts() == {JobState.COMPLETED: 1}
        assert await workflow.state() is WorkflowState.ENDED
        assert await other.counts() == {JobState.FAILED: 1}
        assert await other.state() is WorkflowState.FAILED

    in_cluster(test)


def test_a_workflow_says_how_far_it_is() -> None:
    """What runs, what waits for no other member, and why the first of these do not run: while it
    is open, while it runs, while something keeps it, and in the end.
    """

    async def test(cluster: SimCluster, client: AsyncClient) -> None:
        # Each leader knows of the workers.
        await elapse(2)
        workflow = await client.workflow("order").open()
        later = workflow.add(note.options(delay=timedelta(seconds=30)), "later")
        broken = workflow.add(fragile, "x")
        doubled = workflow.add(double, 1)
        held = workflow.add(tell.options(after=[broken], on_parent_failure="hold"), 1)
        last = workflow.add(note.options(after=[later, doubled, held]), "last")
        await workflow.flush()
        found = await workflow.explain()
        assert (found.state, found.running) == (WorkflowState.OPEN, [])
        assert {each.job_id for each in found.next} == {later.id, broken.id, doubled.id}
        for explanation in found.explanations:
            (blocker,) = explanation.blockers
            assert (blocker.kind, blocker.freed_by) == (BlockerKind.PARENTS, "it is sealed")
        BROKEN.add("x")
        await client.queues.set(double.settings.queue, paused=True)
        await workflow.seal()
        await elapse(5)
        found = await workflow.explain()
        assert found.state is WorkflowState.RUNNING
        assert found.counts[JobState.FAILED] == 1
        kept = {each.job_id: [b.kind for b in each.blockers] for each in found.explanations}
        assert kept == {
            later.id: [BlockerKind.NOT_DUE],
            doubled.id: [BlockerKind.QUEUE_PAUSED],
            held.id: [BlockerKind.PARENTS],
        }
        found = await workflow.explain(first=1)
        assert [each.job_id for each in found.explanations] == [found.next[0].job_id]
        assert len(found.next) == 3
        BROKEN.clear()
        await client.queues.set(double.settings.queue, paused=False)
        await workflow.retry()
        assert await last.result(60) == "last"
        found = await workflow.explain()
        assert (found.state, found.next) == (WorkflowState.COMPLETED, [])
        assert found.counts == {JobState.COMPLETED: 5}
        with pytest.raises(Rejected, match="from 1 to 100"):
            await workflow.explain(first=0)

    in_cluster(test)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_workflow_survives_its_leaders(seed: int) -> None:
    """Leaders of all partitions die while it is built and while it runs: each job runs to its end
    once, and the result is that of a quiet run.
    """

    async def test(cluster: SimCluster, client: AsyncClient) -> None:
        async def kill(partition: int) -> None:
            leader = cluster.leader(partition)
            if leader is not None:
                leader.kill()
                await elapse(2)
                cluster.start(leader)

        workflow = await client.workflow("long").open()
        doubled = workflow.map(double, range(30))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(workflow.flush())
            await kill(0)
        total = workflow.add(add_up, results_of(doubled))
        text = workflow.add(tell, result_of(total))
        await workflow.flush()
        await kill(partition_of(workflow.id))
        await workflow.seal()
        await elapse(0.3)
        await kill(1)
        await kill(2)
        assert await text.result(120) == f"{sum(2 * n for n in range(30))} m"
        assert await workflow.state() is WorkflowState.COMPLETED
        members = [member async for member in workflow.members()]
        assert len(members) == 32
        assert {m.job_id: len(m.parents) for m in members}[total.id] == 30

    in_cluster(test, seed)
