"""How queues, tenants and job types are run: their settings, defaults and what is refused.

What nobody has set has the defaults, and takes no room. Times in milliseconds; 0 is off.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

import msgspec

from tenure.protocol.limits import (
    BREAKER_WINDOW_MS_MAX,
    KEY_OVERRIDES_MAX,
    PRIORITY_MAX,
    PROBES_MAX,
    RATE_PER_MS_MAX,
    TIMEOUT_MS_MAX,
    WEIGHT_MAX,
)
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import BreakerOverride, FairBy, LimitStrategy

#: (tenant, queue), (tenant,) or (tenant, job name).
SettingsKey: TypeAlias = tuple[str, ...]


class RateLimit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A token bucket: ``count`` grants every ``per_ms``, and ``burst`` at once."""

    count: int
    per_ms: int
    burst: int


class BreakerSettings(msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True):
    """When failures of a job type, or of a limit key, stop it."""

    failure_rate: float = 0.5
    window_ms: int = 60_000
    volume_min: int = 20
    open_for_ms: int = 30_000
    probes: int = 3


class KeyOverride(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an operator makes of one limit key's breaker."""

    limit_key: str
    override: BreakerOverride


class QueueSettings(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="queue"
):
    """How a queue is run. What the fields mean is said in ``queues.proto``."""

    weight: float = 1.0
    fair_by: FairBy = FairBy.GRANTS
    paused: bool = False
    concurrency: int = 0
    key_concurrency: int = 0
    key_strategy: LimitStrategy = LimitStrategy.QUEUE
    rate: RateLimit | None = None
    key_rate: RateLimit | None = None
    reserved: float = 0.0
    reserved_priority: int = PRIORITY_MAX
    depth_max: int = 0
    refuse_late: bool = False
    #: Of each limit key.
    key_breaker: BreakerSettings | None = None
    #: In order of their keys; each of them once, and none that is NONE.
    key_breaker_overrides: tuple[KeyOverride, ...] = ()

    @property
    def lasting(self) -> bool:
        """Whether its queue is there without a job: for slots it keeps, or tokens or failures that
        it counts.
        """
        return bool(self.reserved or self.rate or self.key_rate or self.key_breaker)

    def override_of(self, limit_key: str) -> BreakerOverride:
        """What an operator makes of a limit key's breaker."""
        for override in self.key_breaker_overrides:
            if override.limit_key == limit_key:
                return override.override
        return BreakerOverride.NONE


class TenantSettings(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="tenant"
):
    """How a tenant is run."""

    weight: float = 1.0
    paused: bool = False


class JobTypeSettings(
    msgspec.Struct, frozen=True, array_like=True, gc=False, kw_only=True, tag="job_type"
):
    """How a tenant's jobs of one name are run."""

    paused: bool = False
    breaker: BreakerSettings | None = None
    breaker_override: BreakerOverride = BreakerOverride.NONE
    retry_budget: float = 0.0
    adaptive_retry: bool = False


AnySettings: TypeAlias = QueueSettings | TenantSettings | JobTypeSettings


class SettingsKind(Enum):
    """What settings are of."""

    QUEUE = QueueSettings
    TENANT = TenantSettings
    JOB_TYPE = JobTypeSettings


class SettingsEntry(NamedTuple):
    """Settings that somebody has set, and the seq of the event that did."""

    value: AnySettings
    seq: int


_QUEUE: Final = QueueSettings()
_TENANT: Final = TenantSettings()
_JOB_TYPE: Final = JobTypeSettings()


class Settings:
    """All settings of a partition. Look-ups cost one miss in a dict where nothing is set."""

    __slots__ = ("_job_types", "_queues", "_seqs", "_tenants")

    def __init__(self) -> None:
        self._queues: dict[SettingsKey, QueueSettings] = {}
        self._tenants: dict[SettingsKey, TenantSettings] = {}
        self._job_types: dict[SettingsKey, JobTypeSettings] = {}
        #: Of the events that wrote them.
        self._seqs: dict[tuple[SettingsKind, SettingsKey], int] = {}

    def queue(self, tenant: str, name: str) -> QueueSettings:
        """How a queue is run."""
        return self._queues.get((tenant, name), _QUEUE)

    def tenant(self, name: str) -> TenantSettings:
        """How a tenant is run."""
        return self._tenants.get((name,), _TENANT)

    def job_type(self, tenant: str, name: str) -> JobTypeSettings:
        """How a tenant's jobs of one name are run."""
        return self._job_types.get((tenant, name), _JOB_TYPE)

    def get(self, kind: SettingsKind, key: SettingsKey) -> SettingsEntry | None:
        """What was set; None: nothing was."""
        value = self._of(kind).get(key)
        return None if value is None else SettingsEntry(value, self._seqs[kind, key])

    def put(self, key: SettingsKey, value: AnySettings, seq: int) -> bool:
        """Sets settings, unless a newer event has; tells whether it did."""
        kind = SettingsKind(type(value))
        if self._seqs.get((kind, key), -1) >= seq:
            return False
        self._seqs[kind, key] = seq
        match value:
            case QueueSettings():
                self._queues[key] = value
            case TenantSettings():
                self._tenants[key] = value
            case JobTypeSettings():
                self._job_types[key] = value
        return True

    def entries(self, kind: SettingsKind) -> list[tuple[SettingsKey, SettingsEntry]]:
        """All of one kind that was set, in no special order."""
        return [
            (key, SettingsEntry(value, self._seqs[kind, key]))
            for key, value in self._of(kind).items()
        ]

    def _of(self, kind: SettingsKind) -> Mapping[SettingsKey, AnySettings]:
        match kind:
            case SettingsKind.QUEUE:
                return self._queues
            case SettingsKind.TENANT:
                return self._tenants
            case SettingsKind.JOB_TYPE:
                return self._job_types

    def __len__(self) -> int:
        return len(self._seqs)


# What is refused.


def refuse(settings: AnySettings) -> Refusal | None:
    """Why settings cannot be, with the path of the field; None: they can."""
    match settings:
        case QueueSettings():
            return _refuse_queue(settings)
        case TenantSettings():
            return _refuse_weight(settings.weight)
        case JobTypeSettings():
            return _refuse_job_type(settings)


def _refuse_queue(settings: QueueSettings) -> Refusal | None:
    refusal = (
        _refuse_weight(settings.weight)
        or _refuse_rate("rate", settings.rate)
        or _refuse_rate("key_rate", settings.key_rate)
        or _refuse_breaker("key_breaker", settings.key_breaker)
        or _refuse_overrides(settings.key_breaker_overrides)
    )
    if refusal is not None:
        return refusal
    if not 0.0 <= settings.reserved < 1.0:
        return _wrong(
            "reserved",
            f"{settings.reserved} is no share that leaves others something: give at least 0 "
            "(nothing is reserved) and less than 1",
        )
    if not 0 <= settings.reserved_priority <= PRIORITY_MAX:
        return _wrong(
            "reserved_priority",
            f"{settings.reserved_priority} is not between 0 (critical) and {PRIORITY_MAX} (low)",
        )
    return None


def _refuse_weight(weight: float) -> Refusal | None:
    if 0.0 < weight <= WEIGHT_MAX:
        return None
    return _wrong(
        "weight",
        f"{weight} is no share: give more than 0 and at most {WEIGHT_MAX}; "
        "to stop it, pause it instead",
    )


def _refuse_rate(field: str, rate: RateLimit | None) -> Refusal | None:
    if rate is None:
        return None
    if rate.count <= 0:
        return _wrong(
            f"{field}.count",
            f"{rate.count} grants would never let a job run: give 1 at least; "
            "to stop it, pause it, and to lift the limit, leave the rate out",
        )
    if not 0 < rate.per_ms <= RATE_PER_MS_MAX:
        return _wrong(
            f"{field}.per", f"{rate.per_ms} ms is not between 1 ms and {RATE_PER_MS_MAX} ms"
        )
    if rate.burst <= 0:
        return _wrong(f"{field}.burst", f"{rate.burst} at once would never let a job run")
    return None


def _refuse_job_type(settings: JobTypeSettings) -> Refusal | None:
    if not 0.0 <= settings.retry_budget < 1.0:
        return _wrong(
            "retry_budget",
            f"{settings.retry_budget} is no share of grants: give at least 0 (any) and less than 1",
        )
    return _refuse_breaker("breaker", settings.breaker)


def _refuse_overrides(overrides: tuple[KeyOverride, ...]) -> Refusal | None:
    if len(overrides) <= KEY_OVERRIDES_MAX:
        return None
    return _wrong(
        "key_breaker_overrides",
        f"{len(overrides)} keys are more than {KEY_OVERRIDES_MAX}; pause the queue instead",
    )


def _refuse_breaker(name: str, breaker: BreakerSettings | None) -> Refusal | None:
    if breaker is None:
        return None
    if not 0.0 < breaker.failure_rate <= 1.0:
        return _wrong(
            f"{name}.failure_rate",
            f"{breaker.failure_rate} is no share of attempts: give more than 0 and at most 1",
        )
    for field, value, most in (
        ("window", breaker.window_ms, BREAKER_WINDOW_MS_MAX),
        ("open_for", breaker.open_for_ms, TIMEOUT_MS_MAX),
    ):
        if not 0 < value <= most:
            return _wrong(f"{name}.{field}", f"{value} ms is not between 1 ms and {most} ms")
    if breaker.volume_min <= 0:
        return _wrong(f"{name}.volume_min", f"{breaker.volume_min} attempts are not 1 at least")
    if not 0 < breaker.probes <= PROBES_MAX:
        return _wrong(f"{name}.probes", f"{breaker.probes} is not between 1 and {PROBES_MAX}")
    return None


def _wrong(field: str, why: str) -> Refusal:
    path = f"settings.{field}"
    return Refusal(
        reason=Reason.INVALID_ARGUMENT,
        message=f"expected a valid {path}, but {why}",
        metadata={"field": path},
        field=path,
    )
