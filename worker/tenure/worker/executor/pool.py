"""All executors as one: the slots, what jobs have to obey, and the watch over the async loop.

| order | async | thread | process | command |
|---|---|---|---|---|
| cancel, hand back | cancelled; given up after the grace | learns it at a checkpoint; the same | \
learns it; killed after the grace | SIGTERM; killed after the grace |
| timeout | the same | given up at once | killed at once | SIGTERM; killed after a short grace |
| lease of an at-most-once job lost | the same | given up at once | killed at once | the same |

When these are over, and what giving up means, is in ``patience.py``.
"""

import logging
import os
from collections.abc import Callable
from typing import Final

from tenure.client.job import Executor as Kind
from tenure.client.parent_result import Results
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.attempt import JobTable, ThreadClock
from tenure.worker.cgroup import Groups, NotDelegated, told
from tenure.worker.config import WorkerConfig
from tenure.worker.executor.batch import Later, batch_sizes, batches_of, in_loop, stage_of
from tenure.worker.executor.batch_call import Batch
from tenure.worker.executor.command import CommandExecutor
from tenure.worker.executor.coroutine import CoroutineExecutor
from tenure.worker.executor.gate import SlotGate
from tenure.worker.executor.launcher_link import LauncherLink
from tenure.worker.executor.loop import JobLoop, LoopBlocked, LoopWatch
from tenure.worker.executor.outbox import Outbox
from tenure.worker.executor.patience import Patience, grace_ms
from tenure.worker.executor.process import NEVER, ProcessExecutor, Recycling
from tenure.worker.executor.runner import Stage
from tenure.worker.executor.thread import ThreadExecutor
from tenure.worker.held import HeldJob
from tenure.worker.pools import Pool
from tenure.worker.port import Fact, Load

_LOGGER: Final = logging.getLogger(__name__)
#: The grace of a command that has timed out: a master waits for the word of it for a second.
TIMEOUT_GRACE_MS: Final = 500
#: What the error of a job says that is given up for blocking the loop.
_BLOCKS: Final = (
    "its code has kept the loop of async jobs from turning for a minute; make it await, make it a "
    "plain function, or give it a timeout"
)
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
            on_lost: Called in the session's thread when ``lost`` has risen, and for as long as the
                loop is stuck.
            recycling: When child processes are replaced.
            groups: Where jobs with limits get control groups, or why they get none.
        """
        self._clock = clock
        self._parents = parents
        self._jobs = jobs
        self._outbox = Outbox(wake)
        self._gate = SlotGate(slots, self._kind_of)
        self.batch_sizes = batch_sizes(jobs)
        self._batches = batches_of(jobs, clock, later, self._gate.offer)
        self._on_lost = on_lost
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
        self._patience = Patience(self, clock, self._outbox, self._batches, on_lost)

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
        self._patience.stop(job, outcome)

    def tell_lease(self, job: HeldJob) -> None:
        if self._processes is not None:
            self._processes.renew(job)

    def take_facts(self) -> list[Fact]:
        return self._patience.hear(self._outbox.take())

    def tick(self, now_ms: int) -> None:
        self._patience.tick(now_ms)
        self._threads.tick(now_ms)
        self._commands.tick(now_ms)
        if self._watch is not None:
            self._watch.tick(now_ms)
            self._mind(self._watch)

    def next_wake_ms(self) -> int | None:
        due_ms = self._patience.next_ms()
        if self._watch is None:
            return due_ms
        return self._watch.next_ms if due_ms is None else min(due_ms, self._watch.next_ms)

    def load(self, now_ms: int) -> Load:
        children = 0 if self._processes is None else self._processes.children
        stuck = self._watch is not None and self._watch.is_stuck
        return Load(children, self.lost, self.loop_blocked, stuck)

    @property
    def loop_blocked(self) -> LoopBlocked | None:
        """What keeps the loop of async jobs from turning at present."""
        return self._watch.blocked if self._watch is not None else None

    @property
    def lost(self) -> int:
        """How many calls were given up whose code still runs."""
        return self._patience.lost

    def close(self) -> None:
        self._threads.close()
        if self._coroutines is not None:
            self._coroutines.close()
        if self._processes is not None:
            self._processes.close()
        self._commands.close()
        self._launcher.close()

    # What can be done about jobs: the Means port.

    def ask(self, job: HeldJob, outcome: AttemptOutcome) -> int:
        kind = self._kind_of(job)
        if kind == "async" and self._coroutines is not None:
            target = job if self._batches is None else self._batches.to_interrupt(job)
            if target is not None:
                self._coroutines.interrupt(target)
        elif kind == "command" and outcome is not AttemptOutcome.LOST:
            self._commands.terminate(job)
            if outcome is AttemptOutcome.TIMED_OUT:
                return TIMEOUT_GRACE_MS
        elif outcome in _AT_ONCE:
            return 0
        elif self._processes is not None:
            self._processes.stop(job, outcome)
        return grace_ms(outcome)

    def kill(self, job: HeldJob) -> bool:
        if self._kind_of(job) == "process" and self._processes is not None:
            self._processes.kill(job)
            return True
        return self._commands.kill(job)

    def replace(self, job: HeldJob) -> None:
        if (kind := self._kind_of(job)) != "async":
            (self._commands if kind == "command" else self._threads).replace()
        self._gate.release()

    def _mind(self, watch: LoopWatch) -> None:
        """While the loop does not turn, others have the slots in which no async job could begin."""
        if watch.blocked is None or self._coroutines is None:
            self._gate.let_in("async")
            return
        # Again and again: a thread may have passed one on that it had seen before.
        self._gate.set_aside("async", self._coroutines.take_back())
        job = watch.hopeless
        # The loop may be others', too.
        if job is not None and job.terms.name in self._jobs:
            for part in job.items if isinstance(job, Batch) else [job]:
                if not part.terms.timeout_ms:
                    self._patience.give_up(part, _BLOCKS)
        if watch.is_stuck and self._on_lost is not None:
            self._on_lost()

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
        return stage_of(self._batches, *given)

    def _kind_of(self, job: HeldJob) -> Kind:
        definition = self._jobs.get(job.terms.name)
        # An unknown job fails in a thread, with its name.
        return definition.executor if definition is not None else "thread"


def pool_maker(
    config: WorkerConfig,
    clock: ThreadClock,
    parents: Results | None,
    groups: Groups | NotDelegated | None = None,
) -> Callable[[Pool, Callable[[], None], Callable[[], None]], ExecutorPool]:
    """What makes the executors of a process's pools: their coroutines share a loop.

    Args:
        config: How the worker is run.
        clock: Time.
        parents: Where the results of jobs come from that others have as arguments.
        groups: Where jobs with limits get control groups, or why they get none.
    """
    job_loop = JobLoop()
    recycling = Recycling(
        jobs=config.recycle_jobs or 0, growth_kib=(config.recycle_bytes or 0) // 1024
    )

    def make(pool: Pool, wake: Callable[[], None], on_lost: Callable[[], None]) -> ExecutorPool:
        return ExecutorPool(
            pool.jobs,
            config.app,
            pool.slots,
            clock,
            wake,
            parents,
            recycling=recycling,
            job_loop=job_loop,
            on_lost=on_lost,
            groups=groups,
        )

    return make
