"""What a submit with a taken key comes to: S16 of each strategy, and the depth of a queue."""

from dataclasses import replace
from typing import Final

import msgspec
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


#: (tenant, queue, key)
NAMES: Final = [("t", "q", "k"), ("t", "q", "l"), ("t", "other", "k"), ("u", "q", "k")]
WINDOW_MS: Final = 10_000


class Register:
    """Who has which key, by the rules of S16 and of each strategy."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.known: dict[JobId, SubmitRow] = {}
        #: Who has a key, and until when.
        self.holders: dict[tuple[str, str, str], tuple[JobId, int]] = {}
        self.replaced: set[JobId] = set()

    def expect(
        self, rows: list[SubmitRow], names: list[tuple[str, str, str]], conflict: KeyConflict
    ) -> list[tuple[str, bool]]:
        """For each row: the job that its client is told of, and whether the row is refused."""
        return [self._expect(row, name, conflict) for row, name in zip(rows, names, strict=True)]

    def _expect(
        self, row: SubmitRow, name: tuple[str, str, str], conflict: KeyConflict
    ) -> tuple[str, bool]:
        if row.job_id in self.known:
            return row.job_id, False
        holder, until_ms = self.holders.get(name, ("", 0))
        if holder and self._rig.now_ms < until_ms:
            if conflict is KeyConflict.REJECT:
                return holder, True
            if conflict is KeyConflict.RETURN or self._runs(JobId(holder)):
                return holder, False
            self.replaced.add(JobId(holder))
        self.known[row.job_id] = row
        self.holders[name] = row.job_id, self._rig.now_ms + WINDOW_MS
        return row.job_id, False

    def _runs(self, job_id: JobId) -> bool:
        record = state_of(self._rig.partition).jobs.get(job_id)
        return record is not None and record.state is JobState.RUNNING


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [*["submit"] * 4, "again", "lose", "grant", "end", "cancel", "purge", "fail over"]
            ),
            st.sampled_from(KeyConflict),
            st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
            st.sampled_from([0, 0, 1, 4_000, WINDOW_MS]),
        ),
        min_size=10,
        max_size=25,
    )
)
def test_one_job_of_a_key_in_its_window(
    steps: list[tuple[str, KeyConflict, list[tuple[str, str, str]], int]],
) -> None:
    """S16: all who submit with a key in its window are told of the same job, whoever is first.

    In one batch or in many, sent once or again, granted, ended, purged or replaced meanwhile; and
    what a leader did not live to commit never was.
    """
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40), audited=False)
    rig.open_session(1, slots=1_000)
    register = Register(rig)
    running: list[LeaseRow] = []
    for what, conflict, names, pause_ms in steps:
        rig.now_ms += pause_ms
        match what:
            case "submit":
                rows = [SubmitRow(rig.mint(), i, b"", key) for i, (*_, key) in enumerate(names)]
                told = register.expect(rows, names, conflict)
                assert _told(_submit(rig, rows, names, conflict), rows) == told
            case "again" if register.known:
                row, name = _last(register)
                assert _told(_submit(rig, [row], [name], conflict), [row]) == [(row.job_id, False)]
            case "lose":
                row, before = SubmitRow(rig.mint(), 0, b"", names[0][2]), len(rig.journal)
                _submit(rig, [row], names[:1], conflict)
                rig.crash(lose=len(rig.journal) - before, window_ms=0)
                rig.open_session(1, slots=1_000)
                running = []
            case "fail over":
                rig.crash(window_ms=0)
                rig.open_session(1, slots=1_000)
                running = []
            case "grant":
                running += rig.grant(1, len(names))
                rig.accept(1, 1_000_000)
            case "end" if running:
                rig.report(running.pop())
            case "cancel":
                rig.do(commands.CancelJobs(job_ids=list(register.known)[-1:]))
            case "purge":
                rig.do(commands.PurgeJobs(job_ids=list(register.known)))
        jobs = state_of(rig.partition).jobs
        assert not [j for j in register.replaced if j in jobs and jobs[j].state in OPEN]
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def _submit(
    rig: Rig,
    rows: list[SubmitRow],
    names: list[tuple[str, str, str]],
    conflict: KeyConflict,
) -> SubmitReply:
    """Submits each row to its own tenant and queue."""
    policy = Policy(name="job", key_conflict=conflict, key_window_ms=WINDOW_MS)
    settings = [
        commands.SubmitSetting(msgspec.structs.replace(policy, tenant=tenant, queue=queue), 5, 0, 0)
        for tenant, queue, _ in names
    ]
    reply = rig.do(commands.SubmitJobs(settings=settings, rows=rows)).reply
    assert isinstance(reply, SubmitReply)
    return reply


def _last(register: Register) -> tuple[SubmitRow, tuple[str, str, str]]:
    """The newest row that was accepted, as it was sent; and its names."""
    row = list(register.known.values())[-1]
    (name,) = [names for names, (job_id, _) in register.holders.items() if job_id == row.job_id]
    return msgspec.structs.replace(row, setting=0), name


def _told(reply: SubmitReply, rows: list[SubmitRow]) -> list[tuple[str, bool]]:
    """For each row: the job that its client is told of, and whether it is refused."""
    refused = dict(reply.refusals)
    return [
        (refused[i].metadata["job_id"], True) if i in refused else (reply.job_ids[i], False)
        for i in range(len(rows))
    ]


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
