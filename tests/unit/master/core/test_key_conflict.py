"""What a submit with a taken key comes to: S16 of each strategy, and the depth of a queue."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import command as commands
from tenure.master.core.command import LeaseRow, SubmitRow, UpdateSettings
from tenure.master.core.effect import NotifySettled, SubmitReply
from tenure.master.core.record import Policy
from tenure.master.core.settings import QueueSettings
from tenure.master.core.transition import OPEN
from tenure.protocol.ids import JobId
from tenure.protocol.limits import RETRY_WINDOW_MS
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState, KeyConflict
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import CONFIG, Rig, of_type

RETURN = Policy(name="job")
REJECT = Policy(name="job", key_conflict=KeyConflict.REJECT)
REPLACE = Policy(name="job", key_conflict=KeyConflict.REPLACE)


def keyed(rig: Rig, policy: Policy = RETURN, **options: int) -> JobId:
    """A new job with key k."""
    return rig.submit(1, policy, key="k", **options)[0]  # type: ignore[arg-type]


def again(rig: Rig, policy: Policy, *rows: SubmitRow) -> SubmitReply:
    """Submits with key k once more."""
    return rig.submit_rows([*rows] or [SubmitRow(rig.mint(), 0, b"payload", "k")], policy)


@pytest.fixture
def rig() -> Rig:
    """A partition with one session."""
    rig = Rig()
    rig.open_session(1)
    return rig


def test_reject_names_the_job(rig: Rig) -> None:
    """The row is refused, and its refusal names who has the key; nothing is changed."""
    first = keyed(rig)
    before = rig.partition.state_hash()
    ((index, refusal),) = again(rig, REJECT).refusals
    assert (index, refusal.reason, refusal.field) == (0, Reason.JOB_KEY_CONFLICT, "key")
    assert refusal.metadata["job_id"] == first
    assert rig.partition.state_hash() == before


def test_reject_in_one_batch(rig: Rig) -> None:
    """The first row of a batch has the key, the second is refused."""
    rows = [SubmitRow(rig.mint(), 0, b"", "k") for _ in range(2)]
    reply = again(rig, REJECT, *rows)
    ((index, refusal),) = reply.refusals
    assert (index, refusal.metadata["job_id"]) == (1, rows[0].job_id)


@pytest.mark.parametrize("policy", [RETURN, REJECT, REPLACE])
def test_the_same_job_again_is_no_conflict(rig: Rig, policy: Policy) -> None:
    """A row that is sent again is the same job, also when it has ended and been purged."""
    row = SubmitRow(rig.mint(), 0, b"", "k")
    assert again(rig, policy, row).existing == []
    assert again(rig, policy, row).existing == [0]
    rig.do(commands.CancelJobs(job_ids=[row.job_id]))
    rig.do(commands.PurgeJobs(job_ids=[row.job_id]))
    reply = again(rig, policy, row)
    assert (reply.existing, reply.job_ids, reply.refusals) == ([0], [row.job_id], [])


def test_reject_after_the_window(rig: Rig) -> None:
    """When its window is over, the key is free."""
    keyed(rig)
    rig.pass_time(RETURN.key_window_ms + 1)
    assert not again(rig, REJECT).refusals


@pytest.mark.parametrize("delay_ms", [0, 5_000])
def test_replace_what_waits(rig: Rig, delay_ms: int) -> None:
    """The job that waits is cancelled, its waiters are told, and the new one has the key."""
    first = keyed(rig, delay_ms=delay_ms)
    row = SubmitRow(rig.mint(), 0, b"new", "k")
    setting = commands.SubmitSetting(REPLACE, 5, 0, 0)
    decision = rig.do(commands.SubmitJobs(settings=[setting], rows=[row]))
    assert isinstance(decision.reply, SubmitReply)
    assert (decision.reply.job_ids, decision.reply.existing) == ([row.job_id], [])
    assert rig.record(first).state is JobState.CANCELLED
    assert "key" in rig.record(first).cancel_reason
    settled = of_type(decision.effects, NotifySettled)[0].records
    assert [record.job_id for record in settled] == [first]
    assert [lease.job_id for lease in rig.grant(credit=5)] == [row.job_id]
    assert again(rig, RETURN).job_ids == [row.job_id]
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_replace_leaves_what_runs(rig: Rig) -> None:
    """A job that runs is returned, as if nothing had been asked."""
    first = keyed(rig)
    rig.grant_one()
    reply = again(rig, REPLACE)
    assert (reply.job_ids, reply.existing) == ([first], [0])
    assert rig.record(first).state is JobState.RUNNING


def test_replace_what_has_ended(rig: Rig) -> None:
    """The new job takes the key of one that has ended, and of one that was purged."""
    first = keyed(rig)
    rig.report(rig.grant_one())
    (second,) = again(rig, REPLACE).job_ids
    assert rig.record(first).state is JobState.COMPLETED
    assert second != first
    rig.do(commands.CancelJobs(job_ids=[JobId(second)]))
    rig.do(commands.PurgeJobs(job_ids=[JobId(second)]))
    rig.pass_time(2 * RETRY_WINDOW_MS)
    (third,) = again(rig, REPLACE).job_ids
    assert again(rig, RETURN).job_ids == [third]


def test_replace_in_one_batch(rig: Rig) -> None:
    """Of several rows with one key the last has it; the others are cancelled."""
    rows = [SubmitRow(rig.mint(), 0, b"", "k") for _ in range(3)]
    reply = again(rig, REPLACE, *rows)
    assert reply.job_ids == [row.job_id for row in rows]
    states = [rig.record(row.job_id).state for row in rows]
    assert states == [JobState.CANCELLED, JobState.CANCELLED, JobState.PENDING]
    assert again(rig, RETURN).job_ids == [rows[2].job_id]
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_replace_that_is_refused_replaces_nothing(rig: Rig) -> None:
    """A row that cannot be accepted leaves the job whose key it wanted alone."""
    first = keyed(rig)
    too_old = SubmitRow(rig.mint(rig.now_ms - 2 * RETRY_WINDOW_MS), 0, b"", "k")
    assert again(rig, REPLACE, too_old).refusals[0][1].reason is Reason.REQUEST_TOO_OLD
    assert rig.record(first).state is JobState.PENDING
    assert again(rig, RETURN).job_ids == [first]


@given(st.lists(st.tuples(st.sampled_from(KeyConflict), st.sampled_from(["grant", "end", ""]))))
def test_one_job_of_a_key_is_open(steps: list[tuple[KeyConflict, str]]) -> None:
    """Whatever the order of submits, grants and endings, a key has one job that waits or runs."""
    rig = Rig()
    rig.open_session(1)
    running: list[LeaseRow] = []
    for conflict, then in steps:
        reply = again(rig, Policy(name="job", key_conflict=conflict))
        jobs = state_of(rig.partition).jobs.values()
        still = [record.job_id for record in jobs if record.state in OPEN]
        named = {refusal.metadata["job_id"] for _, refusal in reply.refusals} | {*reply.job_ids}
        assert len(still) <= 1
        assert set(still) <= named
        if then:
            running += rig.grant()
        if then == "end" and running:
            rig.report(running.pop())
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_depth_of_a_queue(rig: Rig) -> None:
    """A queue's own depth refuses what is beyond it, at once and with a hint when to retry."""
    update = UpdateSettings(key=("default", "default"), settings=QueueSettings(depth_max=2))
    rig.do(update)
    rig.submit(2)
    ((_, refusal),) = rig.submit_rows([SubmitRow(rig.mint(), 0, b"", "")]).refusals
    assert (refusal.reason, refusal.metadata["limit"]) == (Reason.QUEUE_FULL, "2")
    assert refusal.retry_after_ms
    assert rig.submit(1, Policy(name="job", queue="other"))
    rig.do(replace(update, settings=QueueSettings()))
    assert rig.submit(1)


def test_depth_of_a_queue_is_not_above_the_clusters() -> None:
    """A queue's own depth narrows the cluster's limit, and never widens it."""
    rig = Rig(replace(CONFIG, queue_depth_max=1))
    settings = QueueSettings(depth_max=1_000)
    rig.do(UpdateSettings(key=("default", "default"), settings=settings))
    rig.submit(1)
    ((_, refusal),) = rig.submit_rows([SubmitRow(rig.mint(), 0, b"", "")]).refusals
    assert refusal.metadata["limit"] == "1"


def test_replacing_in_a_full_queue(rig: Rig) -> None:
    """A job that is replaced leaves its place to others of the batch."""
    rig.do(UpdateSettings(key=("default", "default"), settings=QueueSettings(depth_max=2)))
    keyed(rig)
    rows = [SubmitRow(rig.mint(), 0, b"", key) for key in ("k", "")]
    assert not again(rig, REPLACE, *rows).refusals
