"""Plain functions in spawned child processes: what they crash, leak or block is theirs alone.

One thread here serves all children. It gives a child several small jobs in one write, as many as it
is likely to run within some milliseconds, and reads their answers as they come, many at once:
```
 gate ──► queue (has slots) ──► child: job that runs | jobs behind it, begun one by one
   ▲                                        └── taken back when the first one takes long,
   └────────────────────────────────────────────  when the child dies, when they are to stop
```
A child runs one job at a time. What waits behind it needs no slot, has not begun, and costs no
attempt when it is taken back; ``board`` says what has begun, whatever state the child is in.

Children are started before there is work, and one more than are busy: neither a crash nor the
replacement of a child that has grown (``Recycling``) lets a job wait for a start. A child that
dies, or whose answer cannot be read, costs the attempt that it ran (LOST). Children are spawned,
never forked: a copy of a process that uses gRPC deadlocks.
"""

import logging
import os
import selectors
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from tenure.client.confinement import Limits
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.attempt import log_of, stopped
from tenure.worker.cgroup import Groups
from tenure.worker.executor import frame
from tenure.worker.executor.child_link import ChildLink
from tenure.worker.executor.ending import Ending
from tenure.worker.executor.launcher_link import LauncherLink
from tenure.worker.executor.runner import Stage
from tenure.worker.exits import end_broken
from tenure.worker.held import HeldJob

_LOGGER: Final = logging.getLogger(__name__)
#: An application that takes longer to import is not going to.
READY_MS_MAX: Final = 60_000
#: Pause after a child that never became ready.
RESPAWN_MS: Final = 1_000
#: How long a child may take to end after it was told to, or has closed its sockets.
EXIT_MS_MAX: Final = 5_000
#: A child that has not begun a job by then is in no state to.
BEGIN_MS_MAX: Final = 5_000
#: How much work a child has at once, and how many jobs and bytes.
AHEAD_US: Final = 10_000
AHEAD_JOBS_MAX: Final = 128
AHEAD_BYTES_MAX: Final = 128 * 1024
#: A job that takes longer lets those behind it go to other children.
STALL_MS: Final = 20
#: The least that a job costs, and how much one run moves what the next is taken to cost.
COST_US_MIN: Final = 40
COST_WEIGHT: Final = 0.2
#: How often a child's memory is looked at.
WEIGH_MS: Final = 1_000
#: How long the end of all children is waited for.
CLOSE_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recycling:
    """When a child is replaced by a fresh one; 0: never for this reason.

    Attributes:
        jobs: It has run so many.
        growth_kib: It has so much more memory than when it was ready.
    """

    jobs: int = 0
    growth_kib: int = 0


NEVER: Final = Recycling()
NO_LIMITS: Final = Limits()


class ProcessExecutor:
    """The children of a worker: one a core from the start, and one more than are busy.

    Args:
        stage: Where jobs come from and go to.
        app: What children import.
        children: How many jobs run at once at most.
        launcher: Kills the children's groups when this process dies.
        recycling: When children are replaced.
        groups: Where they get control groups; None: nowhere.
    """

    def __init__(
        self,
        stage: Stage,
        app: str,
        children: int,
        launcher: LauncherLink,
        recycling: Recycling = NEVER,
        groups: Groups | None = None,
    ) -> None:
        self._stage = stage
        self._app = app
        self._most = children
        self._launcher = launcher
        self._recycling = recycling
        self._groups = groups
        self._cores = os.cpu_count() or 1
        #: What other threads want done here; the bell wakes this one, once for many.
        self._orders: deque[Callable[[], None]] = deque()
        self._inbox: deque[HeldJob] = deque()
        self._bell, self._ears = socket.socketpair()
        self._rung = False
        #: Jobs that have slots and wait for a child.
        self._queue: deque[HeldJob] = deque()
        self._children: list[ChildLink] = []
        #: How long a run takes, by the job's name.
        self._costs: dict[str, int] = {}
        self._spawn_ms = 0
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._work, name="tenure-children", daemon=True)

    # What other threads call.

    def start(self) -> None:
        """Starts the first children, without waiting until they are ready."""
        self._ears.setblocking(False)
        self._selector.register(self._ears, selectors.EVENT_READ, self._heard_bell)
        self._thread.start()

    def submit(self, jobs: list[HeldJob]) -> None:
        """Queues jobs that have slots."""
        self._inbox.extend(jobs)
        self._ring()

    def stop(self, job: HeldJob, outcome: AttemptOutcome) -> None:
        """Asks a job to end; one that has not begun ends at once."""
        self._order(partial(self._stop, job, outcome))

    @property
    def children(self) -> int:
        """How many processes there are now."""
        return len(self._children)

    def renew(self, job: HeldJob) -> None:
        """Tells a job of its lease."""
        self._order(partial(self._renew, job))

    def kill(self, job: HeldJob) -> None:
        """Kills the job's child, if it runs."""
        self._order(partial(self._kill, job))

    def close(self) -> None:
        """Kills all children. Waits until they are gone, so that none outlives the worker."""
        self._closing = True
        self._ring()
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_S)

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._ring()

    def _ring(self) -> None:
        # Whoever clears the flag after this test has yet to look at what came, and finds it.
        if not self._rung:
            self._rung = True
            with suppress(OSError):  # All is over.
                self._bell.send(b"!")

    # The thread.

    def _work(self) -> None:
        stage = self._stage
        try:
            while not self._closing:
                now_ms = stage.clock.boot_ms()
                self._keep_children(now_ms)
                for key, mask in self._selector.select(self._patience_s(now_ms)):
                    # The end of its child may have come before it, in the same look.
                    if key.fd in self._selector.get_map():
                        key.data(mask)
                while self._orders:
                    self._orders.popleft()()
                while self._inbox:
                    self._queue.append(self._inbox.popleft())
                now_ms = stage.clock.boot_ms()
                self._feed(now_ms)
                for child in [*self._children]:
                    self._look_after(child, now_ms)
        except BaseException as error:  # noqa: BLE001  (whatever it is)
            # Their jobs' leases would be renewed for ever. The launcher kills the children.
            end_broken("the thread that serves the child processes", error)
        finally:
            for child in self._children:
                child.kill()
            for child in self._children:
                child.bury()
            self._children.clear()
            self._selector.close()
            self._bell.close()
            self._ears.close()

    def _heard_bell(self, mask: int) -> None:
        # In this order: who rings in between is not heard, but looked after next.
        self._ears.recv(64)
        self._rung = False

    def _patience_s(self, now_ms: int) -> float | None:
        """How long nothing needs to be looked at."""
        dues = [child.due_ms for child in self._children if child.due_ms is not None]
        for child in self._children:
            if len(child.given) > 1 and not child.is_stalled:
                dues.append(max(child.head_ms + STALL_MS, now_ms + STALL_MS // 4))
            elif child.given and not child.has_begun(child.given[0].number):
                dues.append(child.head_ms + BEGIN_MS_MAX)
        if self._spawn_ms > now_ms:
            dues.append(self._spawn_ms)
        return None if not dues else max(1, min(dues) - now_ms) / 1000

    # Children come and go.

    def _keep_children(self, now_ms: int) -> None:
        """Starts what is missing: children for all jobs here, and a spare one."""
        needed = sum(child.has_slot for child in self._children) + len(self._queue)
        first = min(self._most, self._cores)
        wanted = first if needed < first else min(self._most, needed) + 1
        fresh = [child for child in self._children if not child.is_old and not child.is_leaving]
        starting = sum(not child.is_ready for child in fresh)
        while len(fresh) < wanted and starting < self._cores and now_ms >= self._spawn_ms:
            try:
                child = ChildLink(self._app, self._groups)
            except (OSError, RuntimeError) as error:
                self._spawn_ms = now_ms + RESPAWN_MS
                _LOGGER.error(
                    "expected to start a child process, but %s; trying again",
                    error,
                    extra={"action": "spawn"},
                )
                return
            self._launcher.guard(child.pid, child.leaf)
            child.due_ms = now_ms + READY_MS_MAX
            self._children.append(child)
            fresh.append(child)
            starting += 1
            self._selector.register(
                child.jobs.sock, selectors.EVENT_READ, partial(self._heard, child)
            )
            self._selector.register(child.pidfd, selectors.EVENT_READ, partial(self._died, child))

    def _look_after(self, child: ChildLink, now_ms: int) -> None:
        """What time brings for one child."""
        if child.due_ms is not None and now_ms >= child.due_ms:
            child.due_ms = None
            child.kill()
        if not child.given:
            if child.is_old and child.is_idle and self._idle_child() is not child:
                child.retire(now_ms + EXIT_MS_MAX)
            return
        waited_ms = now_ms - child.head_ms
        if not child.has_begun(child.given[0].number):
            if waited_ms >= BEGIN_MS_MAX:
                child.kill()
        elif len(child.given) > 1 and waited_ms >= STALL_MS:
            child.is_stalled = True
            self._take_back(child, now_ms)

    def _weigh(self, child: ChildLink, now_ms: int) -> None:
        """Finds out whether a child is to be replaced."""
        limits = self._recycling
        if limits.jobs and child.done >= limits.jobs:
            child.is_old = True
        if limits.growth_kib and now_ms - child.weighed_ms >= WEIGH_MS:
            child.weighed_ms = now_ms
            if child.memory_kib() - child.base_kib >= limits.growth_kib:
                child.is_old = True

    def _died(self, child: ChildLink, mask: int) -> None:
        """A child's process has ended."""
        try:
            # Its last answers may still be on their way.
            while said := child.hear():
                self._listen(child, said)
        except frame.BrokenFrame:
            pass
        self._selector.unregister(child.pidfd)
        self._deafen(child)
        self._children.remove(child)
        now_ms = self._stage.clock.boot_ms()
        run = child.given[0] if child.given and child.has_begun(child.given[0].number) else None
        if run is not None:
            child.given.popleft()
        waiting = [given.job for given in child.given]
        child.given.clear()
        limits = self._limits_of(run.job) if run is not None else NO_LIMITS
        ending = child.bury(limits.memory_bytes)
        self._launcher.release(child.pid)
        if not child.is_ready and not self._closing:
            self._spawn_ms = now_ms + RESPAWN_MS
            _LOGGER.error(
                "expected a child process to import %s, but it %s; trying again",
                self._app,
                ending.told(),
                extra={"action": "spawn"},
            )
        if run is not None:
            job = run.job
            outcome = job.stop or _outcome_of(limits, ending)
            result = ending.as_result(outcome, "the child process that ran the job")
            self._note_start(job, now_ms)
            self._stage.settle(job, result, now_ms)
            if job.stop is None:
                _LOGGER.warning(
                    "the child process that ran job %s (%s) %s: that costs its attempt",
                    job.job_id,
                    job.terms.name,
                    ending.told(),
                    extra={"action": "child_lost", "job_id": job.job_id},
                )
        self._came_back(child, waiting, now_ms, keeps_slot=run is None)

    def _limits_of(self, job: HeldJob) -> Limits:
        definition = self._stage.jobs.get(job.terms.name)
        return (definition.limits if definition is not None else None) or NO_LIMITS

    def _deafen(self, child: ChildLink) -> None:
        """Nothing that a child says counts any more."""
        for sock in (child.jobs.sock, child.control.sock):
            if sock in self._selector.get_map():
                self._selector.unregister(sock)

    # Jobs go out.

    def _feed(self, now_ms: int) -> None:
        """Gives waiting jobs to idle children, and more to those that are busy."""
        stage = self._stage
        while self._queue and (child := self._idle_child()) is not None:
            job = self._queue.popleft()
            if stage.take(job, now_ms):
                child.has_slot = True
                child.head_ms = now_ms
                stage.started(job, now_ms)
                child.give([(job, self._costs.get(job.terms.name, AHEAD_US))])
                self._watch_writes(child)
            else:
                self._next()
        busy = [child for child in self._children if child.has_slot]
        for child in busy:
            self._top_up(child, len(busy), now_ms)

    def _top_up(self, child: ChildLink, busy: int, now_ms: int) -> None:
        """Lets small jobs wait where they are going to run."""
        ahead_us = child.ahead_us
        if child.is_stalled or child.is_leaving or 2 * ahead_us > AHEAD_US:
            return
        if child.is_old and self._idle_child() is not None:
            return
        costs, count, size = self._costs, len(child.given), 0

        def fits(job: HeldJob) -> bool:
            nonlocal ahead_us, count, size
            ahead_us += costs.get(job.terms.name, AHEAD_US)
            size += len(job.payload)
            count += 1
            # That a job of this kind has begun is to be known before it does anything.
            return (
                ahead_us <= AHEAD_US
                and count <= AHEAD_JOBS_MAX
                and size <= AHEAD_BYTES_MAX
                and not job.terms.at_most_once
            )

        take = self._stage.take
        more = [
            (job, costs.get(job.terms.name, AHEAD_US))
            for job in self._stage.ahead(fits, busy)
            if take(job, now_ms)
        ]
        if more:
            child.give(more)
            self._watch_writes(child)

    def _idle_child(self) -> ChildLink | None:
        """Who can have a job at once; one that is to be replaced only if there is no other."""
        found = None
        for child in self._children:
            if child.is_idle:
                if not child.is_old:
                    return child
                found = child
        return found

    def _next(self) -> None:
        """A slot is free: the next job of this kind gets it."""
        job = self._stage.next()
        if job is not None:
            self._queue.append(job)

    def _watch_writes(self, child: ChildLink) -> None:
        """Lets the selector say when a full socket takes more."""
        events = selectors.EVENT_READ | (child.jobs.is_stuck and selectors.EVENT_WRITE)
        sock = child.jobs.sock
        if sock in (known := self._selector.get_map()) and known[sock].events != events:
            self._selector.modify(sock, events, known[sock].data)
        sock = child.control.sock
        if child.control.is_stuck and sock not in known:
            self._selector.register(sock, selectors.EVENT_WRITE, partial(self._flush, child))

    def _flush(self, child: ChildLink, mask: int) -> None:
        child.control.push()
        if not child.control.is_stuck:
            self._selector.unregister(child.control.sock)

    # Answers come in.

    def _heard(self, child: ChildLink, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            child.jobs.push()
            self._watch_writes(child)
        if not mask & selectors.EVENT_READ:
            return
        try:
            said = child.hear()
            if said is not None:
                self._listen(child, said)
                return
            # It ends, or its job has closed what is not its own.
            child.is_leaving = True
            child.due_ms = self._stage.clock.boot_ms() + EXIT_MS_MAX
        except frame.BrokenFrame:
            child.is_leaving = True
            child.kill()
        self._deafen(child)

    def _listen(self, child: ChildLink, frames: list[frame.ToParent]) -> None:
        """Takes what a child says.

        Raises:
            BrokenFrame: It says what it cannot mean.
        """
        now_ms = self._stage.clock.boot_ms()
        before = len(child.given)
        for said in frames:
            match said:
                case frame.Ended():
                    self._ended(child, said, now_ms)
                case frame.Progress(number=number, pct=pct):
                    if job := child.running(number):
                        job.progress = pct
                case frame.Saved(number=number, data=data):
                    if job := child.running(number):
                        job.save(data)
                case frame.Said(number=number, lines=lines):
                    if job := child.running(number):
                        log_of(job).extend(lines)
                case frame.Ask(ask=ask, job_ids=job_ids):
                    self._ask(child, ask, job_ids)
                case frame.Skipped(number=number):
                    # Most were taken off the books when they were taken back.
                    if child.given and child.given[0].number == number:
                        self._came_back(child, [child.given.popleft().job], now_ms)
                case frame.Ready() if not child.is_ready:
                    child.is_ready = True
                    child.due_ms = None
                    child.base_kib = child.memory_kib()
                case _:
                    raise frame.BrokenFrame
        if len(child.given) == before:
            return
        child.is_stalled = False
        child.head_ms = now_ms
        self._weigh(child, now_ms)
        if child.given:
            self._note_start(child.given[0].job, now_ms)
        else:
            self._idle(child)

    def _ended(self, child: ChildLink, said: frame.Ended, now_ms: int) -> None:
        if not child.given or child.given[0].number != said.number:
            raise frame.BrokenFrame
        job = child.given.popleft().job
        child.done += 1
        if job.started_ms is None:
            # It has come and gone between two reads: its end says that it had started.
            job.started_ms = now_ms - said.run_us // 1000
        name, run_us = job.terms.name, max(COST_US_MIN, said.run_us)
        known = self._costs.get(name, run_us)
        self._costs[name] = known + int((run_us - known) * COST_WEIGHT)
        self._stage.settle(job, said.as_result(), now_ms)
        if said.is_spent and not child.is_leaving:
            child.retire(now_ms + EXIT_MS_MAX)
            self._take_back(child, now_ms)

    def _note_start(self, job: HeldJob, now_ms: int) -> None:
        if job.started_ms is None:
            self._stage.started(job, now_ms)

    def _idle(self, child: ChildLink) -> None:
        """A child has nothing left to do: its slot is free."""
        if child.has_slot:
            child.has_slot = False
            self._next()

    def _ask(self, child: ChildLink, ask: int, job_ids: list[str]) -> None:
        """Fetches the results of a job's parents, in a thread: it takes a while."""
        parents = self._stage.parents
        if parents is None:
            raise frame.BrokenFrame

        def fetch() -> None:
            for answer in frame.answers_of(ask, parents, job_ids):
                self._order(partial(self._say, child, answer))

        try:
            threading.Thread(target=fetch, name="tenure-parents", daemon=True).start()
        except RuntimeError as error:
            self._say(child, frame.refusal_of(ask, error))

    # What jobs are told.

    def _say(self, child: ChildLink, said: frame.Stop | frame.Lease | frame.Answer) -> None:
        if child in self._children and not child.is_leaving:
            child.say(said)
            self._watch_writes(child)

    def _stop(self, job: HeldJob, outcome: AttemptOutcome) -> None:
        child, number = self._where(job)
        if child is None:
            return
        if not child.has_begun(number):
            self._take_back(child, self._stage.clock.boot_ms())
        self._say(child, frame.Stop(number, outcome))

    def _renew(self, job: HeldJob) -> None:
        child, number = self._where(job)
        if child is not None:
            self._say(child, frame.Lease(number, job.expires_ms, job.revoked, job.wanted_back))

    def _kill(self, job: HeldJob) -> None:
        """Kills a job, and certainly no other one: none can begin behind it any more."""
        child, number = self._where(job)
        if child is None:
            return
        self._take_back(child, self._stage.clock.boot_ms())
        if child.given and child.given[-1].number == number:
            child.kill()

    def _where(self, job: HeldJob) -> tuple[ChildLink | None, int]:
        for child in self._children:
            for given in child.given:
                if given.job is job:
                    return child, given.number
        return None, 0

    def _take_back(self, child: ChildLink, now_ms: int) -> None:
        """Takes back what has not begun: it goes to other children, or ends if it is to stop."""
        had = len(child.given)
        taken = child.take_back()
        keeps_slot = len(taken) == had
        self._came_back(child, taken, now_ms, keeps_slot=keeps_slot)

    def _came_back(
        self, child: ChildLink, jobs: list[HeldJob], now_ms: int, *, keeps_slot: bool = False
    ) -> None:
        """Jobs that a child had and that have not begun.

        Args:
            child: The child.
            jobs: Those jobs, in order.
            now_ms: The time.
            keeps_slot: The first one may have the child's slot.
        """
        again: list[HeldJob] = []
        for job in jobs:
            job.started_ms = None
            if job.stop is None:
                job.unclaim()
                again.append(job)
            else:
                self._stage.settle(job, stopped(job.stop, "it had not begun"), now_ms)
        if keeps_slot and child.has_slot and again:
            child.has_slot = False
            self._queue.appendleft(again.pop(0))
        if again:
            self._stage.back(again)
        if not child.given:
            self._idle(child)


def _outcome_of(limits: Limits, ending: Ending) -> AttemptOutcome:
    """What a job comes to whose child has died. Whoever has used up what it may has failed."""
    if ending.memory_max or (limits.cpu is not None and ending.status == -signal.SIGXCPU):
        return AttemptOutcome.FAILED
    return AttemptOutcome.LOST
