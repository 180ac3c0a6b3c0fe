"""How queues, tenants and job types are run, as users say it; and how that travels.

What can be told from a value alone is refused here, with the field's name; the rest by the master.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any, Final, Literal, TypedDict, cast

from google.protobuf.timestamp_pb2 import Timestamp

from tenure.client.errors import invalid
from tenure.client.span import check_span
from tenure.protocol import limits
from tenure.protocol.vocabulary import (
    BreakerOverride,
    BreakerState,
    FairBy,
    JobState,
    LimitStrategy,
)
from tenure.v1 import jobs_pb2, queues_pb2

FairByName = Literal["grants", "time"]
StrategyName = Literal["queue", "cancel_in_progress", "cancel_newest"]
OverrideName = Literal["none", "closed", "open"]

#: What the wire carries.
_COUNT_MAX: Final = 2**32 - 1
_BREAKER_STATES: Final[Mapping[int, BreakerState]] = {state.value: state for state in BreakerState}


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket.

    Attributes:
        count: So many jobs may begin …
        per: … every so long …
        burst: … and so many at once; None: ``count``.
    """

    count: int
    per: timedelta = timedelta(seconds=1)
    burst: int | None = None

    def __post_init__(self) -> None:
        _check_count("rate.count", self.count, least=1)
        check_span("rate.per", self.per, limits.RATE_PER_MS_MAX)
        if self.burst is not None:
            _check_count("rate.burst", self.burst, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When failures of a job type, or of a limit key, stop it.

    A job that cannot begin then waits, and is not charged.

    Attributes:
        failure_rate: Opens when this share of attempts has failed (more than 0, at most 1) …
        window: … of the attempts of so long …
        volume_min: … and there were so many.
        open_for: Stays open so long, then lets probes through.
        probes: So many at once; it closes when so many in a row have succeeded.
    """

    failure_rate: float = 0.5
    window: timedelta = timedelta(seconds=60)
    volume_min: int = 20
    open_for: timedelta = timedelta(seconds=30)
    probes: int = 3

    def __post_init__(self) -> None:
        _check_number("breaker.failure_rate", self.failure_rate)
        if not 0 < self.failure_rate <= 1:
            raise invalid("breaker.failure_rate", f"from 0 to 1, got {self.failure_rate}")
        check_span("breaker.window", self.window, limits.BREAKER_WINDOW_MS_MAX)
        _check_count("breaker.volume_min", self.volume_min, least=1)
        check_span("breaker.open_for", self.open_for, limits.TIMEOUT_MS_MAX)
        _check_count("breaker.probes", self.probes, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """How a queue is run.

    Attributes:
        weight: Its share of grants among its tenant's queues (more than 0).
        fair_by: What the share is counted in: ``grants``, or run ``time``.
        paused: Nothing of it begins; what runs goes on.
        concurrency: Jobs that may run at once; 0: any number.
        key_concurrency: Jobs that may run at once of each ``limit_key``; 0: any number.
        key_strategy: What becomes of a job whose key runs as many as it may: it waits (``queue``),
            takes the place of the oldest of its key (``cancel_in_progress``), or is cancelled
            itself unless it is a retry (``cancel_newest``).
        rate: How many may begin in a time; None: any number.
        key_rate: The same, of each ``limit_key``.
        reserved: The share of the slots of those who serve it that others cannot take (0 to 1).
        reserved_priority: Of its jobs, those of this priority and before use what is reserved.
        depth_max: Jobs that may wait; 0: the cluster's limit.
        refuse_late: Refuse a job with a schedule timeout when the predicted wait is longer.
        key_breaker: When failures of jobs of one ``limit_key`` stop those of that key; None: never.
        key_breaker_overrides: Keys whose breaker is kept ``closed`` or ``open``, whatever it would
            do; 100 at most.
    """

    weight: float = 1.0
    fair_by: FairByName = "grants"
    paused: bool = False
    concurrency: int = 0
    key_concurrency: int = 0
    key_strategy: StrategyName = "queue"
    rate: RateLimit | None = None
    key_rate: RateLimit | None = None
    reserved: float = 0.0
    reserved_priority: int = limits.PRIORITY_MAX
    depth_max: int = 0
    refuse_late: bool = False
    key_breaker: BreakerSettings | None = None
    key_breaker_overrides: Mapping[str, OverrideName] = field(
        default_factory=dict[str, OverrideName]
    )


class QueueChanges(TypedDict, total=False):
    """Some fields of ``QueueSettings``."""

    weight: float
    fair_by: FairByName
    paused: bool
    concurrency: int
    key_concurrency: int
    key_strategy: StrategyName
    rate: RateLimit | None
    key_rate: RateLimit | None
    reserved: float
    reserved_priority: int
    depth_max: int
    refuse_late: bool
    key_breaker: BreakerSettings | None
    key_breaker_overrides: Mapping[str, OverrideName] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSettings:
    """How a tenant is run.

    Attributes:
        weight: Its share of grants among tenants (more than 0).
        paused: Nothing of it begins; what runs goes on.
    """

    weight: float = 1.0
    paused: bool = False


class TenantChanges(TypedDict, total=False):
    """Some fields of ``TenantSettings``."""

    weight: float
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTypeSettings:
    """How a tenant's jobs of one name are run.

    Attributes:
        paused: None of them begins; what runs goes on.
        breaker: When their failures stop them; None: never.
        breaker_override: Keeps the breaker ``closed`` or ``open``, whatever it would do.
        retry_budget: At most this share of grants may be retries (less than 1); 0: any.
        adaptive_retry: Wait the longer for a retry the more of the type has failed lately.
    """

    paused: bool = False
    breaker: BreakerSettings | None = None
    breaker_override: OverrideName = "none"
    retry_budget: float = 0.0
    adaptive_retry: bool = False


class JobTypeChanges(TypedDict, total=False):
    """Some fields of ``JobTypeSettings``."""

    paused: bool
    breaker: BreakerSettings | None
    breaker_override: OverrideName
    retry_budget: float
    adaptive_retry: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBreaker:
    """How the breaker of one limit key does.

    Attributes:
        limit_key: The key.
        state: What it does, or is made to do.
        open_until: Until when it stays open; None: it has not opened by itself.
        failure_rate: The share of the key's recent attempts that failed.
    """

    limit_key: str
    state: BreakerState
    open_until: datetime | None = None
    failure_rate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue: how it is run, and how it does.

    Attributes:
        tenant: Whose it is.
        name: Its name.
        partition: Where it is at home.
        settings: How it is run.
        counts: Its jobs by state, those states only that have some.
        oldest_ready_at: When the job that has been ready for longest became so; None: none waits.
        granted_per_s: Grants a second, lately.
        finished_per_s: Endings a second, lately.
        mean_run: How long its jobs ran, lately; None: nothing is known.
        key_breakers: Those that do not let all jobs of their limit key through, 100 at most, open
            ones first.
    """

    tenant: str
    name: str
    partition: int
    settings: QueueSettings
    counts: Mapping[JobState, int] = field(default_factory=dict[JobState, int])
    oldest_ready_at: datetime | None = None
    granted_per_s: float = 0.0
    finished_per_s: float = 0.0
    mean_run: timedelta | None = None
    key_breakers: Sequence[KeyBreaker] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant, in all partitions together.

    Attributes:
        name: Its name.
        settings: How it is run.
        counts: Its jobs by state, those states only that have some.
        everywhere: Whether all partitions have these settings; if not, set them again.
    """

    name: str
    settings: TenantSettings
    counts: Mapping[JobState, int] = field(default_factory=dict[JobState, int])
    everywhere: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class JobType:
    """A tenant's jobs of one name, in all partitions together.

    Attributes:
        tenant: Whose they are.
        name: Their name.
        settings: How they are run.
        breaker_state: Of the partition in which it is the furthest from CLOSED.
        breaker_open_until: Until when it stays open there; None: it is not, or nobody knows.
        failure_rate: The share of its recent attempts that failed there.
        counts: Its jobs by state, those states only that have some.
        everywhere: Whether all partitions have these settings; if not, set them again.
    """

    tenant: str
    name: str
    settings: JobTypeSettings
    breaker_state: BreakerState = BreakerState.CLOSED
    breaker_open_until: datetime | None = None
    failure_rate: float = 0.0
    counts: Mapping[JobState, int] = field(default_factory=dict[JobState, int])
    everywhere: bool = True


# -------------------------------------------------------------------------------------- from wire


def queue_of(wire: queues_pb2.Queue) -> Queue:
    """A queue, from a message."""
    return Queue(
        tenant=wire.tenant,
        name=wire.name,
        partition=wire.partition,
        settings=_queue_settings(wire.settings),
        counts=counts_of(wire.counts),
        oldest_ready_at=moment_of(wire.oldest_ready_at)
        if wire.HasField("oldest_ready_at")
        else None,
        granted_per_s=wire.granted_per_s,
        finished_per_s=wire.finished_per_s,
        mean_run=wire.mean_run.ToTimedelta() if wire.HasField("mean_run") else None,
        key_breakers=tuple(map(_key_breaker_of, wire.key_breakers)),
    )


def _key_breaker_of(wire: queues_pb2.KeyBreaker) -> KeyBreaker:
    return KeyBreaker(
        limit_key=wire.limit_key,
        state=_BREAKER_STATES.get(wire.state, BreakerState.CLOSED),
        open_until=moment_of(wire.open_until) if wire.HasField("open_until") else None,
        failure_rate=wire.failure_rate,
    )


def _queue_settings(wire: queues_pb2.QueueSettings) -> QueueSettings:
    return QueueSettings(
        weight=wire.weight,
        fair_by=_name_of(FairBy, wire.fair_by),
        paused=wire.paused,
        concurrency=wire.concurrency,
        key_concurrency=wire.key_concurrency,
        key_strategy=_name_of(LimitStrategy, wire.key_strategy),
        rate=_rate_of(wire.rate) if wire.HasField("rate") else None,
        key_rate=_rate_of(wire.key_rate) if wire.HasField("key_rate") else None,
        reserved=wire.reserved,
        reserved_priority=wire.reserved_priority,
        depth_max=wire.depth_max,
        refuse_late=wire.refuse_late,
        key_breaker=_breaker_of(wire.key_breaker) if wire.HasField("key_breaker") else None,
        key_breaker_overrides={
            key: _name_of(BreakerOverride, override)
            for key, override in wire.key_breaker_overrides.items()
        },
    )


def tenant_settings_of(wire: queues_pb2.TenantSettings) -> TenantSettings:
    """A tenant's settings, from a message."""
    return TenantSettings(weight=wire.weight, paused=wire.paused)


def job_type_settings_of(wire: queues_pb2.JobTypeSettings) -> JobTypeSettings:
    """A job type's settings, from a message."""
    return JobTypeSettings(
        paused=wire.paused,
        breaker=_breaker_of(wire.breaker) if wire.HasField("breaker") else None,
        breaker_override=_name_of(BreakerOverride, wire.breaker_override),
        retry_budget=wire.retry_budget,
        adaptive_retry=wire.adaptive_retry,
    )


def counts_of(wire: Iterable[jobs_pb2.StateCount]) -> dict[JobState, int]:
    """Jobs by state."""
    return {JobState(row.state): row.count for row in wire}


def moment_of(wire: Timestamp) -> datetime:
    """A time, in UTC."""
    return wire.ToDatetime(UTC)


def _rate_of(wire: queues_pb2.RateLimit) -> RateLimit:
    return RateLimit(count=wire.count, per=wire.per.ToTimedelta(), burst=wire.burst)


def _breaker_of(wire: queues_pb2.BreakerSettings) -> BreakerSettings:
    return BreakerSettings(
        failure_rate=wire.failure_rate,
        window=wire.window.ToTimedelta(),
        volume_min=wire.volume_min,
        open_for=wire.open_for.ToTimedelta(),
        probes=wire.probes,
    )


def _name_of(kind: type[IntEnum], value: int) -> Any:
    """A member's name as users write it; the first one for what this release does not know."""
    known = {member.value: member.name.lower() for member in kind}
    return known.get(value, next(iter(known.values())))


# ---------------------------------------------------------------------------------------- to wire


def queue_changes(changes: QueueChanges) -> queues_pb2.QueueSettings:
    """Changes of a queue's settings as a message, checked."""
    wire = queues_pb2.QueueSettings()
    _fill(wire, changes, _QUEUE_FIELDS)
    return wire


def queue_paths(changes: QueueChanges) -> list[str]:
    """What the mask of changes of a queue's settings names: of overrides only these limit keys'."""
    paths = [name for name in changes if name != "key_breaker_overrides"]
    if "key_breaker_overrides" in changes:
        overrides = changes["key_breaker_overrides"]
        if overrides is None:
            paths.append("key_breaker_overrides")
        else:
            paths += [f"key_breaker_overrides.{key}" for key in overrides]
    return paths


def tenant_changes(changes: TenantChanges) -> queues_pb2.TenantSettings:
    """Changes of a tenant's settings as a message, checked."""
    wire = queues_pb2.TenantSettings()
    _fill(wire, changes, _TENANT_FIELDS)
    return wire


def job_type_changes(changes: JobTypeChanges) -> queues_pb2.JobTypeSettings:
    """Changes of a job type's settings as a message, checked."""
    wire = queues_pb2.JobTypeSettings()
    _fill(wire, changes, _JOB_TYPE_FIELDS)
    return wire


#: Writes a value into the field of a message.
_Writer = Callable[[Any, str, Any], None]


def _fill(wire: Any, changes: Mapping[str, Any], writers: Mapping[str, _Writer]) -> None:
    if not changes:
        raise invalid("changes", f"one of {', '.join(writers)} at least, got none")
    for name, value in changes.items():
        writer = writers.get(name)
        if writer is None:
            raise invalid(name, f"one of {', '.join(writers)}")
        writer(wire, name, value)


def _put_number(wire: Any, name: str, value: Any) -> None:
    _check_number(name, value)
    setattr(wire, name, value)


def _put_flag(wire: Any, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise invalid(name, f"True or False, got {value!r}")
    setattr(wire, name, value)


def _put_count(wire: Any, name: str, value: Any) -> None:
    _check_count(name, value)
    setattr(wire, name, value)


def _put_rate(wire: Any, name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, RateLimit):
        raise invalid(name, f"a RateLimit or None, got {value!r}")
    rate: queues_pb2.RateLimit = getattr(wire, name)
    rate.count = value.count
    rate.per.FromTimedelta(value.per)
    rate.burst = value.burst or 0


def _put_breaker(wire: Any, name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, BreakerSettings):
        raise invalid(name, f"BreakerSettings or None, got {value!r}")
    breaker: queues_pb2.BreakerSettings = getattr(wire, name)
    breaker.failure_rate = value.failure_rate
    breaker.window.FromTimedelta(value.window)
    breaker.volume_min = value.volume_min
    breaker.open_for.FromTimedelta(value.open_for)
    breaker.probes = value.probes


def _put_overrides(wire: Any, name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping) or not value:
        raise invalid(name, f"a mapping of limit keys, or None for none of them, got {value!r}")
    numbers = {member.name.lower(): member.value for member in BreakerOverride}
    overrides = cast(Mapping[object, object], value)
    for key, override in overrides.items():
        if not isinstance(key, str) or not isinstance(override, str) or override not in numbers:
            raise invalid(f"{name}[{key!r}]", f"one of {', '.join(numbers)}, got {override!r}")
        getattr(wire, name)[key] = numbers[override]


def _put_member(kind: type[IntEnum]) -> _Writer:
    numbers = {member.name.lower(): member.value for member in kind}

    def put(wire: Any, name: str, value: Any) -> None:
        if value not in numbers:
            raise invalid(name, f"one of {', '.join(numbers)}, got {value!r}")
        setattr(wire, name, numbers[value])

    return put


_QUEUE_FIELDS: Final[Mapping[str, _Writer]] = {
    "weight": _put_number,
    "fair_by": _put_member(FairBy),
    "paused": _put_flag,
    "concurrency": _put_count,
    "key_concurrency": _put_count,
    "key_strategy": _put_member(LimitStrategy),
    "rate": _put_rate,
    "key_rate": _put_rate,
    "reserved": _put_number,
    "reserved_priority": _put_count,
    "depth_max": _put_count,
    "refuse_late": _put_flag,
    "key_breaker": _put_breaker,
    "key_breaker_overrides": _put_overrides,
}
_TENANT_FIELDS: Final[Mapping[str, _Writer]] = {"weight": _put_number, "paused": _put_flag}
_JOB_TYPE_FIELDS: Final[Mapping[str, _Writer]] = {
    "paused": _put_flag,
    "breaker": _put_breaker,
    "breaker_override": _put_member(BreakerOverride),
    "retry_budget": _put_number,
    "adaptive_retry": _put_flag,
}


def _check_number(where: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise invalid(where, f"a number, got {value!r}")


def _check_count(where: str, value: object, *, least: int = 0) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _COUNT_MAX:
        raise invalid(where, f"a whole number from {least} to {_COUNT_MAX}, got {value!r}")
