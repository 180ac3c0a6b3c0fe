"""What commands look like at a terminal, to the letter.

``make golden`` writes the files beside this one anew; look at what has changed before you commit.
"""

import os
from pathlib import Path

import pytest

from tests.integration.cli.terminal import Terminal

GOLDEN = Path(__file__).parent / "golden"

#: File -> the command, the terminal's columns, the environment.
SCREENS: dict[str, tuple[list[str], int, dict[str, str]]] = {
    "help": (["--help"], 80, {}),
    "help-narrow": (["--help"], 52, {}),
    "help-jobs": (["jobs", "--help"], 80, {}),
    "help-jobs-list": (["jobs", "list", "--help"], 80, {}),
    "help-submit": (["submit", "--help"], 80, {}),
    "help-worker": (["worker", "--help"], 80, {}),
    "list": (["jobs", "list"], 140, {}),
    "list-narrow": (["jobs", "list"], 90, {}),
    "list-very-narrow": (["jobs", "list"], 40, {}),
    "list-no-color": (["jobs", "list"], 140, {"NO_COLOR": "1"}),
    "list-no-color-flag": (["jobs", "list", "--no-color", "--no-headers"], 140, {}),
    "list-dumb": (["jobs", "list"], 140, {"TERM": "dumb"}),
    "list-limit": (["jobs", "list", "--limit", "1"], 140, {}),
    "get": (["jobs", "get", "DEAD"], 100, {}),
    "help-jobs-explain": (["jobs", "explain", "--help"], 80, {}),
    "explain": (["jobs", "explain", "RUNNING"], 100, {}),
    "explain-narrow": (["jobs", "explain", "RUNNING"], 60, {}),
    "help-queues": (["queues", "--help"], 80, {}),
    "help-queues-set": (["queues", "set", "--help"], 80, {}),
    "queues": (["queues", "list"], 100, {}),
    "queues-narrow": (["queues", "list"], 70, {}),
    "help-workers": (["workers", "--help"], 80, {}),
    "help-workers-drain": (["workers", "drain", "--help"], 80, {}),
    "workers": (["workers", "list"], 140, {}),
    "workers-narrow": (["workers", "list"], 80, {}),
    "workers-get": (["workers", "get", "w2"], 110, {}),
    "workers-missing": (["workers", "get", "w11"], 100, {}),
    "workers-drain": (["workers", "drain", "w1"], 140, {}),
    "workers-undrain": (["workers", "undrain", "w1"], 140, {}),
    "workers-quarantine": (
        ["workers", "quarantine", "w2", "--reason", "its disk is full"],
        140,
        {},
    ),
    "workers-quarantine-dry-run": (["workers", "quarantine", "w1", "--dry-run"], 140, {}),
    "workers-release": (["workers", "release", "w1"], 140, {}),
    "help-workers-quarantine": (["workers", "quarantine", "--help"], 80, {}),
    "status": (["cluster", "status"], 100, {}),
    "help-schedules": (["schedules", "--help"], 80, {}),
    "help-schedules-put": (["schedules", "put", "--help"], 80, {}),
    "schedules-list": (["schedules", "list"], 160, {}),
    "schedules-list-narrow": (["schedules", "list"], 80, {}),
    "schedules-get": (["schedules", "get", "nightly"], 100, {}),
    "schedules-pause": (["schedules", "pause", "nightly"], 160, {}),
    "schedules-trigger": (["schedules", "trigger", "nightly"], 100, {}),
    "schedules-delete": (["schedules", "delete", "nightly", "--yes"], 100, {}),
    "schedules-missing": (["schedules", "get", "weekly"], 100, {}),
    "schedules-put": (["schedules", "put", "n", "@daily", "app.add", "1", "--tz", "UTC"], 100, {}),
    "schedules-put-dry-run": (["schedules", "put", "n", "@daily", "a", "--dry-run"], 100, {}),
    "schedules-put-bad": (["schedules", "put", "n", "@daily", "a", "--end-at", "1st"], 100, {}),
    "dry-run": (["jobs", "cancel", "DEAD", "--dry-run"], 140, {}),
    "submit-dry-run": (["submit", "app.add", "1", "--dry-run"], 100, {}),
    "typo-command": (["jbos", "list"], 100, {}),
    "typo-subcommand": (["jobs", "lst"], 100, {}),
    "typo-option": (["jobs", "list", "--quue", "x"], 100, {}),
    "typo-value": (["jobs", "list", "-o", "nmae"], 100, {}),
    "typo-variable": (["jobs", "count"], 100, {"TENURE_ADRESS": "a:1"}),
    "bad-setting": (["jobs", "list"], 100, {"TENURE_TIMEOUT": "soon"}),
}


def screen(name: str) -> str:
    """What is there in the end; escapes are shown as ``^[``, as ``cat -v`` does."""
    from tests.integration.cli import program

    arguments, columns, variables = SCREENS[name]
    ids = {"DEAD": program.DEAD, "RUNNING": program.RUNNING}
    with Terminal(*(ids.get(a, a) for a in arguments), columns=columns, **variables) as terminal:
        text = terminal.rest().replace("\x1b", "^[")
        return f"$ tenure {' '.join(arguments)}\n{text}[exit {terminal.code()}]\n"


@pytest.mark.parametrize("name", SCREENS)
def test_screen(name: str) -> None:
    """The screen is the one that was looked at when it was committed."""
    path = GOLDEN / f"{name}.txt"
    seen = screen(name)
    if os.environ.get("RENEW_GOLDEN"):
        path.write_text(seen, "utf-8")

    assert seen == path.read_text("utf-8"), "run `make golden`, and look at what has changed"


def test_no_golden_file_is_left_behind() -> None:
    """Each file belongs to a screen."""
    assert {path.stem for path in GOLDEN.iterdir()} == SCREENS.keys()
