"""Errands: schedules whose jobs live in another partition, through the outbox.

```
 home                                       the queue's partition
 SubmitFrom(job), RegisterChild(job) ─────► the job; its registration pins it
 the next tick may fire ◄───────────────── ParentState(ended)
 ReleaseParent(job) ──────────────────────► it is purged in its time
```
"""

from typing import Final

import msgspec

from tenure.master.core.command import Intake
from tenure.master.core.dependents import outgoing
from tenure.master.core.effect import Effect
from tenure.master.core.event import Event, SchedulesTicked, TickedRow
from tenure.master.core.message import (
    CancelFrom,
    Message,
    ParentState,
    RegisterChild,
    ReleaseParent,
    SubmitFrom,
)
from tenure.master.core.state import State
from tenure.master.core.timetable import ScheduleCursor, ScheduleSpec
from tenure.protocol.ids import HOME_DIGITS, JobId, home_partition, partition_of
from tenure.protocol.limits import PRIORITY_DEFAULT
from tenure.protocol.vocabulary import JobState

#: It is submitted and registered; the one before is cancelled and released.
_MESSAGES_A_TICK: Final = 4


def target_of(state: State, spec: ScheduleSpec) -> int:
    """The partition in which a schedule's jobs live."""
    policy, config = spec.policy, state.config
    if config.partitions == 1:
        return config.partition
    return home_partition(policy.tenant, policy.queue, config.partitions)


def is_admitted(intake: Intake, spec: ScheduleSpec) -> bool:
    """Whether the store has room for a message with a job, by the rules of submits."""
    if intake is Intake.NO_BULK:
        return spec.priority <= PRIORITY_DEFAULT
    return intake is Intake.OPEN


class Post:
    """Messages to partitions where schedules' jobs live, in one decision.

    A job's partition tells of its end as it tells a child of a parent: the job is registered under
    an id like its own, but of this partition, which no job has.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._messages: dict[int, list[Message]] = {}

    def has_room(self, target: int, ticks: int = 0) -> bool:
        """Whether a tick's messages may wait for a partition beside those of other ticks."""
        return self._state.outbox.room(target) >= (ticks + 1) * _MESSAGES_A_TICK

    def submit(self, spec: ScheduleSpec, job_id: JobId, now_ms: int) -> None:
        """Submits a job."""
        self._add(
            job_id,
            SubmitFrom(
                policy=spec.policy,
                priority=spec.priority,
                ready_ms=now_ms,
                job_id=job_id,
                payload=spec.payload,
                limit_key=spec.limit_key,
                sticky_key=spec.sticky_key,
            ),
        )

    def ask(self, job_id: JobId) -> None:
        """Asks to be told of a job's end."""
        self._add(job_id, RegisterChild(parent=job_id, child=self._twin(job_id), run=0))

    def cancel(self, job_id: JobId, reason: str) -> None:
        """Cancels a job."""
        self._add(job_id, CancelFrom(job_id=job_id, reason=reason))

    def forget(self, cursor: ScheduleCursor) -> None:
        """Asks no more to be told of the newest tick's job, if that was asked for."""
        if cursor.open_elsewhere:
            job_id = JobId(cursor.last_job_id)
            self._add(job_id, ReleaseParent(parent=job_id, child=self._twin(job_id), run=0))

    def sent(self, now_ms: int) -> tuple[list[Event], list[Effect]]:
        """What puts all of it into the outbox."""
        events: list[Event] = []
        effects: list[Effect] = []
        for target, messages in self._messages.items():
            appended, deliver = outgoing(self._state, target, messages, now_ms)
            events.append(appended)
            effects.append(deliver)
        return events, effects

    def _add(self, job_id: JobId, message: Message) -> None:
        self._messages.setdefault(partition_of(job_id), []).append(message)

    def _twin(self, job_id: JobId) -> JobId:
        return JobId(
            job_id[: HOME_DIGITS.start] + self._state.id_partition + job_id[HOME_DIGITS.stop :]
        )


def is_awaited(state: State, message: ParentState) -> bool:
    """Whether a message is about the newest tick's job of a schedule."""
    record = state.timetable.waiting.get(message.parent)
    return record is not None and record.cursor.open_elsewhere


def take_state(state: State, message: ParentState, now_ms: int) -> tuple[list[Event], list[Effect]]:
    """Hears of a job elsewhere; once it has ended, the next tick may fire."""
    if message.state < JobState.COMPLETED:
        return [], []
    record = state.timetable.waiting[message.parent]
    post = Post(state)
    post.forget(record.cursor)
    events, effects = post.sent(now_ms)
    cursor = msgspec.structs.replace(record.cursor, open_elsewhere=False)
    ticked = SchedulesTicked(now_ms=now_ms, rows=[TickedRow(*record.key, cursor)])
    return [*events, ticked], effects
