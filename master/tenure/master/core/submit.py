"""Submits: which jobs are new, which are known, which are refused."""

from dataclasses import replace
from typing import Final, NamedTuple

from tenure.master.core.command import Intake, SubmitJobs, SubmitRow, SubmitSetting
from tenure.master.core.effect import Decision, SubmitReply
from tenure.master.core.event import JobsSubmitted, SubmittedSetting
from tenure.master.core.key import KeyName, KeyRecord
from tenure.master.core.ready import order_key
from tenure.master.core.record import JobRecord, Policy
from tenure.master.core.state import State
from tenure.master.core.transition import QUEUED
from tenure.protocol.ids import JobId, home_partition, time_ms_of
from tenure.protocol.limits import ID_AHEAD_MS_MAX, PRIORITY_DEFAULT, RETRY_WINDOW_MS
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import JobState

#: The store is looked at every five seconds.
_SPACE_RETRY_MS: Final = 5_000


def decide_submit(state: State, command: SubmitJobs, now_ms: int) -> Decision | Refusal:
    """Accepts what is new, names what exists, refuses the rest row by row."""
    batch = _Batch(state, command, now_ms)
    for index, row in enumerate(command.rows):
        batch.add(index, row)
        if batch.refusals and command.all_or_nothing:
            refusal = batch.refusals[0][1]
            return replace(refusal, metadata={**refusal.metadata, "index": str(index)})
    reply = SubmitReply(job_ids=batch.job_ids, existing=batch.existing, refusals=batch.refusals)
    if not batch.fresh:
        return Decision(reply=reply)
    event = JobsSubmitted(
        now_ms=now_ms,
        first_ordinal=state.next_ordinal,
        settings=[_due(setting, now_ms) for setting in command.settings],
        rows=list(batch.fresh.values()),
    )
    return Decision(events=(event,), reply=reply)


def _due(setting: SubmitSetting, now_ms: int) -> SubmittedSetting:
    """When the setting's jobs are due; a time that has passed is now, or it would buy age."""
    ready_ms = max(setting.at_ms, now_ms + setting.delay_ms)
    state = JobState.SCHEDULED if ready_ms > now_ms else JobState.PENDING
    return SubmittedSetting(setting.policy, setting.priority, ready_ms, state)


class _Batch:
    """What becomes of the rows of one submit, as far as they were looked at."""

    def __init__(self, state: State, command: SubmitJobs, now_ms: int) -> None:
        settings = command.settings
        self._state = state
        self._settings = settings
        self._now_ms = now_ms
        # Ids start with their time in hex, so that their text order is their order in time.
        self._oldest = _id_text(now_ms - RETRY_WINDOW_MS)
        self._newest = _id_text(now_ms + ID_AHEAD_MS_MAX) + "g"
        self._refused = [
            _misplaced(state, setting) or _shut_out(command.intake, setting) for setting in settings
        ]
        self._room = _rooms(state, settings)
        bytes_max = command.bytes_max
        self._bytes_max = state.config.bytes_max if bytes_max is None else bytes_max
        self._bytes_left = self._bytes_max - state.stored_bytes
        self._names: dict[KeyName, str] = {}
        #: New jobs, in order.
        self.fresh: dict[JobId, SubmitRow] = {}
        self.job_ids: list[str] = []
        self.existing: list[int] = []
        self.refusals: list[tuple[int, Refusal]] = []

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
            named = self._named_by_key(row) if row.key else ""
            refusal = None if named else self._refusal_of_new(row)
        if refusal is not None:
            self.refusals.append((index, refusal))
            self.job_ids.append("")
        elif named:
            self.existing.append(index)
            self.job_ids.append(named)
        else:
            self.fresh[job_id] = row
            self.job_ids.append(job_id)

    def _conflict(self, row: SubmitRow) -> Refusal | None:
        """Refuses an id that is taken by a job of other content."""
        record = self._state.jobs.get(row.job_id)
        if record is not None:
            policy, payload, key = record.policy, record.payload, record.key
        else:
            fresh = self.fresh[row.job_id]
            policy, payload, key = self._settings[fresh.setting].policy, fresh.payload, fresh.key
        asked = self._settings[row.setting].policy
        if (
            payload == row.payload
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

    def _named_by_key(self, row: SubmitRow) -> str:
        """The job that the row's key names already, or "" and the key is this row's."""
        policy = self._settings[row.setting].policy
        name = (policy.tenant, policy.queue, row.key)
        job_id = self._state.keys.get(name, self._now_ms)
        return self._names.get(name, "") if job_id is None else job_id

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
            limit = config.queue_depth_max
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
            lanes = state.lanes.queues.get(queue, {})
            waiting = sum(lane.counts[waits] for lane in lanes.values() for waits in QUEUED)
            cell = cells[queue] = [state.config.queue_depth_max - waiting]
        rooms.append(cell)
    return rooms


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
        jobs[job_id] = record
        added.append(record)
        if key:
            name = (policy.tenant, policy.queue, key)
            state.keys.put(name, KeyRecord(job_id, now_ms + policy.key_window_ms, seq))
    state.next_ordinal = max(state.next_ordinal, ordinal + 1)
    for *_, added in settings:
        if added and state.live:
            _index(state, added, seq)
        if state.changes is not None:
            state.note(added)


def _index(state: State, added: list[JobRecord], seq: int) -> None:
    """Keeps up what is derived from new jobs of one setting."""
    first, count = added[0], len(added)
    policy = first.policy
    lane = state.lanes.of(policy)
    lane.counts[first.state] += count
    state.lanes.counts[first.state] += count
    state.stored_bytes += sum([len(record.payload) for record in added])
    if first.state is JobState.PENDING:
        key = order_key(first.priority, first.ready_ms, state.config.aging_step_ms)
        state.lanes.push(lane, key, seq, added)
    if state.due_ms(first) is not None:
        for record in added:
            state.timers.arm(record)
