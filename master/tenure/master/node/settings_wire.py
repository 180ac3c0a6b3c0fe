"""Settings between the wire and the core. What cannot be read is refused with the field's path."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from google.protobuf.field_mask_pb2 import FieldMask

from tenure.master.core.settings import (
    AnySettings,
    BreakerSettings,
    JobTypeSettings,
    KeyOverride,
    QueueSettings,
    RateLimit,
    TenantSettings,
)
from tenure.master.node.translate import checked_member, checked_span, invalid, wire_enum
from tenure.protocol import limits
from tenure.protocol.vocabulary import BreakerOverride, FairBy, JobState, LimitStrategy
from tenure.v1 import jobs_pb2, queues_pb2

_PER_MS_DEFAULT: Final = 1_000
#: Begins a mask's path of one limit key; all that follows is the key, whatever its characters.
_ONE_OVERRIDE: Final = "key_breaker_overrides."


class Named(NamedTuple):
    """What a mask names; nothing: all of it."""

    fields: tuple[str, ...]
    #: Limit keys whose breakers' overrides are named one by one.
    override_keys: tuple[str, ...]


def named_by(mask: FieldMask, kind: type[AnySettings]) -> Named:
    """What a mask names of settings of a kind."""
    known = kind.__struct_fields__
    fields, keys = [], []
    for index, path in enumerate(mask.paths):
        where = f"update_mask.paths[{index}]"
        if path in known:
            fields.append(path)
        elif kind is QueueSettings and path.startswith(_ONE_OVERRIDE):
            keys.append(_limit_key(path.removeprefix(_ONE_OVERRIDE), where))
        else:
            raise invalid(where, f"{path[:140]!r} is none of {', '.join(known)}")
    return Named(tuple(dict.fromkeys(fields)), tuple(dict.fromkeys(keys)))


def queue_from_wire(wire: queues_pb2.QueueSettings, fields: Sequence[str]) -> QueueSettings:
    """A queue's settings. What is not set has its default, unless it is one of ``fields``."""
    priority = limits.PRIORITY_MAX
    if wire.HasField("reserved_priority"):
        priority = wire.reserved_priority
    return QueueSettings(
        weight=_weight(wire.weight, fields),
        fair_by=checked_member(FairBy, wire.fair_by or FairBy.GRANTS, "settings.fair_by"),
        paused=wire.paused,
        concurrency=wire.concurrency,
        key_concurrency=wire.key_concurrency,
        key_strategy=checked_member(
            LimitStrategy, wire.key_strategy or LimitStrategy.QUEUE, "settings.key_strategy"
        ),
        rate=_rate(wire.rate, "settings.rate") if wire.HasField("rate") else None,
        key_rate=_rate(wire.key_rate, "settings.key_rate") if wire.HasField("key_rate") else None,
        reserved=wire.reserved,
        reserved_priority=priority,
        depth_max=wire.depth_max,
        refuse_late=wire.refuse_late,
        key_breaker=(
            _breaker(wire.key_breaker, "settings.key_breaker")
            if wire.HasField("key_breaker")
            else None
        ),
        key_breaker_overrides=_overrides(wire.key_breaker_overrides),
    )


def tenant_from_wire(wire: queues_pb2.TenantSettings, fields: Sequence[str]) -> TenantSettings:
    """A tenant's settings, as ``queue_from_wire``."""
    return TenantSettings(weight=_weight(wire.weight, fields), paused=wire.paused)


def job_type_from_wire(wire: queues_pb2.JobTypeSettings, _fields: Sequence[str]) -> JobTypeSettings:
    """A job type's settings. What is not set has its default, whoever names it."""
    return JobTypeSettings(
        paused=wire.paused,
        breaker=_breaker(wire.breaker, "settings.breaker") if wire.HasField("breaker") else None,
        breaker_override=checked_member(
            BreakerOverride,
            wire.breaker_override or BreakerOverride.NONE,
            "settings.breaker_override",
        ),
        retry_budget=wire.retry_budget,
        adaptive_retry=wire.adaptive_retry,
    )


def _weight(weight: float, fields: Sequence[str]) -> float:
    """Zero is the default, unless somebody has asked for it."""
    return weight if weight or "weight" in fields else 1.0


def _rate(wire: queues_pb2.RateLimit, path: str) -> RateLimit:
    per_ms = _PER_MS_DEFAULT
    if wire.HasField("per"):
        per_ms = checked_span(wire.per, f"{path}.per", limits.RATE_PER_MS_MAX)
    return RateLimit(wire.count, per_ms, wire.burst or wire.count)


def _overrides(wire: Mapping[str, int]) -> tuple[KeyOverride, ...]:
    """In order of their keys; NONE is as good as not there."""
    overrides = []
    for key, value in sorted(wire.items()):
        path = f"settings.key_breaker_overrides[{key[: limits.KEY_CHARS_MAX]!r}]"
        limit_key = _limit_key(key, path)
        override = checked_member(BreakerOverride, value or BreakerOverride.NONE, path)
        if override is not BreakerOverride.NONE:
            overrides.append(KeyOverride(limit_key, override))
    return tuple(overrides)


def _limit_key(key: str, path: str) -> str:
    if not 0 < len(key) <= limits.KEY_CHARS_MAX:
        raise invalid(path, f"a limit key has 1 to {limits.KEY_CHARS_MAX} characters")
    return key


def _breaker(wire: queues_pb2.BreakerSettings, path: str) -> BreakerSettings:
    known = BreakerSettings()
    window_ms, open_for_ms = known.window_ms, known.open_for_ms
    if wire.HasField("window"):
        window_ms = checked_span(wire.window, f"{path}.window", limits.BREAKER_WINDOW_MS_MAX)
    if wire.HasField("open_for"):
        open_for_ms = checked_span(wire.open_for, f"{path}.open_for", limits.TIMEOUT_MS_MAX)
    return BreakerSettings(
        failure_rate=wire.failure_rate or known.failure_rate,
        window_ms=window_ms,
        volume_min=wire.volume_min or known.volume_min,
        open_for_ms=open_for_ms,
        probes=wire.probes or known.probes,
    )


def queue_to_wire(settings: QueueSettings) -> queues_pb2.QueueSettings:
    """A queue's settings as a message, defaults written out."""
    wire = queues_pb2.QueueSettings(
        weight=settings.weight,
        fair_by=wire_enum(settings.fair_by),
        paused=settings.paused,
        concurrency=settings.concurrency,
        key_concurrency=settings.key_concurrency,
        key_strategy=wire_enum(settings.key_strategy),
        reserved=settings.reserved,
        reserved_priority=settings.reserved_priority,
        depth_max=settings.depth_max,
        refuse_late=settings.refuse_late,
    )
    for name, rate in (("rate", settings.rate), ("key_rate", settings.key_rate)):
        if rate is not None:
            limit: queues_pb2.RateLimit = getattr(wire, name)
            limit.count, limit.burst = rate.count, rate.burst
            limit.per.FromMilliseconds(rate.per_ms)
    if settings.key_breaker is not None:
        _breaker_to_wire(settings.key_breaker, wire.key_breaker)
    for override in settings.key_breaker_overrides:
        wire.key_breaker_overrides[override.limit_key] = wire_enum(override.override)
    return wire


def tenant_to_wire(settings: TenantSettings) -> queues_pb2.TenantSettings:
    """A tenant's settings as a message."""
    return queues_pb2.TenantSettings(weight=settings.weight, paused=settings.paused)


def job_type_to_wire(settings: JobTypeSettings) -> queues_pb2.JobTypeSettings:
    """A job type's settings as a message."""
    wire = queues_pb2.JobTypeSettings(
        paused=settings.paused,
        breaker_override=wire_enum(settings.breaker_override),
        retry_budget=settings.retry_budget,
        adaptive_retry=settings.adaptive_retry,
    )
    if settings.breaker is not None:
        _breaker_to_wire(settings.breaker, wire.breaker)
    return wire


def _breaker_to_wire(breaker: BreakerSettings, wire: queues_pb2.BreakerSettings) -> None:
    wire.failure_rate = breaker.failure_rate
    wire.window.FromMilliseconds(breaker.window_ms)
    wire.volume_min = breaker.volume_min
    wire.open_for.FromMilliseconds(breaker.open_for_ms)
    wire.probes = breaker.probes


def counts_to_wire(counts: Sequence[int]) -> list[jobs_pb2.StateCount]:
    """Jobs by state, those states only that have some."""
    return [
        jobs_pb2.StateCount(state=wire_enum(state), count=counts[state])
        for state in JobState
        if counts[state]
    ]
