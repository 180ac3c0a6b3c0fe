"""A real executor pool, and a test that waits for its facts."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tenure.client.codec import encode_args
from tenure.client.parent_result import Results
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker import app
from tenure.worker.cgroup import Groups, NotDelegated
from tenure.worker.clock import SystemClock
from tenure.worker.executor.loop import PROBE_MS
from tenure.worker.executor.pool import ExecutorPool
from tenure.worker.held import AttemptResult, HeldJob, Terms
from tenure.worker.port import FactKind
from tests.processes import has_ended
from tests.unit.worker.masters import TOKEN, job_id

APP = "tests.unit.worker.applications"
JOBS = {
    **app.load(APP),
    **app.load("tests.unit.worker.batch_handlers"),
    **app.load("tests.unit.worker.commands"),
    **app.load("tests.unit.worker.bad_values"),
    **app.load("tests.unit.worker.confined"),
    **app.load("tests.unit.worker.relatives"),
}
WAIT_S = 30.0


class ShiftedClock(SystemClock):
    """The real clock, ahead by what the test wants: graces pass without waiting for them."""

    def __init__(self) -> None:
        self.ahead_ms = 0
        self._stands_ms: int | None = None

    def stand(self) -> None:
        """Time passes only when the test says so, from now on. Child processes have a clock of
        their own.
        """
        self._stands_ms = super().boot_ms()

    def boot_ms(self) -> int:
        own_ms = super().boot_ms() if self._stands_ms is None else self._stands_ms
        return own_ms + self.ahead_ms


class Bench:
    """The session's side of a pool."""

    def __init__(
        self,
        slots: int,
        jobs: list[str],
        on_lost: Callable[[], None] | None = None,
        module: str = APP,
        groups: Groups | NotDelegated | None = None,
        parents: Results | None = None,
    ) -> None:
        self.clock = ShiftedClock()
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        table = {name: JOBS[name] for name in jobs}
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self.pool = ExecutorPool(
            table,
            module,
            slots,
            self.clock,
            lambda: self._woken.put(None),
            parents,
            later=self._later,
            on_lost=on_lost,
            groups=groups,
        )
        self.facts: list[tuple[FactKind, HeldJob]] = []
        self._kinds: dict[HeldJob, list[FactKind]] = {}
        self._number = 0

    def job(self, name: str, *args: Any, **fields: Any) -> HeldJob:
        """A job to run, with fields of its terms or of the job itself."""
        self._number += 1
        terms = {
            key: fields.pop(key)
            for key in ("timeout_ms", "at_most_once", "non_retryable", "content_type")
            if key in fields
        }
        payload = fields.pop("payload", None)
        if payload is None:
            payload = encode_args(JOBS[name], args, {})
        return HeldJob(
            job_id=job_id(self._number),
            partition=0,
            token=TOKEN,
            seq=self._number,
            terms=Terms(name, **terms),
            payload=payload,
            expires_ms=fields.pop("expires_ms", 1 << 60),
            **fields,
        )

    def until(self, done: Callable[[], object]) -> None:
        """Takes facts until something is so."""
        while not done():
            self._woken.get(timeout=WAIT_S)
            for fact in self.pool.take_facts():
                self.facts.append(fact)
                kind, job = fact
                self._kinds.setdefault(job, []).append(kind)

    def run(self, *jobs: HeldJob) -> list[AttemptResult]:
        """Runs jobs to their ends."""
        self.pool.run(list(jobs))
        self.until(lambda: all(self.kinds(job)[-1:] == [FactKind.ENDED] for job in jobs))
        return [job.result for job in jobs if job.result is not None]

    def result(self, name: str, *args: Any, **fields: Any) -> AttemptResult:
        """Runs one job."""
        (result,) = self.run(self.job(name, *args, **fields))
        return result

    def kinds(self, job: HeldJob) -> list[FactKind]:
        """What was said of a job so far."""
        return self._kinds.get(job, [])

    def begin(self, job: HeldJob, started: Path) -> HeldJob:
        """Runs a job until its code has touched the file."""
        self.pool.run([job])
        until_exists(started)
        self.until(lambda: FactKind.STARTED in self.kinds(job))
        return job

    def pass_time(self, ms: int) -> None:
        """Lets the pool see a later time."""
        self.clock.ahead_ms += ms
        now_ms = self.clock.boot_ms()
        due = [function for due_ms, function in self._timers if due_ms <= now_ms]
        self._timers = [timer for timer in self._timers if timer[0] > now_ms]
        for function in due:
            function()
        self.pool.tick(now_ms)

    def _later(self, delay_s: float, function: Callable[[], None]) -> None:
        self._timers.append((self.clock.boot_ms() + delay_s * 1000, function))

    def until_turned(self) -> None:
        """Lets the pool see that its loop turns."""
        watch = self.pool._watch
        if watch is None:
            raise AssertionError("there is no loop")
        tick, turns = threading.Event(), watch._loop.turns
        watch._loop.probe()
        while watch._loop.turns == turns:
            tick.wait(0.001)
        self.pass_time(PROBE_MS)

    def outcome_after(self, job: HeldJob, kind: FactKind) -> AttemptOutcome:
        """The job's outcome once the fact has come."""
        self.until(lambda: kind in self.kinds(job))
        if job.result is None:
            raise AssertionError(f"{job.job_id} has no result")
        return job.result.outcome


@contextmanager
def bench(
    *jobs: str,
    slots: int = 2,
    on_lost: Callable[[], None] | None = None,
    module: str = APP,
    groups: Groups | NotDelegated | None = None,
    parents: Results | None = None,
) -> Iterator[Bench]:
    """A started pool for some of the test application's jobs; children import the module."""
    made = Bench(slots, list(jobs), on_lost, module, groups, parents)
    made.pool.start()
    try:
        yield made
    finally:
        made.pool.close()


@contextmanager
def no_threads(name: str) -> Iterator[None]:
    """Lets no thread start whose name begins so, as a limit on processes would."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(name):
            raise RuntimeError("can't start new thread")
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


def until_exists(path: Path) -> None:
    """Waits for another thread or process to create a file."""
    tick = threading.Event()
    end = time.monotonic() + WAIT_S
    while not path.exists():
        if time.monotonic() > end:
            raise AssertionError(f"{path} never came")
        tick.wait(0.005)


def wait_gone(pid: int) -> None:
    """Waits until a process has ended (a zombie that nobody reaps has, too)."""
    tick = threading.Event()
    while not has_ended(pid):
        tick.wait(0.005)
