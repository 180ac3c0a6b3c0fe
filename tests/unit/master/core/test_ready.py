"""The ready order by itself: lanes of jobs that come and go, and the order of lanes in a queue."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import command as commands
from tenure.master.core.gate import JobType, LimitKey, Queue, Tenant
from tenure.master.core.lanes import Lanes
from tenure.master.core.ready import Board, Fronts, Lane
from tenure.master.core.record import JobRecord, Policy
from tenure.master.core.settings import (
    JobTypeSettings,
    QueueSettings,
    Settings,
    TenantSettings,
)
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import JobState
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig

PRIORITY = 5
#: Entries of jobs that have left, beyond as many as there are jobs, before they are dropped.
GONE_MAX = 1_024
#: The same for lanes in a queue.
FRONTS_GONE_MAX = 64
#: The seq of whatever has moved a job on.
LATER = 1 << 40


def job(ordinal: int, seq: int) -> JobRecord:
    """A PENDING job."""
    return JobRecord(
        job_id=JobId(f"job-{ordinal}"),
        seq=seq,
        ordinal=ordinal,
        state=JobState.PENDING,
        policy=Policy(name="a"),
        priority=PRIORITY,
        payload=b"",
        key="",
        submitted_ms=0,
        ready_ms=0,
    )


def lane_of(key: str = "a", job_type: JobType | None = None) -> Lane:
    """An empty lane."""
    settings = QueueSettings()
    queue = Queue(Tenant("t", TenantSettings()), "q", settings, 0, Lanes(Settings()))
    job_type = job_type or JobType("t", "job", JobTypeSettings())
    return Lane((job_type.name, PRIORITY, key), queue, job_type, PRIORITY)


def push(lane: Lane, key: int, seq: int, *ordinals: int) -> list[JobRecord]:
    """Makes jobs ready."""
    records = [job(ordinal, seq) for ordinal in ordinals]
    lane.push(key, seq, records)
    return records


def leave(lane: Lane, *records: JobRecord) -> None:
    """Jobs are not ready any more."""
    for record in records:
        record.seq = LATER
    lane.leave(len(records))


# A lane.


@given(st.integers(0, 1 << 32), st.integers(1, 60))
def test_a_lane_knows_its_jobs_and_which_is_next(seed: int, turns: int) -> None:
    """Whatever comes in which order, and whoever leaves from wherever."""
    rng = random.Random(seed)
    lane = lane_of()
    there: list[tuple[int, int, JobRecord]] = []
    ordinals = rng.sample(range(1_000), 4 * turns)
    for seq in range(1, turns + 1):
        key = rng.randrange(6)
        own = sorted(ordinals.pop() for _ in range(rng.randint(1, 4)))
        there += [(key, record.ordinal, record) for record in push(lane, key, seq, *own)]
        there.sort(key=lambda at: at[:2])
        gone = there[:1] if rng.random() < 0.5 else rng.sample(there, rng.randrange(len(there)))
        if gone:
            leave(lane, *[record for *_, record in gone])
        there = [at for at in there if at not in gone]
        assert lane.ready == lane.queue.ready_of[PRIORITY] == len(there)
        assert sorted(record.ordinal for record in lane.jobs()) == sorted(at[1] for at in there)
        assert lane.front == ((*there[0][:2], there[0][2].seq) if there else None)
        assert lane.first() is (there[0][2] if there else None)


def test_jobs_that_come_in_order_make_no_heap() -> None:
    """They form a row; one that comes before those that are there is kept beside it."""
    lane = lane_of()
    push(lane, 1, 1, 1, 2)
    push(lane, 1, 2, 3)
    push(lane, 2, 3, 4)
    assert (len(lane.row), len(lane.heap)) == (3, 0)
    push(lane, 2, 4, 0)
    push(lane, 1, 5, 5)
    assert (len(lane.row), len(lane.heap)) == (3, 2)
    push(lane, 2, 6, 6)
    assert (len(lane.row), len(lane.heap)) == (4, 2)


@pytest.mark.parametrize("late", [False, True])
def test_a_lane_drops_entries_of_jobs_that_left_from_its_midst(late: bool) -> None:
    """Once there are many more of them than jobs, and not before; the order stays as it is."""
    lane = lane_of()
    behind = push(lane, 9, 1, 5_000)
    records = push(lane, 1 if late else 10, 2, *range(6_000, 6_000 + GONE_MAX + 7))
    assert bool(lane.heap) is late
    first, middle, last = records[0], records[500], records[-1]
    leave(lane, *[record for record in records if record not in (first, middle, last)])
    assert lane.entries == GONE_MAX + 8 == 2 * lane.ready + GONE_MAX
    leave(lane, middle)
    assert lane.entries == lane.ready == 3
    order = [first, last, *behind] if late else [*behind, first, last]
    for record in order:
        assert lane.first() is record
        leave(lane, record)
    assert lane.front is None
    assert lane.entries == 0


def test_jobs_of_a_dropped_entry_are_granted_in_order() -> None:
    """As above, with a partition around it."""
    rig = Rig()
    rig.open_session(1)
    ids = rig.submit(GONE_MAX + 6)
    (lane,) = state_of(rig.partition).lanes.lanes()
    kept = [ids[0], ids[500], ids[-1]]
    rig.do(commands.CancelJobs(job_ids=[job_id for job_id in ids if job_id not in kept]))
    assert lane.entries == len(ids)
    rig.do(commands.CancelJobs(job_ids=[kept.pop(1)]))
    assert lane.entries == 2
    assert [row.job_id for row in rig.grant(1, 10)] == kept


def test_a_job_is_taken_out_wherever_it_stands() -> None:
    """In the row, beside it, or beside it and behind its end; and once only."""
    lane = lane_of()
    first, last = push(lane, 5, 1, 1, 9)
    beside, behind = push(lane, 5, 2, 4, 12)
    (before,) = push(lane, 3, 3, 2)
    assert (len(lane.row), len(lane.heap)) == (1, 2)
    for key, record in ((5, last), (5, beside), (5, behind), (3, before)):
        assert lane.take_out(key, record)
        assert not lane.take_out(key, record)
    lane.leave(4)
    assert list(lane.jobs()) == [first]
    assert lane.front == (5, 1, 1)


# Lanes of a queue.


def hung(*names: str) -> tuple[Fronts, list[Lane]]:
    """Empty lanes, and the order of those that have something to give."""
    job_type = JobType("t", "job", JobTypeSettings())
    fronts = Board(None).fronts(job_type)
    lanes = [lane_of(name, job_type) for name in names]
    for lane in lanes:
        lane.hang([fronts])
    return fronts, lanes


def in_order(fronts: Fronts) -> list[str]:
    """The lanes that are up to date, by their next jobs."""
    current = [entry for entry in sorted(fronts.heap) if fronts.is_current(entry)]
    return [str(lane.label[2]) for *_, lane in current]


def test_lanes_stand_by_their_next_jobs() -> None:
    """Those that are empty, closed or served elsewhere do not stand there."""
    fronts, (a, b, c) = hung("a", "b", "c")
    assert (fronts.heap, fronts.backlog) == ([], 0)
    (first,) = push(a, 1, 1, 1)
    push(a, 4, 2, 2)
    push(b, 2, 3, 3, 4)
    push(c, 3, 4, 5)
    assert (in_order(fronts), fronts.backlog) == (["a", "b", "c"], 5)
    leave(a, first)
    assert (in_order(fronts), fronts.backlog) == (["b", "c", "a"], 4)
    b.key = LimitKey(b.queue, "b")
    b.key.under[b] = None
    b.key.turn(False)
    assert (in_order(fronts), fronts.backlog) == (["c", "a"], 2)
    c.hang([])
    assert (in_order(fronts), list(fronts.active)) == (["a"], [a])
    b.key.turn(True)
    c.hang([fronts])
    assert (in_order(fronts), fronts.backlog) == (["b", "c", "a"], 4)


def test_a_job_type_opens_and_closes_whatever_is_under_it_at_once() -> None:
    """Its lanes keep their order meanwhile, and others of the queue stand as they did."""
    board = Board(None)
    mail, web = [JobType("t", name, JobTypeSettings()) for name in ("mail", "web")]
    a, b, c = [lane_of(key, of) for key, of in (("a", mail), ("b", mail), ("c", web))]
    for seq, lane in enumerate((b, a, c), 1):
        lane.hang([board.fronts(lane.job_type)])
        push(lane, seq, seq, seq)
    mail.turn(False)
    assert (list(board.giving), board.backlog()) == ([board.fronts(web)], 1)
    push(a, 0, 4, 4)
    assert board.backlog() == 1
    mail.turn(True)
    assert (in_order(board.fronts(mail)), board.backlog()) == (["a", "b"], 4)
    board.end()
    assert [*mail.under, *web.under] == []


def test_the_first_entry_is_always_up_to_date() -> None:
    """However often the lanes before it change, so the best is found without a search."""
    rng = random.Random(7)
    fronts, lanes = hung("a", "b", "c", "d")
    for seq in range(1, 400):
        lane = rng.choice(lanes)
        if rng.random() < 0.4 and (first := lane.first()) is not None:
            leave(lane, first)
        else:
            push(lane, rng.randrange(50), seq, seq)
        best = min((lane.front for lane in lanes if lane.front), default=None)
        assert (fronts.heap[0][:3] if fronts.heap else None) == best


def test_entries_of_lanes_that_were_overtaken_are_dropped() -> None:
    """Once there are many more of them than lanes, and not before; the order stays as it is."""
    fronts, (a, b) = hung("a", "b")
    push(a, 1, 1, 1)
    entries_max = 2 * len(fronts.active) + FRONTS_GONE_MAX + 2
    for seq in range(2, entries_max + 1):
        push(b, 1_000 - seq, seq, seq)
    assert len(fronts.heap) == entries_max
    push(b, 500, 1_000, 1_000)
    assert [entry[:3] for entry in fronts.heap] == [(1, 1, 1), (500, 1_000, 1_000)]
    push(b, 0, 1_001, 1_001)
    assert in_order(fronts) == ["b", "a"]


# Who is served.


def test_a_new_queue_is_served_by_who_named_it() -> None:
    """A lane that comes after its worker is found by its queue and its name."""
    rig = Rig()
    rig.open_session(1, queues=("bulk",))
    rig.submit_one()
    job_id = rig.submit_one(Policy(name="job", queue="bulk"))
    assert [row.job_id for row in rig.grant(1, 10)] == [job_id]
