"""Runs the measurements and prints one table: `python -m benchmarks`, or `make bench`.

Exits 1 if a measurement could not be made or a promise was broken (a job lost, or accepted twice,
or a payload changed). A missed target is shown, and is no failure: machines differ.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from benchmarks import (
    failover,
    latency,
    memory,
    mix,
    scheduling,
    sdk,
    throughput,
    timers,
    worker,
)
from benchmarks.process import ProcessFailed
from benchmarks.store import StoreKind
from benchmarks.table import Line, print_lines

_STORES: Final[tuple[StoreKind, ...]] = ("none", "sqlite", "etcd")
_TITLES: Final[Mapping[StoreKind, str]] = {
    "none": "Throughput without a store (the pipe alone)",
    "sqlite": "Throughput on SQLite, synchronous=FULL",
    "etcd": "Throughput on one etcd member",
}

Measurement = Callable[[], list[Line]]


def measurements(jobs: int) -> dict[str, tuple[str, Measurement]]:
    """Name to title and function, in the order in which they run."""
    found: dict[str, tuple[str, Measurement]] = {
        kind: (_TITLES[kind], partial(_throughput, kind, jobs)) for kind in _STORES
    }
    found["latency"] = ("Latency, idle, on SQLite", partial(latency.measure, 1_000))
    found["sdk"] = ("The SDK, as its users meet it", sdk.measure)
    found["mix"] = ("Jobs of all kinds beside plain ones, on SQLite", partial(mix.measure, jobs))
    found["worker"] = ("One worker, fed as fast as it wants", partial(worker.measure, 1_000_000))
    found["scheduling"] = ("Scheduling in the core", scheduling.measure)
    found["timers"] = ("Timers that are due at once", timers.measure)
    found["memory"] = ("Memory of the master", partial(memory.measure, 200_000))
    found["failover"] = ("Failover on etcd", partial(failover.measure, 5, 5))
    return found


def main() -> int:
    """Runs what the command line asks for. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    names = list(measurements(1))
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"of: {', '.join(names)}")
    parser.add_argument("--jobs", type=int, default=80_000, help="of each throughput run")
    arguments = parser.parse_args()
    unknown = set(arguments.only) - set(names)
    if unknown:
        parser.error(f"expected names out of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, one machine for all")
    failed = False
    for name, (title, measure) in measurements(arguments.jobs).items():
        if arguments.only and name not in arguments.only:
            continue
        try:
            lines = measure()
        except ProcessFailed as error:
            print(f"\n{title}\n  could not be measured: {error}", flush=True)
            failed = True
            continue
        print_lines(title, lines)
        failed |= any(line.breaks and not line.met for line in lines)
    return 1 if failed else 0


def _throughput(kind: StoreKind, jobs: int) -> list[Line]:
    lines, violations = throughput.measure(kind, jobs)
    for violation in violations:
        print(violation, file=sys.stderr)
    return lines


if __name__ == "__main__":
    sys.exit(main())
