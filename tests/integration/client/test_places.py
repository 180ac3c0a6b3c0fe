"""Where a client is used from: a forked child, a notebook, the jobs themselves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tenure.client import Client, JobFailed, job, result_of, results_of
from tests.chaos.cluster import REPOSITORY
from tests.integration.client import family
from tests.integration.client.test_sync import Served, served
from tests.integration.test_dev import Dev

__all__ = ["served"]


@job(name="app.add")
def add(left: int, right: int = 0) -> int:
    """Adds."""
    return left + right


@pytest.mark.parametrize("case", ["old_client", "new_client", "new_async_client"])
def test_a_forked_child_is_told_what_to_do(served: Served, case: str) -> None:
    """After a fork no client works whose parent has used one: it says so, and hangs nowhere."""
    said = forked(served, case)
    assert said.startswith("INVALID_ARGUMENT: ")
    assert "spawn" in said


def test_a_client_that_was_not_used_survives_a_fork(served: Served) -> None:
    """A module may make its client at import, as servers do that load it before they fork."""
    assert forked(served, "unused_client") == "{}"


def forked(served: Served, case: str) -> str:
    """What the child of ``forking`` says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.client.forking", served.bridge.address, case],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_notebooks_cells_share_a_client(served: Served) -> None:
    """A notebook's loop runs in the main thread between and during cells: calls work in both."""

    async def cells() -> list[int]:
        client = Client(served.bridge.address)
        handles = client.map(add, range(3))
        for value, handle in enumerate(handles):
            served.complete(handle.id, value)
        results = sorted(done.result() for done in client.as_completed(handles))
        # Another cell, and a thread of the loop's own pool.
        states = await asyncio.gather(*(asyncio.to_thread(handle.status) for handle in handles))
        client.close()
        return results if len(states) == 3 else []

    assert asyncio.run(cells()) == [0, 1, 2]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A cluster that serves jobs that submit jobs."""
    directory = tmp_path_factory.mktemp("dev")
    running = Dev(directory, "tests.integration.client.family", "--data-dir", str(directory / "d"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def parents(dev: Dev) -> Iterator[Client]:
    """A client of that cluster."""
    address = dev.wait_said("serving")["address"]
    dev.wait_said("registered")
    with Client(address) as client:
        yield client


@pytest.mark.parametrize("parent", [family.in_thread, family.in_process], ids=["thread", "process"])
def test_a_plain_job_submits_and_waits(parents: Client, parent: family.Parent) -> None:
    """A job in a thread, and one in a child process, use a client as any program does."""
    address = address_of(parents)
    assert parents.submit(parent, address, 4).result(timeout=30) == [0, 1, 4, 9]


def test_a_coroutine_job_submits_and_waits(parents: Client) -> None:
    """Coroutine jobs share an async client of their worker's loop; they wait, and block nothing."""
    # Fewer than the worker's slots: parents that filled them all would wait for children for ever.
    handles = [parents.submit(family.in_loop, address_of(parents), 3) for _ in range(5)]
    assert [handle.result(timeout=30) for handle in handles] == [[0, 1, 4]] * 5


def test_results_of_other_jobs_reach_a_child_process(parents: Client) -> None:
    """One as a value and many by an iterator: the child asks for them, through its worker."""
    squares = parents.map(family.square, range(50))
    first = parents.submit(family.square.options(delay=timedelta(seconds=1)), 100)
    handle = parents.submit(family.add_up, result_of(first), results_of(squares))
    assert handle.result(timeout=30) == 10_000 + sum(number * number for number in range(50))


def test_a_failure_of_a_child_is_readable_in_its_parent(parents: Client) -> None:
    """The error of a job of a job keeps the traceback of where it was raised."""
    handle = parents.submit(family.in_thread, address_of(parents), -1)
    with pytest.raises(JobFailed, match="negative") as caught:
        handle.result(timeout=30)
    assert Path(family.__file__).name in str(caught.value)


def address_of(client: Client) -> str:
    """A master's address."""
    return client.cluster.topology().masters[0]
