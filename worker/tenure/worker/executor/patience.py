"""How long jobs may take to end, and what becomes of those that do not.

```
          timeout, cancel, hand back, lease lost                 the grace is over
 running ────────────────────────────────────────► asked to end ──────────────────► given up
    └── ends ──► ENDED                                 └── ends ──► ENDED               │
                                        ABANDONED, and its slot is another job's ◄──────┤
                                            FREED, when its code ends after all ◄───────┘
```
"Given up" means that the attempt is reported while its code still runs, because a thread cannot be
killed. Its slot is *lost*: another one takes its place at once, so the worker runs as many jobs as
before, and it is counted until the code ends after all. Only a new process gets rid of it sooner:
``on_lost`` is told, and may have had enough.

What is done about a job is up to those who run it: they are the ``Means``.
"""

import heapq
import logging
from collections.abc import Callable
from itertools import count
from typing import Final, Protocol

from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.attempt import ThreadClock, stopped
from tenure.worker.executor.batch import Batches
from tenure.worker.executor.outbox import Outbox
from tenure.worker.held import HeldJob
from tenure.worker.port import Fact, FactKind

_LOGGER: Final = logging.getLogger(__name__)
#: How long a job may take to end after it was asked to.
GRACE_MS: Final = 5_000
#: The same when the worker itself is about to end.
RELEASE_GRACE_MS: Final = 1_000
#: When a job is looked at again that was to be given up while it was about to begin.
BEGIN_MS: Final = 10
#: What the error of a job says that was given up, if nothing else does.
DEAF: Final = "the job was asked to stop and has not; its code still runs"
#: Alarms of ended jobs are swept out above this.
ALARMS_MIN: Final = 1_000
#: Looked up once, not for each fact.
_STARTED: Final = FactKind.STARTED
_FREED: Final = FactKind.FREED


def grace_ms(outcome: AttemptOutcome) -> int:
    """How long a job may take to end that can only be asked to."""
    return RELEASE_GRACE_MS if outcome is AttemptOutcome.RELEASED else GRACE_MS


class Means(Protocol):
    """What can be done about a job that is to end."""

    def ask(self, job: HeldJob, outcome: AttemptOutcome) -> int:
        """Asks it to end. Returns how long it may take to; 0: no time at all."""

    def kill(self, job: HeldJob) -> bool:
        """Ends its code. False: nobody can, it will be given up."""

    def replace(self, job: HeldJob) -> None:
        """It was given up: its slot is the next job's, and its code goes on without one."""


class Patience:
    """Timeouts, graces and lost slots of one executor. All calls come from the session's thread."""

    def __init__(
        self,
        means: Means,
        clock: ThreadClock,
        outbox: Outbox,
        batches: Batches | None,
        on_lost: Callable[[], None] | None,
    ) -> None:
        """Args:
        means: What can be done about jobs.
        clock: Time.
        outbox: Takes what there is to say about jobs that were given up.
        batches: Those of batch handlers; None: there are none.
        on_lost: Called when ``lost`` has risen.
        """
        self._means = means
        self._clock = clock
        self._outbox = outbox
        self._batches = batches
        self._on_lost = on_lost
        #: Jobs whose slots are lost: they were given up, and their code still runs.
        self._lost: set[HeldJob] = set()
        #: (when, order, job, outcome): a timeout, or the end of a grace if ``job.stop`` is set.
        self._alarms: list[tuple[int, int, HeldJob, AttemptOutcome]] = []
        self._alarms_max = ALARMS_MIN
        self._order = count()

    @property
    def lost(self) -> int:
        """How many calls were given up whose code still runs."""
        return len(self._lost)

    def stop(self, job: HeldJob, outcome: AttemptOutcome) -> None:
        """Asks a begun job to end, with this outcome if it obeys; the first wish counts."""
        if job.result is not None or job.stop is not None:
            return
        job.stop = outcome
        rest_ms = self._means.ask(job, outcome)
        if rest_ms:
            self._alarm(self._clock.boot_ms() + rest_ms, job, outcome)
        else:
            self._give_up(job, outcome)

    def give_up(self, job: HeldJob, why: str) -> None:
        """Ends the attempt of a begun job that cannot even be asked to end: it is LOST.

        Args:
            job: The job. If it was asked for another outcome before, it has that.
            why: What its error says.
        """
        if job.result is None:
            job.stop = outcome = job.stop or AttemptOutcome.LOST
            self._give_up(job, outcome, why)

    def hear(self, said: list[Fact]) -> list[Fact]:
        """Takes what there is to say about jobs. Returns it without starts that are no news."""
        facts: list[Fact] = []
        for fact in said:
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
        """Stops jobs whose timeouts are over, and gives up those whose graces are."""
        while self._alarms and self._alarms[0][0] <= now_ms:
            _, _, job, outcome = heapq.heappop(self._alarms)
            if job.result is not None:
                continue
            if job.stop is outcome:
                self._give_up(job, outcome)
            elif not _begun_anew(job, now_ms):
                self.stop(job, outcome)

    def next_ms(self) -> int | None:
        """When ``tick`` has something to do next."""
        alarms = self._alarms
        while alarms and alarms[0][2].result is not None:
            heapq.heappop(alarms)
        return alarms[0][0] if alarms else None

    def _alarm(self, due_ms: int, job: HeldJob, outcome: AttemptOutcome) -> None:
        if len(self._alarms) >= self._alarms_max:
            # Most jobs end long before their timeouts: forget those that have.
            self._alarms = [alarm for alarm in self._alarms if alarm[2].result is None]
            heapq.heapify(self._alarms)
            self._alarms_max = max(ALARMS_MIN, 2 * len(self._alarms))
        heapq.heappush(self._alarms, (due_ms, next(self._order), job, outcome))

    def _give_up(self, job: HeldJob, outcome: AttemptOutcome, why: str = DEAF) -> None:
        """Ends an attempt that does not end by itself."""
        if job.freed:
            # It went back meanwhile: it has not begun after all, or the process is ending.
            return
        if self._means.kill(job):
            return
        if job.started_ms is None:
            # 1. An executor has claimed it, a moment ago, and has yet to see the wish or the clock.
            # 2. It does, and the job ends without having begun: its slot is freed by that.
            # 3. Or it has begun by the next look. Given up before, it would free its slot twice.
            self._alarm(self._clock.boot_ms() + BEGIN_MS, job, outcome)
            return
        result = stopped(outcome, why)
        batch = self._batches.batch_of(job) if self._batches is not None else None
        if not job.finish(result, self._clock.boot_ms()):
            return
        if batch is not None and not batch.give_up(result, self._clock.boot_ms()):
            # The call goes on for others, or has just ended: its slot is not lost.
            self._outbox.post(FactKind.ABANDONED, job)
            return
        _LOGGER.warning(
            "gave up job %s (%s): %s; its slot is lost until that ends, another one takes its "
            "place",
            job.job_id,
            job.terms.name,
            why,
            extra={"action": "abandon", "job_id": job.job_id},
        )
        # 1. Its slot goes to the next job, for which there must be a thread.
        # 2. From now on the session counts it as free.
        # 3. Whenever the code ends, its thread ends or its lane takes nothing more: FREED.
        self._means.replace(job)
        self._outbox.post(FactKind.ABANDONED, job)
        self._lost.add(job)
        if self._on_lost is not None:
            self._on_lost()


def _begun_anew(job: HeldJob, now_ms: int) -> bool:
    """Whether a job was taken back from its child meanwhile: its time begins with its code."""
    return job.stop is None and (
        job.started_ms is None or now_ms < job.started_ms + job.terms.timeout_ms
    )
