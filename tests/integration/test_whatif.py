"""``tenure whatif`` against what a real node did: the waits that it predicts are those measured."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tenure.client import Client
from tests.chaos.cluster import REPOSITORY
from tests.integration.commands import run
from tests.integration.naps import nap
from tests.integration.page import Reader
from tests.integration.test_dev import Dev

PAGE = "docs/how-to/what-if.md"
SLOTS = 4
JOBS = 80
ROUNDS = 3
#: (queue, priority) of the jobs; the first queue may run two at once and has twice the weight.
CLASSES = (("mail", 2), ("mail", 6), ("media", 5))
ERROR_MAX = 0.15
WAIT_MS_MIN = 100


@pytest.fixture
def node(tmp_path: Path) -> Iterator[str]:
    """The address of a node with one worker."""
    dev = Dev(tmp_path, "tests.integration.naps", "--slots", str(SLOTS), "--ephemeral")
    try:
        address = dev.wait_said("serving")["address"]
        dev.wait_said("registered")
        yield address
    finally:
        dev.close()


def live(client: Client, number: int) -> None:
    """A recorded run: more than the slots can do for a while, due one after another."""
    draw = random.Random(number)
    handles = []
    due = timedelta(seconds=1)
    for _ in range(JOBS):
        queue, priority = draw.choice(CLASSES)
        options = nap.options(
            queue=queue, priority=priority, delay=due, labels={"round": str(number)}
        )
        handles.append(client.submit(options, draw.uniform(0.1, 0.5)))
        due += timedelta(milliseconds=draw.randrange(50))
    for handle in handles:
        handle.result(timeout=50)


def errors(prediction: dict[str, Any]) -> dict[tuple[str, int, str], float]:
    """How far each percentile of each class is from what was measured, where that is long enough.

    Percentiles of shorter waits are noise of the machine.
    """
    found = {}
    for row in prediction["classes"]:
        for name in ("p50", "p95"):
            real, said = row["measuredMs"][name], row["waitsMs"][name]
            if real >= WAIT_MS_MIN:
                found[row["queue"], row["priority"], name] = abs(said - real) / real
    return found


@pytest.mark.nightly
def test_predicted_waits_are_those_of_a_real_node(node: str, tmp_path: Path) -> None:
    """Of sleep-bound jobs, p50 and p95 of each class within 15 %, median of three runs.

    A saved trace predicts what the history it was made of does.
    """
    rounds = []
    trace = tmp_path / "trace.jsonl"
    with Client(node) as client:
        client.queues.set("mail", weight=2.0, concurrency=2)
        for number in range(ROUNDS):
            live(client, number)
            said = run(
                *("whatif", "--from-history", "--filter", f"labels.round = {number}"),
                *("--slots", str(SLOTS), "--save", str(trace), "-o", "json", "--address", node),
            )
            assert said.code == 0, said.stderr
            rounds.append(errors(json.loads(said.stdout)))
    settings = tmp_path / "queues.json"
    settings.write_text(run("queues", "list", "-o", "json", "--address", node).stdout)
    again = run(
        *("whatif", "--trace", str(trace), "--queue-config", str(settings)),
        *("--slots", str(SLOTS), "-o", "json"),
    )
    assert errors(json.loads(again.stdout)) == rounds[-1]
    asked = {(*each, name) for each in CLASSES for name in ("p50", "p95")}
    # What is not long enough in a round cannot be judged there: the load has to see to it.
    assert [asked - each.keys() for each in rounds] == [set()] * ROUNDS
    middle = {key: median(each[key] for each in rounds) for key in asked}
    assert max(middle.values()) <= ERROR_MAX, middle


def test_its_page(node: str, tmp_path: Path) -> None:
    """Who has the examples, and a cluster that has done something, sees what the page shows."""
    with Client(node) as client:
        handles = client.map(nap.options(queue="mail"), [0.01] * 20)
        assert client.wait_all(handles, timeout=20)
    folder = tmp_path / "reader"
    folder.mkdir()
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    with Reader(folder, PAGE) as reader:
        reader.run(f"export TENURE_ADDRESS={node}")
        reader.follow()
