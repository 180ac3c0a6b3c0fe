"""Looking: lists, counts, sizes, sessions, changes."""

import pytest

from tenure.master.core import command as commands
from tenure.master.core.record import Policy
from tenure.protocol.vocabulary import JobState
from tests.unit.master.core.rig import Rig, held


@pytest.fixture
def rig() -> Rig:
    """A partition with jobs of several kinds."""
    rig = Rig()
    rig.open_session(1)
    rig.submit(3)
    rig.submit(2, Policy(name="other"))
    rig.submit(2, Policy(name="job", queue="bulk"), delay_ms=1_000)
    rig.submit(1, Policy(name="job", tenant="t"))
    rig.report(rig.grant_one())
    return rig


def test_list_is_newest_first_and_pages(rig: Rig) -> None:
    """Pages by ordinal give every job once, newest first."""
    seen = []
    before = None
    while page := rig.partition.list_jobs(before_ordinal=before, limit=3):
        seen += [record.ordinal for record in page]
        before = page[-1].ordinal
    assert seen == list(range(8, 0, -1))


def test_filters(rig: Rig) -> None:
    """Each filter narrows lists and counts alike."""
    partition = rig.partition
    for options, expected in [
        ({}, 8),
        ({"name": "other"}, 2),
        ({"queue": "bulk"}, 2),
        ({"tenant": "t"}, 1),
        ({"states": [JobState.SCHEDULED, JobState.COMPLETED]}, 3),
        ({"states": [JobState.PENDING], "queue": "default", "tenant": "default"}, 4),
        ({"name": "none"}, 0),
    ]:
        assert len(partition.list_jobs(limit=100, **options)) == expected  # type: ignore[arg-type]
        assert sum(partition.counts(**options).values()) == expected  # type: ignore[arg-type]


def test_counts_by_state(rig: Rig) -> None:
    """Counts are exact, and leave out states without jobs."""
    assert rig.partition.counts() == {
        JobState.COMPLETED: 1,
        JobState.PENDING: 5,
        JobState.SCHEDULED: 2,
    }


def test_stats(rig: Rig) -> None:
    """The partition's size in jobs and bytes."""
    rig.grant_one()
    stats = rig.partition.stats()
    assert (stats.jobs, stats.ready, stats.running) == (8, 4, 1)
    assert stats.payload_bytes == 8 * len(b"payload") + len(b"result")


def test_sessions(rig: Rig) -> None:
    """Sessions as the status shows them."""
    row = rig.grant_one()
    rig.now_ms += 5
    rig.renew(1, 9, held(row))
    rig.do(commands.DrainSession(session_id=1))
    (status,) = rig.partition.sessions()
    assert (status.incarnation, status.worker) == ("w1", "worker-1")
    assert (status.slots, status.leases, status.draining) == (10, 1, True)
    assert status.heartbeat_ms == rig.now_ms


def test_changes(rig: Rig) -> None:
    """While somebody watches, each change of state is told once, in order, with its seq."""
    assert rig.partition.drain_changes() == []
    rig.partition.watch_changes(True)
    (job_id,) = rig.submit(1, priority=0)
    row = rig.grant_one()
    rig.report(row)
    changes = rig.partition.drain_changes()
    assert [(c.job_id, c.state) for c in changes] == [
        (job_id, JobState.PENDING),
        (job_id, JobState.RUNNING),
        (job_id, JobState.COMPLETED),
    ]
    assert [c.seq for c in changes] == sorted(c.seq for c in changes)
    assert (changes[0].name, changes[0].queue, changes[0].tenant) == ("job", "default", "default")
    assert rig.partition.drain_changes() == []
    rig.partition.watch_changes(False)
    rig.submit(1)
    assert rig.partition.drain_changes() == []
