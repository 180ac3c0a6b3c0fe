"""The installed script where the command line's packages are missing."""

import subprocess
import sys

SCRIPT = """
import sys
sys.modules[{missing!r}] = None  # As if it were not installed.
from tenure.cli.entry import main
sys.argv = ["tenure", "version"]
main()
"""


def run_without(missing: str) -> subprocess.CompletedProcess[str]:
    """The script where a package is not installed."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(missing=missing)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_missing_extra_is_one_line() -> None:
    """Without the extra: usage, and the line is the command that installs it."""
    done = run_without("click")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "click is not installed" in done.stderr
    assert "pip install 'tenure[cli]'" in done.stderr


def test_missing_part_of_tenure_is_no_missing_extra() -> None:
    """A broken installation shows its traceback: no extra would mend it."""
    done = run_without("tenure.cli.main")

    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
    assert "pip install" not in done.stderr
