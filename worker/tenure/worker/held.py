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
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from tenure.client.parent_result import Results
from tenure.protocol.fence import Lease, Token
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory

if TYPE_CHECKING:
    from tenure.worker.attempt_log import AttemptLog


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


class AttemptResult(msgspec.Struct, frozen=True, gc=False):
    """How an attempt ended."""

    outcome: AttemptOutcome
    result: bytes = b""
    fault: Fault | None = None


class Checkpoints(msgspec.Struct, eq=False, gc=False):
    """What a job has saved in this attempt, and how far that has come."""

    #: Written by the outbox: the last one's number, from 1, and its data.
    newest: tuple[int, bytes] = (0, b"")
    #: Set by the outbox when it tells the session, which clears it before it takes the newest.
    told: bool = False
    #: Written by the session: when one was sent last, and the number of the last that is durable.
    sent_ms: int | None = None
    acked: int = 0


class HeldJob(msgspec.Struct, eq=False, gc=False, kw_only=True):
    """A job and the lease that this worker holds of it. A Struct, because it is made faster.

    Attributes:
        job_id: The job.
        partition: Its home.
        token: The token of the term that granted it; with ``seq`` and ``run`` the lease.
        seq: The lease's number in that term.
        run: The job's run, 0 for the first.
        terms: What to run and how.
        payload: The arguments.
        attempt: 1 for the first attempt of a run.
        deadline_ms: When the whole job must have ended, on the leader's clock; 0: never.
        expires_ms: When this worker must stop trusting the lease, on its boot clock. Written by the
            session. Executors and jobs compare it with the clock themselves: they must not go by a
            flag that a paused session has not come to set.
    """

    job_id: str
    partition: int
    token: Token
    seq: int
    run: int = 0
    terms: Terms
    payload: bytes = b""
    attempt: int = 1
    deadline_ms: int = 0
    expires_ms: int
    #: Written by the session: the lease is off its books. Final.
    freed: bool = False
    #: Written by the session: it has acted on the deadline; an ack takes that back.
    lapsed: bool = False
    #: Written by the session: the master has said that the lease is lost. Final.
    revoked: bool = False
    #: Written by the job's own thread: it has met LeaseLost, so the lease cannot be revived.
    lost_seen: bool = False
    #: Written by the pool, once: the attempt is to end with this outcome.
    stop: AttemptOutcome | None = None
    #: Written by the job's own thread.
    progress: float = 0.0
    started_ms: int | None = None
    ended_ms: int | None = None
    result: AttemptResult | None = None
    #: Written by the executor: where the results of parents come from; None: nowhere.
    parents: Results | None = None
    #: What the job's own code has said: made by that, with its first word.
    log: "AttemptLog | None" = None
    #: Written by the session: when the report was last sent; None while it waits.
    reported_ms: int | None = None
    #: What an earlier attempt has saved; empty: nothing.
    resume: bytes = b""
    #: Written by the outbox: what this attempt has saved; None: nothing.
    saved: Checkpoints | None = None
    #: Written by the executor: takes what the job saves; None: it goes nowhere.
    keep: "Callable[[HeldJob, bytes], None] | None" = None
    #: Written by the session: if the job can go on elsewhere, it should.
    wanted_back: bool = False
    #: Written by the job's own thread: it has been told so, and stops.
    handed_back: bool = False
    _claim: threading.Lock = msgspec.field(default_factory=threading.Lock)
    _settled: threading.Lock = msgspec.field(default_factory=threading.Lock)

    @property
    def lease(self) -> Lease:
        """The lease under which the job was granted."""
        return Lease(self.token, self.seq, self.run)

    @property
    def claimed(self) -> bool:
        """Whether the job has begun, is with the child that is to run it, or was withdrawn."""
        return self._claim.locked()

    def begin(self, now_ms: int) -> bool:
        """Takes the job for running. False: it was withdrawn. Called once, by an executor."""
        if not self.claim():
            return False
        self.started_ms = now_ms
        return True

    def claim(self) -> bool:
        """Takes the job for a child that is to run it soon. False: it was withdrawn."""
        return self._claim.acquire(blocking=False)

    def unclaim(self) -> None:
        """The job was taken back from the child: it has not begun, and may be withdrawn again."""
        self._claim.release()

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

    def save(self, data: bytes) -> None:
        """Keeps what the job wants its next attempt to begin with."""
        if self.keep is not None:
            self.keep(self, data)

    def is_wanted_back(self) -> bool:
        """Whether the job must stop here to go on elsewhere. A job that was told so does."""
        if self.wanted_back:
            self.handed_back = True
        return self.handed_back

    def is_lost(self, now_ms: int) -> bool:
        """Whether the job must stop because its lease is lost. A job that was told so stays so."""
        if self.revoked or now_ms >= self.expires_ms:
            self.lost_seen = True
        return self.lost_seen

    def is_cancelled(self) -> bool:
        """Whether the job has been asked to stop."""
        return self.stop is not None
