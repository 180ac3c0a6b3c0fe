"""How ``tenure worker`` hands over what it was told."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tenure.cli import exits, launch, main


class Replaced(Exception):
    """Instead of another program."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the next program is given, once a worker is started."""
    given: dict[str, Any] = {}

    def execv(path: str, arguments: list[str]) -> None:
        module = arguments.index("tenure.cli.launch")
        with os.fdopen(int(arguments[module + 1]), "rb") as pipe:
            given.update(json.loads(pipe.read()))
        given["path"], given["shown"] = path, arguments[module + 2 :]
        raise Replaced

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setenv("TENURE_CONFIG", str(tmp_path / "tenure.toml"))
    (tmp_path / "tenure.toml").write_text("[worker]\nslots = 3\n[master]\nname = 'm'\n")
    return given


def start(*arguments: str) -> None:
    """Runs the command up to the point where it becomes another program."""
    with pytest.raises(Replaced):
        main.run(["worker", *arguments])


def test_a_worker_is_told_its_settings_and_the_clients(
    told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags, variables and files arrive together; what is not set is left to the worker."""
    monkeypatch.setenv("TENURE_ADDRESS", "a:1,b:2")
    monkeypatch.setattr(sys, "argv", ["tenure", "worker", "app", "--queues", "x,y"])
    start("app", "--queues", "x,y", "--label", "zone=eu", "--label", "disk=ssd")
    assert told["client"] == {"address": "a:1,b:2"}
    assert told["worker"] == {
        "app": "app",
        "queues": ["x", "y"],
        "slots": 3,
        "labels": {"zone": "eu", "disk": "ssd"},
        "drain_timeout_s": 30.0,
        "insecure": False,
        "reload": False,
    }
    assert told["path"] == sys.executable
    assert told["shown"] == ["worker", "app", "--queues", "x,y"]


@pytest.mark.parametrize(
    ("flags", "level"), [([], "INFO"), (["-v"], "DEBUG"), (["--quiet"], "WARNING")]
)
def test_how_much_is_logged(told: dict[str, Any], flags: list[str], level: str) -> None:
    """More with -v, less with --quiet."""
    start("app", *flags)
    assert told["level"] == level


def test_settings_without_measure_are_refused(
    told: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the pipe cannot hold would stop the program for ever."""
    assert main.run(["worker", "app", "--name", "x" * 70_000]) == exits.USAGE
    assert "65536 bytes" in capsys.readouterr().err
    assert told == {}


def test_a_certificate_without_an_authority_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new program checks what only it imports, and says so in one line."""
    reader, writer = os.pipe()
    client = {"address": "a:1", "tls_cert": "c"}
    os.write(writer, json.dumps({"client": client, "worker": {}, "level": "INFO"}).encode())
    os.close(writer)
    monkeypatch.setattr(sys, "argv", ["launch", str(reader)])
    assert launch.main() == exits.USAGE
    assert capsys.readouterr().err.startswith("tenure: expected --tls-ca")
