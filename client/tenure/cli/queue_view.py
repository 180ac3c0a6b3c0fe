"""How queues, tenants and job types are shown in each format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from tenure.cli.output import Format, View, message_data, print_fields, print_json, print_json_line
from tenure.protocol.vocabulary import JobState

if TYPE_CHECKING:
    from tenure.client import (
        BreakerSettings,
        JobType,
        KeyBreaker,
        Queue,
        QueueSettings,
        RateLimit,
        Tenant,
    )
    from tenure.protocol.vocabulary import BreakerState
    from tenure.v1 import jobs_pb2

_LATER: Final = (JobState.SCHEDULED, JobState.BLOCKED, JobState.RETRYING)
_UNITS: Final = ("1s", "1m", "1h", "1d")


def show_one(thing: Queue | Tenant | JobType, form: Format) -> None:
    """A queue, a tenant or a job type with all that is known of it."""
    from tenure.client import Queue, Tenant

    if isinstance(thing, Queue):
        data, fields = _queue_data(thing), _queue_fields(thing)
    elif isinstance(thing, Tenant):
        data, fields = _tenant_data(thing), _tenant_fields(thing)
    else:
        data, fields = _job_type_data(thing), _job_type_fields(thing)
    match form:
        case Format.JSON:
            print_json(data)
        case Format.JSONL:
            print_json_line(data)
        case Format.NAME:
            print(thing.name)
        case Format.TABLE:
            print_fields(fields)


# --------------------------------------------------------------------------------------- for people


def _queue_fields(queue: Queue) -> list[tuple[str, object]]:
    settings = queue.settings
    mean_run, oldest = queue.mean_run, queue.oldest_ready_at
    overrides = settings.key_breaker_overrides
    return [
        ("queue", queue.name),
        ("tenant", queue.tenant),
        ("partition", queue.partition),
        ("paused", _yes(settings.paused)),
        ("weight", f"{settings.weight:g}"),
        ("fair by", settings.fair_by),
        ("concurrency", settings.concurrency or None),
        ("per key", settings.key_concurrency or None),
        ("when full", settings.key_strategy if settings.key_concurrency else None),
        ("rate", _rate(settings.rate)),
        ("key rate", _rate(settings.key_rate)),
        ("reserved", _reserve(settings)),
        ("depth max", settings.depth_max or None),
        ("refuse late", _yes(settings.refuse_late)),
        ("key breaker", _breaker(settings.key_breaker)),
        ("overrides", ", ".join(f"{k}={what}" for k, what in sorted(overrides.items())) or None),
        ("key breakers", "\n".join(map(_key_breaker, queue.key_breakers)) or None),
        ("jobs", _counts(queue.counts)),
        ("oldest ready", None if oldest is None else moment_text(oldest)),
        ("granted", f"{queue.granted_per_s:.1f}/s" if queue.granted_per_s else None),
        ("finished", f"{queue.finished_per_s:.1f}/s" if queue.finished_per_s else None),
        ("mean run", None if mean_run is None else f"{mean_run.total_seconds():.3f} s"),
    ]


def _tenant_fields(tenant: Tenant) -> list[tuple[str, object]]:
    return [
        ("tenant", tenant.name),
        ("paused", _yes(tenant.settings.paused)),
        ("weight", f"{tenant.settings.weight:g}"),
        ("jobs", _counts(tenant.counts)),
        ("note", _note(everywhere=tenant.everywhere)),
    ]


def _job_type_fields(job_type: JobType) -> list[tuple[str, object]]:
    settings, until = job_type.settings, job_type.breaker_open_until
    override = settings.breaker_override
    return [
        ("job", job_type.name),
        ("tenant", job_type.tenant),
        ("paused", _yes(settings.paused)),
        ("breaker", _breaker(settings.breaker) or "none"),
        ("state", _state(job_type.breaker_state)),
        ("override", None if override == "none" else override),
        ("open until", None if until is None else moment_text(until)),
        ("failing", f"{job_type.failure_rate:.0%}" if job_type.failure_rate else None),
        ("retry budget", f"{settings.retry_budget:.0%}" if settings.retry_budget else None),
        ("adaptive retry", _yes(settings.adaptive_retry)),
        ("jobs", _counts(job_type.counts)),
        ("note", _note(everywhere=job_type.everywhere)),
    ]


def _breaker(breaker: BreakerSettings | None) -> str | None:
    if breaker is None:
        return None
    return (
        f"opens at {breaker.failure_rate:.0%} of {breaker.volume_min} or more attempts in "
        f"{span_text(breaker.window)}, for {span_text(breaker.open_for)}, then {breaker.probes} "
        "probes"
    )


def _state(state: BreakerState) -> str:
    return state.name.lower().replace("_", "-")


def _key_breaker(key: KeyBreaker) -> str:
    until = "" if key.open_until is None else f" until {moment_text(key.open_until)}"
    return f"{key.limit_key}: {_state(key.state)}{until}, {key.failure_rate:.0%} failing"


def _yes(flag: bool) -> str | None:
    return "yes" if flag else None


def _note(*, everywhere: bool) -> str | None:
    return None if everywhere else "some partitions have other settings: set them again"


def _counts(counts: Mapping[JobState, int]) -> str:
    return ", ".join(f"{counts[state]} {state.name}" for state in JobState if counts.get(state))


def _reserve(settings: QueueSettings) -> str | None:
    if not settings.reserved:
        return None
    priority = settings.reserved_priority
    return f"{settings.reserved:.0%} of the slots, for priorities 0 to {priority}"


def _rate(rate: RateLimit | None) -> str | None:
    if rate is None:
        return None
    span = span_text(rate.per)
    text = f"{rate.count}/{span[1:] if span in _UNITS else span}"
    return text if rate.burst in (None, rate.count) else f"{text}, {rate.burst} at once"


def span_text(span: timedelta) -> str:
    """A span in its largest unit that leaves no rest."""
    seconds = span.total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:.12g}{unit}"
    return f"{seconds:.12g}s"


def rough_text(span: timedelta) -> str:
    """A span that is an estimate anyway: three figures."""
    seconds = span.total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g}{unit}"
    return f"{seconds:.3g}s"


def moment_text(moment: datetime) -> str:
    """A time in UTC, to the millisecond."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def _limits(settings: QueueSettings) -> str:
    """A queue's limits in a few words."""
    parts = []
    if settings.concurrency:
        parts.append(f"{settings.concurrency} at once")
    if settings.key_concurrency:
        parts.append(f"{settings.key_concurrency} per key")
    if settings.rate is not None:
        parts.append(str(_rate(settings.rate)))
    if settings.key_rate is not None:
        parts.append(f"{_rate(settings.key_rate)} per key")
    return ", ".join(parts)


def _numbers(counts: Mapping[JobState, int]) -> Sequence[object]:
    later = sum(counts.get(state, 0) for state in _LATER)
    ready, running = counts.get(JobState.PENDING, 0), counts.get(JobState.RUNNING, 0)
    return ready, later, running, counts.get(JobState.FAILED, 0)


# ------------------------------------------------------------------------------------- for programs


def _wire_counts(counts: Mapping[JobState, int]) -> list[jobs_pb2.StateCount]:
    from tenure.v1 import jobs_pb2

    # The vocabulary's numbers are the wire's.
    return [jobs_pb2.StateCount(state=s, count=n) for s, n in counts.items()]  # type: ignore[arg-type]


def _fields(settings: Any) -> Any:
    """A dataclass of settings as what changes all of them; rates and breakers stay as they are."""
    found = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: None if value == {} else value for name, value in found.items()}


def _queue_data(queue: Queue) -> dict[str, Any]:
    from tenure.client.settings import queue_changes
    from tenure.v1 import queues_pb2

    wire = queues_pb2.Queue(
        tenant=queue.tenant,
        name=queue.name,
        partition=queue.partition,
        settings=queue_changes(_fields(queue.settings)),
        counts=_wire_counts(queue.counts),
        granted_per_s=queue.granted_per_s,
        finished_per_s=queue.finished_per_s,
        oldest_ready_at=queue.oldest_ready_at,
        mean_run=queue.mean_run,
        key_breakers=[
            queues_pb2.KeyBreaker(
                limit_key=key.limit_key,
                state=key.state,  # type: ignore[arg-type]
                open_until=key.open_until,
                failure_rate=key.failure_rate,
            )
            for key in queue.key_breakers
        ],
    )
    return message_data(wire)


def _tenant_data(tenant: Tenant) -> dict[str, Any]:
    from tenure.client.settings import tenant_changes
    from tenure.v1 import queues_pb2

    wire = queues_pb2.Tenant(
        name=tenant.name,
        settings=tenant_changes(_fields(tenant.settings)),
        counts=_wire_counts(tenant.counts),
    )
    return message_data(wire)


def _job_type_data(job_type: JobType) -> dict[str, Any]:
    from tenure.client.settings import job_type_changes
    from tenure.v1 import queues_pb2

    wire = queues_pb2.JobType(
        tenant=job_type.tenant,
        name=job_type.name,
        settings=job_type_changes(_fields(job_type.settings)),
        breaker_state=job_type.breaker_state,  # type: ignore[arg-type]
        breaker_open_until=job_type.breaker_open_until,
        failure_rate=job_type.failure_rate,
        counts=_wire_counts(job_type.counts),
    )
    return message_data(wire)


_NUMBERS: Final = ("PENDING", "LATER", "RUNNING", "FAILED")

QUEUES: View[Queue] = View(
    ("QUEUE", "TENANT", "STATE", "WEIGHT", *_NUMBERS, "LIMITS"),
    row=lambda queue: (
        queue.name,
        queue.tenant,
        "paused" if queue.settings.paused else "open",
        f"{queue.settings.weight:g}",
        *_numbers(queue.counts),
        _limits(queue.settings),
    ),
    data=_queue_data,
    name=lambda queue: queue.name,
)
TENANTS: View[Tenant] = View(
    ("TENANT", "STATE", "WEIGHT", *_NUMBERS),
    row=lambda tenant: (
        tenant.name,
        "paused" if tenant.settings.paused else "open",
        f"{tenant.settings.weight:g}",
        *_numbers(tenant.counts),
    ),
    data=_tenant_data,
    name=lambda tenant: tenant.name,
)
JOB_TYPES: View[JobType] = View(
    ("JOB", "TENANT", "STATE", "BREAKER", *_NUMBERS),
    row=lambda job_type: (
        job_type.name,
        job_type.tenant,
        "paused" if job_type.settings.paused else "open",
        _state(job_type.breaker_state) if job_type.settings.breaker else "",
        *_numbers(job_type.counts),
    ),
    data=_job_type_data,
    name=lambda job_type: job_type.name,
)
