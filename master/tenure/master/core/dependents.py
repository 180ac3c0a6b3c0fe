"""Dependents: what a submit's parents come to, and what becomes of children when parents end.

```
 a parent ends ──apply──► Dependencies: child is ripe ──ResolveDependents──► it may run: PENDING
                                                                             it fails, and is a
                                                                             parent itself: again
```
A subtree fails level by level, in decisions of a few hundred jobs each; other work is done between.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from msgspec import structs

from tenure.master.core.command import ResolveDependents, SubmitRow
from tenure.master.core.dependency import (
    ASKED,
    GONE,
    OPEN,
    UNASKED,
    Fate,
    Foreign,
    Kind,
    Letter,
    Registration,
    fate_of_job,
)
from tenure.master.core.effect import Decision, Deliver, Effect, NotifySettled
from tenure.master.core.event import (
    ChildRegistered,
    ChildReleased,
    DependentsResolved,
    Event,
    JobsWithdrawn,
    OutboxAppended,
    ParentTold,
    ResolvedRow,
)
from tenure.master.core.message import Message, ParentState, RegisterChild, ReleaseParent
from tenure.master.core.record import JobFault, JobRecord
from tenure.master.core.state import State, footprint
from tenure.protocol.ids import JobId, partition_of
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import TERMINAL, ErrorCategory, FailureReason, JobState

#: Why a job was cancelled whose ``run_if`` says that it is there for failures only.
NOT_NEEDED = "not needed"
#: Why a member was cancelled whose workflow was.
NOT_SEALED = "its workflow was cancelled before it was sealed"


# Submits.


def parents_first(rows: Sequence[SubmitRow]) -> tuple[list[int], list[int]]:
    """The order in which rows with parents among them can be looked at; and rows of cycles.

    Rows keep their order as far as parents that come later allow it (Kahn, 1962).
    """
    index_of = {row.job_id: index for index, row in enumerate(rows)}
    children: dict[int, list[int]] = {}
    missing = [0] * len(rows)
    for index, row in enumerate(rows):
        for parent in row.parents:
            at = index_of.get(parent)
            if at is not None:
                children.setdefault(at, []).append(index)
                missing[index] += 1
    ready = deque(index for index, count in enumerate(missing) if not count)
    order: list[int] = []
    while ready:
        index = ready.popleft()
        order.append(index)
        for child in children.get(index, ()):
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
    return order, [index for index, count in enumerate(missing) if count]


def in_cycle(row: SubmitRow) -> Refusal:
    """Refuses a job that would wait for itself."""
    return Refusal(
        reason=Reason.PARENT_CYCLE,
        message=f"expected to submit job {row.job_id}, but it is its own ancestor, or a "
        "descendant of such a job in its batch, so it would never run: break the cycle",
        metadata={"job_id": row.job_id},
        field="parents",
    )


def unknown_parent(job_id: JobId, parent: JobId, index: int) -> Refusal:
    """Refuses a job whose parent is not there."""
    return Refusal(
        reason=Reason.UNKNOWN_PARENT,
        message=f"expected to submit job {job_id} after job {parent}, but no such job is known: "
        "submit parents first or in the same batch, and keep those that have ended with result_ttl",
        metadata={"job_id": job_id, "parent": parent},
        field=f"parents[{index}]",
    )


def shut_gate(job_id: JobId, workflow_id: str, gate: int) -> Refusal | None:
    """Refuses a new member of a workflow that is not open."""
    if gate == OPEN:
        return None
    known = gate != GONE
    what = "it takes no more members: it was sealed or cancelled" if known else "there is no such"
    return Refusal(
        reason=Reason.WORKFLOW_SEALED if known else Reason.NOT_FOUND,
        message=f"expected to submit job {job_id} to workflow {workflow_id}, but {what}; open a "
        "new one",
        metadata={"job_id": job_id, "workflow_id": workflow_id},
        field="workflow_id",
    )


def outbox_full(state: State, job_id: JobId, target: int) -> Refusal:
    """Refuses a job with a parent in a partition that has taken no messages for long."""
    return Refusal(
        reason=Reason.OUTBOX_FULL,
        message=f"expected to submit job {job_id} after a job of partition {target}, but too many "
        "messages wait for that partition: try again when it has a leader",
        metadata={"job_id": job_id, "partition": str(target)},
        field="parents",
        retry_after_ms=state.config.retry_after_ms,
    )


class ParentCheck:
    """Looks at the parents of the new jobs of one submit.

    Args:
        state: The partition.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._dependencies = state.dependencies
        #: By target: how many messages the submit will have for it.
        self._asked: dict[int, int] = {}
        #: Jobs of the batch that others stand for, by their keys.
        self.renamed: dict[JobId, JobId] = {}

    def refusal(self, row: SubmitRow, fresh: Mapping[JobId, SubmitRow]) -> Refusal | None:
        """Refuses a new job with a parent that is not there, among the batch's new jobs, either."""
        state, asked = self._state, dict(self._asked)
        for index, name in enumerate(row.parents):
            parent = self.renamed.get(name, name)
            if self._dependencies.is_local(parent):
                if parent == row.workflow_id:
                    refusal = shut_gate(row.job_id, parent, state.workflows.gate(parent))
                    if refusal is not None:
                        return refusal
                elif parent not in state.jobs and parent not in fresh:
                    return unknown_parent(row.job_id, parent, index - bool(row.workflow_id))
                continue
            target = partition_of(parent)
            asked[target] = asked.get(target, 0) + 1
            if asked[target] > state.outbox.room(target):
                return outbox_full(state, row.job_id, target)
        self._asked = asked
        return None

    def resolved(self, row: SubmitRow) -> SubmitRow:
        """The row, each parent once and by the id that it has."""
        names = dict.fromkeys(self.renamed.get(name, name) for name in row.parents)
        return structs.replace(row, parents=tuple(names))

    def unsettled(self, fresh: Iterable[SubmitRow]) -> dict[JobId, None]:
        """Jobs of which it is not known if all their parents exist, with these new ones."""
        found = dict(self._dependencies.unsettled)
        for row in fresh:
            for parent in row.parents:
                if parent in found or not self._dependencies.is_local(parent):
                    found[row.job_id] = None
                    break
        return found


def apply_blocked(state: State, record: JobRecord, seq: int, *, settled: bool) -> None:
    """A job waits for its parents, those elsewhere to be asked about.

    Args:
        state: The partition.
        record: The job, BLOCKED.
        seq: Of the event that blocks it.
        settled: Whether its submit was acknowledged before.
    """
    dependencies = state.dependencies
    child = record.job_id
    elsewhere = [parent for parent in record.parents if not dependencies.is_local(parent)]
    known = dependencies.foreign.get(child)
    if elsewhere and (known is None or known.seq < seq):
        states = dict.fromkeys(elsewhere, UNASKED)
        dependencies.foreign[child] = Foreign(seq, record.run, settled, states)


# Decisions.


def is_due(state: State) -> bool:
    """Whether ``decide_resolve`` has something to do."""
    dependencies = state.dependencies
    if not (dependencies.ripe or dependencies.unsent):
        return False
    return state.serving and (
        bool(dependencies.ripe) or any(map(state.outbox.room, dependencies.unsent))
    )


def decide_resolve(state: State, command: ResolveDependents, now_ms: int) -> Decision:
    """Decides on ripe children, and says to other partitions what they are to be told."""
    if not state.serving:
        return Decision()
    events: list[Event] = []
    effects: list[Effect] = []
    dependencies, jobs = state.dependencies, state.jobs
    rows: list[ResolvedRow] = []
    ended: list[JobRecord] = []
    for child in islice(dependencies.ripe, command.rows_max):
        record = jobs[child]
        row = _resolved(record, dependencies.states_of(jobs, record), now_ms)
        rows.append(row)
        if row.state in TERMINAL:
            ended.append(record)
    if rows:
        events.append(DependentsResolved(now_ms=now_ms, rows=rows))
    if ended:
        effects.append(NotifySettled(records=ended))
    left = command.rows_max - len(rows)
    for target, letters in dependencies.unsent.items():
        room = min(left, state.outbox.room(target))
        if room > 0:
            left -= min(room, len(letters))
            messages = [_written(state, letter) for letter in islice(letters, room)]
            sent, deliver = outgoing(state, target, messages, now_ms)
            events.append(sent)
            effects.append(deliver)
    return Decision(events=tuple(events), effects=tuple(effects))


def outgoing(
    state: State, target: int, messages: list[Message], now_ms: int
) -> tuple[OutboxAppended, Deliver]:
    """What puts messages into the outbox, at most once for each target in one decision."""
    first = state.outbox.next_number(target, state.token)
    sent = OutboxAppended(now_ms=now_ms, target=target, first_number=first, messages=messages)
    return sent, Deliver(target=target, upto=first + len(messages) - 1)


def _resolved(record: JobRecord, states: bytes, now_ms: int) -> ResolvedRow:
    ready_ms = max(record.ready_ms, now_ms)
    return ResolvedRow(record.job_id, _state_by(record, states, now_ms), ready_ms, states)


def _state_by(record: JobRecord, states: bytes, now_ms: int) -> JobState:
    match fate_of_job(record, states):
        case Fate.RUN:
            return JobState.SCHEDULED if record.ready_ms > now_ms else JobState.PENDING
        case Fate.SKIP:
            return JobState.CANCELLED
        case Fate.FAIL:
            return JobState.FAILED
        case Fate.HOLD:
            raise ValueError(f"expected job {record.job_id} to be decided on, but it is held")


def _written(state: State, letter: Letter) -> Message:
    """What a letter says now."""
    kind, parent, child = letter
    dependencies = state.dependencies
    if kind is Kind.TELL:
        run = dependencies.registered[parent][child].run
        told = dependencies.state_of(state.jobs, parent)
        return ParentState(parent=parent, child=child, run=run, state=told)
    run = dependencies.foreign[child].run
    if kind is Kind.REGISTER:
        return RegisterChild(parent=parent, child=child, run=run)
    return ReleaseParent(parent=parent, child=child, run=run)


# Messages of other partitions.


def take_register(state: State, message: RegisterChild, now_ms: int) -> list[Event]:
    """A child elsewhere waits for a job; it is told of it in a decision to come."""
    known = state.dependencies.registered.get(message.parent, {}).get(message.child)
    if known is not None and known.run > message.run:
        return []
    registered = ChildRegistered(
        now_ms=now_ms, parent=message.parent, child=message.child, run=message.run
    )
    return [registered]


def take_release(state: State, message: ReleaseParent, now_ms: int) -> list[Event]:
    """A child elsewhere has ended, unless it has got a new run since."""
    known = state.dependencies.registered.get(message.parent, {}).get(message.child)
    if known is None or known.run > message.run:
        return []
    return [ChildReleased(now_ms=now_ms, parent=message.parent, child=message.child)]


def take_state(state: State, message: ParentState, now_ms: int) -> list[Event]:
    """A parent elsewhere is so now; jobs whose parent does not exist are withdrawn."""
    foreign = state.dependencies.foreign.get(message.child)
    if foreign is None or foreign.run != message.run or message.parent not in foreign.states:
        return []
    unborn = message.child in state.dependencies.unsettled and not foreign.settled
    record = state.jobs.get(message.child)
    shut = record is not None and record.workflow_id == message.parent and message.state != OPEN
    if unborn and (shut or message.state == GONE):
        gone = _with_descendants(state, message.child)
        withdrawn = JobsWithdrawn(
            now_ms=now_ms, parent=message.parent, job_ids=gone, state=message.state
        )
        return [withdrawn]
    if foreign.states[message.parent] == message.state:
        return []
    told = ParentTold(
        now_ms=now_ms, parent=message.parent, child=message.child, state=message.state
    )
    return [told]


def _with_descendants(state: State, job_id: JobId) -> list[JobId]:
    """A job whose submit was not acknowledged, and those that wait for it: nor were theirs."""
    dependencies = state.dependencies
    found = {job_id: None}
    todo = [job_id]
    while todo:
        for child in dependencies.children.get(todo.pop(), ()):
            if child in dependencies.unsettled and child not in found:
                found[child] = None
                todo.append(child)
    return list(found)


# Events.


def apply_resolved(state: State, event: DependentsResolved, seq: int) -> None:
    """Lets children run, or ends them."""
    for record, row in state.written_rows(((row.job_id, row) for row in event.rows), seq):
        record.state = row.state
        record.ties = structs.replace(record.ties, parent_states=row.parent_states)
        if row.state is JobState.FAILED:
            record.ended_ms = event.now_ms
            record.failure_reason = FailureReason.DEPENDENCY
            record.fault = _fault(record)
        elif row.state is JobState.CANCELLED:
            record.ended_ms = event.now_ms
            sealed = not record.workflow_id or row.parent_states[0] == JobState.COMPLETED
            record.cancel_reason = NOT_NEEDED if sealed else NOT_SEALED
        else:
            record.ties = structs.replace(record.ties, freed=True)
            record.ready_ms = record.run_due_ms = row.ready_ms


def _fault(record: JobRecord) -> JobFault:
    """Says which parent it was."""
    states = zip(record.parents, record.parent_states, strict=True)
    parent, code = next((p, c) for p, c in states if c != JobState.COMPLETED)
    what = "is not known any more" if code == GONE else f"is {JobState(code).name}"
    return JobFault(
        "tenure.ParentFailed", f"its parent {parent} {what}", category=ErrorCategory.PERMANENT
    )


def apply_withdrawn(state: State, event: JobsWithdrawn, seq: int) -> None:
    """Takes jobs out again: nobody was told of them, so no tombstone stays."""
    gone = {event.parent: None}
    for job_id in event.job_ids:
        record = state.jobs.get(job_id)
        if record is None or record.seq >= seq:
            continue
        gone[job_id] = None
        del state.jobs[job_id]
        record.seq = seq
        if record.key:
            policy = record.policy
            state.keys.release((policy.tenant, policy.queue, record.key), job_id, seq)
        if state.live:
            state.lanes.count([record], -1)
            state.lanes.forget_if_empty(record.policy)
            state.stored_bytes -= footprint(record)
            refusal = _withdrawal(record, gone, event)
            if record.workflow_id:
                state.workflows.leave(record)
            state.unpinned(state.dependencies.withdraw(record, refusal))


def _withdrawal(record: JobRecord, gone: Mapping[JobId, None], event: JobsWithdrawn) -> Refusal:
    """What the client is told of a job that was withdrawn with those before it."""
    index = next(i for i, parent in enumerate(record.parents) if parent in gone)
    parent = record.parents[index]
    if parent == record.workflow_id:
        refusal = shut_gate(record.job_id, parent, event.state)
        if refusal is not None:
            return refusal
    return unknown_parent(record.job_id, parent, index - bool(record.workflow_id))


def apply_told(state: State, event: ParentTold, seq: int) -> None:
    """Notes what a parent elsewhere is."""
    foreign = state.dependencies.foreign.get(event.child)
    if foreign is None or foreign.seq >= seq:
        return
    foreign.seq = seq
    before = foreign.states[event.parent]
    foreign.states[event.parent] = event.state
    if not foreign.settled:
        foreign.settled = min(foreign.states.values()) >= OPEN
    if state.live:
        state.dependencies.told(state.jobs, event.child, before, event.state)


def apply_registered(state: State, event: ChildRegistered, seq: int) -> None:
    """Pins a job for a child elsewhere."""
    children = state.dependencies.registered.setdefault(event.parent, {})
    known = children.get(event.child)
    if known is not None and known.seq >= seq:
        return
    children[event.child] = Registration(seq, event.run, UNASKED)
    if state.live:
        state.dependencies.tell_one(event.parent, event.child)


def apply_released(state: State, event: ChildReleased, seq: int) -> None:
    """Pins a job for a child elsewhere no more."""
    known = state.dependencies.registered.get(event.parent, {}).get(event.child)
    if known is not None and known.seq < seq:
        _forget(state, event.parent, event.child)


def apply_sent(state: State, target: int, message: Message, seq: int) -> None:
    """Notes what was said to another partition."""
    dependencies = state.dependencies
    match message:
        case RegisterChild(parent=parent, child=child, run=run):
            kind = Kind.REGISTER
            foreign = dependencies.foreign.get(child)
            # One event may say it of several parents, so it leaves the seq as it is.
            fresh = foreign is not None and foreign.run == run and foreign.seq < seq
            if foreign is not None and fresh and foreign.states.get(parent) == UNASKED:
                foreign.states[parent] = ASKED
        case ReleaseParent(parent=parent, child=child, run=run):
            kind = Kind.RELEASE
            foreign = dependencies.foreign.get(child)
            if foreign is not None and foreign.run == run:
                foreign.states.pop(parent, None)
                if not foreign.states:
                    del dependencies.foreign[child]
        case ParentState(parent=parent, child=child, run=run):
            kind = Kind.TELL
            known = dependencies.registered.get(parent, {}).get(child)
            if known is not None and known.run == run and known.seq < seq:
                known.seq, known.told = seq, message.state
                if message.state == GONE:
                    _forget(state, parent, child)
        case _:
            return
    if state.live:
        dependencies.sent(Letter(kind, parent, child), target)
        now = dependencies.state_of(state.jobs, parent)
        if isinstance(message, ParentState) and message.state != now:
            # The events before this one, of the same decision, have changed the parent.
            dependencies.tell_one(parent, child)


def _forget(state: State, parent: JobId, child: JobId) -> None:
    dependencies = state.dependencies
    children = dependencies.registered[parent]
    del children[child]
    if state.live:
        dependencies.sent(Letter(Kind.TELL, parent, child), partition_of(child))
    if not children:
        del dependencies.registered[parent]
        if state.live and not dependencies.pins(parent):
            state.unpinned([parent])
