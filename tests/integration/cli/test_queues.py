"""``tenure queues`` and ``tenure jobs boost`` against a real master."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tenure.cli import exits, main
from tests.integration.test_dev import Dev

#: Runs a command that must succeed; gives what it printed.
Say = Callable[..., str]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A master without workers: what is submitted waits."""
    folder: Path = tmp_path_factory.mktemp("dev")
    dev = Dev(folder, "--ephemeral")
    yield dev.wait_said("serving")["address"]
    dev.close()


@pytest.fixture
def say(address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs commands against the master."""
    monkeypatch.setenv("TENURE_ADDRESS", address)
    monkeypatch.setenv("TENURE_CONFIG", os.devnull)

    def run(line: str, code: int = exits.OK) -> str:
        found = main.run(line.split())
        out, err = capsys.readouterr()
        assert found == code, (out, err)
        return err if code else out

    return run


def test_a_queue_from_its_first_setting_to_its_purge(say: Say) -> None:
    """Set, get, list, pause, resume, purge: each says what the next one reads."""
    say("queues set mail --weight 2.5 --concurrency 10 --rate 100/m")
    shown = say("queues set mail --burst 5 --rate 5/30s --key-concurrency 2")
    assert "rate:        5/30s\n" in shown
    assert "weight:      2.5\n" in shown
    say("queues set mail --key-strategy cancel-newest --key-rate 10/s --key-burst 20")
    say("queues set mail --reserved 0.25 --fair-by time --depth-max 3 --rate none")
    queue = json.loads(say("queues get mail -o json"))
    assert queue["settings"] == {
        "weight": 2.5,
        "fairBy": "FAIR_BY_TIME",
        "concurrency": 10,
        "keyConcurrency": 2,
        "keyStrategy": "LIMIT_STRATEGY_CANCEL_NEWEST",
        "keyRate": {"count": 10, "per": "1s", "burst": 20},
        "reserved": 0.25,
        "reservedPriority": 10,
        "depthMax": 3,
    }
    for _ in range(3):
        say("submit app.send --queue mail")
    assert "[QUEUE_FULL]" in say("submit app.send --queue mail", code=exits.UNAVAILABLE)
    say("queues pause mail")
    heading, *rows = say("queues list --tenant default").splitlines()
    (row,) = [row for row in rows if row.startswith("mail ")]
    assert heading.split()[:3] == ["QUEUE", "TENANT", "STATE"]
    assert row.split()[:8] == ["mail", "default", "paused", "2.5", "3", "0", "0", "0"]
    assert row.endswith("10 at once, 2 per key, 10/s, 20 at once per key")
    say("queues resume mail")
    assert "paused" not in say("queues get mail")
    say("queues purge mail --dry-run")
    say("queues purge mail --no-input", code=exits.USAGE)
    say("queues purge mail --yes")
    assert say("jobs list --queue mail -o name") == ""
    assert "mail" in say("queues list -o name").split()


def test_tenants_and_job_types(say: Say) -> None:
    """They are set, paused and shown by the same commands, with --tenant and --job."""
    say("submit app.send --tenant acme --limit-key u1 --require zone=eu,us")
    say("queues set --tenant acme --weight 3")
    say("queues pause --tenant acme")
    assert say("queues get --tenant acme").splitlines() == [
        "tenant: acme",
        "paused: yes",
        "weight: 3",
        "jobs:   1 PENDING",
    ]
    say("queues set --job app.send --tenant acme --breaker 0.25 --breaker-open-for 1m")
    say("queues set --job app.send --tenant acme --retry-budget 0.2")
    say("queues pause --job app.send --tenant acme")
    (found,) = json.loads(say("queues list --by job --tenant acme -o json"))
    assert found["settings"]["paused"]
    assert found["settings"]["breaker"]["openFor"] == "60s"
    assert found["settings"]["retryBudget"] == 0.2
    tenants = say("queues list --by tenant --no-headers").splitlines()
    assert ["acme", "paused", "3", "1", "0", "0", "0"] in [line.split() for line in tenants]
    (job,) = json.loads(say("jobs list --tenant acme -o json"))
    assert job["limitKey"] == "u1"
    assert job["options"]["requires"] == [{"key": "zone", "values": ["eu", "us"]}]


def test_keys_and_boosts(say: Say) -> None:
    """A taken key rejects or is replaced; a job that waits gets another place."""
    first = say("submit app.late --queue late --delay 1h --key k").strip()
    refused = say("submit app.late --queue late --key k --key-conflict reject", code=exits.CONFLICT)
    assert first in refused
    assert "[JOB_KEY_CONFLICT]" in refused
    second = say("submit app.late --queue late --key k --key-conflict replace --delay 1h").strip()
    assert say("jobs list --queue late --state cancelled -o name").strip() == first
    boosted = say(f"jobs boost {second} --priority 0 --delay 0s --no-headers")
    assert boosted.split() == [second, "PENDING"]
    say(f"jobs boost {first} --priority 0", code=exits.CONFLICT)
    say(f"jobs boost {second}", code=exits.USAGE)


def test_a_breaker_is_shown_and_held_open(say: Say) -> None:
    """What an operator says is shown as the breaker's state."""
    shown = say("queues set --job app.flaky --breaker 0.25 --breaker-volume 8 --adaptive-retry yes")
    assert "breaker:        opens at 25% of 8 or more attempts in 1m" in shown
    assert "state:          closed\n" in shown
    shown = say("queues set --job app.flaky --breaker-override open")
    assert "state:          open\n" in shown
    assert "override:       open\n" in shown
    job = say("submit app.flaky --queue flaky").strip()
    assert "CIRCUIT_BREAKER: the breaker of app.flaky was opened by hand" in say(
        f"jobs explain {job}"
    )
    say("queues set --job app.flaky --breaker-override none")
    assert "CIRCUIT_BREAKER" not in say(f"jobs explain {job}")


def test_a_breaker_of_a_limit_key_is_shown_and_held_open(say: Say) -> None:
    """One key at a time; others go on, and those that were said before stay."""
    shown = say("queues set hooks --key-breaker 0.25 --breaker-volume 8")
    assert "key breaker: opens at 25% of 8 or more attempts in 1m" in shown
    say("queues set hooks --key-breaker-override globex=closed")
    assert "acme=open, globex=closed" in say("queues set hooks --key-breaker-override acme=open")
    job = say("submit app.hook --queue hooks --limit-key acme").strip()
    other = say("submit app.hook --queue hooks --limit-key initech").strip()
    by_hand = "KEY_CIRCUIT_BREAKER: the breaker of limit key acme of queue hooks was opened by hand"
    assert by_hand in say(f"jobs explain {job}")
    assert "KEY_CIRCUIT_BREAKER" not in say(f"jobs explain {other}")
    assert "key breakers: acme: open, 0% failing" in say("queues get hooks")
    found = json.loads(say("queues get hooks -o json"))
    assert [key["limitKey"] for key in found["keyBreakers"]] == ["acme"]
    overrides = {
        key: f"BREAKER_OVERRIDE_{w}" for key, w in {"acme": "OPEN", "globex": "CLOSED"}.items()
    }
    assert found["settings"]["keyBreakerOverrides"] == overrides
    say("queues set hooks --key-breaker-override acme=none")
    assert "KEY_CIRCUIT_BREAKER" not in say(f"jobs explain {job}")


def test_a_job_is_explained(say: Say) -> None:
    """All that keeps it, how many come before it, and what nobody knows; also as the API's JSON."""
    say("queues set paused --concurrency 5")
    first, job = (say("submit app.late --queue paused").strip() for _ in range(2))
    say("queues pause paused")
    found = json.loads(say(f"jobs explain {job} -o json"))
    kinds = [blocker["kind"] for blocker in found["blockers"]]
    assert kinds == ["BLOCKER_KIND_QUEUE_PAUSED", "BLOCKER_KIND_NO_WORKER"]
    assert found["state"] == "JOB_STATE_PENDING"
    assert "estimatedWait" not in found
    assert "ahead:" not in say(f"jobs explain {first}")
    child = say("submit app.late --queue paused --delay 1h").strip()
    shown = say(f"jobs explain {child}")
    assert "NOT_DUE: it is not due yet" in shown
    assert "wait:       unknown" in shown


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("set mail --weight 0", "settings.weight"),
        ("set mail --rate 0/s", "rate.count"),
        ("set mail --rate fast", "a rate such as 10/s"),
        ("set mail --burst 5", "--rate with --burst"),
        ("set mail --reserved 1", "settings.reserved"),
        ("set mail", "something to set"),
        ("set mail --breaker 0.5", "what a queue has, got --breaker"),
        ("set --tenant acme --rate 1/s", "what a tenant has, got --rate"),
        ("set --job app.send --breaker-window 1m", "--breaker or --key-breaker with"),
        ("set mail --key-breaker 2", "breaker.failure_rate"),
        ("set mail --key-breaker-override acme", "KEY=open"),
        ("set --job app.send --key-breaker 0.5", "what a job type has, got --key-breaker"),
        ("set --job app.send --breaker often", "a share such as 0.5"),
        ("pause", "a queue, --job or --tenant"),
        ("pause mail --job app.send", "got both"),
    ],
)
def test_what_cannot_be_is_refused(say: Say, line: str, says: str) -> None:
    """With one line that says what was expected, and exit code 2."""
    assert says in say(f"queues {line}", code=exits.USAGE)


def test_a_queue_that_is_not_there(say: Say) -> None:
    """A name without jobs and settings is most often mistyped: exit code 3."""
    assert "[NOT_FOUND]" in say("queues get mial", code=exits.NOT_FOUND)
