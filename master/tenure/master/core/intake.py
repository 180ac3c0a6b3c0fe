"""Intake: messages of other partitions, each taken once; and the outbox's own events.

A decision is the effect of one message, then its ``InboxTaken``: they ride in one batch, so a mark
never stands without its effect, nor an effect without its mark.
"""

from itertools import takewhile
from typing import assert_never

from tenure.master.core import dependents, errand
from tenure.master.core.command import CancelJobs, SubmitRow, TakeMessage, TrimOutbox
from tenure.master.core.control import decide_cancel
from tenure.master.core.effect import Decision, Effect, Taken
from tenure.master.core.event import (
    Event,
    InboxTaken,
    JobsSubmitted,
    OutboxAppended,
    OutboxTrimmed,
    SubmittedSetting,
)
from tenure.master.core.message import (
    CancelFrom,
    Message,
    ParentState,
    RegisterChild,
    ReleaseParent,
    SubmitFrom,
)
from tenure.master.core.outbox import MESSAGES_MAX
from tenure.master.core.state import State
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import JobState


def decide_take(state: State, command: TakeMessage, now_ms: int) -> Decision | Refusal:
    """Takes a message unless its number is not above the mark; refuses a term that is over.

    The messages of a deposed leader are as good as any (they had committed, and numbers tell
    duplicates), but who has a successor has nothing more to say.
    """
    mark = state.inbox.get(command.source)
    if command.token < mark.token:
        return Refusal(
            reason=Reason.FENCED,
            message=f"expected to take a message of partition {command.source}'s newest term "
            f"{mark.token}, but it is of term {command.token}: its leader has a successor",
            metadata={"partition": str(command.source), "token": str(command.token)},
        )
    if command.number <= mark.number:
        return Decision(reply=Taken(number=mark.number))
    if command.after > mark.number:
        return Refusal(
            reason=Reason.OUT_OF_ORDER,
            message=f"expected to take message {command.number} of partition {command.source} "
            f"after {command.after}, but only those up to {mark.number} have been taken: send from "
            "there",
            metadata={"partition": str(command.source), "taken": str(mark.number)},
            retry_after_ms=50,
        )
    events, effects = take_message(state, command.message, now_ms)
    events.append(
        InboxTaken(now_ms=now_ms, source=command.source, number=command.number, token=command.token)
    )
    return Decision(
        events=tuple(events), effects=tuple(effects), reply=Taken(number=command.number)
    )


def take_message(state: State, message: Message, now_ms: int) -> tuple[list[Event], list[Effect]]:
    """What a message comes to here, at its first arrival."""
    match message:
        case SubmitFrom():
            return _submit(state, message, now_ms), []
        case RegisterChild():
            return dependents.take_register(state, message, now_ms), []
        case ReleaseParent():
            return dependents.take_release(state, message, now_ms), []
        case ParentState():
            if errand.is_awaited(state, message):
                return errand.take_state(state, message, now_ms)
            return dependents.take_state(state, message, now_ms), []
        case CancelFrom():
            cancel = CancelJobs(job_ids=[message.job_id], reason=message.reason)
            cancelled = decide_cancel(state, cancel, now_ms)
            return [*cancelled.events], [*cancelled.effects]
        case _:
            assert_never(message)


def _submit(state: State, message: SubmitFrom, now_ms: int) -> list[Event]:
    """The job, unless its id or its key is known. No limit holds it: nobody could try again."""
    policy, job_id = message.policy, message.job_id
    if job_id in state.jobs or state.tombstones.get(job_id, now_ms) is not None:
        return []
    name = (policy.tenant, policy.queue, message.key)
    if message.key and state.keys.get(name, now_ms) is not None:
        return []
    ready_ms = max(message.ready_ms, now_ms)
    job_state = JobState.SCHEDULED if ready_ms > now_ms else JobState.PENDING
    row = SubmitRow(job_id, 0, message.payload, message.key, message.limit_key, message.sticky_key)
    setting = SubmittedSetting(policy, message.priority, ready_ms, job_state)
    return [
        JobsSubmitted(
            now_ms=now_ms, first_ordinal=state.next_ordinal, settings=[setting], rows=[row]
        )
    ]


def decide_trim(state: State, command: TrimOutbox, now_ms: int) -> Decision:
    """Forgets what a target has taken, if any of it is still there."""
    waiting = state.outbox.waiting(command.target, 0, 1)
    if not waiting or waiting[0].number > command.upto:
        return Decision()
    trimmed = OutboxTrimmed(now_ms=now_ms, target=command.target, upto=command.upto)
    return Decision(events=(trimmed,))


def apply_taken(state: State, event: InboxTaken, seq: int) -> None:
    """Raises the source's mark."""
    state.inbox.raise_to(event.source, event.number, event.token)


def apply_appended(state: State, event: OutboxAppended, seq: int) -> None:
    """Puts messages into the outbox."""
    state.outbox.extend(event.target, event.first_number, event.messages)
    for message in event.messages:
        dependents.apply_sent(state, event.target, message, seq)


def apply_trimmed(state: State, event: OutboxTrimmed, seq: int) -> None:
    """Takes messages out of the outbox; whoever waits for a job that one brought is answered."""
    if state.live:
        waiting = state.outbox.waiting(event.target, 0, MESSAGES_MAX)
        taken = takewhile(lambda row: row.number <= event.upto, waiting)
        state.dependencies.answers += [
            (row.message.job_id, None) for row in taken if isinstance(row.message, SubmitFrom)
        ]
    state.outbox.trim(event.target, event.upto)
