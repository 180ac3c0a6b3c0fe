"""A partition: the facade of the core, and where commands and events find their functions.

```
 command ─► decide (reads) ─► Decision: events, effects, reply
                                  │
                                  └─► apply (writes), event by event, in order
```
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from tenure.master.core import (
    batch,
    boost,
    checkpoint,
    configure,
    control,
    dependents,
    dispatch,
    fire,
    health,
    intake,
    kept_log,
    lease,
    limit,
    query,
    report,
    schedule,
    submit,
    term,
    volatile,
    workflow,
)
from tenure.master.core import command as commands
from tenure.master.core import event as events
from tenure.master.core.bulk import BatchAdvanced, BatchCreated, BatchRecord
from tenure.master.core.config import PartitionConfig, Retention
from tenure.master.core.effect import Decision
from tenure.master.core.explain import Explaining, Halt
from tenure.master.core.format import NEWEST
from tenure.master.core.outbox import Numbered
from tenure.master.core.query import EVERY_JOB
from tenure.master.core.rebuild import rebuild
from tenure.master.core.record import JobRecord
from tenure.master.core.session import Holding
from tenure.master.core.settings import Settings, SettingsKey, SettingsKind
from tenure.master.core.snapshot import Slice, SnapshotCursor, load_slice, state_hash
from tenure.master.core.state import JobChange, State
from tenure.master.core.timetable import ScheduleName, ScheduleRecord
from tenure.master.core.tombstone import Tombstone
from tenure.master.core.workflows import Workflows
from tenure.protocol.fence import Token
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Refusal
from tenure.protocol.vocabulary import JobState

__all__ = ["Partition", "PartitionConfig", "Retention"]

Applier: TypeAlias = Callable[[State, Any, int], None]

#: What a release knows that reads the journal's first format only.
_FIRST: Final[dict[type, Applier]] = {
    events.JobsSubmitted: submit.apply_submitted,
    events.JobsGranted: dispatch.apply_granted,
    events.JobsCompleted: report.apply_completed,
    events.JobsPurged: control.apply_purged,
    events.AttemptsEnded: report.apply_ended,
    events.LeasesAdopted: report.apply_adopted,
    events.JobsReadied: fire.apply_readied,
    events.JobsExpired: fire.apply_expired,
    events.JobsCancelled: control.apply_cancelled,
    events.CancelsRequested: control.apply_cancels_requested,
    events.JobsRequeued: control.apply_requeued,
    events.TermOpened: term.apply_term_opened,
    events.TermClosed: term.apply_term_closed,
}

#: What came later.
_LATER: Final[dict[type, Applier]] = {
    events.CheckpointsSaved: checkpoint.apply_saved,
    events.LogsKept: kept_log.apply_logs_kept,
    events.JobsBoosted: boost.apply_boosted,
    events.SettingsChanged: configure.apply_settings_changed,
    events.SchedulePut: schedule.apply_put,
    events.SchedulePaused: schedule.apply_paused,
    events.ScheduleDeleted: schedule.apply_deleted,
    events.SchedulesTicked: schedule.apply_ticked,
    events.DependentsResolved: dependents.apply_resolved,
    events.JobsWithdrawn: dependents.apply_withdrawn,
    events.ChildRegistered: dependents.apply_registered,
    events.ChildReleased: dependents.apply_released,
    events.ParentTold: dependents.apply_told,
    events.OutboxAppended: intake.apply_appended,
    events.OutboxTrimmed: intake.apply_trimmed,
    events.InboxTaken: intake.apply_taken,
    BatchCreated: batch.apply_created,
    BatchAdvanced: batch.apply_advanced,
    events.WorkflowsWritten: workflow.apply_written,
    events.WorkflowsForgotten: workflow.apply_forgotten,
}


def _raising(applier: Applier) -> Applier:
    """As the function does, and the journal goes on in a format that has a place for it."""

    def apply(state: State, event: Any, seq: int) -> None:
        state.format = NEWEST
        applier(state, event, seq)

    return apply


_DURABLE: Final = {**_FIRST, **{event: _raising(applier) for event, applier in _LATER.items()}}

#: What is not applied alike to the leader's own partition and to one that follows a journal.
_REPLAYED: Final = {**_DURABLE, events.TermOpened: term.apply_term_replayed}

#: What only the leader of an open term may decide; workers' messages are silently dropped then.
_CHANGES: Final = frozenset(
    {
        commands.SubmitJobs,
        commands.CancelJobs,
        commands.RequeueJobs,
        commands.PurgeJobs,
        commands.BoostJobs,
        commands.UpdateSettings,
        commands.PutSchedule,
        commands.PauseSchedule,
        commands.TriggerSchedule,
        commands.DeleteSchedule,
        commands.TakeMessage,
        commands.CreateBatch,
        commands.AdvanceBatch,
        commands.CancelBatch,
        commands.OpenWorkflow,
        commands.SealWorkflow,
        commands.CancelWorkflow,
        commands.RetryWorkflow,
    }
)

_VOLATILE: Final[dict[type, Callable[[State, Any], None]]] = {
    volatile.SessionOpened: lease.apply_session_opened,
    volatile.SessionClosed: lease.apply_session_closed,
    volatile.SessionDrained: lease.apply_session_drained,
    volatile.SessionUndrained: lease.apply_session_undrained,
    volatile.SessionMarked: health.apply_marked,
    volatile.SessionUnmarked: health.apply_unmarked,
    volatile.LeasesDeclared: lease.apply_declared,
    volatile.LeasesRenewed: lease.apply_renewed,
    volatile.ClaimsReturned: lease.apply_claims_returned,
    volatile.HeldSent: dispatch.apply_held_sent,
    volatile.AssignmentAccepted: lease.apply_accepted,
    volatile.LeasesStarted: lease.apply_started,
    volatile.TakeBacksAsked: lease.apply_take_backs_asked,
    volatile.LeasesRestarted: lease.apply_leases_restarted,
    volatile.DeadlinesPushed: lease.apply_deadlines_pushed,
    volatile.ReportsKept: term.apply_reports_kept,
    volatile.WindowClosed: term.apply_window_closed,
    volatile.TurnsTaken: dispatch.apply_turns_taken,
    volatile.KeysRelieved: limit.apply_keys_relieved,
    volatile.TimersFired: fire.apply_timers_fired,
}


class Partition:
    """One partition: what is decided about its jobs, and what is known of them.

    Recovery: ``load_slice`` for each slice of the snapshot, ``replay`` for each event since it
    began, ``finish_replay``; then ``decide`` and ``apply``, an ``OpenTerm`` first. A standby goes
    on with ``replay`` after a ``finish_replay`` while another leads, and finishes once more.
    """

    def __init__(self, config: PartitionConfig) -> None:
        self.config = config
        self._state = State(config)

    @property
    def next_seq(self) -> int:
        """The seq that the next durable event will get."""
        return self._state.next_seq

    @property
    def stamp_ms(self) -> int:
        """The highest time in any event."""
        return self._state.stamp_ms

    @property
    def token(self) -> Token:
        """The token of the newest term."""
        return self._state.token

    @property
    def format(self) -> int:
        """The lowest format of the journal that has a place for all that is kept."""
        return self._state.format

    # Deciding and applying.

    def decide(self, command: commands.Command, now_ms: int) -> Decision | Refusal:
        """What a command comes to now; changes nothing.

        Time must not run back: ``now_ms`` is at least ``stamp_ms``.
        """
        state = self._state
        if not state.serving and type(command) in _CHANGES:
            return term.not_serving(state)
        match command:
            case commands.SubmitJobs():
                return submit.decide_submit(state, command, now_ms)
            case commands.Dispatch():
                return dispatch.decide_dispatch(state, command, now_ms)
            case commands.SendHeld():
                return dispatch.decide_send_held(state, command, now_ms)
            case commands.ReportAttempts():
                return report.decide_report(state, command, now_ms)
            case commands.StartLeases():
                return lease.decide_start(command, now_ms)
            case commands.RenewLeases():
                return lease.decide_renew(state, command, now_ms)
            case commands.FireTimers():
                return fire.decide_fire(state, command, now_ms)
            case commands.SaveCheckpoints():
                return checkpoint.decide_save(state, command, now_ms)
            case commands.ReturnLeases():
                return lease.decide_return(state, command, now_ms)
            case commands.DeclareLeases():
                return lease.decide_declare(state, command, now_ms)
            case commands.OpenSession():
                return lease.decide_open_session(command, now_ms)
            case commands.CancelJobs() | commands.RequeueJobs() | commands.PurgeJobs():
                return control.decide(state, command, now_ms)
            case commands.BoostJobs():
                return boost.decide_boost(state, command, now_ms)
            case commands.UpdateSettings():
                return configure.decide_update(state, command, now_ms)
            case (
                commands.PutSchedule()
                | commands.PauseSchedule()
                | commands.TriggerSchedule()
                | commands.DeleteSchedule()
            ):
                return schedule.decide(state, command, now_ms)
            case (
                commands.OpenWorkflow()
                | commands.SealWorkflow()
                | commands.CancelWorkflow()
                | commands.RetryWorkflow()
            ):
                return workflow.decide(state, command, now_ms)
            case commands.ResolveDependents():
                return dependents.decide_resolve(state, command, now_ms)
            case commands.TakeMessage():
                return intake.decide_take(state, command, now_ms)
            case commands.TrimOutbox():
                return intake.decide_trim(state, command, now_ms)
            case commands.CreateBatch() | commands.AdvanceBatch() | commands.CancelBatch():
                return batch.decide_batch(state, command, now_ms)
            case commands.OpenTerm() | commands.CloseTerm() | commands.CloseWindow():
                return term.decide(state, command, now_ms)
            case _:
                return Decision(events=(_noted(command, now_ms),))

    def apply(self, event: events.Event) -> None:
        """Takes an event over; a durable one gets ``next_seq``."""
        state = self._state
        durable = _DURABLE.get(type(event))
        if durable is None:
            _VOLATILE[type(event)](state, event)
            return
        seq = state.next_seq
        state.next_seq = seq + 1
        self._write(durable, event, seq)

    def replay(self, event: events.DurableEvent, seq: int) -> None:
        """Takes a journaled event over; what has seen it already skips it."""
        self._state.next_seq = max(self._state.next_seq, seq + 1)
        self._write(_REPLAYED[type(event)], event, seq)

    def pass_time(self) -> None:
        """Lets go of what only a leader uses up, while another leads: timers and answers."""
        fire.skip_fired(self._state)
        self.drain_answers()

    def finish_replay(self) -> None:
        """Rebuilds what is derived; from here on every event keeps it up.

        Again, after more was replayed, it costs little: only who holds what is found anew.
        """
        for _ in self.finish_replay_in_steps():
            pass

    def finish_replay_in_steps(self) -> Iterator[None]:
        """As ``finish_replay``, with pauses between its steps; done when it is exhausted."""
        state = self._state
        term.find_holders(state)
        yield
        if not state.live:
            yield from rebuild(state)
            return
        self.drain_answers()
        state.reset_holder_timers()
        running = [h.record for holder in state.holders.values() for h in holder.leases.values()]
        for record in running:
            state.timers.arm(record)
        state.lanes.rebind(running)

    # Time.

    def next_timer_ms(self) -> int | None:
        """When ``FireTimers`` has something to do; None: nothing waits for a time."""
        return fire.next_timer_ms(self._state)

    def next_job_timer_ms(self) -> int | None:
        """As ``next_timer_ms``, of jobs that have not ended: neither purges nor workers' leases."""
        return fire.next_job_timer_ms(self._state)

    def next_tick_ms(self) -> int | None:
        """When a schedule may have a tick; None: none will."""
        return self._state.timetable.timers.next_ms()

    @property
    def window_open(self) -> bool:
        """Whether leases are being re-declared and nothing is granted yet."""
        return self._state.window_ends_ms is not None

    @property
    def window_ends_ms(self) -> int | None:
        """When the window ends at the latest; None: it is not open."""
        return self._state.window_ends_ms

    def window_due(self, now_ms: int) -> bool:
        """Whether ``CloseWindow`` is due: all that held leases are back, or the time is over."""
        return term.window_due(self._state, now_ms)

    # Other partitions, and jobs that wait for others.

    def has_dependents_due(self) -> bool:
        """Whether ``ResolveDependents`` has something to do."""
        return dependents.is_due(self._state)

    def drain_answers(self) -> list[tuple[JobId, Refusal | None]]:
        """Jobs of unsettled submits since the last call: their parents exist, or why they do not;
        those of another partition have arrived there.

        The latter are withdrawn: there are no such jobs any more.
        """
        answers = self._state.dependencies.answers
        if answers:
            self._state.dependencies.answers = []
        return answers

    def outbox_targets(self) -> dict[int, int]:
        """Partitions for which messages wait, and the number of the newest one for each."""
        outbox = self._state.outbox
        return {target: outbox.last_number(target) for target in outbox.targets()}

    def outbox_after(self, target: int, number: int, count: int) -> list[Numbered]:
        """The oldest messages for a target with higher numbers than this."""
        return self._state.outbox.waiting(target, number, count)

    # Looking.

    def has_ready(self) -> bool:
        """Whether some ready job waits for nothing but credit."""
        return self._state.lanes.has_work()

    def backlog_for(self, session_id: int) -> int:
        """How many ready jobs wait for nothing but credit of a session like this one."""
        return query.backlog_for(self._state, session_id)

    def get(self, job_id: JobId) -> JobRecord | Tombstone | None:
        """A job, or what is left of it; the record is the live one: do not keep it."""
        record = self._state.jobs.get(job_id)
        return record or self._state.tombstones.get(job_id, self._state.stamp_ms)

    def holding_of(self, job_id: JobId) -> Holding | None:
        """What is known in this term of a running job: start and progress."""
        record = self._state.jobs.get(job_id)
        return None if record is None else self._state.holding_of(record)

    def session_of(self, job_id: JobId) -> int | None:
        """The stream of the worker that runs a job; None: it does not run, or has no stream."""
        record = self._state.jobs.get(job_id)
        if record is None or self._state.holding_of(record) is None:
            return None
        session = self._state.holders[record.incarnation].session
        return None if session is None else session.session_id

    def scan(
        self, wanted: query.Filter = EVERY_JOB, *, before_ordinal: int | None = None
    ) -> query.Scan:
        """A look for jobs that match, newest first, in slices.

        Args:
            wanted: Which jobs.
            before_ordinal: Only jobs submitted before the one with this ordinal.
        """
        return query.Scan(self._state, wanted, before_ordinal)

    def counts(self, wanted: query.Filter = EVERY_JOB) -> dict[JobState, int]:
        """How many jobs match but for ``also``, by state, those states only that have some."""
        return query.counts(self._state, wanted)

    def census(
        self, kind: SettingsKind, wanted: query.Filter = EVERY_JOB
    ) -> dict[SettingsKey, list[int]]:
        """All queues, tenants or job types there are, and their jobs counted by state."""
        return query.census(self._state, kind, wanted)

    @property
    def workflows(self) -> Workflows:
        """Its workflows, and its jobs that are members: the live object, only to look at."""
        return self._state.workflows

    def schedule(self, tenant: str, name: str) -> ScheduleRecord | None:
        """A schedule; the record is the live one: do not keep it."""
        return self._state.timetable.records.get((tenant, name))

    def schedules(self, tenant: str, after: ScheduleName, count: int) -> list[ScheduleRecord]:
        """Schedules in order of tenant and name, of one tenant or ("") of all; live records.

        Args:
            tenant: Whose.
            after: Only those behind this one; it need not exist.
            count: At most so many.
        """
        return self._state.timetable.page(tenant, after, count)

    def batch(self, batch_id: str) -> BatchRecord | None:
        """A batch; the record is the live one: do not keep it."""
        return self._state.batches.get(batch_id)

    def batches(self) -> list[BatchRecord]:
        """All batches that are remembered, newest first; live records."""
        return sorted(self._state.batches.values(), key=lambda each: each.batch_id, reverse=True)

    def queue_status(self, tenant: str, name: str, now_ms: int) -> query.QueueStatus:
        """How a queue does."""
        return query.queue_status(self._state, tenant, name, now_ms)

    def job_type_status(self, tenant: str, name: str, now_ms: int) -> query.JobTypeStatus:
        """How a job type does."""
        return query.job_type_status(self._state, tenant, name, now_ms)

    def explain(
        self, job_id: JobId, credits: list[tuple[int, int]], now_ms: int, halt: Halt | None = None
    ) -> Explaining | None:
        """Why a job does not run, counted in slices; None: there is no such job.

        Args:
            job_id: The job.
            credits: (session, credit) of all sessions that have some.
            now_ms: The time.
            halt: Why the node grants nothing now, if it does not.
        """
        record = self._state.jobs.get(job_id)
        return None if record is None else Explaining(self._state, record, credits, now_ms, halt)

    @property
    def settings(self) -> Settings:
        """How its queues, tenants and job types are run: the live object, only to look at."""
        return self._state.settings

    def stats(self) -> query.PartitionStats:
        """The partition's size."""
        return query.stats(self._state)

    def held_by(self, session_id: int, most: int) -> list[tuple[JobRecord, Holding]]:
        """What the worker of a session holds, in the order of the grants, so many at most."""
        return query.held_by(self._state, session_id, most)

    def sessions(self) -> list[query.SessionStatus]:
        """Its open sessions, oldest first."""
        return query.sessions(self._state)

    # Watching.

    def watch_changes(self, watched: bool) -> None:
        """Starts or stops to remember changes for ``drain_changes``, those of a replay too."""
        if watched is not (self._state.changes is not None):
            self._state.changes = [] if watched else None

    def drain_changes(self) -> list[JobChange]:
        """Changes of jobs' states since the last call, in order; empty if nobody watches."""
        changes = self._state.changes
        if not changes:
            return []
        self._state.changes = []
        return changes

    # Snapshots.

    def snapshot(self) -> SnapshotCursor:
        """Begins a snapshot that goes on while events are applied."""
        return SnapshotCursor(self._state)

    def begin_snapshot(self, format_: int) -> None:
        """Before a snapshot's slices: what is in them may need its format, whatever it is."""
        self._state.format = max(self._state.format, format_)

    def load_slice(self, part: Slice) -> None:
        """Takes over one slice of a snapshot, in their order, before any ``replay``.

        Raises:
            UnknownSlice: No release up to this one writes such slices.
        """
        load_slice(self._state, part)

    def state_hash(self) -> bytes:
        """A hash of all that is persistent: equal after any replay of the same events."""
        return state_hash(self._state)

    def _write(self, applier: Applier, event: Any, seq: int) -> None:
        state = self._state
        if event.now_ms > state.stamp_ms:
            state.stamp_ms = state.lanes.now_ms = event.now_ms
        applier(state, event, seq)
        state.keys.sweep(state.stamp_ms)
        state.tombstones.sweep(state.stamp_ms)


def _noted(
    command: commands.AcceptAssignment
    | commands.CloseSession
    | commands.DrainSession
    | commands.UndrainSession
    | commands.MarkSession
    | commands.RestartLeases
    | commands.PushDeadlines,
    now_ms: int,
) -> volatile.VolatileEvent:
    """What comes of commands that are only taken note of."""
    match command:
        case commands.AcceptAssignment(session_id=session_id, number=number):
            return volatile.AssignmentAccepted(now_ms=now_ms, session_id=session_id, number=number)
        case commands.CloseSession(session_id=session_id):
            return volatile.SessionClosed(session_id=session_id)
        case commands.DrainSession(session_id=session_id):
            return volatile.SessionDrained(session_id=session_id)
        case commands.UndrainSession(session_id=session_id):
            return volatile.SessionUndrained(session_id=session_id)
        case commands.MarkSession():
            return health.marked(command, now_ms)
        case commands.RestartLeases():
            return volatile.LeasesRestarted(now_ms=now_ms)
        case commands.PushDeadlines(gap_ms=gap_ms):
            return volatile.DeadlinesPushed(gap_ms=gap_ms)
