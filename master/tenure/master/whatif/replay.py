"""A replay: a trace through one partition of the real core, on a clock that jumps.

```
 next of: an arrival, an end of a run, a timer of the core
   └─ SubmitJobs, ReportAttempts, FireTimers of that moment
        └─ Dispatch, until nothing more is granted ─► starts; ends of runs are known then
```
Nothing of the scheduler is modelled: order, shares, limits and gates are decided by the core.
Workers are (``worker.py``): they take a little more than they can run at once, and never fail.

The clock jumps from one multiple of the resolution to the next at which something happens, so that
the core decides on all of that together, as the leader of a busy cluster does. When a job starts
inside such a step is known all the same: when it was due or when its slot became free.

Where nothing waits and more slots are free than jobs come next, nothing is to be decided but who
runs them: these go in one stride, however far apart they are, and each starts when it comes. (With
settings or wishes the order of ends and arrivals matters to the core, and there is no stride.)
"""

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tenure.master.core.command import (
    AcceptAssignment,
    Command,
    DeclareLeases,
    Dispatch,
    FireTimers,
    LeaseRow,
    OpenSession,
    OpenTerm,
    ReportAttempts,
    ReportRow,
    SendHeld,
    StartLeases,
    SubmitJobs,
    SubmitRow,
    SubmitSetting,
    UpdateSettings,
)
from tenure.master.core.config import PartitionConfig, Retention
from tenure.master.core.effect import Decision, SendAssignment, SendCancels, SubmitReply
from tenure.master.core.partition import Partition
from tenure.master.core.record import LabelSelector, Policy
from tenure.master.core.settings import AnySettings, SettingsKey
from tenure.master.whatif.trace import Arrival
from tenure.master.whatif.worker import Worker
from tenure.protocol.errors import Rejected
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId, mint_many
from tenure.protocol.limits import DAY_MS
from tenure.protocol.vocabulary import AttemptOutcome

#: Any time will do: all that counts is how far from it things are.
_BEGIN_MS: Final = 1_700_000_000_000
_TOKEN: Final = Token(1, 1)
#: Leases and finished jobs outlive every trace: nobody's heartbeats have to be played.
_FOR_EVER_MS: Final = 100 * 366 * DAY_MS
#: What would happen after this does not.
_END_MS: Final = _BEGIN_MS + _FOR_EVER_MS // 2
_SUBMIT_MAX: Final = 1_000
_GRANTS_MAX: Final = 1_000
_TIMER_ROWS: Final = 1_000
#: Nothing is retried, so it is never used.
_JITTER: Final = [0.5] * _TIMER_ROWS
#: Jobs of one stride.
_STRIDE_MAX: Final = 256
#: Assignments that a worker takes note of at once.
_ACCEPT_EVERY: Final = 50
_SEED: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The workers of a replay: they serve every queue and every job.

    Attributes:
        workers: How many.
        slots: How many jobs each runs at once.
        labels: What all of them have.
    """

    workers: int
    slots: int
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, kw_only=True)
class Fate:
    """What became of a job. Times in milliseconds since the trace's first arrival.

    Attributes:
        due_ms: When it was due.
        started_ms: When it started; None: it never did.
        ended_ms: When its slot was free again.
        refused: Why its submit was refused; "": it was not.
    """

    due_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    refused: str = ""


class Replay:
    """One trace, with one fleet and one set of settings."""

    def __init__(
        self,
        arrivals: Sequence[Arrival],
        fleet: Fleet,
        settings: Sequence[tuple[SettingsKey, AnySettings]] = (),
        *,
        resolution_ms: int = 1,
    ) -> None:
        """Opens the sessions and sets the settings.

        Args:
            arrivals: The trace, in any order.
            fleet: Who runs it.
            settings: Of queues, tenants and job types; what is not named has the defaults.
            resolution_ms: How far the core decides upon together.

        Raises:
            Rejected: A setting cannot be.
        """
        self._arrivals = sorted(arrivals, key=lambda each: each.at_ms)
        first_ms = self._arrivals[0].at_ms if self._arrivals else 0
        self._offset_ms = _BEGIN_MS - first_ms
        self.jobs = [(each, Fate(due_ms=self._due_ms(each))) for each in self._arrivals]
        self._partition = _partition()
        self._now_ms = _BEGIN_MS
        self._next = 0
        self._ids: dict[JobId, int] = {}
        self._resolution_ms = resolution_ms
        #: No job starts before this in the present step.
        self._earliest_ms = 0
        #: Whether jobs may go in strides.
        self._strides = not settings and not any(map(_is_bound, arrivals))
        self._workers: dict[int, Worker] = {}
        #: (when, tie-break, session, job, lease): runs that end.
        self._ends: list[tuple[int, int, int, JobId, Lease]] = []
        #: What runs, by job: where, and under which lease.
        self._running: dict[JobId, Lease] = {}
        self._draw = random.Random(_SEED)
        self._policies: dict[tuple[object, ...], SubmitSetting] = {}
        self._step(OpenTerm(token=_TOKEN, incarnation="whatif", window_ms=0))
        for key, value in settings:
            self._step(UpdateSettings(key=key, settings=value))
        self._open_sessions(fleet)

    def _due_ms(self, arrival: Arrival) -> int:
        return arrival.at_ms + self._offset_ms - _BEGIN_MS + arrival.delay_ms

    def _open_sessions(self, fleet: Fleet) -> None:
        names = frozenset(each.name for each in self._arrivals)
        for number in range(1, fleet.workers + 1):
            self._step(
                OpenSession(
                    session_id=number,
                    incarnation=f"w{number}",
                    worker=f"w{number}",
                    job_names=names,
                    queues=frozenset(),
                    slots=fleet.slots,
                    labels=fleet.labels,
                )
            )
            self._step(DeclareLeases(session_id=number, rows=[]))
            self._workers[number] = Worker(number, fleet.slots)

    def run(self) -> None:
        """Plays it to its end: everything has run, or what is left never will."""
        arrivals, ends, partition = self._arrivals, self._ends, self._partition
        while True:
            if self._strides and self._stride():
                continue
            timer_ms = partition.next_timer_ms() or _END_MS
            next_ms = timer_ms
            if self._next < len(arrivals):
                next_ms = min(next_ms, arrivals[self._next].at_ms + self._offset_ms)
            if ends:
                next_ms = min(next_ms, ends[0][0])
            if next_ms >= _END_MS:
                return
            past = (next_ms - _BEGIN_MS) % self._resolution_ms
            step_ms = next_ms if not past else next_ms - past + self._resolution_ms
            self._now_ms = max(step_ms, self._now_ms)
            self._earliest_ms = self._now_ms - _BEGIN_MS - self._resolution_ms + 1
            self._submit()
            self._end_runs()
            if timer_ms <= self._now_ms:
                self._step(FireTimers(rows_max=_TIMER_ROWS, jitter=_JITTER))
            while self._dispatch():
                pass

    def _stride(self) -> bool:
        """Plays the next arrivals together if all of them start at once; False: not now."""
        if self._partition.has_ready():
            return False
        arrivals, first = self._arrivals, self._next
        free = sum([each.free for each in self._workers.values()])
        end = min(first + free, first + _STRIDE_MAX, len(arrivals))
        if end - first < 2:
            return False
        last_ms = arrivals[end - 1].at_ms + self._offset_ms
        timer_ms = self._partition.next_timer_ms()
        if timer_ms is not None and timer_ms <= last_ms:
            return False
        self._now_ms = max(last_ms, self._now_ms)
        self._earliest_ms = arrivals[first].at_ms + self._offset_ms - _BEGIN_MS
        self._next = end
        self._submit_some(range(first, end))
        while self._dispatch():
            pass
        self._end_runs()
        return True

    # What happens at one moment.

    def _submit(self) -> None:
        """Submits what arrives now."""
        arrivals, now_ms = self._arrivals, self._now_ms - self._offset_ms
        while self._next < len(arrivals) and arrivals[self._next].at_ms <= now_ms:
            first = self._next
            end = first + 1
            while (
                end < len(arrivals) and end - first < _SUBMIT_MAX and arrivals[end].at_ms <= now_ms
            ):
                end += 1
            self._next = end
            self._submit_some(range(first, end))

    def _submit_some(self, places: range) -> None:
        ids = mint_many(0, self._now_ms, len(places), self._draw.getrandbits)
        settings: dict[SubmitSetting, int] = {}
        rows = []
        for place, job_id in zip(places, ids, strict=True):
            arrival = self._arrivals[place]
            setting = settings.setdefault(self._setting(arrival), len(settings))
            rows.append(SubmitRow(job_id, setting, b"", "", arrival.limit_key, arrival.sticky_key))
            self._ids[job_id] = place
        reply = self._step(SubmitJobs(settings=list(settings), rows=rows)).reply
        if isinstance(reply, SubmitReply):
            for index, refusal in reply.refusals:
                self.jobs[places[index]][1].refused = refusal.reason

    def _setting(self, arrival: Arrival) -> SubmitSetting:
        """What the job's options are; equal ones are one object, as in a master."""
        shape = (
            arrival.name,
            arrival.queue,
            arrival.tenant,
            arrival.priority,
            arrival.delay_ms,
            _selectors(arrival.requires),
            _selectors(arrival.prefers),
        )
        known = self._policies.get(shape)
        if known is None:
            policy = Policy(
                name=arrival.name,
                queue=arrival.queue,
                tenant=arrival.tenant,
                requires=_selectors(arrival.requires),
                prefers=_selectors(arrival.prefers),
            )
            known = SubmitSetting(policy, arrival.priority, arrival.delay_ms, 0)
            self._policies[shape] = known
        return known

    def _end_runs(self) -> None:
        """Reports what ends now."""
        ended: dict[int, list[ReportRow]] = {}
        while self._ends and self._ends[0][0] <= self._now_ms:
            end_ms, _, session_id, job_id, lease = heapq.heappop(self._ends)
            if self._running.get(job_id) == lease:
                row = self._end(session_id, job_id, end_ms, AttemptOutcome.COMPLETED)
                ended.setdefault(session_id, []).append(row)
        for session_id, rows in ended.items():
            self._step(ReportAttempts(session_id=session_id, rows=rows, jitter=_JITTER))
            self._begin(self._workers[session_id])

    def _end(
        self, session_id: int, job_id: JobId, end_ms: int, outcome: AttemptOutcome
    ) -> ReportRow:
        """Frees a job's slot; its worker's report."""
        lease = self._running.pop(job_id)
        fate = self.jobs[self._ids[job_id]][1]
        fate.ended_ms = end_ms - _BEGIN_MS
        run_ms = fate.ended_ms - (fate.started_ms or 0)
        self._workers[session_id].ended(fate.ended_ms, run_ms)
        return ReportRow(job_id, lease, outcome, b"", "", None, run_ms)

    def _dispatch(self) -> bool:
        """Gives what is ready to who wants more; tells whether anything was given."""
        if not self._partition.has_ready():
            return False
        workers = self._workers.values()
        credits = [(each.number, credit) for each in workers if (credit := each.credit)]
        if not credits:
            return False
        decision = self._step(
            Dispatch(
                credits=credits,
                committed_seq=self._partition.next_seq - 1,
                grants_max=_GRANTS_MAX,
            )
        )
        sent = [effect for effect in decision.effects if isinstance(effect, SendAssignment)]
        for assignment in sent:
            if assignment.write_ahead:
                self._send_held(assignment)
            else:
                self._take(assignment)
        return bool(sent)

    def _send_held(self, held: SendAssignment) -> None:
        """Commits take no time here."""
        command = SendHeld(session_id=held.session_id, rows=held.rows)
        for effect in self._step(command).effects:
            if isinstance(effect, SendAssignment):
                self._take(effect)

    def _take(self, sent: SendAssignment) -> None:
        """An assignment arrives."""
        worker = self._workers[sent.session_id]
        for row in sent.rows:
            lease = Lease(_TOKEN, row.lease_seq, row.record.run)
            worker.take(LeaseRow(row.record.job_id, lease))
        if sent.number % _ACCEPT_EVERY == 0:
            self._step(AcceptAssignment(session_id=worker.number, number=sent.number))
        self._begin(worker)

    def _begin(self, worker: Worker) -> None:
        """Starts what a worker holds and has slots for."""
        begun = []
        while (found := worker.next()) is not None:
            row, free_ms = found
            job_id, lease = row
            arrival, fate = self.jobs[self._ids[job_id]]
            fate.started_ms = max(fate.due_ms, free_ms, self._earliest_ms)
            end_ms = _BEGIN_MS + fate.started_ms + arrival.run_ms
            heapq.heappush(self._ends, (end_ms, lease.seq, worker.number, job_id, lease))
            self._running[job_id] = lease
            begun.append(row)
        if begun:
            self._step(StartLeases(session_id=worker.number, rows=begun))

    def _step(self, command: Command) -> Decision:
        """Decides and applies one command; jobs that are to be stopped stop at once."""
        decision = self._partition.decide(command, self._now_ms)
        if not isinstance(decision, Decision):
            raise Rejected(
                decision.message,
                reason=decision.reason,
                metadata=decision.metadata,
                field=decision.field,
            )
        for event in decision.events:
            self._partition.apply(event)
        for effect in decision.effects:
            if isinstance(effect, SendCancels):
                self._stop(effect)
        return decision

    def _stop(self, asked: SendCancels) -> None:
        session_id, now_ms, outcome = asked.session_id, self._now_ms, AttemptOutcome.CANCELLED
        worker = self._workers[session_id]
        rows = []
        for job_id, lease in asked.rows:
            if self._running.get(job_id) == lease:
                rows.append(self._end(session_id, job_id, now_ms, outcome))
            elif worker.drop(LeaseRow(job_id, lease)):
                rows.append(ReportRow(job_id, lease, outcome, b"", "", None, 0))
        if rows:
            self._step(ReportAttempts(session_id=session_id, rows=rows, jitter=_JITTER))
            self._begin(worker)


def _partition() -> Partition:
    """An empty partition whose leases need no heartbeats and that forgets nothing."""
    partition = Partition(
        PartitionConfig(
            partition=0,
            partitions=1,
            lease_ttl_ms=_FOR_EVER_MS,
            accept_timeout_ms=_FOR_EVER_MS,
            take_back_ms=_FOR_EVER_MS,
            retention=Retention(
                completed_ms=_FOR_EVER_MS,
                completed_max=1 << 40,
                failed_ms=_FOR_EVER_MS,
                failed_max=1 << 40,
            ),
        )
    )
    partition.finish_replay()
    return partition


def _is_bound(arrival: Arrival) -> bool:
    """Whether a job may have to wait though slots are free."""
    return bool(
        arrival.delay_ms
        or arrival.requires
        or arrival.prefers
        or arrival.sticky_key
        or arrival.limit_key
    )


def _selectors(labels: dict[str, list[str]]) -> tuple[LabelSelector, ...]:
    return tuple(LabelSelector(key, tuple(values)) for key, values in sorted(labels.items()))
