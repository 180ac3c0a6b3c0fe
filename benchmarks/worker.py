"""One worker process, fed by a stand-in for a master that grants as fast as credit allows.

Everything of the worker is real: its session over gRPC on loopback, its arbiter, its executors and
children. What a master would cost is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from benchmarks.process import Process, ProcessFailed, ProcessGroup, workplace
from benchmarks.table import Line, at_least, at_most

_APP: Final = "benchmarks.worker_jobs"
#: One without children.
_SMALL_APP: Final = "benchmarks.jobs"
_SLOTS: Final = 512
#: The default, which an idle worker has.
_FEW_SLOTS: Final = 10
#: Processes of a measurement of rates: as many children as the bar speaks of.
_CHILDREN: Final = 2
_END_S: Final = 600.0
#: Each rate is taken after so many jobs.
_WARM_UP: Final = 10_000
#: And memory is compared with what it was after so many.
_WARM_MEMORY: Final = 100_000

#: Of each kind the bar, none for batch handlers, and so many jobs.
_RATES: Final = {
    "async": (30_000, 200_000),
    "thread": (10_000, 80_000),
    "process": (8_000, 80_000),
    "batch": (0, 80_000),
    "batch_async": (0, 80_000),
}
_IDLE_MB: Final = 60.0
_SLOT_KB: Final = 20.0
_SLEEPERS: Final = 1_000
_SLEEPERS_MB: Final = 100.0
_DRIFT_MB: Final = 5.0
_CANCEL_MS: Final = 50.0
_LATE_MS: Final = 200.0
_TIMEOUT_MS: Final = 300
_CANCELS: Final = 50
_KILLS: Final = 5


class _Rate(NamedTuple):
    """What a flow of jobs came to."""

    jobs_per_s: float
    cpu_us: float
    drift_mb: float


def measure(steady_jobs: int) -> list[Line]:
    """The lines of `make bench`.

    Args:
        steady_jobs: So many async ones through one process, to see whether its memory grows.
    """
    lines = []
    for kind, (bar, jobs) in _RATES.items():
        lines += _rate_lines(kind, _flow(kind, jobs), bar)
    lines += _memory_lines()
    steady = _flow("async", steady_jobs, mark=_WARM_MEMORY)
    what = f"memory grown by {steady_jobs:,} jobs"
    lines.append(at_most(what, steady.drift_mb, _DRIFT_MB, "MB"))
    for kind in ("async", "thread", "process"):
        took_ms = _cancels(kind)
        lines.append(
            at_most(f"cancel to the handler, {kind}, longest", max(took_ms), _CANCEL_MS, "ms")
        )
    lines.append(
        at_most(
            f"timeout of {_TIMEOUT_MS} ms to the death of the process",
            max(_kills()),
            # What computes for ever is given no grace.
            _TIMEOUT_MS + _LATE_MS,
            "ms",
            digits=0,
        )
    )
    return lines


def _rate_lines(kind: str, rate: _Rate, bar: float) -> list[Line]:
    what = f"no-op jobs/s, {kind.replace('_', ', ')}"
    first = (
        at_least(what, rate.jobs_per_s, bar, "")
        if bar
        else Line(what=what, value=f"{rate.jobs_per_s:,.0f}")
    )
    return [first, Line(what="  CPU/job of the worker", value=f"{rate.cpu_us:.1f} µs")]


@contextmanager
def _pair(app: str, slots: int, *told: str) -> Iterator[tuple[Process, Process]]:
    """The stand-in, told what to play, and a worker of it."""
    with workplace() as folder, ProcessGroup(folder) as group:
        stub = group.start("stub", "benchmarks.worker_stub", *told)
        address = stub.expect("serving")["address"]
        arguments = ("worker", app, "--master", address, "--slots", str(slots))
        worker = group.tenure("worker", *arguments)
        worker.expect("registered")
        yield stub, worker


def _flow(kind: str, jobs: int, mark: int = 0) -> _Rate:
    """Jobs of one kind, as many as come."""
    mark = mark or _WARM_UP
    total = (jobs // mark + 1) * mark
    slots = _CHILDREN if kind == "process" else _SLOTS
    with _pair(_APP, slots, "flow", f"worker.{kind}", str(total), "--mark", str(mark)) as (
        stub,
        worker,
    ):
        first = stub.expect("mark", timeout_s=_END_S, jobs=mark)
        cpu_s, rss = worker.cpu_seconds(), worker.resident_bytes()
        last = stub.expect("mark", timeout_s=_END_S, jobs=total)
        cpu_s, grown = worker.cpu_seconds() - cpu_s, worker.resident_bytes() - rss
    if last["wrong"]:
        raise ProcessFailed(f"expected every result to be right, but {last['wrong']} were not")
    count = total - mark
    return _Rate(count / (last["at_s"] - first["at_s"]), cpu_s * 1e6 / count, grown / 1e6)


def _memory_lines() -> list[Line]:
    bare, idle, many_slots = _bare_mb(), _held_mb(_FEW_SLOTS, 0), _held_mb(_SLEEPERS, 0)
    some, all_of_them = _held_mb(_SLEEPERS, _SLEEPERS // 10), _held_mb(_SLEEPERS, _SLEEPERS)
    slot_kb = (many_slots - idle) * 1e3 / (_SLEEPERS - _FEW_SLOTS)
    busy_kb = (all_of_them - some) * 1e3 / (_SLEEPERS - _SLEEPERS // 10)
    return [
        Line(what="a bare grpc.aio process", value=f"{bare:.1f} MB"),
        at_most("an idle worker", idle, _IDLE_MB, "MB"),
        at_most("a further slot, idle", max(0.0, slot_kb), _SLOT_KB, "KB"),
        at_most("a further slot, with a job that sleeps", busy_kb, _SLOT_KB, "KB"),
        at_most(f"{_SLEEPERS:,} jobs in asyncio.sleep", all_of_them, _SLEEPERS_MB, "MB"),
    ]


def _bare_mb() -> float:
    with workplace() as folder, ProcessGroup(folder) as group:
        stub = group.start("stub", "benchmarks.worker_stub", "hold", "bench.nap", "0")
        bare = group.start("bare", "benchmarks.bare_grpc", stub.expect("serving")["address"])
        bare.expect("connected")
        return bare.resident_bytes() / 1e6


def _held_mb(slots: int, jobs: int) -> float:
    """Memory of a worker that so many jobs sleep in."""
    with _pair(_SMALL_APP, slots, "hold", "bench.nap", str(jobs)) as (stub, worker):
        stub.expect("held", timeout_s=_END_S)
        return worker.resident_bytes() / 1e6


def _cancels(kind: str) -> list[float]:
    with _pair(_APP, _FEW_SLOTS, "cancel", f"worker.heed_{kind}", str(_CANCELS)) as (stub, _):
        took_ms: list[float] = stub.expect("cancelled", timeout_s=_END_S)["ms"]
        return took_ms


def _kills() -> list[float]:
    told = ("kill", "worker.busy", str(_KILLS), "--timeout-ms", str(_TIMEOUT_MS))
    with _pair(_APP, _CHILDREN, *told) as (stub, _):
        took_ms: list[float] = stub.expect("killed", timeout_s=_END_S)["ms"]
        return took_ms
