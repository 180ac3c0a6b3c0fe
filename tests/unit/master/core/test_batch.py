"""Batches: each matching job once, slice by slice, whatever happens between two slices."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import batch
from tenure.master.core.batch import KEPT_MAX, RUNNING_MAX
from tenure.master.core.bulk import BatchAdvanced, BatchCreated, BatchRecord, BatchSpec
from tenure.master.core.command import (
    AdvanceBatch,
    CancelBatch,
    CancelJobs,
    CreateBatch,
    RequeueJobs,
)
from tenure.master.core.effect import Decision, NotifySettled
from tenure.master.core.query import Filter
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import BatchKind, BatchState, FailureReason, JobState, RunIf
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig, of_type
from tests.unit.master.core.test_dependency import BAD, after, resolve, run

CANCEL = BatchSpec(kind=BatchKind.CANCEL, filter="state = PENDING", reason="why")
REVIVE = BatchSpec(kind=BatchKind.REQUEUE, filter="state = FAILED")
PENDING = Filter(states=frozenset({JobState.PENDING}))
FAILED = Filter(states=frozenset({JobState.FAILED}))


def made(rig: Rig, batch_id: str = "b", spec: BatchSpec = CANCEL, matched: int = 0) -> BatchRecord:
    """Makes a batch; what is told of it."""
    reply = rig.do(CreateBatch(batch_id=batch_id, spec=spec, matched=matched)).reply
    assert isinstance(reply, BatchRecord)
    return reply


def slices(rig: Rig, wanted: Filter = PENDING, *, rows: int = 2, batch_id: str = "b") -> Decision:
    """One slice, as a leader that has just come to office takes it."""
    record = rig.partition.batch(batch_id)
    assert record is not None
    scan = rig.partition.scan(wanted, before_ordinal=record.cursor)
    return rig.do(AdvanceBatch(batch_id=batch_id, scan=scan, rows_max=rows, looks_max=3))


def finish(
    rig: Rig, wanted: Filter = PENDING, *, rows: int = 2, batch_id: str = "b"
) -> BatchRecord:
    """All slices of one scan."""
    record = rig.partition.batch(batch_id)
    assert record is not None
    scan = rig.partition.scan(wanted, before_ordinal=record.cursor)
    command = AdvanceBatch(batch_id=batch_id, scan=scan, rows_max=rows, looks_max=3)
    while record.state is BatchState.RUNNING:
        rig.do(command)
    return record


def states(rig: Rig, job_ids: list[JobId]) -> list[JobState]:
    """Jobs' states."""
    return [rig.record(job_id).state for job_id in job_ids]


def test_each_job_that_matched_is_done_once() -> None:
    """In slices, newest first; jobs that are submitted after it was made are left alone."""
    rig = Rig()
    before = rig.submit(7)
    made(rig, matched=7)
    after = rig.submit(2)
    record = finish(rig)
    assert (record.state, record.changed, record.refused, record.matched) == (
        BatchState.DONE,
        7,
        0,
        7,
    )
    assert set(states(rig, before)) == {JobState.CANCELLED}
    assert set(states(rig, after)) == {JobState.PENDING}
    assert rig.record(before[0]).cancel_reason == "why"


def test_effects_and_cursor_are_of_one_decision() -> None:
    """What a slice does and how far it has come stand or fall together."""
    rig = Rig()
    rig.submit(3)
    made(rig)
    events = slices(rig).events
    assert [type(event).__name__ for event in events] == ["JobsCancelled", "BatchAdvanced"]
    (advanced,) = [event for event in events if isinstance(event, BatchAdvanced)]
    assert (advanced.changed, advanced.state) == (2, BatchState.RUNNING)


@given(st.lists(st.integers(1, 3), max_size=4), st.integers(1, 12))
def test_a_successor_goes_on_where_the_batch_was(cuts: list[int], jobs: int) -> None:
    """After any slice the state is replayed; nothing is done twice and nothing is left out."""
    rig = Rig()
    job_ids = rig.submit(jobs)
    made(rig, spec=BatchSpec(kind=BatchKind.BOOST, filter="x", priority=1))
    done: list[JobId] = []
    for rows in [*cuts, *[3] * 12]:
        decision = slices(rig, rows=rows)
        for event in decision.events:
            done += [row.job_id for row in getattr(event, "rows", [])]
        rig.crash(window_ms=0)
    record = rig.partition.batch("b")
    assert record is not None
    assert record.state is BatchState.DONE
    assert record.changed == jobs
    assert sorted(done) == sorted(job_ids)


def test_what_cannot_be_done_is_counted() -> None:
    """As the call for single jobs refuses it; the others go on."""
    rig = Rig()
    first, _, third = rig.submit(3)
    rig.do(CancelJobs(job_ids=[first, third]))
    made(rig, spec=BatchSpec(kind=BatchKind.REQUEUE, filter="x"))
    record = finish(rig, Filter())
    assert (record.changed, record.refused) == (2, 1)


def test_purged_jobs_are_gone() -> None:
    """A purge by filter, with a scan that the purge itself changes."""
    rig = Rig()
    job_ids = rig.submit(9)
    rig.do(CancelJobs(job_ids=job_ids[2:]))
    made(rig, spec=BatchSpec(kind=BatchKind.PURGE, filter="x"))
    record = finish(rig, Filter(states=frozenset({JobState.CANCELLED})))
    assert (record.changed, record.refused) == (7, 0)
    assert rig.partition.stats().jobs == 2


def test_nothing_that_matches_ends_it_at_once() -> None:
    """One slice, no job."""
    rig = Rig()
    made(rig)
    assert finish(rig).ended_ms == rig.now_ms


def test_slices_without_a_match_are_not_journaled() -> None:
    """A rare match in a large partition costs the journal nothing while it is looked for."""
    rig = Rig()
    rig.submit(10)
    made(rig)
    nothing = Filter(also=lambda record: False)
    decision = slices(rig, nothing)
    assert decision.events == ()
    assert isinstance(decision.reply, BatchRecord)
    assert decision.reply.state is BatchState.RUNNING


def test_a_cancelled_batch_stays_where_it_is() -> None:
    """What it has done stays done; later slices do nothing, and cancelling is idempotent."""
    rig = Rig()
    job_ids = rig.submit(4)
    made(rig)
    slices(rig)
    rig.do(CancelBatch(batch_id="b"))
    again = rig.do(CancelBatch(batch_id="b"))
    assert again.events == ()
    late = slices(rig)
    assert (late.events, late.reply) == ((), None)
    assert states(rig, job_ids).count(JobState.CANCELLED) == 2
    record = rig.partition.batch("b")
    assert record is not None
    assert (record.state, record.changed) == (BatchState.CANCELLED, 2)


def test_who_waits_for_a_job_hears_of_what_a_batch_does_to_it() -> None:
    """As if the call for single jobs had done it."""
    rig = Rig()
    job_ids = rig.submit(2)
    made(rig)
    (told,) = of_type(slices(rig).effects, NotifySettled)
    assert [record.job_id for record in told.records] == job_ids[::-1]


def test_making_it_again_answers_the_same() -> None:
    """A client that did not hear the answer asks again: there is one batch."""
    rig = Rig()
    first = made(rig, matched=3)
    decision = rig.do(CreateBatch(batch_id="b", spec=CANCEL, matched=9))
    assert decision.events == ()
    assert msgspec.structs.asdict(made(rig)) == msgspec.structs.asdict(first)


def test_refusals() -> None:
    """An unknown batch, and too many at once."""
    rig = Rig()
    assert rig.refused(CancelBatch(batch_id="?")).reason is Reason.NOT_FOUND
    for number in range(RUNNING_MAX):
        made(rig, f"b{number}")
    refusal = rig.refused(CreateBatch(batch_id="more", spec=CANCEL, matched=0))
    assert refusal.reason is Reason.WRONG_STATE


@pytest.mark.parametrize("more", [1, 5])
def test_the_oldest_that_ended_are_forgotten(more: int) -> None:
    """So many are remembered, those under way among them; a replay forgets the same."""
    rig = Rig(audited=False)
    made(rig, "running")
    for number in range(KEPT_MAX - 1 + more):
        made(rig, f"b{number:03}")
        finish(rig, batch_id=f"b{number:03}")
    kept = {record.batch_id for record in rig.partition.batches()}
    assert len(kept) == KEPT_MAX
    assert "running" in kept
    assert f"b{more - 1:03}" not in kept
    before = rig.partition.state_hash()
    assert rig.replayed().state_hash() == before


def test_refusals_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which batch is not there, and how many may be under way; one that ends makes room."""
    monkeypatch.setattr(batch, "RUNNING_MAX", 2)
    rig = Rig()
    refusal = rig.refused(CancelBatch(batch_id="?"))
    assert (refusal.metadata, refusal.field) == ({"batch_id": "?"}, "batch_id")
    assert "expected to cancel batch ?, but no such batch is known" in refusal.message
    for number in range(2):
        made(rig, f"b{number}")
    refusal = rig.refused(CreateBatch(batch_id="more", spec=CANCEL, matched=0))
    assert refusal.metadata == {"limit": "2"}
    assert "2 are under way in this partition (at most 2)" in refusal.message
    finish(rig, batch_id="b0")
    made(rig, "more")


def test_a_batch_is_told_as_it_is_known() -> None:
    """When it is made, goes on, is stopped or has ended; what is told does not change with it."""
    rig = Rig()
    rig.submit(3)
    told = [made(rig, matched=5)]
    rig.now_ms += 10
    for goes_on in (True, False):
        decision = slices(rig) if goes_on else rig.do(CancelBatch(batch_id="b"))
        assert isinstance(decision.reply, BatchRecord)
        told.append(decision.reply)
        record = rig.partition.batch("b")
        assert record is not None
        assert record is not decision.reply
        assert msgspec.structs.asdict(record) == msgspec.structs.asdict(decision.reply)
    assert [(each.changed, each.refused, each.state) for each in told] == [
        (0, 0, BatchState.RUNNING),
        (2, 0, BatchState.RUNNING),
        (2, 0, BatchState.CANCELLED),
    ]
    assert [each.ended_ms for each in told] == [0, 0, rig.now_ms]
    assert {each.created_ms for each in told} == {rig.now_ms - 10}
    assert {(each.matched, each.spec) for each in told} == {(5, CANCEL)}
    assert told[2].cursor == told[1].cursor < told[0].cursor
    again = rig.do(CancelBatch(batch_id="b")).reply
    assert isinstance(again, BatchRecord)
    assert msgspec.structs.asdict(again) == msgspec.structs.asdict(told[2])


def test_a_batch_boosts_as_it_was_told_to() -> None:
    """To a priority, to a time, or both."""
    for spec in (
        BatchSpec(kind=BatchKind.BOOST, filter="x", priority=1),
        BatchSpec(kind=BatchKind.BOOST, filter="x", delay_ms=7_000),
    ):
        rig = Rig()
        job_ids = rig.submit(3)
        made(rig, spec=spec)
        record = finish(rig)
        assert (record.changed, record.cursor, record.ended_ms) == (3, 0, rig.now_ms)
        for job in map(rig.record, job_ids):
            assert job.priority == (spec.priority or 5)
            assert job.ready_ms == rig.now_ms + (spec.delay_ms or 0)


@pytest.mark.parametrize(("made_before", "left"), [(2, 3), (3, 3), (4, 3)])
def test_the_first_that_ended_are_forgotten_first(
    monkeypatch: pytest.MonkeyPatch, made_before: int, left: int
) -> None:
    """By the time of their ends, not of their begins; as many as there are too many."""
    monkeypatch.setattr(batch, "KEPT_MAX", 3)
    rig = Rig()
    names = [f"b{number}" for number in range(made_before)]
    with monkeypatch.context() as more:
        more.setattr(batch, "KEPT_MAX", 9)
        for name in names:
            made(rig, name)
    for name in names[::-1]:
        finish(rig, batch_id=name)
    made(rig, "new")
    kept = [record.batch_id for record in rig.partition.batches()]
    assert sorted(kept) == [*names[: left - 1], "new"]
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_what_is_newer_than_an_event_stays() -> None:
    """A snapshot may know more of one batch than of another, and more than the event."""
    state = state_of(Rig().partition)
    records = state.batches
    for batch_id, seq in (("newer", 7), ("older", 3), ("gone", 3), ("kept", 7)):
        records[batch_id] = BatchRecord(
            batch_id=batch_id, seq=seq, spec=CANCEL, matched=0, cursor=50
        )
    for batch_id, cursor in (("newer", 50), ("older", 10), ("nobody", None)):
        advanced = BatchAdvanced(
            now_ms=9, batch_id=batch_id, cursor=10, changed=0, refused=0, state=BatchState.RUNNING
        )
        batch.apply_advanced(state, advanced, 6)
        known = records.get(batch_id)
        assert (known and known.cursor) == cursor
    for batch_id, cursor in (("newer", 50), ("older", 90)):
        created = BatchCreated(
            now_ms=9,
            batch_id=batch_id,
            spec=CANCEL,
            matched=0,
            cursor=90,
            dropped=("nobody", "gone", "kept"),
        )
        batch.apply_created(state, created, 7)
        assert records[batch_id].cursor == cursor
    assert list(records) == ["newer", "older", "kept"]


# Families.


@pytest.mark.parametrize("crash", [False, True])
def test_a_tree_that_has_failed_is_requeued_whole(crash: bool) -> None:
    """Slices come to children before their parents: none of them fails by that once more."""
    rig = Rig()
    rig.open_session(1)
    (root,) = rig.submit(1)
    children = [after(rig, root) for _ in range(5)]
    leaf = after(rig, children[0])
    run(rig, root, BAD)
    tree = [root, *children, leaf]
    assert set(states(rig, tree)) == {JobState.FAILED}
    made(rig, spec=REVIVE, matched=7)
    while rig.partition.batch("b").state is BatchState.RUNNING:  # type: ignore[union-attr]
        slices(rig, FAILED)
        resolve(rig)
        if crash:
            rig.crash(window_ms=0)
    record = rig.partition.batch("b")
    assert record is not None
    assert (record.changed, record.refused) == (7, 0)
    assert states(rig, tree) == [JobState.PENDING, *[JobState.BLOCKED] * 6]
    if crash:
        rig.open_session(1, "w2")
    run(rig, root)
    assert states(rig, children) == [JobState.PENDING] * 5


@pytest.mark.parametrize("cancelled", [False, True])
def test_children_of_what_stays_dead_fail_when_the_batch_is_over(cancelled: bool) -> None:
    """Whoever was requeued before or by the batch, and however that ends; others never wait."""
    rig = Rig()
    rig.open_session(1)
    (root,) = rig.submit(1)
    first, second = after(rig, root), after(rig, root)
    run(rig, root, BAD)
    rig.do(RequeueJobs(job_ids=[first]))
    made(rig, spec=REVIVE)
    wanted = FAILED._replace(also=lambda record: record.job_id == second)
    slices(rig, wanted, rows=1)
    fresh = after(rig, root)
    resolve(rig)
    assert states(rig, [first, second]) == [JobState.BLOCKED] * 2
    assert rig.state(fresh) is JobState.FAILED
    rig.crash(window_ms=0)
    resolve(rig)
    assert states(rig, [first, second]) == [JobState.BLOCKED] * 2
    if cancelled:
        rig.do(CancelBatch(batch_id="b"))
    else:
        finish(rig, wanted)
    resolve(rig)
    for job_id in (first, second):
        record = rig.record(job_id)
        assert (record.state, record.failure_reason) == (
            JobState.FAILED,
            FailureReason.DEPENDENCY,
        )


def test_no_child_runs_before_a_parent_that_comes_back() -> None:
    """Also one that runs whatever its parents come to, and was cancelled with them."""
    rig = Rig()
    (root,) = rig.submit(1)
    child = after(rig, root, run_if=RunIf.ALWAYS)
    rig.do(CancelJobs(job_ids=[child, root]))
    made(rig, spec=REVIVE)
    wanted = Filter(states=frozenset({JobState.CANCELLED}))
    slices(rig, wanted, rows=1)
    resolve(rig)
    assert states(rig, [root, child]) == [JobState.CANCELLED, JobState.BLOCKED]
    finish(rig, wanted)
    resolve(rig)
    assert states(rig, [root, child]) == [JobState.PENDING, JobState.BLOCKED]
