"""Looking: lists, counts, sizes, sessions, changes."""

import pytest

from tenure.master.core import command as commands
from tenure.master.core.query import Filter, Scan
from tenure.master.core.record import JobRecord, Policy
from tenure.protocol.vocabulary import JobState
from tests.unit.master.core.rig import Rig, held

JOB_OF_ITS_OWN = Policy(name="job", queue="own")


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
    seen: list[int] = []
    before = None
    while page := rig.partition.scan(before_ordinal=before).take(3, 1_000):
        seen += [record.ordinal for record in page]
        before = page[-1].ordinal
    assert seen == list(range(8, 0, -1))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter(), 8),
        (Filter(name="other"), 2),
        (Filter(queue="bulk"), 2),
        (Filter(tenant="t"), 1),
        (Filter(states=frozenset({JobState.SCHEDULED, JobState.COMPLETED})), 3),
        (Filter(frozenset({JobState.PENDING}), "default", tenant="default"), 4),
        (Filter(name="none"), 0),
    ],
)
def test_filters(rig: Rig, wanted: Filter, expected: int) -> None:
    """Each filter narrows lists and counts alike."""
    partition = rig.partition
    assert len(partition.scan(wanted).take(100, 1_000)) == expected
    assert sum(partition.counts(wanted).values()) == expected


def ordinals(scan: Scan, looks_max: int) -> list[int]:
    """All that a scan finds, slice by slice."""
    found = []
    while not scan.done:
        found += [record.ordinal for record in scan.take(2, looks_max)]
    return found


def test_slices_find_what_one_look_finds(rig: Rig) -> None:
    """However small the slices, a scan finds the same jobs, and then says that it is done."""
    for wanted in (Filter(), Filter(name="other"), Filter(also=lambda record: record.ordinal % 3)):
        whole = ordinals(rig.partition.scan(wanted), 1_000)
        for looks_max in (1, 2, 3, 7, 8):
            assert ordinals(rig.partition.scan(wanted), looks_max) == whole


def test_a_slice_is_as_long_as_asked_for(rig: Rig) -> None:
    """A slice ends at its limit, and who has seen all knows it, changes or not."""
    scan = rig.partition.scan()
    assert len(scan.take(2, 1_000)) == 2
    assert len(scan.take(1, 1_000)) == 1
    rig.submit(1)
    assert len(scan.take(5, 8)) == 5
    assert not scan.done
    assert scan.take(100, 1) == []
    assert scan.done


def test_the_last_slice_knows_that_it_is(rig: Rig) -> None:
    """Whatever has changed, a look that found the end is not followed by another."""
    scan = rig.partition.scan()
    scan.take(1, 1_000)
    rig.submit(1)
    assert len(scan.take(100, 8)) == 7
    assert scan.done


def test_backlog(rig: Rig) -> None:
    """What a session could run; nothing for one that there is not."""
    assert rig.partition.backlog_for(1) == rig.partition.stats().ready - 2
    assert rig.partition.backlog_for(99) == 0


def test_a_rare_state_costs_no_full_scan(rig: Rig) -> None:
    """The look ends with the last job that matches, if nothing changes meanwhile."""
    looked = []

    def also(record: JobRecord) -> bool:
        looked.append(record.ordinal)
        return True

    scan = rig.partition.scan(Filter(name="other", also=also))
    assert len(scan.take(100, 4)) == 1
    assert not scan.done
    assert len(scan.take(100, 4)) == 1
    assert scan.done
    assert looked == [5, 4]


def test_changes_between_slices_hide_nothing(rig: Rig) -> None:
    """A job that matches all the time is found, though others come to match before it is."""
    wanted = Filter(states=frozenset({JobState.PENDING}))
    before = {record.job_id for record in rig.partition.scan(wanted).take(100, 1_000)}
    scan = rig.partition.scan(wanted)
    found = scan.take(100, 1)
    rig.pass_time(1_001)
    rig.submit(3)
    while not scan.done:
        found += scan.take(100, 1)
    assert before <= {record.job_id for record in found}
    assert len(found) == len(before) + 2


def test_purged_between_slices(rig: Rig) -> None:
    """A job that is gone by its turn is passed over."""
    scan = rig.partition.scan()
    found = scan.take(1, 1)
    done = rig.partition.scan(Filter(frozenset({JobState.COMPLETED}))).take(1, 1_000)
    rig.do(commands.PurgeJobs(job_ids=[done[0].job_id]))
    while not scan.done:
        found += scan.take(100, 3)
    assert len(found) == 7


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
    assert status.job_names == {"job"}
    assert status.heartbeat_ms == rig.now_ms


def test_changes(rig: Rig) -> None:
    """While somebody watches, each change of state is told once, in order, with its seq."""
    assert rig.partition.drain_changes() == []
    rig.partition.watch_changes(True)
    (job_id,) = rig.submit(1, JOB_OF_ITS_OWN)
    rig.open_session(2, queues=("own",))
    row = rig.grant_one(2)
    rig.report(row)
    changes = rig.partition.drain_changes()
    assert [(c.job_id, c.state) for c in changes] == [
        (job_id, JobState.PENDING),
        (job_id, JobState.RUNNING),
        (job_id, JobState.COMPLETED),
    ]
    assert [c.seq for c in changes] == sorted(c.seq for c in changes)
    assert changes[0].policy.name == "job"
    assert rig.partition.drain_changes() == []
    (asked,) = rig.submit(1, JOB_OF_ITS_OWN)
    rig.grant_one(2)
    rig.do(commands.CancelJobs(job_ids=[asked]))
    # It was asked to stop, and is RUNNING as before.
    states = [change.state for change in rig.partition.drain_changes()]
    assert states == [JobState.PENDING, JobState.RUNNING]
    rig.partition.watch_changes(False)
    rig.submit(1)
    assert rig.partition.drain_changes() == []
