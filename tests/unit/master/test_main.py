"""How a master's process ends: when it is told to, and when its store does."""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from tenure.master import main
from tenure.master.backend.errors import StoreIoError, StoreMismatch
from tenure.master.election.port import Candidate
from tenure.master.node.master import Master
from tenure.master.store import open_store
from tenure.protocol.errors import Rejected


class EndingMaster:
    """A master that a seat, or a task of its own, ends."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def run(self) -> None:
        """Ends in a group of a group, as tasks of tasks do."""

        async def seat() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._fail())

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(seat())

    async def _fail(self) -> None:
        raise self._error


def test_a_store_that_fails_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what the disk said, however deep it came from."""
    master = cast(Master, EndingMaster(StoreIoError("expected to sync, but EIO")))
    assert asyncio.run(main._run(master)) == main.EXIT_STORE_IO
    assert "but EIO" in caplog.text


def test_a_store_that_was_restored_meanwhile_ends_the_master_in_words() -> None:
    """No traceback: what is to be done, with the reason's exit code, as at the start."""
    master = cast(Master, EndingMaster(StoreMismatch("expected epoch 1; restart this master")))
    with pytest.raises(StoreMismatch, match="restart this master"):
        asyncio.run(main._run(master))


def test_a_quota_that_is_too_small_ends_the_start(tmp_path: Path) -> None:
    """In words; no store is made, and one that is there is free for the next try."""
    url = f"sqlite://{tmp_path / 'jobs.db'}"
    listen, quota = "127.0.0.1:0", 1024**2
    new = main.MasterConfig(store=url, listen=listen, partitions=8, store_quota_bytes=quota)
    with pytest.raises(Rejected, match="store quota of at least"):
        asyncio.run(main.serve(new))
    assert list(tmp_path.iterdir()) == []

    async def make() -> None:
        me = Candidate(incarnation="i", name="m", address="m:1")
        await (await open_store(url, candidate=me, wall_ms=1, partitions=8)).close()

    asyncio.run(make())
    there = main.MasterConfig(store=url, listen=listen, store_quota_bytes=quota)
    for _ in range(2):
        with pytest.raises(Rejected, match="store quota of at least"):
            asyncio.run(main.serve(there))


def test_a_master_that_says_that_it_serves_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in that moment ends it in order: whoever manages it need not wait for more."""
    deaths: list[int] = []

    def stop(event: str, fields: Mapping[str, object]) -> None:
        if event == "serving":
            os.kill(os.getpid(), signal.SIGTERM)

    async def serve() -> int:
        async with asyncio.timeout(20):
            url = f"sqlite://{tmp_path / 'jobs.db'}"
            return await main.serve(main.MasterConfig(store=url, listen="127.0.0.1:0"))

    monkeypatch.setattr(main, "announce", stop)
    former = signal.signal(signal.SIGTERM, lambda number, _: deaths.append(number))
    try:
        assert asyncio.run(serve()) == main.EXIT_OK
    finally:
        signal.signal(signal.SIGTERM, former)
    assert deaths == []
