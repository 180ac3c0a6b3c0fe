"""What the worker needs from outside besides the transport: time, chance and executors."""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, Protocol

from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.executor.loop import LoopBlocked
from tenure.worker.held import HeldJob


class Clock(Protocol):
    """Time, in integer milliseconds."""

    def boot_ms(self) -> int:
        """CLOCK_BOOTTIME: never jumps, counts suspends. May be called from any thread."""

    async def sleep(self, ms: int) -> None:
        """Sleeps on the boot clock."""


class Rng(Protocol):
    """Randomness (``random.Random`` fits)."""

    def random(self) -> float:
        """Uniform in [0, 1)."""


class FactKind(Enum):
    """What an executor has to say about a job."""

    STARTED = "started"  #: user code is about to run
    ENDED = "ended"  #: ``job.result`` is set and the slot is free
    UNSTARTED = "unstarted"  #: its lease had lapsed when its turn came, or it cannot begin here
    ABANDONED = "abandoned"  #: ``job.result`` is set and a slot is free, but user code still runs
    SAVED = "saved"  #: ``job.saved`` has news
    FREED = "freed"  #: the user code of an abandoned job has ended after all


Fact = tuple[FactKind, HeldJob]


class Load(NamedTuple):
    """What executors have to say of themselves.

    Attributes:
        children: Processes that they run jobs in.
        lost: Jobs that were given up and whose code still runs.
        blocked: What keeps the loop of async jobs from turning; None: it turns.
        stuck: Nobody can do anything about that.
    """

    children: int = 0
    lost: int = 0
    blocked: LoopBlocked | None = None
    stuck: bool = False


class Executor(Protocol):
    """Runs jobs. All calls come from the session's thread; facts come back in batches.

    An adapter is made with a ``wake`` function, which it may call from any thread when there are
    facts to take.

    Attributes:
        batch_sizes: How many items a call takes at most, by the names of batch handlers.
    """

    batch_sizes: Mapping[str, int]

    def start(self) -> None:
        """Makes ready to run jobs."""

    def run(self, jobs: list[HeldJob]) -> None:
        """Queues jobs; they begin in this order as slots are free."""

    def stop(self, job: HeldJob, outcome: AttemptOutcome) -> None:
        """Asks a begun job to end, with this outcome if it obeys; the first wish counts."""

    def tell_lease(self, job: HeldJob) -> None:
        """The lease's deadline was moved or the lease was revoked: tell where the job runs."""

    def take_facts(self) -> list[Fact]:
        """All facts since the last call, in order."""

    def tick(self, now_ms: int) -> None:
        """Enforces timeouts and graces that are due."""

    def next_wake_ms(self) -> int | None:
        """When ``tick`` has something to do next."""

    def load(self, now_ms: int) -> Load:
        """How they do."""

    def close(self) -> None:
        """Stops everything at once; jobs that still run are given up. Idempotent."""
