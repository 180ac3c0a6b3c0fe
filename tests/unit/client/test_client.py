"""What a client says of jobs it holds no handle of, and of the cluster."""

import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tenure.client import AsyncClient, BatchFailed, Reason, Rejected, Unavailable, job
from tenure.client.watch import JobEvent, Place, format_cursor, parse_cursor
from tenure.protocol.ids import mint, partition_of
from tenure.protocol.refusal import Refusal
from tenure.protocol.vocabulary import JobState
from tenure.testing.loop import run_virtual
from tenure.v1 import jobs_pb2
from tests.unit.client.fake_master import EPOCH_MS, FakeCluster
from tests.unit.client.test_submitter import add, play


@job(name="app.other")
def other() -> None:
    """Does nothing."""


def test_list_merges_partitions_newest_first_over_pages() -> None:
    """A list spans all partitions and pages, newest first, each job once."""
    cluster = FakeCluster(partitions=3)

    async def work(client: AsyncClient) -> None:
        submitted = []
        for n in range(15):
            await cluster.pass_time(0.01)
            handle = await client.submit(add.options(queue=f"q{n}"), n)
            submitted.append(handle.id)
        assert len({partition_of(job_id) for job_id in submitted}) == 3
        listed = [found.job_id async for found in client.list()]
        assert listed == submitted[::-1]

    play(cluster, work)


def test_list_and_count_filter() -> None:
    """Filters reach the master; counts add up over the partitions."""
    cluster = FakeCluster(partitions=2)

    async def work(client: AsyncClient) -> None:
        handles = [await client.submit(add.options(queue=f"q{n}"), n) for n in range(6)]
        await client.submit(other)
        cluster.complete(handles[0].id, 0)
        assert await client.count(name="app.add") == {JobState.PENDING: 5, JobState.COMPLETED: 1}
        done = [found.job_id async for found in client.list(states=[JobState.COMPLETED])]
        assert done == [handles[0].id]

    play(cluster, work)


def test_describe_and_status() -> None:
    """A handle's status is the job's present state, asked of the leader."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        assert await handle.status() is JobState.PENDING
        cluster.complete(handle.id, 1)
        assert await handle.status() is JobState.COMPLETED
        assert (await client.describe(handle.id)).options.queue == "sums"

    play(cluster, work)


def test_get_refuses_another_jobs_definition() -> None:
    """A handle is typed by the definition it is got with, so that must be the job's own."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        assert (await client.get(handle.id)).name == "app.add"
        with pytest.raises(Rejected, match=r"app\.add"):
            await client.get(handle.id, other)

    play(cluster, work)


def test_batched_changes_answer_in_the_callers_order() -> None:
    """Cancel, requeue and purge go to each partition's leader; verdicts keep the ids' order."""
    cluster = FakeCluster(partitions=2, masters=("a:1", "b:1"))
    cluster.leaders = {0: "a:1", 1: "b:1"}

    async def work(client: AsyncClient) -> None:
        handles = [await client.submit(add.options(queue=f"q{n}"), n) for n in range(8)]
        unknown = mint(1, EPOCH_MS, 9)
        ids = [*(handle.id for handle in handles), unknown]
        verdicts = await client.cancel(ids, reason="enough")
        assert [verdict.job_id for verdict in verdicts] == ids
        assert {verdict.state for verdict in verdicts[:-1]} == {JobState.CANCELLED}
        assert verdicts[-1].error is not None
        assert verdicts[-1].error.reason is Reason.NOT_FOUND
        with pytest.raises(Rejected):
            verdicts[-1].state_or_raise()
        assert await handles[0].requeue() is JobState.PENDING
        (purged,) = await client.purge([handles[1].id])
        assert purged.error is None
        assert handles[1].id not in cluster.jobs

    play(cluster, work)


@pytest.mark.parametrize("job_id", ["", "nonsense", "00000000-0000-4000-8000-000000000000"])
def test_what_is_no_job_id_is_refused_here(job_id: str) -> None:
    """An id in a wrong form never reaches a master."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        with pytest.raises(Rejected) as caught:
            await client.describe(job_id)
        assert caught.value.field == "job_id"

    play(cluster, work)


def test_an_id_of_another_cluster_is_refused() -> None:
    """An id that names a partition this cluster does not have is refused with a reason."""
    cluster = FakeCluster(partitions=2)

    async def work(client: AsyncClient) -> None:
        with pytest.raises(Rejected, match="of this cluster"):
            await client.describe(mint(7, EPOCH_MS, 1))

    play(cluster, work)


def test_a_batch_that_fails_in_part_keeps_the_others_handles() -> None:
    """BatchFailed carries the accepted jobs' handles, and the errors by index."""
    cluster = FakeCluster()
    refusal = Refusal(reason=Reason.QUEUE_FULL, message="the queue is full")
    accepted = iter(range(3))
    cluster.refuse_rows = lambda _: None if next(accepted, None) is not None else refusal

    async def work(client: AsyncClient) -> None:
        with pytest.raises(BatchFailed) as caught:
            await client.map(add, range(5))
        assert len(caught.value.handles) == 3
        assert sorted(caught.value.errors) == [3, 4]
        assert caught.value.reason is Reason.QUEUE_FULL
        assert await client.map(add, []) == []

    play(cluster, work)


def change(job_id: str, seq: int) -> jobs_pb2.JobChange:
    """One change as a master sends it."""
    row = jobs_pb2.JobChange(
        job_id=job_id, state=JobState.COMPLETED, name="app.add", queue="q", seq=seq
    )
    row.changed_at.FromMilliseconds(EPOCH_MS)
    return row


async def next_of(events: AsyncIterator[JobEvent]) -> JobEvent:
    """The next event, as a coroutine that can be a task."""
    return await anext(events)


def test_a_watch_merges_partitions_and_resumes_after_a_failover() -> None:
    """Events carry a vector cursor; a broken stream goes on behind the last position."""
    cluster = FakeCluster(partitions=2, masters=("a:1", "b:1"))

    async def work(client: AsyncClient) -> None:
        events = client.watch(cursor="0:10,1:20")
        first = cluster.tasks.create_task(next_of(events))
        await cluster.pass_time(1)
        watches = {s.partition: s for s in cluster.streams if s.method == "WatchJobs"}
        assert {p: s.watch.after_seq for p, s in watches.items()} == {0: 10, 1: 20}
        position = jobs_pb2.WatchPosition(partition=1, seq=22)
        watches[1].deliver(
            jobs_pb2.WatchJobsResponse(
                changes=[change("x", 21), change("y", 22)], position=position
            )
        )
        assert (await first).cursor == "0:10,1:21"
        assert (await anext(events)).cursor == "0:10,1:22"

        cluster.kill("a:1")
        cluster.leaders = {0: "b:1", 1: "b:1"}
        second = cluster.tasks.create_task(next_of(events))
        await cluster.pass_time(5)
        watches = {s.partition: s for s in cluster.streams if s.method == "WatchJobs"}
        assert {p: s.watch.after_seq for p, s in watches.items()} == {0: 10, 1: 22}
        position = jobs_pb2.WatchPosition(partition=0, seq=11)
        watches[0].deliver(jobs_pb2.WatchJobsResponse(changes=[change("z", 11)], position=position))
        event = await second
        assert (event.job_id, event.cursor) == ("z", "0:11,1:22")
        await events.aclose()

    play(cluster, work)


def test_a_jobs_events_begin_with_its_state_and_end_with_it() -> None:
    """A handle's events: the present state, then each change, until the job has ended."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        events = handle.events()
        first = await anext(events)
        assert (first.state, first.name) == (JobState.PENDING, "app.add")
        (stream,) = [s for s in cluster.streams if s.method == "WatchJobs"]
        position = jobs_pb2.WatchPosition(partition=0, seq=9)
        stream.deliver(
            jobs_pb2.WatchJobsResponse(changes=[change(handle.id, 9)], position=position)
        )
        assert [event.state async for event in events] == [JobState.COMPLETED]

    play(cluster, work)


def test_a_jobs_events_miss_no_end_in_a_failover() -> None:
    """A new leader that knows nothing of before is asked for the job itself."""
    cluster = FakeCluster(masters=("a:1", "b:1"))

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        events = handle.events()
        assert (await anext(events)).state is JobState.PENDING
        (stream,) = [s for s in cluster.streams if s.method == "WatchJobs"]
        position = jobs_pb2.WatchPosition(partition=0, seq=404)
        stream.deliver(jobs_pb2.WatchJobsResponse(position=position))
        last = cluster.tasks.create_task(next_of(events))
        await cluster.pass_time(1)
        cluster.kill("a:1")
        cluster.lead("b:1")
        cluster.complete(handle.id, 1)
        assert (await last).state is JobState.COMPLETED
        assert [event async for event in events] == []

    play(cluster, work)


def test_a_watch_goes_on_within_an_event() -> None:
    """One event may change many jobs, in several messages: a break amid them doubles none.

    Nor does a cursor that one of these changes carried, given to another watch, lose the others.
    """
    cluster = FakeCluster(masters=("a:1", "b:1"))

    def told(ids: str, seq: int, position: int) -> jobs_pb2.WatchJobsResponse:
        response = jobs_pb2.WatchJobsResponse(changes=[change(job_id, seq) for job_id in ids])
        response.position.seq = position
        return response

    async def work(client: AsyncClient) -> None:
        events = client.watch(cursor="0:8")
        first = cluster.tasks.create_task(next_of(events))
        await cluster.pass_time(1)
        cluster.streams[-1].deliver(told("ab", 9, 8))
        assert (await first).cursor == "0:9.1"
        assert (await anext(events)).cursor == "0:9.2"
        third = cluster.tasks.create_task(next_of(events))
        cluster.kill("a:1")
        cluster.lead("b:1")
        await cluster.pass_time(5)
        stream = cluster.streams[-1]
        assert stream.watch is not None
        assert stream.watch.after_seq == 8
        for answer in (told("", 0, 8), told("a", 9, 8), told("bcd", 9, 9), told("e", 10, 11)):
            stream.deliver(answer)
        found = [await third] + [await anext(events) for _ in "de"]
        assert [(event.job_id, event.cursor) for event in found] == [
            ("c", "0:9.3"),
            ("d", "0:9"),
            ("e", "0:10"),
        ]
        await events.aclose()

        again = client.watch(cursor="0:9.3")
        last = cluster.tasks.create_task(next_of(again))
        await cluster.pass_time(1)
        cluster.streams[-1].deliver(told("abcd", 9, 9))
        assert (await last).job_id == "d"
        await again.aclose()

    play(cluster, work)


def test_an_expired_cursor_ends_the_watch() -> None:
    """CURSOR_EXPIRED reaches the caller, who has to list and start anew."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        with pytest.raises(Rejected) as caught:
            await anext(client.watch(cursor="0:404"))
        assert caught.value.reason is Reason.CURSOR_EXPIRED

    play(cluster, work)


def test_a_failover_is_a_line_of_the_log_each_way(caplog: pytest.LogCaptureFixture) -> None:
    """The user notices a failover in the log only: one line when it begins, one when it is over."""
    cluster = FakeCluster(masters=("a:1", "b:1"))

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        waiting = cluster.tasks.create_task(handle.result())
        await cluster.pass_time(1)
        cluster.kill("a:1")
        await cluster.pass_time(1)
        cluster.lead("b:1")
        await client.submit(add, 2)
        cluster.complete(handle.id, 1)
        assert await waiting == 1

    with caplog.at_level("INFO", logger="tenure.client"):
        play(cluster, work)
    lost, found = [record for record in caplog.records if record.name.startswith("tenure.client")]
    assert lost.getMessage() == (
        "partition 0 is not served by a:1 now (UNREACHABLE); looking for its leader"
    )
    assert found.getMessage().startswith("partition 0 is served by b:1, after 1.")
    assert (lost.levelname, found.levelname) == ("INFO", "INFO")


def test_a_long_outage_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """A cluster that nobody serves for long is worth a warning; one that nobody asked is not."""
    cluster = FakeCluster(masters=("a:1", "b:1"))

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        cluster.kill("a:1")
        await cluster.pass_time(500)
        assert not caplog.records[1:]
        with pytest.raises(Unavailable):
            await client.describe(handle.id)

    with caplog.at_level("INFO", logger="tenure.client"):
        play(cluster, work, timeout=20)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert "partition 0 has not been served for" in caplog.text


def test_cursors_round_trip_and_nonsense_is_refused() -> None:
    """The text form of a cursor is exact; anything else names the field."""
    places = {2: Place(5), 0: Place(7, 3)}
    assert format_cursor(places) == "0:7.3,2:5"
    assert parse_cursor(format_cursor(places)) == places
    with pytest.raises(Rejected) as caught:
        parse_cursor("yesterday")
    assert caught.value.field == "cursor"


def test_the_cluster_answers_through_any_master() -> None:
    """Members come from any master that lives; a status names the masters that do not answer."""
    cluster = FakeCluster(masters=("a:1", "b:1"))
    cluster.dead.add("a:1")
    cluster.leaders[0] = "b:1"

    async def work(client: AsyncClient) -> None:
        assert [member.name for member in await client.cluster.members()] == ["a:1", "b:1"]
        views, failed = await client.cluster.status()
        assert [view.name for view in views] == ["b:1"]
        assert list(failed) == ["a:1"]

    play(cluster, work)


def test_a_status_names_a_master_that_the_others_have_forgotten() -> None:
    """An address that was given is asked, also when no master knows it any more; each one once."""
    cluster = FakeCluster(masters=("a:1", "b:1"))

    async def work(client: AsyncClient) -> None:
        cluster.dead.add("a:1")
        cluster.masters, cluster.leaders[0] = ("b:1",), "b:1"
        views, failed = await client.cluster.status()
        assert [view.name for view in views] == ["b:1"]
        assert list(failed) == ["a:1"]

    play(cluster, work)


@pytest.mark.parametrize(
    "address", ["nonsense", "host:", "host:99999", ":7400", "a:1,b", ",", "http://a:1"]
)
def test_a_wrong_address_is_refused_at_once(address: str) -> None:
    """A malformed address is an error of the constructor, which names the field."""
    with pytest.raises(Rejected) as caught:
        AsyncClient(address)
    assert caught.value.field == "address"


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument TENURE_ADDRESS counts."""
    cluster = FakeCluster(masters=("env:1",))
    monkeypatch.setenv("TENURE_ADDRESS", "env:1")

    async def main() -> None:
        async with AsyncClient(transport=cluster) as client:
            await client.submit(add, 1)

    run_virtual(main)
    assert cluster.calls[0][0] == "env:1"


def test_an_async_client_stays_in_its_loop() -> None:
    """Another event loop is told what to do, instead of waiting for ever."""
    cluster = FakeCluster()
    client = AsyncClient("a:1", transport=cluster)
    run_virtual(lambda: client.submit(add, 1))
    with pytest.raises(Rejected, match="loop"):
        run_virtual(lambda: client.submit(add, 1))


def test_a_users_error_leaves_the_client_as_it_is() -> None:
    """What the body of ``async with`` raises comes out unwrapped."""
    cluster = FakeCluster()

    async def main() -> None:
        async with AsyncClient("a:1", transport=cluster) as client:
            await client.submit(add, 1)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_virtual(main)


class Keeper(AsyncClient):
    """A client that keeps the handles of what it submits."""

    def __init__(self, cluster: FakeCluster) -> None:
        super().__init__("a:1", transport=cluster)
        self.handles: list[Any] = []


def test_handles_that_their_client_keeps_are_collected_with_it() -> None:
    """The collector sees what a handle refers to: a client and its handles may form a cycle."""

    async def main() -> weakref.ref[AsyncClient]:
        async with Keeper(FakeCluster()) as client:
            client.handles.append(await client.submit(add, 1))
        return weakref.ref(client)

    client = run_virtual(main)
    gc.collect()
    assert client() is None
