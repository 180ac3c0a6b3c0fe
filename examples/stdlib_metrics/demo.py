"""One node: measures the standard library with `tenure dev` and writes a report.

    python -m examples.stdlib_metrics.demo

It starts everything on a free port in a temporary folder, needs no network, and stops all of it.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from examples.stdlib_metrics.jobs import measure, name_of
from examples.stdlib_metrics.metrics import stdlib_modules
from examples.stdlib_metrics.outcome import Outcomes
from examples.stdlib_metrics.program import ROOT, DemoFailed, EventLog, Program
from examples.stdlib_metrics.report import Report, text_table, write_html
from tenure.client import Client, TenureError

OUT: Final = ROOT / "out"
_TIME_LIMIT_S: Final = 180
#: Files of CPython's own test data that are not meant to parse; some systems do not install them.
_UNPARSABLE_NAMES: Final = ("badsyntax_", "bad_coding", "py2_test_grammar")


def main() -> int:
    """Runs the demo. Returns the exit code."""
    try:
        with _time_limit(_TIME_LIMIT_S), tempfile.TemporaryDirectory(prefix="tenure-demo-") as name:
            report = run(Path(name))
    except (DemoFailed, TenureError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    page = OUT / "report.html"
    write_html(report, page)
    print(text_table(report))
    print(f"\nThe report with charts: {page.relative_to(ROOT)}")
    return 0


def run(folder: Path) -> Report:
    """Starts a cluster of one, measures every module, and stops the cluster."""
    paths = work_list()
    slots = os.cpu_count() or 2
    print(f"Measuring {len(paths):,} modules, {slots} at a time …", flush=True)
    arguments = ["dev", "examples.stdlib_metrics.jobs", "--data-dir", str(folder / "data")]
    arguments += ["--listen", "127.0.0.1:0", "--slots", str(slots)]
    with Program("tenure-dev", arguments, EventLog(), folder) as node:
        address = str(node.expect("serving").fields["address"])
        node.expect("registered")
        outcomes, seconds = measure_all(address, paths)
        code = node.stop()
        if code != 0:
            raise DemoFailed(f"expected tenure dev to end with 0, but it was {code}: {node.tail()}")
    check(outcomes, len(paths))
    rate = f"{len(paths) / seconds:,.0f}"
    return Report(
        title=f"The standard library of Python {platform.python_version()}, measured",
        summary=f"{len(paths):,} jobs on one node, {seconds:.1f} seconds.",
        modules=outcomes.modules,
        failures=sorted(outcomes.failures, key=lambda failure: failure.path),
        facts=[("seconds", f"{seconds:.1f}"), ("jobs a second", rate)],
        ended_seconds=outcomes.ended_seconds,
    )


def work_list() -> list[str]:
    """What to measure: all modules of the standard library, an unparsable file among them."""
    paths = stdlib_modules()
    if not any(path.name.startswith(_UNPARSABLE_NAMES) for path in paths):
        OUT.mkdir(exist_ok=True)
        unparsable = OUT / "unparsable.py"
        unparsable.write_text("def broken(:\n", encoding="utf-8")
        paths.append(unparsable)
    return [name_of(path) for path in paths]


def measure_all(address: str, paths: Sequence[str]) -> tuple[Outcomes, float]:
    """Submits one job a path and gathers the outcomes, with the seconds that took."""
    outcomes = Outcomes()
    began = time.monotonic()
    with Client(address) as client:
        handles = client.map(measure, paths)
        path_of = {handle.id: path for handle, path in zip(handles, paths, strict=True)}
        for handle in client.as_completed(handles):
            at_seconds = time.monotonic() - began
            try:
                outcomes.completed(path_of[handle.id], handle.result(), at_seconds)
            except TenureError as error:
                outcomes.failed(path_of[handle.id], error, at_seconds)
    return outcomes, time.monotonic() - began


def check(outcomes: Outcomes, submitted: int) -> None:
    """Refuses to call it a success unless every job ended as it should.

    Raises:
        DemoFailed: One did not.
    """
    if outcomes.surprises:
        count = len(outcomes.surprises)
        raise DemoFailed(f"{count} jobs ended in a surprise, the first: {outcomes.surprises[0]}")
    ended = len(outcomes.modules) + len(outcomes.failures)
    if ended != submitted:
        raise DemoFailed(f"expected {submitted} outcomes, but there are {ended}")
    if not outcomes.failures:
        raise DemoFailed("expected an unparsable file to fail, but every file was measured")


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Ends a demo that hangs."""

    def expired(_number: int, _frame: FrameType | None) -> None:
        raise DemoFailed(f"expected to be done within {seconds} s, but something hangs")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
