"""Schedules in a test's own cluster: weeks of them in a moment, and through failovers."""

from datetime import UTC, datetime, timedelta

import pytest

from tenure.client import Client, JobState, cron, job
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.testing.virtual import Shape, VirtualCluster
from tenure.v1 import schedules_pb2

DAY = timedelta(days=1)


@job(queue="night")
def report(what: str, copies: int = 1) -> str:
    """A nightly job."""
    return what * copies


def fired(client: Client) -> list[datetime]:
    """When the jobs that are known were submitted, oldest first."""
    times = [found.submitted_at.ToDatetime(UTC) for found in client.list(name=report.name)]
    return sorted(times)


def test_a_week_of_nightly_jobs() -> None:
    """Seven nights fire seven jobs, each at its time, with its arguments."""
    with VirtualCluster() as cluster:
        kept = report.options(result_ttl=timedelta(days=30))
        told = cluster.client.schedules.put(
            "nightly", cron("0 3 * * *", tz="UTC", note="the books"), kept, "x", copies=2
        )
        assert (told.name, told.spec.note, told.spec.cron) == ("nightly", "the books", "0 3 * * *")
        expected = [tick.ToDatetime(UTC) for tick in told.upcoming]
        assert [each.hour for each in expected] == [3] * 5
        cluster.advance(7 * DAY)
        times = fired(cluster.client)
        assert len(times) == 7
        late = [b - a for a, b in zip(expected, times[:5], strict=True)]
        assert all(timedelta(0) <= each < timedelta(seconds=1) for each in late)
        found = cluster.client.schedules.get("nightly", upcoming=3)
        assert (found.fired, found.skipped, len(found.upcoming)) == (7, 0, 3)
        handle = cluster.client.get(found.last_job_id, report)
        assert handle.result() == "xx"


def test_ticks_go_on_through_failovers() -> None:
    """S13: with a leader killed now and then, each tick has one job, and none is left out."""
    with VirtualCluster(Shape(masters=3)) as cluster:
        ticking = cron("*/10 * * * * *", misfire="fire_all", overlap="allow")
        cluster.client.schedules.put("often", ticking, report, "y")
        for _ in range(3):
            cluster.advance(timedelta(seconds=47))
            cluster.kill_leader()
        cluster.advance(timedelta(seconds=60))
        cluster.client.schedules.pause("often")
        found = cluster.client.schedules.get("often")
        assert not found.upcoming
        assert found.skipped == 0
        cluster.advance(timedelta(seconds=30))
        assert cluster.client.count() == {JobState.COMPLETED: found.fired}
        assert found.fired >= 18


def test_what_people_do() -> None:
    """Create, list, pause, resume, trigger, delete; and what is refused, with its field."""
    with VirtualCluster() as cluster:
        schedules = cluster.client.schedules
        schedules.create("b", cron("@hourly", paused=True), report, "b")
        schedules.create("a", cron("@daily", tz="Europe/Berlin", jitter=DAY), report, "a")
        with pytest.raises(Rejected) as refused:
            schedules.create("a", cron("@daily"), report, "a")
        assert refused.value.reason is Reason.SCHEDULE_EXISTS
        assert [each.name for each in schedules.list()] == ["a", "b"]
        assert schedules.list(tenant="nobody") == []
        assert schedules.trigger("b").result() == "b"
        cluster.advance(timedelta(hours=5))
        assert schedules.get("b").fired == 0
        assert schedules.resume("b").upcoming
        schedules.delete("b")
        with pytest.raises(Rejected) as refused:
            schedules.get("b")
        assert refused.value.reason is Reason.NOT_FOUND
        for when, field in (
            (cron("0 0 30 2 *"), "spec.cron"),
            (cron("@daily", tz="Mars/Olympus"), "spec.time_zone"),
        ):
            with pytest.raises(Rejected) as refused:
                schedules.put("c", when, report, "c")
            assert refused.value.field == field


def test_pages() -> None:
    """A long list comes in pages, and a spec goes in and out as the API has it."""
    with VirtualCluster() as cluster:
        schedules = cluster.client.schedules
        spec = schedules_pb2.ScheduleSpec(cron="@daily")
        spec.options.name = "job"
        for index in range(120):
            schedules.put_spec(f"s{index:03}", spec)
        assert [each.name for each in schedules.list()] == [f"s{i:03}" for i in range(120)]
        again = schedules.get("s007").spec
        assert schedules.put_spec("s007", again).spec == again


@pytest.mark.parametrize(
    ("refused", "field"),
    [
        (lambda: cron("@daily", misfire="later"), "misfire"),  # type: ignore[arg-type]
        (lambda: cron("@daily", overlap="later"), "overlap"),  # type: ignore[arg-type]
        (lambda: cron("@daily", catch_up=timedelta(seconds=1)), "catch_up"),
        (lambda: cron("@daily", jitter=timedelta(days=2)), "jitter"),
        (lambda: cron("@daily", start_at=datetime(2030, 1, 1)), "start_at"),  # noqa: DTZ001
    ],
)
def test_what_the_sdk_refuses(refused: object, field: str) -> None:
    """What needs no master to be found out is refused at once, and names its argument."""
    assert callable(refused)
    with pytest.raises(Rejected) as caught:
        refused()
    assert caught.value.field == field


def test_jobs_that_cannot_tick() -> None:
    """A key, a delay or a time would be the same for each tick."""
    with VirtualCluster() as cluster:
        for wrong in (
            report.options(key="k"),
            report.options(delay=DAY),
            report.options(at=datetime(2030, 1, 1, tzinfo=UTC)),
        ):
            with pytest.raises(Rejected) as caught:
                cluster.client.schedules.put("s", cron("@daily"), wrong, "x")
            assert caught.value.field == "job"


def test_queues_of_other_partitions() -> None:
    """Wherever a schedule and its queue live, each tick has one job, whichever leader dies."""
    shape = Shape(masters=2, partitions=3)
    with VirtualCluster(shape) as cluster:
        client = cluster.client
        when = cron("0 */6 * * *", misfire="fire_all", overlap="buffer_one")
        kept = report.options(result_ttl=timedelta(days=30))
        homes = {client.schedules.put(f"s{n}", when, kept, "x").partition for n in range(6)}
        assert homes == {0, 1, 2}
        cluster.advance(timedelta(hours=6))
        for partition in range(shape.partitions):
            cluster.kill_leader(partition)
            cluster.advance(timedelta(hours=6))
        cluster.advance(timedelta(hours=1))
        found = client.schedules.list()
        assert [(each.fired, each.skipped) for each in found] == [(4, 0)] * 6
        assert client.count() == {JobState.COMPLETED: 24}
        handle = client.schedules.trigger("s0")
        assert handle.result() == "x"
