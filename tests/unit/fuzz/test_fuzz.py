"""Whatever comes in: no crash but typed errors, and no memory that the input does not explain."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.cli import exits, main
from tenure.v1 import worker_pb2
from tests.unit.cli.test_commands import cluster as cluster
from tests.unit.client.fake_master import FakeCluster
from tests.unit.fuzz import targets
from tests.unit.fuzz.seeds import fill, mutate

HISTORY = Path(__file__).parents[2] / "histories" / "0.1.0" / "session.journal.jsonl"
#: Commands that start nothing and ask nobody.
COMMANDS = (
    "jobs list", "jobs get", "jobs count", "jobs cancel", "jobs requeue", "jobs wait",
    "cluster members", "cluster transfer-leader", "config show", "submit --dry-run", "version",
)  # fmt: skip
CODES = {
    exits.OK, exits.JOB_FAILED, exits.USAGE, exits.NOT_FOUND, exits.UNAVAILABLE, exits.PERMISSION,
    exits.CONFLICT, exits.TIMED_OUT,
}  # fmt: skip
WORDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["-o", "json", "--limit", "--filter", "--state", "failed", "--queue", "-", "--", "-1",
         "state=FAILED", "--delay", "1h", "9" * 400, "{", "[1", "\ud800", "--priority", "\x00"]
    ),
)  # fmt: skip


@given(st.binary(max_size=2_000))
def test_any_bytes(data: bytes) -> None:
    """Every decoder takes what is no message, no batch and no text."""
    for target in targets.TARGETS.values():
        targets.bounded(target, data)


@given(st.randoms(use_true_random=False))
def test_damaged_batches(rng: Random) -> None:
    """A batch that a master has written, with some of it changed."""
    whole = rng.choice(BATCHES)
    targets.bounded(targets.journal, mutate(whole, rng))


def _batches() -> list[bytes]:
    text = HISTORY.read_text("utf-8")
    found = re.findall(r'"([A-Za-z0-9+/=]{40,})"', text)
    return [base64.b64decode(one) for one in found] or [json.dumps(text).encode()]


BATCHES = _batches()


@given(st.randoms(use_true_random=False))
def test_a_broken_worker(rng: Random) -> None:
    """Envelopes with wrong leases, numbers, tokens and partitions do the leader no harm."""
    data = fill(worker_pb2.SessionRequest(), rng).SerializeToString()
    targets.master_session(mutate(data, rng) if rng.random() < 0.3 else data)


@given(st.randoms(use_true_random=False))
def test_a_broken_master(rng: Random) -> None:
    """Envelopes with wrong leases, numbers, tokens and partitions do the worker no harm."""
    data = fill(worker_pb2.SessionResponse(), rng).SerializeToString()
    targets.worker_session(mutate(data, rng) if rng.random() < 0.3 else data)


@given(st.text(alphabet="()-:=<>!*\"' \\abANDORNOTqueuestate.0", max_size=200))
def test_filters(text: str) -> None:
    """A filter is read, or refused with the place that is wrong."""
    targets.bounded(targets.text_filter, text.encode())


@pytest.mark.parametrize("opening", ["(", "-", "NOT ", "a OR "])
def test_filters_do_not_nest_for_ever(opening: str) -> None:
    """Depth is refused as such, long before the stack ends."""
    targets.bounded(targets.text_filter, (opening * 50_000).encode())


def test_command_lines(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a shell hands over: one of the documented exit codes, and no traceback."""
    monkeypatch.setattr("sys.stdin", io.StringIO())

    @given(st.sampled_from(COMMANDS), st.lists(WORDS, max_size=4))
    def runs(command: str, words: list[str]) -> None:
        code = main.run([*command.split(), *words, "--no-input", "--timeout", "1"])
        out, err = capsys.readouterr()
        assert code in CODES, (command, words, out, err)
        assert "Traceback" not in err

    runs()
