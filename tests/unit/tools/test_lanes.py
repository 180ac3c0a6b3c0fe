"""Suites side by side: nothing that they print is lost, and no failure."""

from __future__ import annotations

import sys

import pytest

from tools.lanes import NOTHING_RUN, run, verdict


def command(code: int, *lines: str) -> list[str]:
    """A process that prints these lines and ends."""
    program = f"import sys; [print(line) for line in sys.argv[1:]]; sys.exit({code})"
    return [sys.executable, "-S", "-c", program, *lines]


def test_all_is_shown_and_ends_again(capfd: pytest.CaptureFixture[str]) -> None:
    """Each line has its lane in front; at the end come the last line, or the whole summary."""
    summary = ["=== short test summary info ===", "FAILED a", "1 failed"]
    assert run([command(0, "one", "two"), command(1, "three", *summary)]) == 1
    shown, _, ends = capfd.readouterr().out.partition("\n\n")
    lines = shown.splitlines()
    assert [line for line in lines if line.startswith("1|")] == ["1| one", "1| two"]
    assert [line for line in lines if line.startswith("2|")] == [
        f"2| {line}" for line in ["three", *summary]
    ]
    assert ends.splitlines() == [
        "1| two",
        "1| ended with 0",
        *(f"2| {line}" for line in [*summary, "ended with 1"]),
    ]


def test_lanes_run_at_the_same_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each of the two ends only if the other has begun."""
    folder = tmp_path_factory.mktemp("lanes")
    meet = (
        "import pathlib, sys, time; me, other = map(pathlib.Path, sys.argv[1:]); me.touch()\n"
        "until = time.monotonic() + 20\n"
        "while not other.exists(): assert time.monotonic() < until"
    )
    names = str(folder / "a"), str(folder / "b")
    python = [sys.executable, "-S", "-c", meet]
    assert run([[*python, *names], [*python, *reversed(names)]]) == 0


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0), 0),
        ((0, 1), 1),
        ((2, 1), 2),
        ((1, 0), 1),
        ((-9, 0), -9),
        ((0, NOTHING_RUN), 0),
        ((NOTHING_RUN, 0), 0),
        ((NOTHING_RUN, NOTHING_RUN), NOTHING_RUN),
        ((NOTHING_RUN, 1), 1),
    ],
)
def test_no_failure_is_lost(codes: tuple[int, ...], expected: int) -> None:
    """A lane that fails is the whole's failure; one without tests is none if another had some."""
    assert verdict(codes) == expected
