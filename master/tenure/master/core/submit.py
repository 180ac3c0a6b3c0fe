"""Submits: which jobs are new, which are known, which are refused."""

from collections.abc import Iterable
from dataclasses import replace
from operator import attrgetter, itemgetter
from typing import Final, NamedTuple

from msgspec import structs

from tenure.master.core.command import Intake, SubmitJobs, SubmitRow, SubmitSetting
from tenure.master.core.dependents import ParentCheck, apply_blocked, in_cycle, parents_first
from tenure.master.core.effect import Decision, NotifySettled, SubmitReply
from tenure.master.core.event import JobsCancelled, JobsSubmitted, SubmittedSetting
from tenure.master.core.key import KeyName, KeyRecord
from tenure.master.core.lateness import lateness_of
from tenure.master.core.ready import order_key
from tenure.master.core.record import JobRecord, Policy, Ties
from tenure.master.core.state import State
from tenure.master.core.transition import QUEUED
from tenure.protocol.ids import JobId, home_partition, time_ms_of
from tenure.protocol.limits import ID_AHEAD_MS_MAX, PRIORITY_DEFAULT, RETRY_WINDOW_MS
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import JobState, KeyConflict

#: The store is looked at every five seconds.
_SPACE_RETRY_MS: Final = 5_000
_PARENTS: Final = attrgetter("parents")


def decide_submit(state: State, command: SubmitJobs, now_ms: int) -> Decision | Refusal:
    """Accepts what is new, names what exists, refuses the rest row by row."""
    batch = _Batch(state, command, now_ms)
    for index, row in batch.in_order():
        if batch.refusals and command.all_or_nothing:
            break
        batch.add(index, row)
    if batch.refusals and command.all_or_nothing:
        at, refusal = batch.refusals[0]
        return replace(refusal, metadata={**refusal.metadata, "index": str(at)})
    reply = SubmitReply(
        job_ids=batch.job_ids,
        existing=sorted(batch.existing),
        refusals=sorted(batch.refusals, key=itemgetter(0)),
        unsettled=batch.unsettled(),
    )
    if not batch.fresh:
        return Decision(reply=reply)
    settings = [_due(setting, now_ms) for setting in command.settings]
    rows = list(batch.fresh.values())
    event = JobsSubmitted(
        now_ms=now_ms,
        first_ordinal=state.next_ordinal,
        settings=settings,
        rows=_blocked(rows, settings) if batch.related else rows,
    )
    if not batch.replaced:
        return Decision(events=(event,), reply=reply)
    known = [state.jobs[job_id] for job_id in batch.replaced if job_id in state.jobs]
    cancelled = JobsCancelled(
        now_ms=now_ms, job_ids=batch.replaced, reason="replaced by a newer job with its key"
    )
    return Decision(events=(event, cancelled), effects=(NotifySettled(records=known),), reply=reply)


def _due(setting: SubmitSetting, now_ms: int) -> SubmittedSetting:
    """When the setting's jobs are due; a time that has passed is now, or it would buy age."""
    ready_ms = max(setting.at_ms, now_ms + setting.delay_ms)
    state = JobState.SCHEDULED if ready_ms > now_ms else JobState.PENDING
    return SubmittedSetting(setting.policy, setting.priority, ready_ms, state)


def _blocked(rows: list[SubmitRow], settings: list[SubmittedSetting]) -> list[SubmitRow]:
    """The rows, those with parents of settings that say BLOCKED, which are added."""
    twins: dict[int, int] = {}
    for index in dict.fromkeys(row.setting for row in rows if row.parents):
        twins[index] = len(settings)
        settings.append(structs.replace(settings[index], state=JobState.BLOCKED))
    return [
        structs.replace(row, setting=twins[row.setting]) if row.parents else row for row in rows
    ]


class _Batch:
    """What becomes of the rows of one submit, as far as they were looked at."""

    def __init__(self, state: State, command: SubmitJobs, now_ms: int) -> None:
        settings = command.settings
        self._state = state
        self._rows = command.rows
        self._settings = settings
        self._now_ms = now_ms
        # Ids start with their time in hex, so that their text order is their order in time.
        self._oldest = "" if command.any_age else _id_text(now_ms - RETRY_WINDOW_MS)
        self._newest = _id_text(now_ms + ID_AHEAD_MS_MAX) + "g"
        self._refused = [
            _misplaced(state, setting) or _shut_out(command.intake, setting) for setting in settings
        ]
        self._room = _rooms(state, settings)
        self._lateness = [lateness_of(state, setting, now_ms) for setting in settings]
        self._rooms_before = [room[0] for room in self._room]
        bytes_max = command.bytes_max
        self._bytes_max = state.config.bytes_max if bytes_max is None else bytes_max
        self._bytes_left = self._bytes_max - state.stored_bytes
        self._names: dict[KeyName, JobId] = {}
        #: New jobs, in order.
        self.fresh: dict[JobId, SubmitRow] = {}
        self.job_ids = [""] * len(command.rows)
        self.existing: list[int] = []
        self.refusals: list[tuple[int, Refusal]] = []
        #: Jobs that wait and whose keys new ones have taken.
        self.replaced: list[JobId] = []
        #: Whether any row has parents.
        self.related = any(map(_PARENTS, command.rows))
        self._parents = ParentCheck(state)

    def in_order(self) -> Iterable[tuple[int, SubmitRow]]:
        """The rows with their indexes, parents before their children; circles are refused."""
        if not self.related:
            return enumerate(self._rows)
        order, circular = parents_first(self._rows)
        self.refusals += [(index, in_cycle(self._rows[index])) for index in circular]
        return [(index, self._rows[index]) for index in order]

    def unsettled(self) -> tuple[int, ...]:
        """Rows of which it is not known yet whether all their parents exist."""
        if not self.related and not self._state.dependencies.unsettled:
            return ()
        open_ids = self._parents.unsettled(self.fresh.values())
        return tuple(i for i, job_id in enumerate(self.job_ids) if job_id in open_ids)

    def add(self, index: int, row: SubmitRow) -> None:
        """Looks at one row."""
        job_id = row.job_id
        state = self._state
        refusal: Refusal | None
        named: str
        if job_id in state.jobs or job_id in self.fresh:
            refusal = self._conflict(row)
            named = job_id
        elif state.tombstones.get(job_id, self._now_ms) is not None:
            refusal, named = None, job_id
        else:
            named, refusal = self._by_key(row) if row.key else ("", self._refusal_of_new(row))
        if refusal is not None:
            self.refusals.append((index, refusal))
        elif named:
            self.existing.append(index)
            self.job_ids[index] = named
            if named != job_id:
                self._parents.renamed[job_id] = JobId(named)
        else:
            self.fresh[job_id] = self._parents.resolved(row) if row.parents else row
            self.job_ids[index] = job_id

    def _conflict(self, row: SubmitRow) -> Refusal | None:
        """Refuses an id that is taken by a job of other content."""
        record = self._state.jobs.get(row.job_id)
        if record is not None:
            policy, payload, key = record.policy, record.payload, record.key
        else:
            fresh = self.fresh[row.job_id]
            policy, payload, key = self._settings[fresh.setting].policy, fresh.payload, fresh.key
        asked = self._settings[row.setting].policy
        # A job that was requeued may have got other arguments, and is the same job all the same.
        requeued = record is not None and record.run > 0
        if (
            (payload == row.payload or requeued)
            and key == row.key
            and policy.name == asked.name
            and policy.queue == asked.queue
            and policy.tenant == asked.tenant
        ):
            return None
        return Refusal(
            reason=Reason.JOB_ID_CONFLICT,
            message=f"expected to submit job {row.job_id}, but another job has this id: "
            "mint a new id for each job",
            metadata={"job_id": row.job_id},
            field="job_id",
        )

    def _by_key(self, row: SubmitRow) -> tuple[str, Refusal | None]:
        """The job that the row's key names already, or "" and the key is this row's."""
        policy = self._settings[row.setting].policy
        name = (policy.tenant, policy.queue, row.key)
        named = self._names.get(name) or self._state.keys.get(name, self._now_ms)
        if named is None:
            return "", self._refusal_of_new(row)
        match policy.key_conflict:
            case KeyConflict.REJECT if named != row.job_id:
                return "", _key_taken(row.key, policy.queue, named)
            case KeyConflict.REPLACE if not self._runs(named):
                refusal = self._refusal_of_new(row)
                if refusal is None and self._waits(named):
                    self.replaced.append(named)
                    self._room[row.setting][0] += 1
                return "", refusal
            case _:
                return named, None

    def _runs(self, job_id: JobId) -> bool:
        record = self._state.jobs.get(job_id)
        return record is not None and record.state is JobState.RUNNING

    def _waits(self, job_id: JobId) -> bool:
        record = self._state.jobs.get(job_id)
        return job_id in self.fresh if record is None else record.state in QUEUED

    def _refusal_of_new(self, row: SubmitRow) -> Refusal | None:
        """Refuses a new job, or counts it in."""
        job_id, state = row.job_id, self._state
        setting = row.setting
        if self._refused[setting] is not None:
            return self._refused[setting]
        if job_id[15:18] != state.id_partition:
            return Refusal(
                reason=Reason.WRONG_PARTITION,
                message=f"expected to submit job {job_id} to its home, but its id names "
                f"partition {int(job_id[15:18], 16)}, this is {state.config.partition}",
                metadata={"job_id": job_id, "partition": str(state.config.partition)},
                field="job_id",
            )
        if not self._oldest <= job_id <= self._newest:
            return self._out_of_time(job_id)
        size = len(row.payload)
        if size > state.config.payload_bytes_max:
            return self._too_large(job_id, size)
        room = self._room[setting]
        if room[0] <= 0:
            return self._full(Reason.QUEUE_FULL, setting)
        if size > self._bytes_left:
            return self._full(Reason.MEMORY_FULL, setting)
        if row.parents:
            refusal = self._parents.refusal(row, self.fresh)
        else:
            lateness, refusal = self._lateness[setting], None
            if lateness is not None:
                refusal = lateness.refusal(row, self._rooms_before[setting] - room[0])
        if refusal is not None:
            return refusal
        room[0] -= 1
        self._bytes_left -= size
        if row.key:
            policy = self._settings[setting].policy
            self._names[policy.tenant, policy.queue, row.key] = job_id
        return None

    def _out_of_time(self, job_id: JobId) -> Refusal:
        age_ms = self._now_ms - time_ms_of(job_id)
        metadata = {"job_id": job_id, "now_ms": str(self._now_ms)}
        if age_ms > 0:
            return Refusal(
                reason=Reason.REQUEST_TOO_OLD,
                message=f"expected to submit job {job_id}, but its id is {age_ms} ms old and "
                f"unknown ids are accepted for {RETRY_WINDOW_MS} ms: it may have run and be "
                "forgotten; look for its effects, then submit it under a new id",
                metadata=metadata,
                field="job_id",
            )
        return Refusal(
            reason=Reason.ID_FROM_FUTURE,
            message=f"expected to submit job {job_id}, but its id is {-age_ms} ms ahead of the "
            f"cluster's clock (at most {ID_AHEAD_MS_MAX}): mint ids by the cluster's clock",
            metadata=metadata,
            field="job_id",
        )

    def _too_large(self, job_id: JobId, size: int) -> Refusal:
        limit = self._state.config.payload_bytes_max
        return Refusal(
            reason=Reason.PAYLOAD_TOO_LARGE,
            message=f"expected to submit job {job_id}, but its payload has {size} bytes "
            f"(at most {limit}): store it elsewhere and submit a reference",
            metadata={"job_id": job_id, "bytes": str(size), "limit": str(limit)},
            field="payload",
        )

    def _full(self, reason: Reason, setting: int) -> Refusal:
        config, policy = self._state.config, self._settings[setting].policy
        if reason is Reason.QUEUE_FULL:
            limit = _depth_max(self._state, policy.tenant, policy.queue)
            what = f"queue {policy.queue} holds {limit} waiting jobs"
        else:
            limit = self._bytes_max
            what = f"the partition keeps {self._state.stored_bytes} bytes of at most {limit}"
        return Refusal(
            reason=reason,
            message=f"expected to submit a job to queue {policy.queue}, but {what}: try again "
            "later",
            metadata={"queue": policy.queue, "tenant": policy.tenant, "limit": str(limit)},
            retry_after_ms=config.retry_after_ms,
        )


def _id_text(time_ms: int) -> str:
    digits = f"{time_ms:012x}"  # A time before 1970 begins with a dash: before all digits.
    return f"{digits[:8]}-{digits[8:]}"


def _misplaced(state: State, setting: SubmitSetting) -> Refusal | None:
    """Refuses a setting whose queue lives in another partition."""
    config, policy = state.config, setting.policy
    if config.partitions == 1:
        return None
    home = home_partition(policy.tenant, policy.queue, config.partitions)
    if home == config.partition:
        return None
    return Refusal(
        reason=Reason.WRONG_PARTITION,
        message=f"expected to submit to queue {policy.queue} in its home partition {home}, "
        f"but this is partition {config.partition}",
        metadata={"queue": policy.queue, "tenant": policy.tenant, "partition": str(home)},
        field="options.queue",
    )


def _shut_out(intake: Intake, setting: SubmitSetting) -> Refusal | None:
    """Refuses a setting's new jobs while the store has too little room for them."""
    if intake is Intake.OPEN:
        return None
    if intake is Intake.NO_BULK and setting.priority <= PRIORITY_DEFAULT:
        return None
    what = "new jobs" if intake is Intake.CLOSED else f"jobs of priority {setting.priority}"
    queue = setting.policy.queue
    return Refusal(
        reason=Reason.STORE_FULL,
        message=f"expected to submit a job to queue {queue}, but the store is so full that it takes"
        f" no {what} until space is free: try again later, or ask its operator",
        metadata={"queue": queue, "tenant": setting.policy.tenant, "intake": intake.value},
        retry_after_ms=_SPACE_RETRY_MS,
    )


def _rooms(state: State, settings: list[SubmitSetting]) -> list[list[int]]:
    """How many more jobs may wait in each setting's queue; settings of one queue share a cell."""
    cells: dict[tuple[str, str], list[int]] = {}
    rooms = []
    for setting in settings:
        queue = (setting.policy.tenant, setting.policy.queue)
        cell = cells.get(queue)
        if cell is None:
            known = state.lanes.queues.get(queue)
            waiting = 0 if known is None else sum(known.counts[waits] for waits in QUEUED)
            cell = cells[queue] = [_depth_max(state, *queue) - waiting]
        rooms.append(cell)
    return rooms


def _depth_max(state: State, tenant: str, queue: str) -> int:
    """How many jobs may wait in a queue."""
    limit = state.config.queue_depth_max
    return min(limit, state.settings.queue(tenant, queue).depth_max or limit)


def _key_taken(key: str, queue: str, job_id: JobId) -> Refusal:
    return Refusal(
        reason=Reason.JOB_KEY_CONFLICT,
        message=f"expected key {key} to be free in queue {queue}, but job {job_id} has it: look at "
        "that job, or submit under another key",
        metadata={"key": key, "queue": queue, "job_id": job_id},
        field="key",
    )


class _Group(NamedTuple):
    """What rows of one setting share, and their records."""

    policy: Policy
    priority: int
    ready_ms: int
    state: JobState
    added: list[JobRecord]


def apply_submitted(state: State, event: JobsSubmitted, seq: int) -> None:
    """Adds the jobs."""
    jobs, now_ms = state.jobs, event.now_ms
    settings = [
        _Group(state.intern(setting.policy), setting.priority, setting.ready_ms, setting.state, [])
        for setting in event.settings
    ]
    names: dict[KeyName, KeyRecord] = {}
    #: By limit key, sticky key and workflow: of jobs without parents many have the same.
    ties: dict[tuple[str, str, str], Ties] = {}
    blocked: list[JobRecord] = []
    ordinal = event.first_ordinal - 1
    for row in event.rows:
        ordinal += 1
        job_id, key = row.job_id, row.key
        if job_id in jobs:
            continue  # A fuzzy snapshot had it.
        policy, priority, ready_ms, job_state, added = settings[row.setting]
        record = JobRecord(
            job_id=job_id,
            seq=seq,
            ordinal=ordinal,
            state=job_state,
            policy=policy,
            priority=priority,
            payload=row.payload,
            key=key,
            submitted_ms=now_ms,
            ready_ms=ready_ms,
            run_due_ms=ready_ms,
        )
        if row.parents:
            record.ties = state.intern_ties(_ties_of(row))
            apply_blocked(state, record, seq, settled=False)
            blocked.append(record)
        elif row.limit_key or row.sticky_key:
            keys = row.limit_key, row.sticky_key, row.workflow_id
            known = ties.get(keys)
            if known is None:
                known = ties[keys] = state.intern_ties(_ties_of(row))
            record.ties = known
        jobs[job_id] = record
        added.append(record)
        if key:
            name = (policy.tenant, policy.queue, key)
            names[name] = KeyRecord(job_id, now_ms + policy.key_window_ms, seq)
    for name, taken in names.items():
        # Of several jobs with one key the last has taken it from the others.
        state.keys.put(name, taken)
    state.next_ordinal = max(state.next_ordinal, ordinal + 1)
    for *_, added in settings:
        if added and state.live:
            _index(state, added, seq)
        if state.changes is not None:
            state.note(added)
    if state.live:
        for record in blocked:
            state.dependencies.enter(jobs, record)
            if record.workflow_id:
                state.workflows.join(record)


def _ties_of(row: SubmitRow) -> Ties:
    return Ties(
        limit_key=row.limit_key,
        sticky_key=row.sticky_key,
        parents=row.parents,
        workflow_id=row.workflow_id,
    )


def _index(state: State, added: list[JobRecord], seq: int) -> None:
    """Keeps up what is derived from new jobs of one setting."""
    first = added[0]
    state.lanes.count_alike(first.policy, first.state, len(added))
    state.stored_bytes += sum([len(record.payload) for record in added])
    if first.state is JobState.PENDING:
        key = order_key(first.priority, first.ready_ms, state.config.aging_step_ms)
        state.lanes.push(key, seq, added)
    if state.due_ms(first) is not None:
        for record in added:
            state.timers.arm(record)
