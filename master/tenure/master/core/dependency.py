"""Dependencies: who waits for whom, what is known of parents elsewhere, who waits elsewhere.

A child is BLOCKED until all its parents have ended; then its policy says what their outcomes mean
to it (``fate_of``). An open child pins its parents: they are not purged.

Parents of the child's own partition are looked up. Of a parent elsewhere the child's partition
knows what it was told: it registers the child there (``RegisterChild``), and hears of the parent's
state at once and at each change (``ParentState``), until the child has ended (``ReleaseParent``).

- *persistent*: ``foreign`` (children here, parents elsewhere) and ``registered`` (parents here,
  children elsewhere);
- *derived*: all else, from these and the records.
"""

from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

import msgspec

from tenure.master.core.bulk import BatchRecord
from tenure.master.core.record import JobRecord, Policy
from tenure.master.core.transition import TERMINAL
from tenure.master.core.workflows import Workflows
from tenure.protocol.ids import HOME_DIGITS, JobId, partition_of
from tenure.protocol.refusal import Refusal
from tenure.protocol.vocabulary import BatchKind, BatchState, JobState, ParentFailure, RunIf

#: What is known of a parent elsewhere, a byte each; terminal states are their own codes.
UNASKED: Final = 0
ASKED: Final = 1
OPEN: Final = 2
#: It was never there, or was purged.
GONE: Final = 9
_COMPLETED: Final = int(JobState.COMPLETED)
_ENDED: Final = frozenset({*map(int, TERMINAL), GONE})
#: What a requeue can bring back.
_REVIVABLE: Final = frozenset({int(JobState.FAILED), int(JobState.CANCELLED)})


class Fate(Enum):
    """What becomes of a child whose parents have all ended."""

    RUN = auto()
    FAIL = auto()
    #: None of its parents has failed, and it is there for that only.
    SKIP = auto()
    #: It waits for a parent to be requeued.
    HOLD = auto()


def fate_of(policy: Policy, states: bytes) -> Fate:
    """What a child's policy makes of its parents' final states."""
    failed = any(state != _COMPLETED for state in states)
    match policy.run_if:
        case RunIf.ALWAYS:
            return Fate.RUN
        case RunIf.ANY_FAILED:
            return Fate.RUN if failed else Fate.SKIP
        case RunIf.ALL_SUCCEEDED:
            if not failed:
                return Fate.RUN
    match policy.on_parent_failure:
        case ParentFailure.FAIL:
            return Fate.FAIL
        case ParentFailure.IGNORE:
            return Fate.RUN
        case ParentFailure.HOLD:
            return Fate.HOLD


def fate_of_job(record: JobRecord, states: bytes) -> Fate:
    """What becomes of a child whose parents have come to this."""
    if record.workflow_id and states[0] != _COMPLETED:
        # Its workflow was not sealed: no policy lets it run.
        return Fate.SKIP
    return fate_of(record.policy, states)


class Foreign(msgspec.Struct, array_like=True, gc=False):
    """What a child's partition knows of its parents elsewhere."""

    #: Of the event that last wrote it.
    seq: int
    #: The child's run.
    run: int
    #: Whether it was once known of all of them that they exist: only then a submit is acknowledged.
    settled: bool
    states: dict[JobId, int]


class Registration(msgspec.Struct, array_like=True, gc=False):
    """What a parent's partition knows of a child elsewhere."""

    seq: int
    run: int
    #: The code that its partition was last told; UNASKED: none yet.
    told: int


class Kind(Enum):
    """What is to be said to another partition."""

    REGISTER = auto()
    TELL = auto()
    RELEASE = auto()


class Letter(NamedTuple):
    """One thing to be said: its kind, and whom it is about."""

    kind: Kind
    parent: JobId
    child: JobId


def is_revival(batch: BatchRecord) -> bool:
    """Whether a batch may still requeue jobs."""
    return batch.spec.kind is BatchKind.REQUEUE and batch.state is BatchState.RUNNING


class Dependencies:
    """All dependencies of one partition.

    Args:
        home: The digits of its number in its jobs' ids.
        workflows: Those of the partition: each is a parent of its members.
        batches: Those of the partition, by id.
    """

    def __init__(self, home: str, workflows: Workflows, batches: Mapping[str, BatchRecord]) -> None:
        self._home = home
        self._workflows = workflows
        self._batches = batches
        self.foreign: dict[JobId, Foreign] = {}
        self.registered: dict[JobId, dict[JobId, Registration]] = {}
        self.reset_derived()

    def reset_derived(self) -> None:
        """Empties what is derived."""
        #: By parent, of this or another partition: its children here that have not ended.
        self.children: dict[JobId, dict[JobId, None]] = {}
        #: By BLOCKED child: how many of its parents have not ended.
        self.waiting: dict[JobId, int] = {}
        #: BLOCKED children whose fate is to be decided, in order.
        self.ripe: dict[JobId, None] = {}
        #: Batches under way that requeue jobs.
        self.revivals = {batch.batch_id for batch in self._batches.values() if is_revival(batch)}
        #: BLOCKED children that were requeued before a parent: their fate is decided when no batch
        #: is under way any more that may bring that one back, too.
        self.deferred: dict[JobId, None] = {}
        #: Children of whose parents some may not exist: their submits are not acknowledged yet.
        self.unsettled: dict[JobId, None] = {}
        #: By target: what is to be said there, in order.
        self.unsent: dict[int, dict[Letter, None]] = {}
        #: Children that were settled, or withdrawn and why, since the last drain; and jobs that
        #: have arrived in another partition.
        self.answers: list[tuple[JobId, Refusal | None]] = []

    @property
    def active(self) -> bool:
        """Whether any job that has not ended has parents, here or elsewhere."""
        return bool(self.children or self.registered)

    def is_local(self, job_id: JobId) -> bool:
        """Whether a job lives here."""
        return job_id[HOME_DIGITS] == self._home

    def pins(self, job_id: JobId) -> bool:
        """Whether a job must be kept for a child that has not ended."""
        return job_id in self.children or job_id in self.registered

    # What is known.

    def states_of(self, jobs: Mapping[JobId, JobRecord], record: JobRecord) -> bytes:
        """What is known of each of a child's parents, as codes."""
        foreign = self.foreign.get(record.job_id)
        known = record.parent_states
        states = bytearray(len(record.parents))
        for index, parent in enumerate(record.parents):
            if self.is_local(parent):
                state = self.state_of(jobs, parent)
            else:
                state = UNASKED if foreign is None else foreign.states.get(parent, UNASKED)
            if state == GONE and known and known[index] in _ENDED:
                # It was purged since an earlier run looked at it.
                state = known[index]
            states[index] = state
        return bytes(states)

    def open_parents(self, jobs: Mapping[JobId, JobRecord], record: JobRecord) -> list[JobId]:
        """A child's parents that have not ended, as far as is known here."""
        states = self.states_of(jobs, record)
        return [p for p, s in zip(record.parents, states, strict=True) if s not in _ENDED]

    def state_of(self, jobs: Mapping[JobId, JobRecord], job_id: JobId) -> int:
        """What a job of this partition is to its children, as a code."""
        record = jobs.get(job_id)
        if record is None:
            return self._workflows.gate(job_id)
        return int(record.state) if record.state in TERMINAL else OPEN

    # What happens to jobs.

    def enter(self, jobs: Mapping[JobId, JobRecord], record: JobRecord) -> None:
        """A child is BLOCKED from now on."""
        child = record.job_id
        open_parents, settled = 0, True
        foreign = self.foreign.get(child)
        for parent in record.parents:
            self.children.setdefault(parent, {})[child] = None
            if self.is_local(parent):
                open_parents += self.state_of(jobs, parent) == OPEN
                settled &= parent not in self.unsettled
            elif foreign is not None:
                open_parents += foreign.states[parent] not in _ENDED
                settled &= foreign.settled
                # Not of an earlier run.
                self.sent(Letter(Kind.RELEASE, parent, child), partition_of(parent))
                if foreign.states[parent] == UNASKED:
                    self._say(Letter(Kind.REGISTER, parent, child), parent)
        if not settled:
            self.unsettled[child] = None
        self.waiting[child] = open_parents
        self._ripen(jobs, record)

    def moved(
        self, jobs: Mapping[JobId, JobRecord], record: JobRecord, before: JobState
    ) -> list[JobId]:
        """Keeps up after a job has changed its state; gives parents that nothing pins any more."""
        job_id, state = record.job_id, record.state
        was, ended = before in TERMINAL, state in TERMINAL
        if was is not ended and self.pins(job_id):
            self._parent_moved(jobs, job_id, -1 if ended else 1)
        if not record.parents:
            return []
        if before is JobState.BLOCKED and state is not before:
            self.waiting.pop(job_id, None)
            self._unripen(job_id)
            self._settle(jobs, job_id)
        if was and not ended:
            self._link(jobs, record)
        return self.leave(record) if ended and not was else []

    def gate_moved(self, jobs: Mapping[JobId, JobRecord], workflow_id: JobId) -> None:
        """A workflow was sealed or cancelled: its members wait for it no more."""
        self._parent_moved(jobs, workflow_id, -1)

    def leave(self, record: JobRecord) -> list[JobId]:
        """A child has ended or was withdrawn; gives parents that nothing pins any more."""
        child = record.job_id
        free: list[JobId] = []
        for parent in record.parents:
            siblings = self.children.get(parent)
            if siblings is None or child not in siblings:
                continue
            del siblings[child]
            if not siblings:
                del self.children[parent]
                if self.is_local(parent) and not self.pins(parent):
                    free.append(parent)
        self.release(child)
        return free

    def release(self, child: JobId) -> None:
        """The parents elsewhere of a child that has ended are to be released."""
        foreign = self.foreign.get(child)
        for parent in () if foreign is None else foreign.states:
            self.sent(Letter(Kind.REGISTER, parent, child), partition_of(parent))
            self._say(Letter(Kind.RELEASE, parent, child), parent)

    def withdraw(self, record: JobRecord, refusal: Refusal) -> list[JobId]:
        """A child was taken out again: its submit is refused."""
        child = record.job_id
        self.waiting.pop(child, None)
        self._unripen(child)
        if child in self.unsettled:
            del self.unsettled[child]
            self.answers.append((child, refusal))
        self.tell(child)
        return self.leave(record)

    def batch_moved(self, jobs: Mapping[JobId, JobRecord], batch: BatchRecord) -> None:
        """A batch was made, or has ended: with the last that requeues, nobody is deferred."""
        if is_revival(batch):
            self.revivals.add(batch.batch_id)
            for child in [each for each in self.ripe if jobs[each].run]:
                self._ripen(jobs, jobs[child])
        elif batch.batch_id in self.revivals:
            self.revivals.remove(batch.batch_id)
            if not self.revivals:
                self.ripe.update(self.deferred)
                self.deferred.clear()

    def told(self, jobs: Mapping[JobId, JobRecord], child: JobId, before: int, now: int) -> None:
        """What is known of a parent elsewhere has changed."""
        record = jobs.get(child)
        if record is None or child not in self.waiting:
            return
        self.waiting[child] += (now not in _ENDED) - (before not in _ENDED)
        if self.foreign[child].settled:
            self._settle(jobs, child)
        self._ripen(jobs, record)

    def tell(self, parent: JobId) -> None:
        """The children elsewhere of a job are to be told what it is now."""
        if parent in self.unsettled:
            return
        for child in self.registered.get(parent, ()):
            self._say(Letter(Kind.TELL, parent, child), child)

    def tell_one(self, parent: JobId, child: JobId) -> None:
        """A child elsewhere is to be told what its parent is now."""
        if parent not in self.unsettled:
            self._say(Letter(Kind.TELL, parent, child), child)

    def sent(self, letter: Letter, target: int) -> None:
        """Something was said, or need not be said any more."""
        letters = self.unsent.get(target)
        if letters is not None:
            letters.pop(letter, None)
            if not letters:
                del self.unsent[target]

    def ask_again(self, seq: int) -> None:
        """The cluster was set back: what was asked elsewhere may be forgotten there, or here."""
        for foreign in self.foreign.values():
            if foreign.seq < seq:
                foreign.seq = seq
                for parent, state in foreign.states.items():
                    if state in (ASKED, OPEN):
                        foreign.states[parent] = UNASKED

    # After a replay.

    def rebuild(self, jobs: Mapping[JobId, JobRecord]) -> Iterator[None]:
        """Derives everything anew, in steps."""
        self.reset_derived()
        for index, record in enumerate(jobs.values(), 1):
            if record.workflow_id:
                self._workflows.join(record)
            if record.parents and record.state not in TERMINAL:
                self._link(jobs, record)
            if index % 4_096 == 0:
                yield
        for child in self.foreign:
            job = jobs.get(child)
            if job is None or job.state in TERMINAL:
                self.release(child)
        for parent, children in self.registered.items():
            state = self.state_of(jobs, parent)
            for child, registration in children.items():
                if registration.told != state:
                    self.tell_one(parent, child)
        self.answers = []

    def _link(self, jobs: Mapping[JobId, JobRecord], record: JobRecord) -> None:
        if record.state is JobState.BLOCKED:
            self.enter(jobs, record)
            # A parent may have a higher ordinal, in a batch or after a requeue.
            if record.job_id in self.unsettled:
                self._unsettle(record.job_id)
            return
        for parent in record.parents:
            self.children.setdefault(parent, {})[record.job_id] = None

    def _unsettle(self, job_id: JobId) -> None:
        """Descendants that were looked at before are not settled, either."""
        todo = [job_id]
        while todo:
            for child in self.children.get(todo.pop(), ()):
                if child in self.waiting and child not in self.unsettled:
                    self.unsettled[child] = None
                    todo.append(child)

    def _settle(self, jobs: Mapping[JobId, JobRecord], child: JobId) -> None:
        """A child's own parents elsewhere exist: with its other parents settled, it is, too."""
        todo = [child]
        while todo:
            job_id = todo.pop()
            record = jobs.get(job_id)
            if job_id not in self.unsettled or record is None:
                continue
            foreign = self.foreign.get(job_id)
            if record.state is JobState.BLOCKED:
                if foreign is not None and not foreign.settled:
                    continue
                if any(parent in self.unsettled for parent in record.parents):
                    continue
            del self.unsettled[job_id]
            self.answers.append((job_id, None))
            self.tell(job_id)
            if job_id in self.waiting:
                self._ripen(jobs, record)
            todo += self.children.get(job_id, ())

    def _parent_moved(self, jobs: Mapping[JobId, JobRecord], parent: JobId, step: int) -> None:
        for child in self.children.get(parent, ()):
            if child in self.waiting:
                self.waiting[child] += step
                self._ripen(jobs, jobs[child])
        self.tell(parent)

    def _ripen(self, jobs: Mapping[JobId, JobRecord], record: JobRecord) -> None:
        """Puts a child where its fate is decided, unless it is held or waits."""
        child = record.job_id
        place = self._place(jobs, record)
        for each in (self.ripe, self.deferred):
            if each is place:
                each[child] = None
            else:
                each.pop(child, None)

    def _place(
        self, jobs: Mapping[JobId, JobRecord], record: JobRecord
    ) -> dict[JobId, None] | None:
        """Where a child's fate is waited for; None: it waits for parents, or is held."""
        if self.waiting.get(record.job_id) or record.job_id in self.unsettled:
            return None
        states = self.states_of(jobs, record)
        if fate_of_job(record, states) is Fate.HOLD:
            return None
        if self.revivals and record.run and not _REVIVABLE.isdisjoint(states):
            return self.deferred
        return self.ripe

    def _unripen(self, child: JobId) -> None:
        self.ripe.pop(child, None)
        self.deferred.pop(child, None)

    def _say(self, letter: Letter, about: JobId) -> None:
        self.unsent.setdefault(partition_of(about), {})[letter] = None
