"""The pulse of a queue: rates and run times of the last minute, and its oldest ready job."""

import msgspec
import pytest

from tenure.master.core.command import BoostJobs
from tenure.master.core.pulse import BUCKET_MS, Pulse
from tenure.master.core.query import QueueStatus
from tenure.master.core.record import JobRecord
from tenure.master.core.window import BUCKETS
from tenure.protocol.vocabulary import AttemptOutcome
from tests.unit.master.core.rig import Rig


def status(rig: Rig) -> QueueStatus:
    """That of the default queue."""
    return rig.partition.queue_status("default", "default", rig.now_ms)


def test_nothing_has_happened() -> None:
    """A queue that nobody knows, or that does nothing, has no rates."""
    rig = Rig()
    assert status(rig) == QueueStatus(0, 0.0, 0.0, 0)
    rig.submit(1)
    assert status(rig) == QueueStatus(rig.now_ms, 0.0, 0.0, 0)


def test_oldest_ready_job() -> None:
    """The one that became ready first, whatever its priority and place, and only while ready."""
    rig = Rig()
    rig.open_session(1)
    start_ms = rig.now_ms
    late = rig.submit(1, priority=10)[0]
    rig.pass_time(1_000)
    rig.submit(2, priority=0)
    assert status(rig).oldest_ready_ms == start_ms
    rig.do(BoostJobs(job_ids=[late], delay_ms=60_000))
    assert status(rig).oldest_ready_ms == rig.now_ms
    rig.grant(credit=2)
    assert status(rig).oldest_ready_ms == 0


def test_rates_and_run_time() -> None:
    """A job a second that runs 200 ms: so much is told, and forgotten in a minute."""
    rig = Rig()
    rig.open_session(1)
    for number in range(1, 13):
        rig.submit(1)
        lease = rig.grant_one()
        rig.accept(1, number)
        rig.start(lease)
        rig.pass_time(200)
        rig.report(lease)
        rig.pass_time(800)
    found = status(rig)
    assert found.granted_per_s == pytest.approx(1.0, rel=0.1)
    assert found.finished_per_s == pytest.approx(1.0, rel=0.1)
    assert found.mean_run_ms == 200


def test_old_buckets_are_forgotten() -> None:
    """What happened a minute ago counts no more, also when nothing has happened since."""
    pulse = Pulse()
    pulse.granted(1_000_000, 600)
    assert pulse.rates(1_000_000)[0] == 600 * 1_000 / BUCKET_MS
    assert pulse.rates(1_000_000 + BUCKETS * BUCKET_MS)[0] == 0.0
    pulse.granted(1_000_000 + BUCKETS * BUCKET_MS, 1)
    assert 0 < pulse.rates(1_000_000 + BUCKETS * BUCKET_MS)[0] < 1


def test_a_backlog_is_served_as_fast_as_it_was_while_jobs_waited() -> None:
    """Hours without a job, or with such only that no worker could be given, say nothing of how fast
    jobs are granted; and of a long wait no more counts than the window knows.
    """
    pulse = Pulse()
    assert pulse.service_rate(1_000) == 0.0
    pulse.turn(1_000, waits=True)
    pulse.granted(1_000, 1)
    pulse.turn(1_000, waits=False)
    pulse.turn(30_000, waits=True)
    pulse.granted(30_500, 2)
    pulse.turn(31_000, waits=False)
    pulse.granted(31_000, 3)
    assert pulse.service_rate(40_000) == 6.0
    pulse.turn(40_000, waits=True)
    assert pulse.service_rate(42_000) == 2.0
    pulse.granted(10_000_000, 600)
    assert pulse.service_rate(10_000_000) == 10.0


def test_nothing_follows_from_a_few_grants() -> None:
    """Neither four in a second nor many in a moment say how it goes on; five in a second do."""
    pulse = Pulse()
    pulse.turn(1_000, waits=True)
    pulse.granted(1_001, 4)
    assert pulse.service_rate(2_000) == 0.0
    pulse.granted(2_000, 1)
    assert pulse.service_rate(2_000) == 5.0
    many = Pulse()
    many.turn(1_000, waits=True)
    many.granted(1_002, 50)
    assert many.service_rate(1_010) == 0.0


# To the millisecond.


def ran(rig: Rig, run_ms: int, outcome: AttemptOutcome = AttemptOutcome.COMPLETED) -> JobRecord:
    """A job whose attempt has just ended after so long; 0: it never began."""
    record = rig.record(rig.submit_one())
    started_ms = rig.now_ms - run_ms if run_ms else 0
    return msgspec.structs.replace(
        record, started_ms=started_ms, ended_ms=rig.now_ms, outcome=outcome
    )


def test_rates_are_those_of_the_time_that_is_known() -> None:
    """Of a part of the minute at least, and of a minute less half a part at most."""
    rig = Rig()
    pulse = Pulse()
    assert pulse.rates(rig.now_ms) == (0.0, 0.0)
    pulse.ended([ran(rig, 100), ran(rig, 100)])
    begin_ms = rig.now_ms
    pulse.granted(begin_ms, 4)
    for after_ms, known_ms in ((1, 5_000), (5_000, 5_000), (5_001, 5_001), (20_000, 20_000)):
        assert pulse.rates(begin_ms + after_ms) == (4_000 / known_ms, 2_000 / known_ms)
    late_ms = begin_ms + 600_000
    pulse.granted(late_ms, 23)
    assert pulse.rates(late_ms) == (23_000 / 57_500, 0.0)


def test_what_ran_says_how_long_a_job_runs() -> None:
    """Neither what never began nor what was lost does; no run is shorter than none."""
    rig = Rig()
    pulse = Pulse()
    assert pulse.mean_run_ms(rig.now_ms) == 0
    pulse.ended([ran(rig, 0), ran(rig, 9_000, AttemptOutcome.LOST)])
    assert pulse.mean_run_ms(rig.now_ms) == 0
    pulse.ended([ran(rig, 100), ran(rig, 201, AttemptOutcome.FAILED)])
    assert pulse.mean_run_ms(rig.now_ms) == 150
    pulse.ended([ran(rig, -5)])
    assert pulse.mean_run_ms(rig.now_ms) == 100
    assert pulse.rates(rig.now_ms)[1] == 5_000 / BUCKET_MS


def test_a_wait_counts_once() -> None:
    """Also while it lasts, also when it is told of again; and no more of it than the window."""
    pulse = Pulse()
    pulse.turn(1_000, waits=True)
    pulse.granted(1_000, 10)
    for now_ms in (1_500, 2_000, 2_000):
        pulse.turn(now_ms, waits=True)
    assert [pulse.service_rate(now_ms) for now_ms in (1_900, 2_000, 3_000)] == [10.0, 10.0, 5.0]
    pulse.turn(3_000, waits=False)
    assert pulse.service_rate(9_000) == 5.0
    long = Pulse()
    long.turn(1_000, waits=True)
    long.granted(200_000, 60)
    assert long.service_rate(200_000) == 1.0
    assert long.service_rate(201_000) == 60_000 / 61_000
