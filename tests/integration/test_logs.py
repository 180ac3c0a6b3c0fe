"""``tenure jobs logs`` with real processes: while a job runs, and through its worker's death."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tenure.client import AsyncClient, Client
from tests.chaos.cluster import Cluster, tenure
from tests.integration.talker import mutter, mutter_async, recite, talk

pytestmark = pytest.mark.timeout(120)

APP = "tests.integration.talker"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A master on SQLite and a worker."""
    with Cluster(tmp_path, f"sqlite://{tmp_path}/store.db") as cluster:
        cluster.start_masters(1)
        cluster.wait_said(cluster.start_worker("worker-1", app=APP), "registered")
        yield cluster


@contextmanager
def following(cluster: Cluster, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``tenure jobs logs`` in a process of its own."""
    command = tenure("jobs", "logs", *arguments, "-o", "jsonl", "--address", cluster.addresses)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        try:
            yield reader
        finally:
            reader.kill()


def line(reader: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line that it shows."""
    assert reader.stdout is not None
    text = reader.stdout.readline()
    assert text, "expected a line, but the reader has ended"
    said: dict[str, Any] = json.loads(text)
    return said


def test_a_reader_follows_a_job_through_the_death_of_its_worker(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Lines come while the job runs; when its worker is killed the next attempt's follow, each
    once and in order, and the reader ends with the job. What was said in the end is kept.
    """
    release = tmp_path / "release"
    with Client(cluster.addresses) as client:
        handle = client.submit(talk, str(release))
        with following(cluster, handle.id, "-f") as reader:
            first = [line(reader) for _ in range(10)]
            assert [said["number"] for said in first] == [*range(1, 11)]
            assert {said["attempt"] for said in first} == {1}
            assert first[0]["text"] == "attempt 1 step 0"

            cluster.processes["worker-1"].kill()
            cluster.wait_said(cluster.start_worker("worker-1", app=APP), "registered")
            said = line(reader)
            while said["attempt"] == 1:
                said = line(reader)
            assert (said["attempt"], said["number"]) == (2, 1)
            numbers = [line(reader)["number"] for _ in range(10)]
            assert numbers == [*range(2, 12)]

            release.touch()
            assert reader.stdout is not None
            rest = [json.loads(text) for text in reader.stdout]
            assert reader.wait(30) == 0
        assert [said["number"] for said in rest] == [*range(12, 12 + len(rest))]
        assert (rest[-1]["text"], rest[-1]["stream"]) == ("attempt 2 was released", "log")
        assert handle.result(timeout=30) == 2
        kept = [*handle.logs()]
        assert [(said.attempt, said.number) for said in kept] == [
            (2, number) for number in range(1, len(kept) + 1)
        ]
        assert (kept[-1].level, kept[-1].text) == ("WARNING", "attempt 2 was released")
    with following(cluster, handle.id, "--attempt", "2", "--tail", "1") as reader:
        assert line(reader)["text"] == "attempt 2 was released"
        assert reader.wait(30) == 0


def test_a_running_job_can_be_looked_at(cluster: Cluster, tmp_path: Path) -> None:
    """Who does not follow gets what its worker holds at that moment, and no more."""
    release = tmp_path / "release"

    async def look() -> None:
        async with AsyncClient(cluster.addresses) as client:
            handle = await client.submit(talk, str(release))
            told: list[str] = []
            while len(told) < 5:
                told = [said.text async for said in handle.logs()]
            assert told == [f"attempt 1 step {step}" for step in range(len(told))]
            release.touch()
            assert await handle.result(timeout=30) == 1

    asyncio.run(look())


def test_a_reader_follows_a_command(cluster: Cluster, tmp_path: Path) -> None:
    """Its stderr comes while it runs, and is kept; its stdout is the result, and no line."""
    release = tmp_path / "release"
    with Client(cluster.addresses) as client:
        handle = client.submit(recite, str(release))
        with following(cluster, handle.id, "-f") as reader:
            first = [line(reader) for _ in range(5)]
            assert [(said["stream"], said["text"]) for said in first] == [
                ("stderr", f"step {step}") for step in range(5)
            ]
            assert not handle.wait(0.01)
            release.touch()
            assert reader.stdout is not None
            rest = [json.loads(text) for text in reader.stdout]
            assert reader.wait(30) == 0
        assert handle.result(timeout=30) == "result\n"
        kept = [said.text for said in handle.logs()]
        assert kept == [f"step {step}" for step in range(5 + len(rest))]


def test_what_jobs_print_is_not_among_the_events(cluster: Cluster) -> None:
    """A worker's stdout has its events only, a line each; jobs print to its stderr, and programs
    that they start, in whichever executor.
    """
    with Client(cluster.addresses) as client:
        for function in (mutter, mutter_async):
            client.submit(function, "half a line").result(timeout=30)
    worker = cluster.processes["worker-1"]
    worker.send(signal.SIGTERM)
    cluster.wait_said(worker, "stopped")
    assert worker.wait_exit(30) == 0
    assert [event.name for event in worker.events()] == ["registered", "draining", "stopped"]
    assert worker.log.read_text().count("half a line") == 3


def test_what_was_said_before_a_hand_back_is_kept(cluster: Cluster, tmp_path: Path) -> None:
    """A worker that is to end at once hands its jobs back, a function's and a command's: nothing is
    charged, and what the attempts have said is there beside the next ones'.
    """
    release = tmp_path / "release"
    with Client(cluster.addresses) as client:
        handles = [client.submit(function, str(release)) for function in (talk, recite)]
        for handle in handles:
            with following(cluster, handle.id, "-f") as reader:
                line(reader)
        worker = cluster.processes["worker-1"]
        worker.send(signal.SIGTERM)
        cluster.wait_said(worker, "draining")
        worker.send(signal.SIGTERM)
        cluster.wait_said(worker, "stopped")
        for handle in handles:
            kept = [(said.attempt, said.number) for said in handle.logs()]
            assert kept == [(1, number + 1) for number in range(len(kept))]
            assert kept
        cluster.wait_said(cluster.start_worker("worker-1", app=APP), "registered")
        release.touch()
        for handle in handles:
            handle.result(timeout=30)
        assert client.count(filter="attempts_charged > 0 OR losses_charged > 0") == {}
