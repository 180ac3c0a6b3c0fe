"""Everything a partition knows. Deciders read it, appliers write it, nobody else touches it.

Three kinds of things, and the order in which they can be trusted:

- *persistent*: written by durable events only, in the snapshot, in the state hash;
- *derived*: a function of what is persistent, kept up event by event, rebuilt after a replay;
- *volatile*: what workers told this term; empty after a replay.
"""

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar

import msgspec

from tenure.master.core import transition
from tenure.master.core.alike import pieces
from tenure.master.core.bulk import BatchRecord
from tenure.master.core.command import ReportRow
from tenure.master.core.config import PartitionConfig
from tenure.master.core.dependency import Dependencies
from tenure.master.core.format import FIRST, NEWEST, format_of
from tenure.master.core.health import Health
from tenure.master.core.key import Keys
from tenure.master.core.lanes import Lanes
from tenure.master.core.outbox import InboxMarks, Outbox
from tenure.master.core.postponed import Postponed
from tenure.master.core.ready import order_key
from tenure.master.core.record import NO_TIES, JobFault, JobRecord, Policy, Ties
from tenure.master.core.retention import Finished
from tenure.master.core.session import Holder, Holding, Session
from tenure.master.core.settings import Settings, SettingsKey, SettingsKind
from tenure.master.core.timer import Timers
from tenure.master.core.timetable import Timetable
from tenure.master.core.tombstone import Tombstones
from tenure.master.core.workflows import Workflows
from tenure.protocol.fence import NO_TOKEN, Lease, Token
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import JobState

#: What an event says of one job.
Row = TypeVar("Row")
T = TypeVar("T")

#: Policies, and ties.
_KNOWN_MAX: Final = 4_096
_RUNNING: Final = JobState.RUNNING


class JobChange(msgspec.Struct, frozen=True, gc=False):
    """A job's new state, for watches."""

    job_id: JobId
    state: JobState
    policy: Policy
    changed_ms: int
    seq: int


class KeptReport(NamedTuple):
    """A report that came while the window was open, and who sent it."""

    session_id: int
    incarnation: str
    worker: str
    row: ReportRow


class State:
    """The state of one partition."""

    __slots__ = (
        "batches",
        "changes",
        "config",
        "dependencies",
        "finished",
        "format",
        "health",
        "holder_timers",
        "holders",
        "id_partition",
        "inbox",
        "jobs",
        "kept",
        "keys",
        "known",
        "known_ties",
        "lanes",
        "lease_seq",
        "live",
        "next_ordinal",
        "next_seq",
        "outbox",
        "policies",
        "postponed",
        "serving",
        "sessions",
        "settings",
        "stamp_ms",
        "stored_bytes",
        "timers",
        "timetable",
        "token",
        "tombstones",
        "window_ends_ms",
        "window_ms",
        "workflows",
    )

    def __init__(self, config: PartitionConfig) -> None:
        self.config = config
        #: What characters 15 to 18 of the partition's job ids are.
        self.id_partition = f"{config.partition:03x}"

        # Persistent.
        #: In order of their ordinals.
        self.jobs: dict[JobId, JobRecord] = {}
        self.keys = Keys()
        self.tombstones = Tombstones()
        self.settings = Settings()
        #: Schedules; what waits for them is derived.
        self.timetable = Timetable(self.is_open)
        self.outbox = Outbox()
        self.inbox = InboxMarks()
        #: What is persistent of them; the rest is derived.
        self.workflows = Workflows()
        self.batches: dict[str, BatchRecord] = {}
        self.dependencies = Dependencies(self.id_partition, self.workflows, self.batches)
        self.next_seq = 1
        self.next_ordinal = 1
        #: The highest time journaled.
        self.stamp_ms = 0
        #: Of the newest term.
        self.token: Token = NO_TOKEN
        #: The lowest of the journal that has a place for all this; it never falls.
        self.format = FIRST

        # Derived.
        #: Whether derived things are kept up: not before the replay is over.
        self.live = False
        #: Equal ones are one object, as far as this remembers.
        self.policies: dict[Policy, Policy] = {}
        self.known_ties: dict[Ties, Ties] = {}
        self.reset_derived()

        # Volatile.
        #: Between TermOpened and TermClosed of this process's own term.
        self.serving = False
        #: When the adoption window ends; None: it is closed.
        self.window_ends_ms: int | None = None
        #: How long it is, if nothing stands still.
        self.window_ms = 0
        #: Incarnations that held leases when the term was opened.
        self.known: list[str] = []
        self.lease_seq = 0
        self.holders: dict[str, Holder] = {}
        #: How workers have done lately.
        self.health = Health(config.quarantine_failures)
        self.sessions: dict[int, Session] = {}
        #: Reports kept for the window's end, by job and lease.
        self.kept: dict[tuple[JobId, Lease], KeptReport] = {}
        #: Changes since the last drain; None: nobody watches.
        self.changes: list[JobChange] | None = None

    def reset_derived(self) -> None:
        """Empties what is derived."""
        self.lanes = Lanes(self.settings)
        self.postponed = Postponed()
        self.finished = Finished(self.config.retention)
        self.timers: Timers[JobRecord] = Timers(
            self.due_ms, attrgetter("job_id"), lambda: len(self.jobs)
        )
        self.reset_holder_timers()
        self.timetable.reset_derived()
        self.workflows.reset_derived()
        #: Payloads, results, errors, saved states and logs, all together.
        self.stored_bytes = 0

    def reset_holder_timers(self) -> None:
        """Looks at no holder any more."""
        self.holder_timers: Timers[Holder] = Timers(
            lambda holder: holder.check_ms or None,
            attrgetter("incarnation"),
            lambda: len(self.holders),
        )

    def intern(self, policy: Policy) -> Policy:
        """The one object for equal policies."""
        known = self.policies.get(policy)
        if known is None:
            self.format = max(self.format, format_of(policy))
            known = _one(self.policies, policy)
        return known

    def intern_ties(self, ties: Ties) -> Ties:
        """The one object for equal ties; those with parents are a job's own."""
        if ties == NO_TIES:
            return NO_TIES
        self.format = NEWEST
        return ties if ties.parents else _one(self.known_ties, ties)

    def holding_of(self, record: JobRecord) -> Holding | None:
        """What is known of a running job's lease in this term."""
        if record.state is not _RUNNING:
            return None
        holder = self.holders.get(record.incarnation)
        return None if holder is None else holder.leases.get(record.job_id)

    def load(self) -> float:
        """The share of its workers' slots that are taken; 0 if it has none."""
        slots = sum([session.slots for session in self.sessions.values()])
        leases = sum([len(holder.leases) for holder in self.holders.values()])
        return min(leases / slots, 1.0) if slots else 0.0

    def is_open(self, job_id: str) -> bool:
        """Whether a job is there and has not ended."""
        record = self.jobs.get(JobId(job_id))
        return record is not None and record.state not in transition.TERMINAL

    def due_ms(self, record: JobRecord) -> int | None:
        """When a job next wants to be looked at by a timer; None: it waits for none."""
        policy, state = record.policy, record.state
        if state is JobState.BLOCKED:
            # Its time begins when its parents let it run.
            return None
        if state in transition.TERMINAL:
            if (
                policy.result_ttl_ms
                and self.jobs.get(record.job_id) is record
                and not self.dependencies.pins(record.job_id)
            ):
                return record.ended_ms + policy.result_ttl_ms
            return None
        due: list[int] = []
        if policy.deadline_ms:
            due.append(record.run_due_ms + policy.deadline_ms)
        if state is JobState.RUNNING:
            holding = self.holding_of(record)
            if holding is not None and holding.started_ms:
                config = self.config
                if policy.timeout_ms:
                    due.append(holding.started_ms + policy.timeout_ms + config.timeout_grace_ms)
                if policy.heartbeat_timeout_ms:
                    limit_ms = policy.heartbeat_timeout_ms + config.progress_grace_ms
                    due.append(holding.progress_ms + limit_ms)
        else:
            if state is JobState.SCHEDULED or state is JobState.RETRYING:
                due.append(record.ready_ms)
            if policy.schedule_timeout_ms and not has_started(record):
                due.append(record.run_due_ms + policy.schedule_timeout_ms)
        return min(due) if due else None

    def written(self, job_ids: Iterable[JobId], seq: int) -> Iterator[JobRecord]:
        """The jobs that an event writes, one by one, as ``written_rows`` gives them."""
        return (
            record for record, _ in self.written_rows(((job_id, None) for job_id in job_ids), seq)
        )

    def written_rows(
        self, rows: Iterable[tuple[JobId, Row]], seq: int
    ) -> Iterator[tuple[JobRecord, Row]]:
        """The jobs that an event writes, with its rows: those that are there and have not seen it.

        What is derived from a job follows when the loop goes on to the next one: never break out.
        """
        for job_id, row in rows:
            record = self.jobs.get(job_id)
            if record is None or record.seq >= seq:
                continue
            before, size, priority = record.state, footprint(record), record.priority
            record.seq = seq
            yield record, row
            self.moved(record, before, size, priority)

    def moved(
        self, record: JobRecord, before: JobState, bytes_before: int, priority_before: int
    ) -> None:
        """Keeps up what is derived from one job that an event has changed, and tells watches.

        Args:
            record: The job as it is now.
            before: The state it had.
            bytes_before: The ``footprint`` it had.
            priority_before: The priority it had.
        """
        if self.live:
            self._keep_up(record, before, bytes_before, priority_before)
        if self.changes is not None and record.state is not before:
            self.note([record])

    def _keep_up(
        self, record: JobRecord, before: JobState, bytes_before: int, priority_before: int
    ) -> None:
        self.lanes.move([record], before, record.state, priority_before=priority_before)
        self.stored_bytes += footprint(record) - bytes_before
        if before is JobState.RETRYING:
            self.postponed.note([record])
        if before in transition.TERMINAL:
            self.finished.leave(record, before)
            self.finished.settle(self.lanes.counts)
        if record.parents or self.dependencies.active:
            self.dependents_moved(record, before)
        self._place(record)

    def readied(self, records: list[JobRecord], before: JobState) -> None:
        """As ``moved``, of jobs that waited for a time and that one event has made PENDING."""
        if self.live:
            self.lanes.move(records, before, JobState.PENDING)
            if before is JobState.RETRYING:
                self.postponed.note(records)
            for part in pieces(records):
                first = part[0]
                key = order_key(first.priority, first.ready_ms, self.config.aging_step_ms)
                self.lanes.push(key, first.seq, part)
                if first.policy.deadline_ms or first.policy.schedule_timeout_ms:
                    for record in part:
                        self.timers.arm(record)
        self.note(records)

    def _place(self, record: JobRecord) -> None:
        """Puts a job where its state says it waits."""
        state = record.state
        if state is JobState.PENDING:
            key = order_key(record.priority, record.ready_ms, self.config.aging_step_ms)
            self.lanes.push(key, record.seq, [record])
        elif state in transition.TERMINAL:
            self.finished.push(state, record.ended_ms, record.seq, [record])
            self.timetable.ended(record.job_id)
        self.timers.arm(record)

    def dependents_moved(self, record: JobRecord, before: JobState) -> None:
        """Keeps up what waits for a job, or is waited for by it, after its state has changed."""
        self.unpinned(self.dependencies.moved(self.jobs, record, before))

    def unpinned(self, parents: list[JobId]) -> None:
        """These jobs are purged when their time comes: no child that has not ended needs them."""
        for job_id in parents:
            record = self.jobs.get(job_id)
            if record is not None and record.state in transition.TERMINAL:
                self.finished.unpark(record)
                self.timers.arm(record)

    def settings_changed(self, kind: SettingsKind, key: SettingsKey) -> None:
        """Keeps up what is derived from settings, after an event has changed some."""
        if not self.live:
            return
        match kind:
            case SettingsKind.QUEUE:
                self.lanes.configure_queue(key[0], key[1], self.stamp_ms)
            case SettingsKind.TENANT:
                self.lanes.configure_tenant(key[0])
            case SettingsKind.JOB_TYPE:
                if self.lanes.configure_job_type(key[0], key[1]):
                    self.postponed.relax((key[0], key[1]))

    def lease_deadline_ms(self, now_ms: int) -> int:
        """Until when leases renewed now are valid, as the master sees it."""
        return now_ms + self.config.lease_ttl_ms + self.config.lease_margin_ms

    def holder(self, incarnation: str, worker: str, now_ms: int) -> Holder:
        """A worker process; one that was not known is first heard of now."""
        holder = self.holders.get(incarnation)
        if holder is None:
            holder = self.holders[incarnation] = Holder(incarnation, worker)
            if self.window_ends_ms is None:
                holder.deadline_ms = self.lease_deadline_ms(now_ms)
        return holder

    def release(self, record: JobRecord) -> None:
        """Takes a job that runs no more from its holder."""
        holder = self.holders.get(record.incarnation)
        if holder is not None:
            holding = holder.leases.pop(record.job_id, None)
            if holding is not None and self.lanes.timed:
                self.settle_run(holder, holding, self.stamp_ms)
            self.forget_if_idle(holder)

    def settle_run(self, holder: Holder, holding: Holding, ended_ms: int) -> None:
        """Puts right what a job was charged, in a queue that is counted in time.

        What it ran in an earlier term, or before its queue was counted in time, it does not owe:
        nobody else was charged for that time, either.
        """
        policy = holding.record.policy
        queue = self.lanes.queues.get((policy.tenant, policy.queue))
        since_ms = None if queue is None else self.lanes.timed.get(queue)
        if queue is None or since_ms is None or holder.session is None:
            return
        began_ms = holding.started_ms or ended_ms
        queue.note_run(max(ended_ms - began_ms, 0))
        owed_ms = max(ended_ms - max(began_ms, since_ms), 0) - holding.charged_ms
        holder.session.skill.owe(queue, owed_ms / 1_000)

    def forget_if_idle(self, holder: Holder) -> None:
        """Drops a holder that has neither a stream nor a lease."""
        if holder.session is None and not holder.leases and holder.claims is None:
            self.holders.pop(holder.incarnation, None)
            self.health.forget(holder.incarnation)
            self.lanes.free(holder.incarnation)
            # Its timers are not for whoever comes back under its name.
            holder.check_ms = 0

    def watch(self, holder: Holder, now_ms: int) -> None:
        """Sees to it that a timer looks at a holder's leases when they next need it."""
        by_ms = holder.next_check_ms(now_ms, self.config.take_back_ms)
        if by_ms is not None:
            self.watch_by(holder, by_ms)

    def watch_by(self, holder: Holder, by_ms: int) -> None:
        """Sees to it that a timer looks at a holder's leases by then."""
        if not holder.check_ms or by_ms < holder.check_ms:
            holder.check_ms = by_ms
            self.holder_timers.arm_at(holder, by_ms)

    def note(self, records: list[JobRecord]) -> None:
        """Tells watches of jobs' new states."""
        if self.changes is None:
            return
        for record in records:
            self.changes.append(
                JobChange(record.job_id, record.state, record.policy, self.stamp_ms, record.seq)
            )


def _one(known: dict[T, T], value: T) -> T:
    """The one object for equal values; what was known is forgotten when it is too much."""
    found = known.get(value)
    if found is None:
        if len(known) >= _KNOWN_MAX:
            known.clear()
        found = known[value] = value
    return found


def lease_of(record: JobRecord) -> Lease:
    """The newest lease of a job that was granted at least once."""
    if record.lease is None:
        raise ValueError(f"expected a lease of job {record.job_id}, but it was never granted")
    return record.lease


def has_started(record: JobRecord) -> bool:
    """Whether an attempt of the job's present run has started, as far as is known."""
    if record.attempts_charged or record.losses_charged:
        return True
    if record.attempt and record.started_ms:
        return True
    return any(a.started_ms and a.lease.run == record.run for a in record.history)


def fault_bytes(fault: JobFault | None) -> int:
    """About how many bytes a fault takes."""
    return 0 if fault is None else len(fault.type) + len(fault.message) + len(fault.traceback)


def footprint(record: JobRecord) -> int:
    """How many bytes of payload, result, errors, saved state and logs a job keeps."""
    size = len(record.payload) + len(record.result) + fault_bytes(record.fault)
    if record.checkpoint is not None:
        size += len(record.checkpoint.data)
    for attempt in record.history:
        size += fault_bytes(attempt.fault)
    for log in record.logs:
        size += len(log.lines)
    return size
