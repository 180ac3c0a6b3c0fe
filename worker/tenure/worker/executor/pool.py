"""All executors as one: the slots, the timeouts, the graces, and the watch over the async loop.

What a job has to obey:

| order | async | thread | process | command |
|---|---|---|---|---|
| cancel, hand back | cancelled; given up after the grace | learns it at a checkpoint; the same | \
learns it; killed after the grace | SIGTERM; killed after the grace |
| timeout | the same | given up at once | killed at once | SIGTERM; killed after a short grace |
| lease of an at-most-once job lost | the same | given up at once | killed at once | the same |

"Given up" means that the attempt is reported while its code still runs, because a thread cannot be
killed. Its slot is *lost*: another one takes its place at once, so the worker runs as many jobs as
before, and it is counted until the code ends after all. Only a new process gets rid of it sooner:
``on_lost`` is told, and may have had enough.
"""

import heapq
import logging
import os
from collections.abc import Callable
from itertools import count
from typing import Final

from tenure.client.job import Executor as Kind
from tenure.client.parent_result import Results
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.attempt import JobTable, ThreadClock, stopped
from tenure.worker.cgroup import Groups, NotDelegated, told
from tenure.worker.executor.batch import BatchStage, Later, batch_sizes, batches_of, in_loop
from tenure.worker.executor.command import CommandExecutor
from tenure.worker.executor.coroutine import CoroutineExecutor
from tenure.worker.executor.gate import SlotGate
from tenure.worker.executor.launcher_link import LauncherLink
from tenure.worker.executor.loop import JobLoop, LoopBlocked, LoopWatch
from tenure.worker.executor.outbox import Outbox
from tenure.worker.executor.process import NEVER, ProcessExecutor, Recycling
from tenure.worker.executor.runner import Stage
from tenure.worker.executor.thread import ThreadExecutor
from tenure.worker.held import HeldJob
from tenure.worker.port import Fact, FactKind, Load

_LOGGER: Final = logging.getLogger(__name__)
#: How long a job may take to end after it was asked to.
GRACE_MS: Final = 5_000
#: The same when the worker itself is about to end.
RELEASE_GRACE_MS: Final = 1_000
#: The same for a command that has timed out: a master waits for the word of it for a second.
TIMEOUT_GRACE_MS: Final = 500
#: Alarms of ended jobs are swept out above this.
ALARMS_MIN: Final = 1_000
#: Looked up once, not for each fact.
_STARTED: Final = FactKind.STARTED
_FREED: Final = FactKind.FREED
#: Outcomes that leave no time to obey.
_AT_ONCE: Final = frozenset({AttemptOutcome.TIMED_OUT, AttemptOutcome.LOST})


class ExecutorPool:
    """The ``Executor`` port over threads, a loop and children."""

    def __init__(
        self,
        jobs: JobTable,
        app: str,
        slots: int,
        clock: ThreadClock,
        wake: Callable[[], None],
        parents: Results | None = None,
        *,
        later: Later = in_loop,
        job_loop: JobLoop | None = None,
        on_lost: Callable[[], None] | None = None,
        recycling: Recycling = NEVER,
        groups: Groups | NotDelegated | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            jobs: The functions.
            app: The module they are from; children import it too.
            slots: How many jobs run at once.
            clock: Time.
            wake: Called from any thread when there are facts to take.
            parents: Where the results of jobs come from that others have as arguments.
            later: Calls functions later, in the session's thread.
            job_loop: Where coroutine functions run, if others' run there, too; None: in its own.
            on_lost: Called in the session's thread when ``lost`` has risen.
            recycling: When child processes are replaced.
            groups: Where jobs with limits get control groups, or why they get none.
        """
        #: Jobs whose slots are lost: they were given up, and their code still runs.
        self._lost: set[HeldJob] = set()
        self._on_lost = on_lost
        self._clock = clock
        self._parents = parents
        self._jobs = jobs
        self._outbox = Outbox(wake)
        self._gate = SlotGate(slots, self._kind_of)
        self.batch_sizes = batch_sizes(jobs)
        self._batches = batches_of(jobs, clock, later, self._gate.offer)
        kinds = {definition.executor for definition in jobs.values()}
        self._threads = ThreadExecutor(self._stage("thread"), slots)
        self._gate.serve("thread", self._threads.submit)
        self._coroutines: CoroutineExecutor | None = None
        self._watch: LoopWatch | None = None
        if "async" in kinds:
            job_loop = job_loop or JobLoop()
            self._watch = job_loop.watch
            self._coroutines = CoroutineExecutor(self._stage("async"), job_loop)
            self._gate.serve("async", self._coroutines.submit)
        launcher = self._launcher = LauncherLink()
        self._groups = groups
        leaves = groups if isinstance(groups, Groups) else None
        self._processes: ProcessExecutor | None = None
        if "process" in kinds:
            stage = self._stage("process")
            are_held = any(d.limits and d.executor == "process" for d in jobs.values())
            self._processes = ProcessExecutor(
                stage, app, slots, launcher, recycling, leaves if are_held else None
            )
            self._gate.serve("process", self._processes.submit)
        self._commands = CommandExecutor(self._stage("command"), slots, launcher, leaves)
        self._gate.serve("command", self._commands.submit)
        #: (when, order, job, outcome): a timeout, or the end of a grace if ``job.stop`` is set.
        self._alarms: list[tuple[int, int, HeldJob, AttemptOutcome]] = []
        self._alarms_max = ALARMS_MIN
        self._order = count()

    def start(self) -> None:
        if self._coroutines is not None:
            self._coroutines.start()
        if self._processes is not None:
            self._processes.start()
        self._tell_limits()

    def run(self, jobs: list[HeldJob]) -> None:
        if self._batches is None:
            self._gate.offer(jobs)
        else:
            self._batches.put(jobs)

    def stop(self, job: HeldJob, outcome: AttemptOutcome) -> None:
        if job.result is not None or job.stop is not None:
            return
        job.stop = outcome
        kind = self._kind_of(job)
        grace_ms = RELEASE_GRACE_MS if outcome is AttemptOutcome.RELEASED else GRACE_MS
        if kind == "async" and self._coroutines is not None:
            target = job if self._batches is None else self._batches.to_interrupt(job)
            if target is not None:
                self._coroutines.interrupt(target)
        elif kind == "command" and outcome is not AttemptOutcome.LOST:
            self._commands.terminate(job)
            if outcome is AttemptOutcome.TIMED_OUT:
                grace_ms = TIMEOUT_GRACE_MS
        elif outcome in _AT_ONCE:
            grace_ms = 0
        elif self._processes is not None:
            self._processes.stop(job, outcome)
        if grace_ms:
            self._alarm(self._clock.boot_ms() + grace_ms, job, outcome)
        else:
            self._give_up(job, outcome)

    def tell_lease(self, job: HeldJob) -> None:
        if self._processes is not None:
            self._processes.renew(job)

    def take_facts(self) -> list[Fact]:
        facts: list[Fact] = []
        for fact in self._outbox.take():
            kind, job = fact
            if kind is _STARTED:
                if job.result is not None:
                    # It has ended meanwhile, and its result says that it had started.
                    continue
                if job.terms.timeout_ms and job.started_ms is not None:
                    due_ms = job.started_ms + job.terms.timeout_ms
                    self._alarm(due_ms, job, AttemptOutcome.TIMED_OUT)
            elif kind is _FREED:
                self._lost.discard(job)
            facts.append(fact)
        return facts

    def tick(self, now_ms: int) -> None:
        while self._alarms and self._alarms[0][0] <= now_ms:
            _, _, job, outcome = heapq.heappop(self._alarms)
            if job.result is not None:
                continue
            if job.stop is outcome:
                self._give_up(job, outcome)
            elif not self._begun_anew(job, now_ms):
                self.stop(job, outcome)
        if self._watch is not None:
            self._watch.tick(now_ms)

    def next_wake_ms(self) -> int | None:
        times = [self._alarms[0][0]] if self._alarms else []
        if self._watch is not None:
            times.append(self._watch.next_ms)
        return min(times, default=None)

    def load(self, now_ms: int) -> Load:
        children = 0 if self._processes is None else self._processes.children
        return Load(children, self.lost, self.loop_blocked)

    @property
    def loop_blocked(self) -> LoopBlocked | None:
        """What keeps the loop of async jobs from turning at present."""
        return self._watch.blocked if self._watch is not None else None

    @property
    def lost(self) -> int:
        """How many calls were given up whose code still runs."""
        return len(self._lost)

    def close(self) -> None:
        self._threads.close()
        if self._coroutines is not None:
            self._coroutines.close()
        if self._processes is not None:
            self._processes.close()
        self._commands.close()
        self._launcher.close()

    def _tell_limits(self) -> None:
        """Says who holds jobs to their limits, and to which nobody does."""
        limited = {name: job.limits for name, job in self._jobs.items() if job.limits is not None}
        if not limited:
            return
        held = self._groups.controllers if isinstance(self._groups, Groups) else frozenset()
        _LOGGER.info(
            "jobs are held to their limits by %s%s",
            told(self._groups),
            "; as this worker runs as root, limits on processes hold nobody"
            if os.geteuid() == 0 and "pids" not in held
            else "",
            extra={"action": "limits"},
        )
        shared = sorted(name for name, limits in limited.items() if limits.cpus)
        if shared and "cpu" not in held:
            _LOGGER.warning(
                "expected to hold %s to limits.cpus, but only a control group with the controller "
                "cpu can: they take as many cores as there are",
                ", ".join(shared),
                extra={"action": "limits"},
            )

    def _stage(self, kind: Kind) -> Stage:
        given = (kind, self._jobs, self._gate, self._outbox, self._clock, self._parents)
        if self._batches is None:
            return Stage(*given)
        return BatchStage(*given, batches=self._batches)

    def _kind_of(self, job: HeldJob) -> Kind:
        definition = self._jobs.get(job.terms.name)
        # An unknown job fails in a thread, with its name.
        return definition.executor if definition is not None else "thread"

    def _alarm(self, due_ms: int, job: HeldJob, outcome: AttemptOutcome) -> None:
        if len(self._alarms) >= self._alarms_max:
            # Most jobs end long before their timeouts: forget those that have.
            self._alarms = [alarm for alarm in self._alarms if alarm[2].result is None]
            heapq.heapify(self._alarms)
            self._alarms_max = max(ALARMS_MIN, 2 * len(self._alarms))
        heapq.heappush(self._alarms, (due_ms, next(self._order), job, outcome))

    def _begun_anew(self, job: HeldJob, now_ms: int) -> bool:
        """Whether a job was taken back from its child meanwhile: its time begins with its code."""
        return job.stop is None and (
            job.started_ms is None or now_ms < job.started_ms + job.terms.timeout_ms
        )

    def _give_up(self, job: HeldJob, outcome: AttemptOutcome) -> None:
        """Ends an attempt that does not end by itself."""
        if self._kind_of(job) == "process" and self._processes is not None:
            self._processes.kill(job)
            return
        if self._commands.kill(job):
            return
        result = stopped(outcome, "the job was asked to stop and has not; its code still runs")
        batch = self._batches.batch_of(job) if self._batches is not None else None
        if not job.finish(result, self._clock.boot_ms()):
            return
        if batch is not None and not batch.give_up(result, self._clock.boot_ms()):
            # The call goes on for others, or has just ended: its slot is not lost.
            self._outbox.post(FactKind.ABANDONED, job)
            return
        _LOGGER.warning(
            "job %s (%s) was asked to stop and has not: its slot is lost until its code ends, "
            "another one takes its place",
            job.job_id,
            job.terms.name,
            extra={"action": "abandon", "job_id": job.job_id},
        )
        # 1. Its slot goes to the next job, for which there must be a thread.
        # 2. From now on the session counts it as free.
        # 3. Whenever the code ends, its thread ends or its lane takes nothing more: FREED.
        if (kind := self._kind_of(job)) != "async":
            (self._commands if kind == "command" else self._threads).replace()
        self._gate.release()
        self._outbox.post(FactKind.ABANDONED, job)
        self._lost.add(job)
        if self._on_lost is not None:
            self._on_lost()
