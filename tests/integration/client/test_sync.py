"""``Client`` over loopback: the same client for plain code, from any thread."""

import asyncio
import inspect
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tenure.client import (
    AsyncClient,
    AsyncJobHandle,
    Client,
    JobHandle,
    Reason,
    Rejected,
    Unavailable,
    WaitTimeout,
    job,
)
from tenure.protocol.vocabulary import JobState
from tests.integration.client.bridge import Bridge


@job(name="app.add")
def add(left: int, right: int = 0) -> int:
    """Adds."""
    return left + right


class Served:
    """A bridge on a loop of its own thread, since the client under test blocks its caller."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        self._ready.wait()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with Bridge(partitions=2) as bridge:
            self.bridge = bridge
            self._ready.set()
            await self._stop.wait()

    def complete(self, job_id: str, value: object) -> None:
        """A job ends, as seen by the server's loop."""
        self._loop.call_soon_threadsafe(self.bridge.cluster.complete, job_id, value)

    def close(self) -> None:
        """Ends the server."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture
def served() -> Iterator[Served]:
    """A running server."""
    server = Served()
    yield server
    server.close()


def test_submit_and_result(served: Served) -> None:
    """Plain code submits, waits, looks and stops, without an event loop of its own."""
    with Client(served.bridge.address) as client:
        handle = client.submit(add, 1, right=2)
        assert isinstance(handle, JobHandle)
        assert handle.status() is JobState.PENDING
        assert not handle.wait(timeout=0.05)
        with pytest.raises(WaitTimeout):
            handle.result(timeout=0.05)
        served.complete(handle.id, 3)
        assert handle.result(timeout=10) == 3
        assert client.get(handle.id, add).result(timeout=10) == 3
        assert client.describe(handle.id).options.name == "app.add"
        assert client.submit(add, 5).cancel() is JobState.CANCELLED


def test_many_jobs(served: Served) -> None:
    """``map``, ``as_completed``, ``list`` and ``count`` are plain iterables and dictionaries."""
    with Client(served.bridge.address) as client:
        handles = client.map(add, range(20))
        for value, handle in enumerate(handles):
            served.complete(handle.id, value)
        results = [done.result() for done in client.as_completed(handles)]
        assert sorted(results) == list(range(20))
        assert {found.job_id for found in client.list()} == {handle.id for handle in handles}
        assert client.count() == {JobState.COMPLETED: 20}
        left = client.list()
        assert next(left).job_id in {handle.id for handle in handles}
    left.close()  # Left early, and closed later than the client.


def test_from_many_threads(served: Served) -> None:
    """Threads share one client."""
    with Client(served.bridge.address) as client, ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(lambda n: client.submit(add, n), range(100)))
    assert len({handle.id for handle in handles}) == 100


def test_inside_a_running_loop(served: Served) -> None:
    """A notebook has a loop in its main thread; the plain client works there all the same."""

    async def cell() -> str:
        with Client(served.bridge.address) as client:
            return client.submit(add, 1).id

    assert asyncio.run(cell()) in served.bridge.cluster.jobs


def test_a_closed_client_says_so(served: Served) -> None:
    """After close every call is refused at once; closing twice is nothing."""
    client = Client(served.bridge.address)
    handle = client.submit(add, 1)
    client.close()
    client.close()
    for call in (lambda: client.submit(add, 1), lambda: handle.status()):
        with pytest.raises(Unavailable, match="closed"):
            call()


def test_after_a_fork_it_says_what_to_do(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client inherited by a forked child is refused with advice, instead of hanging."""
    with Client(served.bridge.address) as client:
        parent = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)
        with pytest.raises(Rejected, match="fork") as caught:
            client.submit(add, 1)
        assert caught.value.reason is Reason.INVALID_ARGUMENT
        monkeypatch.undo()


@pytest.mark.parametrize(("ours", "theirs"), [(Client, AsyncClient), (JobHandle, AsyncJobHandle)])
def test_both_clients_have_the_same_methods(ours: type, theirs: type) -> None:
    """Names, parameters and defaults are equal; what only the async one has is its plumbing."""

    def methods(kind: type) -> dict[str, list[tuple[str, object, object]]]:
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()]
            for name, f in vars(kind).items()
            if inspect.isfunction(f) and not name.startswith("_")
        }

    plain, plumbed = methods(ours), methods(theirs)
    assert {name: plumbed.get(name) for name in plain} == plain
    assert plumbed.keys() - plain.keys() <= {"wait_for_result", "outcome", "take"}
