"""Submits that are answered in parts: a job whose parents are asked about holds up no other."""

import asyncio
from dataclasses import replace

import pytest

from tenure.client import AsyncClient, AsyncJobHandle, Reason, Rejected, Unavailable
from tenure.client.submitter import ACK_TIMEOUT_S, IN_FLIGHT_MAX
from tenure.protocol.errors import WAITED_FOR_METADATA
from tenure.protocol.ids import mint
from tenure.protocol.refusal import Refusal
from tests.unit.client.fake_master import EPOCH_MS, FakeCluster
from tests.unit.client.test_submitter import add, play, sent_ids

AFAR = mint(1, EPOCH_MS, 9)
WAITS = add.options(after=[AFAR])
ORPHAN = Refusal(reason=Reason.UNKNOWN_PARENT, message="no such parent", field="parents[0]")
UNKNOWN = Refusal(reason=Reason.OUTCOME_UNKNOWN, message="a parent's partition is silent")


class Late:
    """A cluster that acknowledges jobs with parents when a test says so."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.cluster.is_late = lambda spec: bool(spec.parents)

    def submit(self, client: AsyncClient, number: int) -> asyncio.Task[AsyncJobHandle[int]]:
        """Begins to submit a job with a parent elsewhere."""
        return self.cluster.tasks.create_task(client.submit(WAITS, number))

    def children(self) -> list[str]:
        """The jobs with parents that have arrived, repeats included."""
        return [spec.job_id for _, r in self.cluster.requests for spec in r.jobs if spec.parents]


def test_only_the_job_concerned_waits() -> None:
    """Its mates in the same request are acknowledged at once, and it is when its turn comes."""
    late = Late()
    arrived = asyncio.Event()
    late.cluster.on_submit = lambda _: arrived.set()

    async def work(client: AsyncClient) -> None:
        first = late.cluster.tasks.create_task(client.submit(add, 0))
        await arrived.wait()
        waits = late.submit(client, 1)
        async with asyncio.timeout(1):
            await asyncio.gather(first, *(client.submit(add, n) for n in range(2, 9)))
        assert len(late.cluster.requests) == 2
        await late.cluster.pass_time(3)
        assert not waits.done()
        (child,) = late.children()
        late.cluster.tell_late(child)
        assert (await waits).id == child

    play(late.cluster, work)


def test_many_late_jobs_hold_up_nothing() -> None:
    """Requests of which only late jobs are left take no place of those that come after them."""
    late = Late()

    async def work(client: AsyncClient) -> None:
        waits = []
        for number in range(2 * IN_FLIGHT_MAX):
            waits.append(late.submit(client, number))
            await late.cluster.pass_time(0.1)
        async with asyncio.timeout(1):
            await client.submit(add, 0)
        for child in late.children():
            late.cluster.tell_late(child)
        assert [handle.id for handle in await asyncio.gather(*waits)] == late.children()

    play(late.cluster, work)


def test_a_late_job_is_refused() -> None:
    """Whoever submitted it is told why, and it is not sent again."""
    late = Late()

    async def work(client: AsyncClient) -> None:
        async def refuse() -> None:
            await late.cluster.pass_time(1)
            late.cluster.tell_late(*late.children(), ORPHAN)

        late.cluster.tasks.create_task(refuse())
        with pytest.raises(Rejected) as caught:
            await client.submit(WAITS, 1)
        assert caught.value.reason is Reason.UNKNOWN_PARENT

    play(late.cluster, work)
    assert len(sent_ids(late.cluster)) == 1


def test_a_silent_partition_costs_no_stream() -> None:
    """Nobody knows of a late job yet: it goes again under its id, and its mates feel nothing."""
    late = Late()

    async def work(client: AsyncClient) -> None:
        waits = late.submit(client, 1)
        for _ in range(3):
            await late.cluster.pass_time(5)
            late.cluster.tell_late(late.children()[-1], UNKNOWN)
        await late.cluster.pass_time(1)
        assert len(late.cluster.streams) == 1
        late.cluster.tell_late(late.children()[-1])
        assert (await waits).id == late.children()[0]

    play(late.cluster, work)
    assert late.children() == [late.children()[0]] * 4
    assert late.cluster.calls.count(("a:1", "GetTopology")) == 1


def test_a_silent_partition_costs_no_stream_of_a_whole() -> None:
    """What is all or nothing waits in one piece: it goes again, and others' requests stay."""
    cluster = FakeCluster()
    silent = replace(UNKNOWN, metadata={WAITED_FOR_METADATA: "parents"})
    answers = [silent, silent, None]
    cluster.on_submit = lambda _: answers.pop(0)

    async def work(client: AsyncClient) -> None:
        submitting = client.submit_many(add, [(1,), (2,)], all_or_nothing=True)
        whole = cluster.tasks.create_task(submitting)
        await cluster.pass_time(1)
        assert len(await whole) == 2
        assert len(cluster.streams) == 1

    play(cluster, work)
    ids = sent_ids(cluster)
    assert len(ids) == 6
    assert len(set(ids)) == 2
    assert cluster.calls.count(("a:1", "GetTopology")) == 1


def test_late_jobs_go_again_when_the_stream_breaks() -> None:
    """With what else was not answered, in their order; so too when nobody ever tells of them."""
    late = Late()

    async def work(client: AsyncClient) -> None:
        waits = late.submit(client, 1)
        await late.cluster.pass_time(1)
        late.cluster.kill("a:1")
        late.cluster.dead.clear()
        await late.cluster.pass_time(2)
        assert late.children() == [late.children()[0]] * 2
        await late.cluster.pass_time(ACK_TIMEOUT_S + 2)
        assert late.children() == [late.children()[0]] * 3
        late.cluster.tell_late(late.children()[0])
        assert (await waits).id == late.children()[0]

    play(late.cluster, work)


def test_nobody_waits_for_a_late_job_for_ever() -> None:
    """When its time is up it may exist, and the caller is told so."""
    late = Late()

    async def work(client: AsyncClient) -> None:
        with pytest.raises(Unavailable) as caught:
            await client.submit(WAITS, 1)
        assert caught.value.reason is Reason.OUTCOME_UNKNOWN

    play(late.cluster, work, timeout=8.0)
