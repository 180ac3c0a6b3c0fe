"""What somebody who waits for a job is told meanwhile, on a virtual-time loop."""

import pytest

from tenure.cli.onlooker import Onlooker, beside, tell_silence
from tenure.cli.progress import Bar
from tenure.client import AsyncClient, AsyncJobHandle, JobCancelled, named
from tenure.protocol.errors import TenureError
from tenure.protocol.vocabulary import AttemptOutcome, JobState
from tests.unit.client.fake_master import FakeCluster
from tests.unit.client.test_submitter import add, play


def test_a_job_that_nobody_runs_is_told_once_and_soon() -> None:
    """Within 2 s, one line with the nearest name; then silence."""
    cluster = FakeCluster()
    told: list[str] = []

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(named("add"), 1)
        async with beside(Onlooker(client, told.append).follow(handle, Bar())):
            await cluster.pass_time(2)
            (line,) = told
            assert line == (
                "still waiting: no connected worker runs add; did you mean app.add? "
                "They run: app.add"
            )
            await cluster.pass_time(300)
        assert len(told) == 1
        assert not handle.known

    play(cluster, work)


def test_jobs_that_nobody_runs_are_told_by_name() -> None:
    """Of several jobs, a line for each name."""
    cluster = FakeCluster()
    told: list[str] = []

    async def work(client: AsyncClient) -> None:
        handles: list[AsyncJobHandle[None]] = []
        for job in (add, named("add"), named("x"), named("x")):
            handles.append(await client.submit(job, 1))
        waiting = {handle.id: handle for handle in handles}
        async with beside(Onlooker(client, told.append).follow_all(waiting)):
            await cluster.pass_time(30)
        assert [line.split()[6:8] for line in told] == [["add;", "did"], ["x.", "They"]]

    play(cluster, work)


def test_failed_attempts_are_told_as_they_come() -> None:
    """Each with its error in one line; the last one with the time until the next."""
    cluster = FakeCluster()
    told: list[str] = []

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        job = cluster.jobs[handle.id]
        async with beside(Onlooker(client, told.append).follow(handle, Bar())):
            for number, outcome in enumerate((AttemptOutcome.FAILED, AttemptOutcome.LOST), 1):
                job.state = JobState.RETRYING
                attempt = job.attempts.add(number=number, outcome=outcome)
                attempt.ended_at.FromMilliseconds(1_000 * number)
                job.ready_at.FromMilliseconds(1_000 * number + 2_500)
                if outcome is AttemptOutcome.FAILED:
                    attempt.error.type, attempt.error.message = "ValueError", "no\nway"
                await cluster.pass_time(10)
            job.state = JobState.RUNNING
            job.attempts.add(number=3)
            await cluster.pass_time(10)
            cluster.fail(handle.id, "ValueError", "no way")
            job.attempts[-1].outcome = AttemptOutcome.FAILED
            await cluster.pass_time(10)
        assert told == [
            "attempt 1 failed: ValueError: no way; next in 2.5 s",
            "attempt 2 was lost with its worker; next in 2.5 s",
        ]

    play(cluster, work)


def test_a_job_for_later_is_told_with_its_time() -> None:
    """A wait for a job that is not due yet says when it is, once."""
    cluster = FakeCluster()
    told: list[str] = []

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        job = cluster.jobs[handle.id]
        job.state = JobState.SCHEDULED
        job.ready_at.FromMilliseconds(3_600_000)
        async with beside(Onlooker(client, told.append).follow(handle, Bar())):
            await cluster.pass_time(60)
        assert told == ["still waiting: it is due at 1970-01-01 01:00:00.000Z"]

    play(cluster, work)


def test_an_onlooker_minds_no_outage() -> None:
    """Nobody answers for a while: the wait goes on, and so does the look."""
    cluster = FakeCluster()
    told: list[str] = []

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(named("add"), 1)
        async with beside(Onlooker(client, told.append).follow(handle, Bar())):
            cluster.dead.add("a:1")
            await cluster.pass_time(100)
            assert told == []
            cluster.dead.clear()
            await cluster.pass_time(60)
        assert len(told) == 1

    play(cluster, work)


def test_who_waits_for_a_master_is_told() -> None:
    """A line when none has answered for as long as most commands take; none if one does."""
    cluster = FakeCluster()
    told: list[str] = []

    async def work(client: AsyncClient) -> None:
        async with beside(tell_silence(client, "a:1", told.append)):
            await cluster.pass_time(10)
        assert told == []
        cluster.dead.add("a:1")
        async with beside(tell_silence(client, "a:1", told.append)):
            await cluster.pass_time(0.5)
        assert told == []
        async with beside(tell_silence(client, "a:1", told.append)):
            await cluster.pass_time(10)
        assert told == ["no master has answered yet; still trying a:1"]

    play(cluster, work)


def test_what_a_wait_raises_is_not_wrapped() -> None:
    """``except JobCancelled`` catches what the wait beside an onlooker raised."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        await handle.cancel()
        with pytest.raises(JobCancelled) as caught:
            async with beside(Onlooker(client, str).follow(handle, Bar())):
                await handle.result()
        assert isinstance(caught.value, TenureError)

    play(cluster, work)
