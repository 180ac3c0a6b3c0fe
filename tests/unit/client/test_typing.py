"""The SDK's types, as mypy in strict mode sees them from outside."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]


@pytest.mark.parametrize("cases", ["typing_cases.py", "typing_mistakes.py"])
def test_mypy_concludes_what_users_expect(cases: str) -> None:
    """Results have the types that the functions say, and each planted mistake is found."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(HERE / cases)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
