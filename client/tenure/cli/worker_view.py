"""How workers are shown in each format."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from tenure.cli import terminal
from tenure.cli.output import (
    Format,
    View,
    message_data,
    print_fields,
    print_json,
    print_json_line,
    print_table,
)
from tenure.cli.queue_view import moment_text, rough_text

if TYPE_CHECKING:
    from tenure.client import Worker, WorkerVitals

_MIB: Final = 1024 * 1024


def show_one(worker: Worker, form: Format) -> None:
    """A worker with all that is known of it."""
    match form:
        case Format.JSON:
            print_json(_data(worker))
        case Format.JSONL:
            print_json_line(_data(worker))
        case Format.NAME:
            print(terminal.harmless(worker.incarnation))
        case Format.TABLE:
            print_fields(_fields(worker))
            if worker.running:
                print()
                print_table(
                    ("JOB", "NAME", "QUEUE", "TENANT", "ATTEMPT", "STARTED", "PROGRESS"),
                    [
                        (
                            row.job_id,
                            row.name,
                            row.queue,
                            row.tenant,
                            row.attempt,
                            "" if row.started_at is None else moment_text(row.started_at),
                            f"{row.progress:.0f}%" if row.progress else "",
                        )
                        for row in worker.running
                    ],
                )


def _fields(worker: Worker) -> list[tuple[str, object]]:
    vitals = worker.vitals
    fields: list[tuple[str, object]] = [
        ("worker", worker.name),
        ("incarnation", worker.incarnation),
        ("state", _state(worker)),
        ("queues", ", ".join(worker.queues) or "all"),
        ("labels", ", ".join(f"{key}={text}" for key, text in sorted(worker.labels.items()))),
        ("build", worker.build_id),
        ("slots", _slots(worker)),
        ("lost slots", vitals.slots_lost or None if vitals else None),
        ("holds", f"{worker.leases} jobs"),
        ("connected", moment_text(worker.connected_at)),
        ("heartbeat", _ago(worker.heartbeat_age)),
    ]
    if vitals is not None:
        fields += [
            ("memory", _memory(vitals)),
            ("cpu", _cpu(vitals)),
            ("children", vitals.children or None),
            ("loop lag", f"{vitals.loop_lag.total_seconds() * 1000:.0f} ms"),
            ("blocked by", _blocked(vitals)),
            ("quarantine", _quarantine(vitals)),
        ]
    return [*fields, ("jobs", "\n".join(worker.job_names))]


def _state(worker: Worker) -> str:
    return "" if worker.state is None else worker.state.name


def _slots(worker: Worker) -> str:
    # What the leaders know is fresher than what the worker told with its last heartbeat.
    return f"{min(worker.leases, worker.slots)}/{worker.slots}"


def _ago(age: timedelta | None) -> str:
    return "" if age is None else f"{age.total_seconds():.1f} s ago"


def _memory(vitals: WorkerVitals) -> str:
    return f"{vitals.rss_bytes / _MIB:.0f} MiB" if vitals.rss_bytes else ""


def _cpu(vitals: WorkerVitals) -> str:
    return f"{vitals.cpu_share:.0%}"


def _blocked(vitals: WorkerVitals) -> str | None:
    blocked = vitals.loop_blocked
    if blocked is None:
        return None
    who = f"job {blocked.job_id} ({blocked.name})" if blocked.job_id else "a callback"
    return f"{who}, for {rough_text(blocked.blocked)}\n{blocked.stack}".rstrip()


def _quarantine(vitals: WorkerVitals) -> str | None:
    quarantine = vitals.quarantine
    if quarantine is None:
        return None
    why = quarantine.reason or "no reason given"
    who = ", by an operator" if quarantine.by_hand else ""
    return f"for {rough_text(quarantine.lasting)}{who}: {why}"


def _data(worker: Worker) -> dict[str, Any]:
    """The fields of the API's message, of all partitions together."""
    from tenure.v1 import worker_pb2, workers_pb2

    wire = workers_pb2.Worker(
        incarnation=worker.incarnation,
        name=worker.name,
        state=worker.state,  # type: ignore[arg-type]
        queues=worker.queues,
        labels=worker.labels,
        build_id=worker.build_id,
        slots=worker.slots,
        job_name_count=worker.job_name_count,
        job_names=worker.job_names,
        connected_at=worker.connected_at,
        heartbeat_age=worker.heartbeat_age,
        leases=worker.leases,
        running=[
            workers_pb2.WorkerLease(
                job_id=row.job_id,
                name=row.name,
                tenant=row.tenant,
                queue=row.queue,
                attempt=row.attempt,
                granted_at=row.granted_at,
                started_at=row.started_at,
                progress=row.progress,
            )
            for row in worker.running
        ],
    )
    vitals = worker.vitals
    if vitals is not None:
        wire.vitals_age.FromTimedelta(vitals.age)
        wire.vitals.CopyFrom(
            worker_pb2.Vitals(
                slots_used=vitals.slots_used,
                slots_lost=vitals.slots_lost,
                children=vitals.children,
                rss_bytes=vitals.rss_bytes,
                cpu_share=vitals.cpu_share,
                loop_lag_ms=_ms(vitals.loop_lag),
            )
        )
        blocked = vitals.loop_blocked
        if blocked is not None:
            wire.vitals.loop_blocked.job_id = blocked.job_id
            wire.vitals.loop_blocked.name = blocked.name
            wire.vitals.loop_blocked.blocked_ms = _ms(blocked.blocked)
            wire.vitals.loop_blocked.stack = blocked.stack
        quarantine = vitals.quarantine
        if quarantine is not None:
            wire.vitals.quarantine.reason = quarantine.reason
            wire.vitals.quarantine.by_hand = quarantine.by_hand
            wire.vitals.quarantine.for_ms = _ms(quarantine.lasting)
    return message_data(wire)


def _ms(span: timedelta) -> int:
    return round(span.total_seconds() * 1000)


WORKERS: View[Worker] = View(
    (
        "NAME",
        "STATE",
        "SLOTS",
        "JOBS",
        "MEMORY",
        "CPU",
        "HEARTBEAT",
        "BUILD",
        "QUEUES",
        "INCARNATION",
    ),
    row=lambda worker: (
        worker.name,
        _state(worker),
        _slots(worker),
        worker.leases,
        _memory(worker.vitals) if worker.vitals else "",
        _cpu(worker.vitals) if worker.vitals else "",
        _ago(worker.heartbeat_age),
        worker.build_id,
        ", ".join(worker.queues) or "all",
        worker.incarnation,
    ),
    data=_data,
    name=lambda worker: worker.incarnation,
)
