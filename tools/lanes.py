"""Runs suites in lanes, side by side: most tests of real processes wait, and others can work then.

Usage: `python -m tools.lanes "tests/unit tests/histories" "tests/integration tests/chaos" -- ARGS`.
Each lane is one pytest over its suites, one after the other, with the arguments behind `--`. Lines
are shown as they come, with the lane's number in front; what each lane has to say at its end is
shown once more when all are over. It fails if a lane fails.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Final

#: Pytest's exit code of a lane in which nothing was chosen, by `-k` for example.
NOTHING_RUN: Final = 5
_SUMMARY: Final = re.compile(r"=+ short test summary info =+")


class Lane:
    """One process, and what it prints.

    Args:
        mark: Stands in front of its lines.
        command: What it runs.
    """

    def __init__(self, mark: str, command: Sequence[str]) -> None:
        self._mark = mark
        self._end: list[str] = []
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def follow(self) -> None:
        """Shows its lines until it ends."""
        if self.process.stdout is None:
            raise ValueError("expected a pipe")
        with self.process.stdout as lines:
            for line in lines:
                if not self._end or not _SUMMARY.search(self._end[0]):
                    self._end.clear()
                self._end.append(line.rstrip())
                # With its end, so that no line of another lane comes between.
                sys.stdout.write(f"{self._mark} {line.rstrip()}\n")
                sys.stdout.flush()

    def conclude(self) -> int:
        """Waits for its end and shows its summary, or its last line. Returns its exit code."""
        code = self.process.wait()
        for line in [*self._end, f"ended with {code}"]:
            print(f"{self._mark} {line}")
        return code


def verdict(codes: Sequence[int]) -> int:
    """One exit code for all: that of the first lane that failed, if one has."""
    failed = [code for code in codes if code not in (0, NOTHING_RUN)]
    return failed[0] if failed else min(codes)


def run(commands: Sequence[Sequence[str]]) -> int:
    """Runs commands side by side to their ends, and shows what they print. Returns an exit code."""
    lanes = [Lane(f"{place}|", command) for place, command in enumerate(commands, start=1)]

    def stop(*_: object) -> None:
        # Of SIGTERM pytest would die, and leave what its tests have started.
        for lane in lanes:
            lane.process.send_signal(signal.SIGINT)

    # Ctrl-C reaches the lanes by itself: they end, each with its report, and so does this.
    before = signal.signal(signal.SIGINT, lambda *_: None), signal.signal(signal.SIGTERM, stop)
    readers = [threading.Thread(target=lane.follow) for lane in lanes]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    print()
    code = verdict([lane.conclude() for lane in lanes])
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])
    return code


def main(arguments: Sequence[str]) -> int:
    """Runs the lanes that are named."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, usage="%(prog)s SUITES [SUITES ...] [-- ARGS]"
    )
    parser.add_argument("suites", nargs="+", metavar="SUITES", help="what one lane runs, in order")
    lanes = parser.parse_args(arguments[:end]).suites
    more = [*arguments[end + 1 :], *(["--color=yes"] if sys.stdout.isatty() else [])]
    return run([[sys.executable, "-m", "pytest", *more, *lane.split()] for lane in lanes])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
