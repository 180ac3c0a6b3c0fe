"""What is due: delays, backoffs, timeouts, expiries, take-backs, retention.

A timer says only that a job or a holder wants to be looked at; here is what is then done.
"""

from tenure.master.core.attempt import draws, end_attempt, lost_fault, timeout_fault
from tenure.master.core.budget import Budgeting
from tenure.master.core.chunk import chunks
from tenure.master.core.command import FireTimers, LeaseRow
from tenure.master.core.due_ticks import decide_ticks
from tenure.master.core.effect import Announce, Decision, Effect, SendRevokes
from tenure.master.core.event import (
    AttemptsEnded,
    BoostedRow,
    EndedRow,
    Event,
    JobsBoosted,
    JobsExpired,
    JobsPurged,
    JobsReadied,
)
from tenure.master.core.gate import JobType
from tenure.master.core.limit import relieve
from tenure.master.core.postponed import LookedAt
from tenure.master.core.record import JobFault, JobRecord
from tenure.master.core.report import ended_bytes, revokes, settling
from tenure.master.core.session import Holder, Holding, Session
from tenure.master.core.state import State, has_started, lease_of
from tenure.master.core.timer import Mark
from tenure.master.core.transition import TERMINAL, Move, sources
from tenure.master.core.volatile import KeysRelieved, TakeBacksAsked, TimersFired
from tenure.master.core.workflow import decide_due
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState

_READIED = sources(Move.READY)


def next_timer_ms(state: State) -> int | None:
    """When ``decide_fire`` has something to do, at the earliest now; None: nothing waits for it."""
    if not state.serving or state.window_ends_ms is not None:
        return None
    if state.lanes.crowded or state.postponed.is_due():
        return state.stamp_ms
    next_ms = state.finished.next_ms(state.lanes.counts)
    for due_ms in (
        state.timers.next_ms(),
        state.holder_timers.next_ms(),
        state.timetable.timers.next_ms(),
        state.workflows.timers.next_ms(),
        state.lanes.refills.next_ms(),
    ):
        if due_ms is not None and (next_ms is None or due_ms < next_ms):
            next_ms = due_ms
    return None if next_ms is None else max(next_ms, state.stamp_ms)


def next_job_timer_ms(state: State) -> int | None:
    """When a job that has not ended may have to be looked at; None: none waits for a time."""
    return state.timers.next_ms()


def decide_fire(state: State, command: FireTimers, now_ms: int) -> Decision:
    """Does what is due, about ``rows_max`` jobs of it."""
    if not state.serving or state.window_ends_ms is not None:
        return Decision()
    due = _Due(state, command, now_ms)
    records, job_mark = state.timers.due(now_ms, command.rows_max)
    for record in records:
        due.look_at_job(record)
    hurried = due.hurry_retries(command.rows_max)
    holder_mark = due.look_at_holders(command.rows_max)
    parked, pinning = [], state.dependencies.active
    for record in state.finished.due(state.lanes.counts, now_ms, command.rows_max):
        if pinning and state.dependencies.pins(record.job_id):
            parked.append(record.job_id)
        else:
            due.purge(record)
    ticked = decide_ticks(state, command, now_ms, due.decided)
    _, refill_mark = state.lanes.refills.due(now_ms, command.rows_max)
    relief = relieve(state, command.rows_max, now_ms, due.decided)
    flows = decide_due(state, command.rows_max, now_ms)
    looked_at = [KeysRelieved(keys=relief.keys)] if relief.keys else []
    events = [
        *looked_at,
        *due.events(),
        *flows.events,
        *ticked.decision.events,
        *relief.events,
    ]
    fired = TimersFired(
        now_ms=now_ms,
        job_mark=job_mark,
        holder_mark=holder_mark,
        parked=parked,
        schedule_mark=ticked.mark,
        held=tuple(ticked.held),
        refill_mark=refill_mark,
        put_off=due.put_off(),
        hurried=hurried,
    )
    marks = (job_mark, holder_mark, ticked.mark, refill_mark)
    if parked or hurried or any(mark is not None for mark in marks):
        events.append(fired)
    effects = (*due.effects(), *ticked.decision.effects, *relief.effects)
    return Decision(events=tuple(events), effects=effects)


class _Due:
    """What is due in one decision."""

    def __init__(self, state: State, command: FireTimers, now_ms: int) -> None:
        self._state = state
        self._now_ms = now_ms
        self._draws = draws(command.jitter)
        #: Jobs that were decided on.
        self.decided: set[JobId] = set()
        self._readied: list[JobId] = []
        #: Retries that wait otherwise for their job types' budgets, and what is left of those.
        self._put_off: list[BoostedRow] = []
        self._budgets: dict[JobType, Budgeting] = {}
        self._expired: dict[FailureReason, list[JobId]] = {}
        self._ended: list[EndedRow] = []
        self._purged: list[JobId] = []
        self._asked: dict[int, list[LeaseRow]] = {}
        #: By reason: (incarnation, job, lease).
        self._revoked: dict[str, list[tuple[str, JobId, Lease]]] = {}
        self._leases_expired = 0
        #: Sessions with nothing to do: [session, free slots]; None: not looked for yet.
        self._idle: list[tuple[Session, list[None]]] | None = None

    def look_at_job(self, record: JobRecord) -> None:
        """Does what a job's time asks for."""
        job_id = record.job_id
        if job_id in self.decided or self._state.jobs.get(job_id) is not record:
            return
        if record.state in TERMINAL:
            ttl_ms = record.policy.result_ttl_ms
            pinned = self._state.dependencies.pins(job_id)
            if ttl_ms and not pinned and record.ended_ms + ttl_ms <= self._now_ms:
                self.purge(record)
        elif record.state is JobState.RUNNING:
            self._look_at_running(record)
        elif record.state is not JobState.BLOCKED:
            self._look_at_queued(record)

    def hurry_retries(self, retries_max: int) -> tuple[LookedAt, ...]:
        """Gives retries that were put off earlier places, if there are any; those it looked at."""
        looked_at: list[LookedAt] = []
        for part, records in self._state.postponed.due(retries_max):
            looked_at.append(part)
            for record in records:
                if record.job_id in self.decided:
                    continue
                self.decided.add(record.job_id)
                place_ms = self._place_of_retry(record, record.ready_ms)
                if place_ms is None:
                    self._put_off.append(_waiting(record, self._now_ms, JobState.PENDING))
                elif place_ms < record.ready_ms:
                    self._put_off.append(_waiting(record, place_ms, JobState.RETRYING))
        return tuple(looked_at)

    def look_at_holders(self, leases_max: int) -> Mark | None:
        """Looks at holders that are due, at about so many of their leases; the last one's mark."""
        looked_at: dict[str, Holder] = {}
        leases, last = 0, None
        for holder, mark in self._state.holder_timers.walk(self._now_ms):
            if leases >= leases_max:
                break
            last = mark
            # Of one that is forgotten nothing is left to look at; one armed twice comes twice.
            if self._state.holders.get(holder.incarnation) is not holder:
                continue
            if looked_at.setdefault(holder.incarnation, holder) is holder:
                leases += 1 + len(holder.leases)
        for holder in looked_at.values():
            self._look_at_holder(holder)
        return last

    def _look_at_holder(self, holder: Holder) -> None:
        """Ends what a holder has lost, and asks back what it does not use."""
        now_ms, config = self._now_ms, self._state.config
        if holder.check_ms > now_ms:
            return
        if holder.deadline_ms <= now_ms:
            for holding in holder.leases.values():
                self._leases_expired += 1
                fault = lost_fault(holder.worker, config.lease_ttl_ms)
                self._end(holding, AttemptOutcome.LOST, fault, "expired")
            return
        session = holder.session
        if session is None:
            return
        unaccepted = {delivery.number: delivery.sent_ms for delivery in session.unaccepted}
        for holding in holder.leases.values():
            if holding.started_ms:
                continue
            sent_ms = unaccepted.get(holding.delivery.number)
            granted_ms = holding.record.granted_ms
            if sent_ms is not None and self._state.lease_deadline_ms(sent_ms) <= now_ms:
                self._never_arrived(holding)
            elif holding.asked:
                continue
            elif (sent_ms is not None and sent_ms + config.accept_timeout_ms <= now_ms) or (
                granted_ms + config.take_back_ms <= now_ms and self._idle_instead(session, holding)
            ):
                row = LeaseRow(holding.record.job_id, lease_of(holding.record))
                self._asked.setdefault(session.session_id, []).append(row)

    def purge(self, record: JobRecord) -> None:
        """Forgets a finished job."""
        if record.job_id not in self.decided:
            self.decided.add(record.job_id)
            self._purged.append(record.job_id)

    def events(self) -> list[Event]:
        """What it comes to."""
        now_ms = self._now_ms
        events: list[Event] = []
        if self._readied:
            events.append(JobsReadied(now_ms=now_ms, job_ids=self._readied))
        if self._put_off:
            events.append(JobsBoosted(now_ms=now_ms, rows=self._put_off))
        for reason, job_ids in self._expired.items():
            events.append(JobsExpired(now_ms=now_ms, job_ids=job_ids, failure_reason=reason))
        for ended in chunks(self._ended, ended_bytes):
            events.append(AttemptsEnded(now_ms=now_ms, rows=list(ended)))
        if self._purged:
            events.append(JobsPurged(now_ms=now_ms, job_ids=self._purged))
        if self._asked:
            rows = [row for asked in self._asked.values() for row in asked]
            events.append(TakeBacksAsked(rows=rows))
        return events

    def put_off(self) -> tuple[tuple[str, str, int], ...]:
        """By job type: up to when retries were put off."""
        return tuple(
            (job_type.tenant, job_type.name, budgeting.last_ms)
            for job_type, budgeting in self._budgets.items()
        )

    def effects(self) -> list[Effect]:
        """Whom to tell."""
        state = self._state
        effects: list[Effect] = []
        for reason, leases in self._revoked.items():
            effects += revokes(state, leases, reason)
        for session_id, rows in self._asked.items():
            effects.append(
                SendRevokes(
                    session_id=session_id,
                    rows=[(row.job_id, row.lease) for row in rows],
                    unless_started=True,
                    reason="take_back",
                )
            )
        expired = [state.jobs[job_id] for ids in self._expired.values() for job_id in ids]
        effects += settling(state, self._ended, expired)
        if self._leases_expired:
            effects.append(Announce(event="expired", counts={"leases": self._leases_expired}))
        never_arrived = len(self._revoked.get("never_arrived", ()))
        if never_arrived:
            effects.append(Announce(event="taken_back", counts={"leases": never_arrived}))
        return effects

    def _look_at_queued(self, record: JobRecord) -> None:
        policy, now_ms = record.policy, self._now_ms
        if policy.deadline_ms and record.run_due_ms + policy.deadline_ms <= now_ms:
            self._expired.setdefault(FailureReason.TIMED_OUT, []).append(record.job_id)
        elif (
            policy.schedule_timeout_ms
            and record.run_due_ms + policy.schedule_timeout_ms <= now_ms
            and not has_started(record)
        ):
            self._expired.setdefault(FailureReason.EXPIRED, []).append(record.job_id)
        elif record.state in _READIED and record.ready_ms <= now_ms:
            self._ready(record)
        else:
            return
        self.decided.add(record.job_id)

    def _ready(self, record: JobRecord) -> None:
        """Lets a job become ready whose time has come, or puts a retry off that is one too many."""
        place_ms = self._place_of_retry(record) if record.state is JobState.RETRYING else None
        if place_ms is None:
            self._readied.append(record.job_id)
        else:
            self._put_off.append(_waiting(record, place_ms, JobState.RETRYING))

    def _place_of_retry(self, record: JobRecord, own_ms: int | None = None) -> int | None:
        """When its job type's budget may let a retry become ready; None: now.

        ``own_ms`` is the place that it was given before, if it was.
        """
        policy = record.policy
        name = policy.tenant, policy.name
        job_type = self._state.lanes.known_job_type(*name)
        if job_type is None or job_type.budget is None:
            return None
        budgeting = self._budgets.get(job_type)
        if budgeting is None:
            waits = self._state.postponed.waits(name)
            budgeting = job_type.budget.begin(self._now_ms, waits=waits)
            self._budgets[job_type] = budgeting
        return budgeting.place_ms(own_ms)

    def _look_at_running(self, record: JobRecord) -> None:
        policy, now_ms = record.policy, self._now_ms
        holding = self._state.holding_of(record)
        if holding is None:
            return
        if policy.deadline_ms and record.run_due_ms + policy.deadline_ms <= now_ms:
            fault = timeout_fault("the job did not end before its deadline", policy.deadline_ms)
            final = FailureReason.TIMED_OUT
            self._end(holding, AttemptOutcome.TIMED_OUT, fault, "deadline", final)
            return
        if not holding.started_ms:
            return
        config = self._state.config
        limit_ms, silence_ms = policy.timeout_ms, policy.heartbeat_timeout_ms
        if limit_ms and holding.started_ms + limit_ms + config.timeout_grace_ms <= now_ms:
            fault = timeout_fault("the attempt did not end within its timeout", limit_ms)
        elif silence_ms and holding.progress_ms + silence_ms + config.progress_grace_ms <= now_ms:
            what = "the attempt reported no progress within its heartbeat timeout"
            fault = timeout_fault(what, silence_ms)
        else:
            return
        self._end(holding, AttemptOutcome.TIMED_OUT, fault, "timeout")

    def _never_arrived(self, holding: Holding) -> None:
        """Ends a lease whose grant was not answered while its session is alive."""
        # Nobody knows that it did not run: a job that must not run twice is lost.
        final = FailureReason.LOST if holding.record.policy.at_most_once else None
        self._end(holding, AttemptOutcome.RELEASED, None, "never_arrived", final)

    def _end(
        self,
        holding: Holding,
        outcome: AttemptOutcome,
        fault: JobFault | None,
        reason: str,
        final: FailureReason | None = None,
    ) -> None:
        record = holding.record
        if record.job_id in self.decided:
            return
        self.decided.add(record.job_id)
        lease = lease_of(record)
        self._ended.append(
            end_attempt(
                self._state,
                record,
                lease,
                outcome,
                fault,
                now_ms=self._now_ms,
                started_ms=holding.started_ms,
                accepted_ms=holding.accepted_ms,
                draw=next(self._draws),
                never_arrived=outcome is AttemptOutcome.RELEASED,
                final=final,
            )
        )
        lost = self._revoked.setdefault(reason, [])
        lost.append((record.incarnation, record.job_id, lease))

    def _idle_instead(self, busy: Session, holding: Holding) -> bool:
        """Whether another session has nothing to do and could run the job; takes its slot."""
        if self._idle is None:
            self._idle = self._find_idle()
        policy = holding.record.policy
        for session, free in self._idle:
            if not free or session is busy:
                continue
            if session.skill.serves(policy.queue, policy.name, policy.requires):
                free.pop()
                return True
        return False

    def _find_idle(self) -> list[tuple[Session, list[None]]]:
        state = self._state
        idle = []
        for session in state.sessions.values():
            free = session.slots - len(session.holder.leases)
            if free <= 0:
                continue
            if not session.may_be_granted(self._now_ms, state.config.accept_timeout_ms):
                continue
            if not session.has_work():
                idle.append((session, [None] * free))
        return idle


def _waiting(record: JobRecord, ready_ms: int, to: JobState) -> BoostedRow:
    """A retry that becomes ready now, or has another place from now on."""
    over_budget = to is JobState.RETRYING
    return BoostedRow(record.job_id, record.priority, ready_ms, record.run_due_ms, to, over_budget)


def apply_timers_fired(state: State, event: TimersFired) -> None:
    """Arms again what was looked at and still waits."""
    now_ms = state.lanes.now_ms = event.now_ms
    if event.parked:
        # The events before this one, of the same decision, may have ended a job's last child.
        pinned = [job_id for job_id in event.parked if state.dependencies.pins(job_id)]
        state.finished.park([state.jobs[job_id] for job_id in pinned], state.lanes.counts)
    for record in state.timers.take(event.job_mark):
        due_ms = state.due_ms(record)
        if due_ms is not None:
            state.timers.arm_at(record, max(due_ms, now_ms + 1))
    for gate in state.lanes.refills.take(event.refill_mark):
        state.lanes.refills.look_at(gate, now_ms)
    for tenant, name, last_ms in event.put_off:
        budget = state.lanes.job_type(tenant, name).budget
        if budget is not None:
            budget.put_off(last_ms, now_ms)
    for part in event.hurried:
        state.postponed.looked_at(part)
    for holder in state.holder_timers.take(event.holder_mark):
        if holder.check_ms <= now_ms:
            holder.check_ms = 0
            if state.holders.get(holder.incarnation) is holder:
                state.watch(holder, now_ms)
    timetable = state.timetable
    for schedule in timetable.take(event.schedule_mark):
        due_ms = timetable.due_ms(schedule)
        if due_ms is not None:
            wait_ms = state.config.retry_after_ms if schedule.key in event.held else 1
            timetable.timers.arm_at(schedule, max(due_ms, now_ms + wait_ms))


def skip_fired(state: State) -> None:
    """Drops entries that are over by the journal's time; who still waits has a new one.

    Only a leader fires timers. Whoever follows its journal would hold an entry of every delay that
    there ever was, and would have to look at all of them when it leads.
    """
    over = (state.stamp_ms + 1, 0)
    for record in {record.job_id: record for record in state.timers.take(over)}.values():
        if state.jobs.get(record.job_id) is record:
            state.timers.arm(record)
    for schedule in state.timetable.take(over):
        state.timetable.timers.arm(schedule)


def apply_readied(state: State, event: JobsReadied, seq: int) -> None:
    """Makes jobs PENDING whose delay or backoff is over: there may be many at one time."""
    jobs = state.jobs
    readied: dict[JobState, list[JobRecord]] = {}
    for job_id in event.job_ids:
        record = jobs.get(job_id)
        if record is not None and record.seq < seq:
            readied.setdefault(record.state, []).append(record)
            record.seq = seq
            record.state = JobState.PENDING
    for before, records in readied.items():
        state.readied(records, before)


def apply_expired(state: State, event: JobsExpired, seq: int) -> None:
    """Fails queued jobs whose time is over."""
    for record in state.written(event.job_ids, seq):
        record.state = JobState.FAILED
        record.ended_ms = event.now_ms
        record.failure_reason = event.failure_reason
        record.checkpoint = None
