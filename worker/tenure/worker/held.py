"""One job held under a lease, from its grant until the master's verdict.

```
 granted ──begin()──► started ──finish()──► ended ──verdict──► freed
    └───withdraw()──► returned, freed
```
Two threads meet here. An executor wants to begin the job while the session wants to give it back:
whoever takes the claim first wins, and the other one learns that it lost. A runner wants to finish
the attempt while the pool gives it up (a thread cannot be killed): the same, with the second lock.
All other fields have one writer each, as their comments say.
"""

import threading
from typing import NamedTuple

from tenure.protocol.fence import Lease, Token
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory

#: Names one lease: the run follows from the other three.
LeaseKey = tuple[str, Token, int]


class Terms(NamedTuple):
    """What the grants of one assignment share: the part of a job's options that matters here.

    Attributes:
        name: Which function to run.
        timeout_ms: Each attempt's own limit; 0: none.
        at_most_once: Kill the job when its lease is lost.
        content_type: How the payload is encoded; empty: MessagePack.
        non_retryable: Error types that fail the job at once.
    """

    name: str
    timeout_ms: int = 0
    at_most_once: bool = False
    content_type: str = ""
    non_retryable: frozenset[str] = frozenset()


class Fault(NamedTuple):
    """What went wrong in an attempt, cut to the limits of the contract."""

    type: str
    message: str
    traceback: str
    category: ErrorCategory
    retry_after_ms: int | None = None


class AttemptResult(NamedTuple):
    """How an attempt ended."""

    outcome: AttemptOutcome
    result: bytes = b""
    fault: Fault | None = None


class HeldJob:
    """A job and the lease that this worker holds of it."""

    __slots__ = (
        "_claim",
        "_settled",
        "attempt",
        "deadline_ms",
        "ended_ms",
        "expires_ms",
        "job_id",
        "key",
        "lapsed",
        "lease",
        "lost_seen",
        "partition",
        "payload",
        "progress",
        "reported_ms",
        "result",
        "revoked",
        "started_ms",
        "stop",
        "terms",
    )

    def __init__(
        self,
        *,
        job_id: str,
        partition: int,
        lease: Lease,
        terms: Terms,
        payload: bytes = b"",
        attempt: int = 1,
        deadline_ms: int = 0,
        expires_ms: int,
    ) -> None:
        """A fresh grant.

        Args:
            job_id: The job.
            partition: Its home.
            lease: The lease under which it was granted.
            terms: What to run and how.
            payload: The arguments.
            attempt: 1 for the first attempt of a run.
            deadline_ms: When the whole job must have ended, on the leader's clock; 0: never.
            expires_ms: When this worker must stop trusting the lease, on its boot clock.
        """
        self.job_id = job_id
        self.partition = partition
        self.lease = lease
        #: The lease's name in tables.
        self.key: LeaseKey = (job_id, lease.token, lease.seq)
        self.terms = terms
        self.payload = payload
        self.attempt = attempt
        self.deadline_ms = deadline_ms
        #: Written by the session. Executors and jobs compare it with the clock themselves: they
        #: must not go by a flag that a paused session has not come to set.
        self.expires_ms = expires_ms
        #: Written by the session: it has acted on the deadline; an ack takes that back.
        self.lapsed = False
        #: Written by the session: the master has said that the lease is lost. Final.
        self.revoked = False
        #: Written by the job's own thread: it has met LeaseLost, so the lease cannot be revived.
        self.lost_seen = False
        #: Written by the pool, once: the attempt is to end with this outcome.
        self.stop: AttemptOutcome | None = None
        #: Written by the job's own thread.
        self.progress = 0.0
        self.started_ms: int | None = None
        self.ended_ms: int | None = None
        self.result: AttemptResult | None = None
        #: Written by the session: when the report was last sent; None while it waits.
        self.reported_ms: int | None = None
        self._claim = threading.Lock()
        self._settled = threading.Lock()

    @property
    def claimed(self) -> bool:
        """Whether the job has begun or was withdrawn."""
        return self._claim.locked()

    def begin(self, now_ms: int) -> bool:
        """Takes the job for running. False: it was withdrawn. Called once, by an executor."""
        if not self._claim.acquire(blocking=False):
            return False
        self.started_ms = now_ms
        return True

    def withdraw(self) -> bool:
        """Takes the job back from the executors. False: it has begun."""
        return self._claim.acquire(blocking=False)

    def finish(self, result: AttemptResult, now_ms: int) -> bool:
        """Settles how the attempt ended. False: that was settled before."""
        if not self._settled.acquire(blocking=False):
            return False
        self.ended_ms = now_ms
        self.result = result
        return True

    @property
    def run_ms(self) -> int:
        """From start to end; 0 if it did not run."""
        if self.started_ms is None or self.ended_ms is None:
            return 0
        return self.ended_ms - self.started_ms

    # What current_job() asks, in the job's own thread.

    def report_progress(self, pct: float) -> None:
        """Notes how far the job has come; the next heartbeat carries it."""
        self.progress = pct

    def is_lost(self, now_ms: int) -> bool:
        """Whether the job must stop because its lease is lost. A job that was told so stays so."""
        if self.revoked or now_ms >= self.expires_ms:
            self.lost_seen = True
        return self.lost_seen

    def is_cancelled(self) -> bool:
        """Whether the job has been asked to stop."""
        return self.stop is not None
