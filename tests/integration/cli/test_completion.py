"""Completion in shells: the script of bash in bash, the protocol of the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.cli.terminal import TIMEOUT_S, environment, run

BASH = """
eval "$(tenure completion bash)"
COMP_WORDS=({words}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_tenure_completion tenure
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("tenure jo", ["jobs"]),
        ("tenure jobs c", ["cancel", "count"]),
        ("tenure jobs list --st", ["--state"]),
        ("tenure jobs list --state can", ["cancelled"]),
        ("tenure jobs list -o js", ["json", "jsonl"]),
        ("tenure completion f", ["fish"]),
        ("tenure worker --sl", ["--slots"]),
    ],
)
def test_bash(words: str, completed: list[str]) -> None:
    """Commands, options and values are completed by the script that the command prints."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH.format(words=words)],
        capture_output=True,
        text=True,
        env=environment({"PATH": path}),
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (completed, "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells(shell: str) -> None:
    """Their scripts name the command and ask it; it answers with words and what they mean."""
    script = run(["completion", shell], module="tenure.cli")
    assert script.returncode == 0
    assert f"_TENURE_COMPLETE={shell}_complete" in script.stdout
    word = {"zsh": {"COMP_CWORD": "2"}, "fish": {"COMP_CWORD": "li"}}[shell]
    answer = run(
        [],
        module="tenure.cli",
        COMP_WORDS="tenure jobs li",
        _TENURE_COMPLETE=f"{shell}_complete",
        **word,
    )
    assert "list" in answer.stdout
    assert "Lists jobs, newest first" in answer.stdout
