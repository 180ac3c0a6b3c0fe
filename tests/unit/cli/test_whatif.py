"""``tenure whatif`` with traces: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest

from examples.whatif.make_trace import TRACE
from tenure.cli import exits, main

SETTINGS = str(TRACE.with_name("queues.toml"))


def test_settings_change_what_is_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    """The shop's settings keep its mail quick while a tenant's reports flood in."""
    p95 = []
    for more in ((), ("--queue-config", SETTINGS)):
        arguments = ["--trace", str(TRACE), "--workers", "2", "--slots", "4", "-o", "json"]
        assert main.run(["whatif", *arguments, *more]) == exits.OK
        said = json.loads(capsys.readouterr().out)
        assert said["jobs"] == 1_500
        assert said["unstarted"] == 0
        p95.append(max(row["waitsMs"]["p95"] for row in said["classes"] if row["queue"] == "mail"))
    assert p95[1] < p95[0] / 4


def test_the_table_ends_with_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """A row a queue and priority; then span, utilisation and backlog."""
    assert main.run(["whatif", "--trace", str(TRACE), "--slots", "8"]) == exits.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["QUEUE", "TENANT", "PRIORITY"]
    assert [line.split()[0] for line in lines[-3:]] == ["span", "utilisation", "backlog"]
    assert len(lines) == 1 + 8 + 3


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "--trace FILE or --from-history"),
        (["--from-history", "--trace", str(TRACE)], "one of them"),
        (["--trace", str(TRACE), "--save", "x"], "--from-history only"),
        (["--trace", str(TRACE), "--label", "zone"], "a pair"),
        (["--trace", str(TRACE), "--queue-config", str(TRACE)], "TOML or JSON"),
        (["--trace", SETTINGS], "queues.toml:1"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says what was expected, and the exit code of wrong usage."""
    assert main.run(["whatif", *arguments]) == exits.USAGE
    assert why in capsys.readouterr().err


def test_settings_that_cannot_be_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path of the field in the file."""
    file = tmp_path / "q.toml"
    file.write_text('[[queues]]\nname = "a"\nsettings = { weight = 0 }\n')
    arguments = ["--trace", str(TRACE), "--queue-config", str(file)]
    assert main.run(["whatif", *arguments]) == exits.USAGE
    assert "queues[0].settings.weight" in capsys.readouterr().err
