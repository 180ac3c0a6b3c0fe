"""What the three executors have in common: how a job begins, ends, and frees its slot."""

from collections.abc import Callable
from typing import Final

from tenure.client.job import Executor as Kind
from tenure.client.parent_result import Results
from tenure.worker.attempt import JobTable, ThreadClock, stopped
from tenure.worker.executor.gate import SlotGate
from tenure.worker.executor.outbox import Outbox
from tenure.worker.held import AttemptResult, HeldJob
from tenure.worker.middleware import (
    RunCoroutine,
    RunFunction,
    coroutine_runner,
    function_runner,
)
from tenure.worker.port import FactKind

#: Looked up once: an enum's member costs as much to look up as a fact to post.
_STARTED: Final = FactKind.STARTED
_ENDED: Final = FactKind.ENDED


class Stage:
    """Where jobs of one kind come from and go to. Thread-safe."""

    def __init__(
        self,
        kind: Kind,
        jobs: JobTable,
        gate: SlotGate,
        outbox: Outbox,
        clock: ThreadClock,
        parents: Results | None,
    ) -> None:
        self.jobs = jobs
        self.parents = parents
        self.clock = clock
        self._kind = kind
        self._gate = gate
        self._outbox = outbox
        self._keep = outbox.save

    def function_runner(self) -> RunFunction:
        """What runs plain functions."""
        return function_runner(self.jobs)

    def coroutine_runner(self) -> RunCoroutine:
        """What runs coroutine functions."""
        return coroutine_runner(self.jobs)

    def begin(self, job: HeldJob, now_ms: int) -> bool:
        """Begins a job, unless it was withdrawn or its lease has lapsed meanwhile."""
        if not self.take(job, now_ms):
            return False
        self.started(job, now_ms)
        return True

    def take(self, job: HeldJob, now_ms: int) -> bool:
        """The half of ``begin`` that claims the job, for a child that is to run it soon."""
        if not job.claim():
            return False
        if job.stop is not None:
            # It was told so while it was on its way back from a child that it had not begun in.
            self.settle(job, stopped(job.stop, "it had not begun"), now_ms)
            return False
        if now_ms >= job.expires_ms:
            self._outbox.post(FactKind.UNSTARTED, job)
            return False
        job.parents = self.parents
        job.keep = self._keep
        return True

    def pass_over(self, job: HeldJob) -> None:
        """Gives a job back that has a slot and cannot begin here, unless it was withdrawn."""
        if job.claim():
            self._outbox.post(FactKind.UNSTARTED, job)

    def started(self, job: HeldJob, now_ms: int) -> None:
        """The other half: its code runs."""
        job.started_ms = now_ms
        self._outbox.post(_STARTED, job)

    def settle(self, job: HeldJob, result: AttemptResult, now_ms: int) -> bool:
        """The job's code has ended. False: too late, its slot was given to others meanwhile."""
        if job.finish(result, now_ms):
            self._outbox.post(_ENDED, job)
            return True
        self._outbox.post(FactKind.FREED, job)
        return False

    def ahead(self, fits: Callable[[HeldJob], bool], parts: int) -> list[HeldJob]:
        """Jobs that are to run behind others, in slots that those have; see ``SlotGate.ahead``."""
        return self._gate.ahead(self._kind, fits, parts)

    def back(self, jobs: list[HeldJob]) -> None:
        """What ``ahead`` gave has not begun and gets slots like the others, before them."""
        self._gate.back(jobs)

    def next(self) -> HeldJob | None:
        """Frees the slot; the next job if it is of this kind."""
        return self._gate.next(self._kind)
