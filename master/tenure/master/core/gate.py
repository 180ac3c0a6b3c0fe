"""Gates: what can hold up ready jobs. Nothing that is held up is looked at until its gate opens.

| gate | what closes it | what is under it |
|---|---|---|
| ``Tenant`` | paused | its share in each skill |
| ``Queue`` | paused, its concurrency, its rate | its share in each skill |
| ``JobType`` | paused, its breaker | the fronts of its lanes, on each board |
| ``LimitKey`` | the queue's concurrency per key, its rate per key, its own breaker | its lanes |

A gate that changes tells what is under it, once; that takes itself out of the order, or comes back.
A bucket that is dry and a breaker that is open let their gates open by a timer (``Lanes.refills``).
"""

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from tenure.master.core.breaker import Breaker
from tenure.master.core.bucket import Bucket
from tenure.master.core.budget import RetryBudget
from tenure.master.core.pulse import Pulse
from tenure.master.core.record import JobRecord, LabelSelector
from tenure.master.core.settings import (
    JobTypeSettings,
    QueueSettings,
    RateLimit,
    TenantSettings,
)
from tenure.protocol.ids import JobId
from tenure.protocol.limits import PRIORITY_MAX
from tenure.protocol.vocabulary import (
    BreakerOverride,
    FairBy,
    JobState,
    LimitStrategy,
)

if TYPE_CHECKING:
    from tenure.master.core.ready import Fronts, Lane, LaneName

#: More than anybody takes.
MANY: Final = 1 << 50
_RUNNING: Final = JobState.RUNNING
_NOBODYS: Final = BreakerOverride.NONE
#: What a job of a queue that is counted in time costs before any has ended.
_RUN_MS_UNKNOWN: Final = 1_000
#: What a job counts for in a queue that is counted in grants, beside one that is counted in time.
_GRANT_MS: Final = 1_000


class Held(Protocol):
    """What is under a gate."""

    def refresh(self) -> None:
        """The gate has opened or closed."""


class Clock(Protocol):
    """Who knows the time."""

    @property
    def now_ms(self) -> int:
        """That of the newest event."""


class Gate:
    """Something that can be closed."""

    __slots__ = ("is_open", "under")

    is_open: bool
    #: In the order in which they came.
    under: dict[Held, None]

    def __init__(self) -> None:
        self.is_open = True
        self.under = {}

    def turn(self, is_open: bool) -> None:
        """Opens or closes it."""
        if is_open is not self.is_open:
            self.is_open = is_open
            for held in self.under:
                held.refresh()

    @property
    def label(self) -> str:
        """What tells it from others."""
        raise NotImplementedError

    def next_ms(self) -> int | None:
        """When time alone may open it; None: never, or it is open."""
        return None

    def wake(self, now_ms: int) -> None:
        """That time has come."""


class Limiter(Gate):
    """A gate with a number that may run at once, and a rate."""

    __slots__ = ("bucket", "concurrency", "is_dry", "limited")

    #: How many may run at once; 0: any number.
    concurrency: int
    bucket: Bucket | None
    #: Whether its bucket had no token when it was last looked at.
    is_dry: bool
    #: Whether it has any limit.
    limited: bool

    def __init__(self, concurrency: int, rate: RateLimit | None, empty_ms: int) -> None:
        """Makes one with these limits; its bucket was empty at ``empty_ms``."""
        super().__init__()
        self.concurrency = concurrency
        self.bucket = None if rate is None else Bucket(rate, empty_ms)
        self.is_dry = False
        self.limited = concurrency > 0 or rate is not None

    def limit(
        self, concurrency: int, rate: RateLimit | None, empty_ms: int, *, anew: bool = False
    ) -> bool:
        """Sets other limits; tells whether it has a new bucket, empty at ``empty_ms``."""
        self.concurrency = concurrency
        self.limited = concurrency > 0 or rate is not None
        if not anew and (None if self.bucket is None else self.bucket.rate) == rate:
            return False
        self.bucket = None if rate is None else Bucket(rate, empty_ms)
        self.is_dry = False
        return self.bucket is not None

    def running(self) -> int:
        """How many run."""
        raise NotImplementedError

    def room(self, now_ms: int) -> int:
        """How many more may be granted now."""
        room = MANY
        if self.concurrency:
            room = self.concurrency - self.running()
        if self.bucket is not None:
            room = min(room, self.bucket.room(now_ms))
        return max(room, 0)

    def has_room(self) -> bool:
        """Whether neither limit closes it."""
        if self.concurrency and self.running() >= self.concurrency:
            return False
        return not self.is_dry

    def refresh(self) -> None:
        """Opens or closes it as it should be."""
        raise NotImplementedError

    def next_ms(self) -> int | None:
        """When its bucket has a token again; None: it has one, or there is no bucket."""
        return self.bucket.next_ms() if self.bucket is not None and self.is_dry else None

    def wake(self, now_ms: int) -> None:
        if self.bucket is not None and self.bucket.room(now_ms):
            self.is_dry = False
        self.refresh()


class Tenant(Gate):
    """A tenant with jobs."""

    __slots__ = ("name", "queues", "settings")

    queues: "dict[str, Queue]"

    def __init__(self, name: str, settings: TenantSettings) -> None:
        super().__init__()
        self.name = name
        self.queues = {}
        self.configure(settings)

    def configure(self, settings: TenantSettings) -> None:
        """Takes over new settings."""
        self.settings = settings
        self.turn(not settings.paused)


class Tally(NamedTuple):
    """How many jobs of one queue and name there are, by state."""

    tenant: str
    queue: str
    name: str
    counts: list[int]


class Queue(Limiter):
    """A queue with jobs."""

    __slots__ = (
        "_clock",
        "common",
        "counts",
        "givers",
        "key_empty_ms",
        "lanes",
        "limit_keys",
        "mean_run_ms",
        "name",
        "places",
        "pulse",
        "ready_of",
        "ready_seq",
        "running_of",
        "settings",
        "tallies",
        "tenant",
        "tripped",
    )

    #: How many ready jobs with a limit key stand in lanes without one (see ``core.slack``).
    common: int
    #: Its jobs by state.
    counts: list[int]
    #: The same of each job name.
    tallies: dict[str, Tally]
    #: How many kinds of workers find something in it that they may be given.
    givers: int
    lanes: "dict[LaneName, Lane]"
    limit_keys: "dict[str, LimitKey]"
    #: Where those who serve them find lanes of a job name that ask for certain labels.
    places: "dict[tuple[str, tuple[LabelSelector, ...]], list[Fronts]]"
    #: When the buckets of its keys were empty.
    key_empty_ms: int
    #: Keys whose breaker lets not all through.
    tripped: "dict[LimitKey, None]"
    #: How many are ready of each priority, and how many run.
    ready_of: list[int]
    running_of: list[int]
    #: No ready job of it was written before this event.
    ready_seq: int
    #: Of its jobs that ended lately, if it is counted in time; 0: not known.
    mean_run_ms: int
    #: How it did lately.
    pulse: Pulse

    def __init__(
        self, tenant: Tenant, name: str, settings: QueueSettings, now_ms: int, clock: Clock
    ) -> None:
        super().__init__(settings.concurrency, settings.rate, now_ms)
        self._clock = clock
        self.tenant = tenant
        self.name = name
        self.common = 0
        self.counts = [0] * (max(JobState) + 1)
        self.givers = 0
        self.tallies = {}
        self.lanes = {}
        self.limit_keys = {}
        self.places = {}
        self.tripped = {}
        self.key_empty_ms = now_ms
        self.ready_of = [0] * (PRIORITY_MAX + 1)
        self.running_of = [0] * (PRIORITY_MAX + 1)
        self.ready_seq = 0
        self.mean_run_ms = 0
        self.pulse = Pulse()
        self.settings = settings

    @property
    def label(self) -> str:
        return f"{self.tenant.name}:{self.name}"

    def tally(self, name: str) -> list[int]:
        """Its jobs of one name, by state."""
        tally = self.tallies.get(name)
        if tally is None:
            counts = [0] * len(self.counts)
            tally = self.tallies[name] = Tally(self.tenant.name, self.name, name, counts)
        return tally.counts

    def running(self) -> int:
        return self.counts[_RUNNING]

    def refresh(self) -> None:
        self.turn(not self.settings.paused and self.has_room())

    def begin_term(self) -> None:
        """How it did in former terms, who leads now has not seen."""
        self.mean_run_ms = 0
        self.pulse = Pulse()
        self.follow()

    def found(self, by: int) -> None:
        """One more kind of worker finds something in it (1), or one fewer (-1)."""
        self.givers += by
        self.follow()

    def follow(self) -> None:
        """Jobs wait for workers only, or do not: what is parked, and what is paused, does not."""
        paused = self.settings.paused or self.tenant.settings.paused
        self.pulse.turn(self._clock.now_ms, waits=self.givers > 0 and not paused)

    @property
    def cost(self) -> float:
        """What a grant counts for in its tenant: one, or about the seconds that it runs."""
        if self.settings.fair_by is FairBy.TIME:
            return (self.mean_run_ms or _RUN_MS_UNKNOWN) / _GRANT_MS
        return 1.0

    @property
    def cost_ms(self) -> int:
        """What a grant is charged in time, if it is counted in time; else 0."""
        return round(self.cost * _GRANT_MS) if self.settings.fair_by is FairBy.TIME else 0

    def note_run(self, run_ms: int) -> None:
        """One of its jobs has run so long."""
        mean_ms = self.mean_run_ms
        self.mean_run_ms = mean_ms + (run_ms - mean_ms) // 8 if mean_ms else max(run_ms, 1)


class JobType(Gate):
    """A tenant's jobs of one name, its breaker and its budget for retries."""

    __slots__ = ("breaker", "budget", "name", "settings", "tenant")

    breaker: Breaker
    #: None: any number of retries.
    budget: RetryBudget | None

    def __init__(self, tenant: str, name: str, settings: JobTypeSettings) -> None:
        super().__init__()
        self.tenant = tenant
        self.name = name
        self._begin(settings)

    def _begin(self, settings: JobTypeSettings) -> None:
        self.settings = settings
        self.budget = RetryBudget(settings.retry_budget) if settings.retry_budget else None
        self.breaker = Breaker(settings.breaker, settings.breaker_override)
        self.refresh()

    def begin_term(self) -> None:
        """Nothing is known yet."""
        self._begin(self.settings)

    def configure(self, settings: JobTypeSettings) -> bool:
        """Takes over new settings; a breaker that is another one now begins anew.

        Returns:
            Whether more of what is granted may be retries.
        """
        before, self.settings = self.settings, settings
        if not settings.retry_budget:
            self.budget = None
        elif self.budget is None:
            self.budget = RetryBudget(settings.retry_budget)
        elif before.retry_budget != settings.retry_budget:
            self.budget.change(settings.retry_budget)
        if not self.breaker.is_of(settings.breaker, settings.breaker_override):
            self.breaker = Breaker(settings.breaker, settings.breaker_override)
        self.refresh()
        share = settings.retry_budget or 1.0
        return 0.0 < before.retry_budget < share

    @property
    def label(self) -> str:
        # No queue has an empty name.
        return f"{self.tenant}::{self.name}"

    def granted(self, records: list[JobRecord], now_ms: int) -> bool:
        """Jobs of it were granted together; tells whether retries may come earlier by now."""
        probe(self, self.breaker, records)
        return self.budget is not None and self.budget.granted(len(records), now_ms)

    def refresh(self) -> None:
        """Opens or closes it as it should be."""
        self.turn(not self.settings.paused and self.breaker.probes != 0)

    def next_ms(self) -> int | None:
        """When its breaker lets probes through."""
        return self.breaker.next_ms()

    def wake(self, now_ms: int) -> None:
        self.breaker.wake(now_ms)
        self.refresh()


class LimitKey(Limiter):
    """The jobs of a queue that share its limits per key. It lives while it has a lane or jobs."""

    __slots__ = ("breaker", "jobs", "key", "queue", "waiting")

    #: Ready ones that stand in lanes without a key (see ``core.slack``), with their keys of the
    #: order.
    waiting: dict[JobRecord, int]
    #: Those that run, in the order in which they began to.
    jobs: dict[JobId, JobRecord]
    #: None: its queue has none for its keys.
    breaker: Breaker | None

    def __init__(self, queue: Queue, key: str) -> None:
        settings = queue.settings
        super().__init__(settings.key_concurrency, settings.key_rate, queue.key_empty_ms)
        self.queue = queue
        self.key = key
        self.jobs = {}
        self.waiting = {}
        self.breaker = None
        if settings.key_breaker is not None or settings.key_breaker_overrides:
            self._follow_breaker(anew=True)
            self.refresh()

    def configure(self, *, anew: bool = False) -> bool:
        """Takes over new settings of its queue; tells whether it has a new bucket."""
        settings = self.queue.settings
        empty_ms = self.queue.key_empty_ms
        fresh = self.limit(settings.key_concurrency, settings.key_rate, empty_ms, anew=anew)
        self._follow_breaker(anew=anew)
        return fresh

    def _follow_breaker(self, *, anew: bool) -> None:
        """Has a breaker as its queue's settings say; one that is another one now begins anew."""
        settings = self.queue.settings
        override = settings.override_of(self.key) if settings.key_breaker_overrides else _NOBODYS
        if settings.key_breaker is None and override is _NOBODYS:
            self.breaker = None
        elif anew or self.breaker is None or not self.breaker.is_of(settings.key_breaker, override):
            self.breaker = Breaker(settings.key_breaker, override)
        self.limited = self.limited or self.breaker is not None

    def count(self, records: list[JobRecord], by: int) -> None:
        """More of its jobs run (by 1), or fewer (by -1), or others."""
        jobs = self.jobs
        if by > 0:
            for record in records:
                jobs[record.job_id] = record
        elif by < 0:
            for record in records:
                jobs.pop(record.job_id, None)
        self.refresh()

    def granted(self, records: list[JobRecord]) -> None:
        """Jobs of it were granted together."""
        if self.breaker is not None:
            probe(self, self.breaker, records)

    def room(self, now_ms: int) -> int:
        room = super().room(now_ms)
        if self.breaker is None or self.breaker.probes is None:
            return room
        return min(room, self.breaker.probes)

    def refresh(self) -> None:
        # For each job with a key it is asked twice, so it asks nobody for what it knows.
        probes = None if self.breaker is None else self.breaker.probes
        if probes is not None:
            self.queue.tripped[self] = None
        elif self.queue.tripped:
            self.queue.tripped.pop(self, None)
        full = 0 < self.concurrency <= len(self.jobs)
        is_open = probes != 0 and not full and not self.is_dry
        if is_open is not self.is_open:
            self.turn(is_open)

    def next_ms(self) -> int | None:
        """When its bucket has a token again, or its breaker lets probes through."""
        token_ms = super().next_ms()
        probe_ms = None if self.breaker is None else self.breaker.next_ms()
        if token_ms is None or probe_ms is None:
            return probe_ms if token_ms is None else token_ms
        return min(token_ms, probe_ms)

    def wake(self, now_ms: int) -> None:
        if self.breaker is not None:
            self.breaker.wake(now_ms)
        super().wake(now_ms)

    @property
    def label(self) -> str:
        return f"{self.queue.label}:{self.key}"

    def running(self) -> int:
        return len(self.jobs)

    @property
    def cancels(self) -> bool:
        """Whether a job that finds it full, or one that fills it, is cancelled."""
        return bool(self.concurrency) and (
            self.queue.settings.key_strategy is not LimitStrategy.QUEUE
        )

    def is_idle(self, now_ms: int) -> bool:
        """Whether forgetting it changes nothing."""
        return (
            not self.jobs
            and not self.waiting
            and (self.bucket is None or self.bucket.is_full(now_ms))
            and (self.breaker is None or self.breaker.is_idle(now_ms))
        )


def probe(gate: JobType | LimitKey, breaker: Breaker, records: list[JobRecord]) -> None:
    """Jobs of a gate with a breaker were granted together."""
    if breaker.probes is not None:
        breaker.granted([record.job_id for record in records])
        gate.refresh()


def judge(gate: JobType | LimitKey, records: list[JobRecord], now_ms: int, *, done: bool) -> bool:
    """Attempts of a gate have ended together: with results (``done``), or without any.

    Returns:
        Whether that has opened its breaker.
    """
    breaker, opened = gate.breaker, False
    if breaker is None:
        return False
    before = breaker.probes
    if done:
        breaker.succeeded([record.job_id for record in records], now_ms)
    else:
        opened = breaker.ended(records, now_ms)
    if breaker.probes != before:
        gate.refresh()
    return opened
