"""What a worker, or a supervisor of several, is measured by: the text format of Prometheus.

A few gauges and counters: less than the library would bring along, which keeps state of its own.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Final

from tenure.worker.pulse import Pulse

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Labels with their values, and the number.
Row = tuple[Mapping[str, str], int]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        name: Its name.
        kind: ``gauge`` or ``counter``.
        help: One sentence.
        rows: Its numbers.
    """

    name: str
    kind: str
    help: str
    rows: Sequence[Row] = field(default_factory=list)


def exposition(families: Iterable[Family]) -> str:
    """The text."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {family.help}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels, number in family.rows:
            said = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
            lines.append(f"{family.name}{f'{{{said}}}' if said else ''} {number}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def of_workers(pulses: Mapping[str, Pulse]) -> list[Family]:
    """What is measured of worker processes, by their names."""

    def gauge(name: str, text: str, rows: Sequence[Row]) -> Family:
        return Family(f"tenure_{name}", "gauge", text, rows)

    def one(attribute: str) -> list[Row]:
        return [({"worker": name}, getattr(pulse, attribute)) for name, pulse in pulses.items()]

    slots: list[Row] = []
    attempts: list[Row] = []
    for name, pulse in pulses.items():
        slots.append(({"worker": name, "state": "used"}, pulse.busy))
        slots.append(({"worker": name, "state": "free"}, pulse.slots - pulse.busy))
        attempts += [
            ({"worker": name, "outcome": outcome}, count) for outcome, count in pulse.ended.items()
        ]
    return [
        gauge("build_info", "The version.", [({"version": metadata.version("tenure")}, 1)]),
        gauge("worker_slots", "Jobs that may run at once, by whether one does.", slots),
        gauge("worker_backlog", "Ready jobs that it could run, as masters say.", one("backlog")),
        gauge("worker_masters", "Masters that have welcomed it.", one("masters")),
        gauge("worker_resident_memory_bytes", "Its resident memory.", one("rss_bytes")),
        Family(
            "tenure_worker_attempts_total",
            "counter",
            "Attempts that have ended, by outcome.",
            attempts,
        ),
    ]
