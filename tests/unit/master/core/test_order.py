"""The order within a queue: exact at each grant, and how far a job can be overtaken."""

from dataclasses import replace
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import command as commands
from tenure.master.core.command import LeaseRow
from tenure.master.core.record import JobRecord, LabelSelector, Policy, RetryPolicy
from tenure.master.core.settings import QueueSettings
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, Backoff, JobState
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.fairness import Round
from tests.unit.master.core.rig import CONFIG, Rig

STEP: Final = CONFIG.aging_step_ms
STEPS: Final = st.sampled_from([0, 1_000, STEP])
#: Nobody is given up for being silent.
PATIENT: Final = replace(CONFIG, lease_ttl_ms=1 << 40, accept_timeout_ms=1 << 40)
AGAIN: Final = RetryPolicy(backoff=Backoff.NONE, max_attempts=99)
GPU: Final = LabelSelector("gpu")
POLICIES: Final = [
    Policy(name="job", retry=AGAIN),
    Policy(name="other", retry=AGAIN),
    Policy(name="job", queue="bulk", retry=AGAIN),
    Policy(name="other", queue="bulk", requires=(GPU,)),
    Policy(name="job", tenant="t", prefers=(GPU,)),
]
#: So few that boosted jobs come back to where they were.
PRIORITIES: Final = st.sampled_from([0, 1, 5, 5, 6, 10])
PAUSES: Final = st.sampled_from([0, 0, 1, 60_000, 299_999, 900_000])
#: So few that jobs have to wait.
CREDITS: Final = st.sampled_from([0, 0, 0, 1, 2, 6])


class Line:
    """A partition whose grants are judged, each: nobody was passed over."""

    def __init__(self, step_ms: int) -> None:
        self.rig = Rig(replace(PATIENT, aging_step_ms=step_ms), audited=False)
        self.held: list[LeaseRow] = []
        self.there: set[int] = set()
        self.come(1)
        self.come(2)

    def come(self, session_id: int) -> None:
        """A worker opens its stream, and holds nothing."""
        if session_id == 1:
            self.rig.open_session(1, names=("job", "other"), slots=1_000)
        else:
            self.rig.open_session(2, slots=1_000, labels={"gpu": "h100"})
        self.there.add(session_id)

    def happen(self, what: str, policy: Policy, priority: int, number: int) -> None:
        """Something other than a grant."""
        rig = self.rig
        session_id = 1 + number % 2
        match what:
            case "submit" | "key" | "delay":
                key, delay_ms = "k" * (what == "key"), 500 * (what == "delay")
                rig.submit(3, policy, priority=priority, limit_key=key, delay_ms=delay_ms)
            case "limit":
                for queue in ("default", "bulk"):
                    rig.configure(("default", queue), QueueSettings(key_concurrency=number))
            case "boost":
                rig.do(commands.BoostJobs(job_ids=self._waiting()[number:][:2], priority=priority))
            case "cancel":
                rig.do(commands.CancelJobs(job_ids=self._waiting()[-1:]))
            case "leave" if session_id in self.there:
                rig.do(commands.CloseSession(session_id=session_id))
                self.there.discard(session_id)
            case "come" if session_id not in self.there:
                self.come(session_id)
            case "fail over":
                rig.crash(window_ms=0)
                self.held, self.there = [], set()
                self.come(session_id)
            case "drain":
                rows = [row for row in self.held if self._holder(row) == session_id]
                self.held = [row for row in self.held if row not in rows]
                rig.give_back(*rows, session_id=session_id)
            case "end" | "fail" | "give back" if self.held:
                self._end(what, self.held.pop(number % len(self.held)))

    def _end(self, what: str, row: LeaseRow) -> None:
        if what == "give back":
            self.rig.give_back(row, session_id=self._holder(row))
        elif what == "fail":
            self.rig.fail(row)
        else:
            self.rig.report(row, AttemptOutcome.COMPLETED)

    def _holder(self, row: LeaseRow) -> int:
        return int(self.rig.record(row.job_id).incarnation[1:])

    def _waiting(self) -> list[JobId]:
        jobs = state_of(self.rig.partition).jobs.items()
        return [job_id for job_id, r in jobs if r.state is JobState.PENDING]

    def grant(self, credits: tuple[int, int], uncommitted: int) -> None:
        """Everybody who is there takes, of all but the newest events; it is judged."""
        rig = self.rig
        taken = [(sid, n) for sid, n in zip((1, 2), credits, strict=True) if sid in self.there]
        state, committed = state_of(rig.partition), rig.partition.next_seq - 1 - uncommitted
        judge = Round(state, taken, committed, 1_000_000, rig.now_ms)
        before = {r.job_id for r in state.jobs.values() if r.state is JobState.RUNNING}
        rig.dispatch(*taken, committed_seq=committed)
        picks = [
            (int(r.incarnation[1:]), r)
            for r in state.jobs.values()
            if r.state is JobState.RUNNING and r.job_id not in before
        ]
        judge.judge(picks)
        for _, record in picks:
            assert record.lease is not None
            self.held.append(LeaseRow(record.job_id, record.lease))


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    *["submit", "submit", "submit", "key", "delay", "end", "fail", "give back"],
                    *["boost", "cancel", "limit", "leave", "come", "fail over", "drain"],
                ]
            ),
            st.sampled_from(POLICIES),
            PRIORITIES,
            PAUSES,
            st.tuples(CREDITS, CREDITS),
            st.integers(0, 2),
        ),
        min_size=8,
        max_size=25,
    ),
    step_ms=STEPS,
)
def test_order_key_is_respected_at_each_grant(
    steps: list[tuple[str, Policy, int, int, tuple[int, int], int]], step_ms: int
) -> None:
    """S11: whoever takes, nothing of the same queue that it could run comes before what it gets.

    Whatever jobs have been through, whoever comes and goes, and in whichever term.
    """
    line = Line(step_ms)
    for what, policy, priority, pause_ms, credits, number in steps:
        line.rig.now_ms += pause_ms
        line.rig.fire()
        line.happen(what, policy, priority, number)
        line.grant(credits, uncommitted=number)


@given(
    priority=st.integers(0, 10),
    before=st.lists(st.integers(0, 10), max_size=4),
    flood=st.lists(
        st.tuples(
            st.integers(0, 10), st.integers(1, 400_000), st.integers(0, 3), st.integers(0, 9)
        ),
        min_size=10,
        max_size=40,
    ),
    step_ms=STEPS,
)
def test_overtaking_is_bounded_under_a_flood(
    priority: int, before: list[int], flood: list[tuple[int, int, int, int]], step_ms: int
) -> None:
    """However much of higher priority keeps coming, a job is overtaken within Δpriority × step.

    Critical jobs apart, those that overtake it became ready less than (its priority - theirs) ×
    step after it; it itself is overtaken by nothing at all if it is critical. Without a step only
    higher priorities overtake. The bound outlives leaders: a job's age is in the journal.
    """
    rig = Rig(replace(PATIENT, aging_step_ms=step_ms), audited=False)
    rig.open_session(1, slots=1_000)
    for other in before:
        rig.submit(1, priority=other)
    waiting = rig.record(rig.submit_one(priority=priority))
    for other, pause_ms, served, luck in flood:
        rig.now_ms += pause_ms
        rig.submit(2, priority=other)
        for row in rig.grant(1, served):
            if row.job_id == waiting.job_id:
                return
            _judge_overtaking(rig.record(row.job_id), waiting, step_ms)
        if luck == 0:
            rig.crash(window_ms=0)
            waiting = rig.record(waiting.job_id)
            rig.open_session(1, f"w{rig.now_ms}", slots=1_000)


def _judge_overtaking(taken: JobRecord, waiting: JobRecord, step_ms: int) -> None:
    """Of jobs that came later only those that may overtake are taken before one that waits."""
    if taken.ordinal < waiting.ordinal:
        return
    assert waiting.priority > taken.priority
    if step_ms and taken.priority:
        later_ms = taken.ready_ms - waiting.ready_ms
        assert later_ms < (waiting.priority - taken.priority) * step_ms
