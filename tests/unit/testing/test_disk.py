"""The simulated disk under the shipped store: what crashes and power losses leave, and what not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tenure.master.backend.errors import CorruptJournal, StoreFull, StoreIoError, StoreLocked
from tenure.master.sqlite_store import SqliteStore
from tenure.testing.disk import SimDisk
from tenure.testing.host import SimHost
from tenure.testing.loop import run_virtual
from tenure.testing.process import elapse
from tests.conformance.bench import WALL_MS, candidate, followed, sealed, stored, won

PATH = Path("/data/store.db")
LOG = "/data/store.db-wal"


class Machine:
    """A disk, and the processes that use it one after another.

    Attributes:
        disk: The disk.
        acknowledged: The number of the last batch that the store has acknowledged.
    """

    def __init__(self, group: asyncio.TaskGroup, seed: int) -> None:
        self.disk = SimDisk(Random(seed))
        self.acknowledged = 0
        self._group = group
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> SqliteStore:
        """A process starts, and opens the store."""
        host = SimHost(self.disk, self.spawn)
        return await SqliteStore.open(
            PATH, candidate=candidate("alice"), wall_ms=WALL_MS, host=host
        )

    def spawn(self, work: Coroutine[Any, Any, None], name: str = "") -> asyncio.Task[None]:
        """Something that the process does, until it dies."""
        task = self._group.create_task(work, name=name)
        self._tasks.append(task)
        return task

    async def kill(self) -> None:
        """As ``kill -9`` does."""
        self.disk.crash()
        await self._end()

    async def power_loss(self, seed: int) -> None:
        """The power fails, and comes back."""
        self.disk.power_loss(Random(seed))
        await self._end()

    async def write(self, store: SqliteStore, batches: int = 1_000_000, size: int = 3_000) -> None:
        """Appends batches, several on their way at a time."""
        office, journal = await won(store), store.journal(0)
        chain = await followed(journal)

        async def append() -> None:
            batch = sealed(chain, office.token, bytes(size))
            await journal.append(office.token, batch)
            self.acknowledged = max(self.acknowledged, batch.number)

        while batches > 0:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(batches, journal.pipeline_depth)):
                    group.create_task(append())
            batches -= journal.pipeline_depth

    async def check(self, store: SqliteStore) -> None:
        """The journal is whole, and has all that was acknowledged."""
        assert (await followed(store.journal(0))).number > self.acknowledged

    async def _end(self) -> None:
        while self._tasks:
            task = self._tasks.pop()
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=0)


@asynccontextmanager
async def machine(seed: int = 1) -> AsyncIterator[Machine]:
    """A machine with an empty disk."""
    async with asyncio.TaskGroup() as group:
        yield Machine(group, seed)


def on_a_machine(body: Callable[[Machine], Awaitable[None]], seed: int = 1) -> None:
    """Runs a test on virtual time."""

    async def main() -> None:
        async with machine(seed) as it:
            await body(it)

    run_virtual(main, limit_s=3_600)


def test_a_store_lives_on_it() -> None:
    """Written, closed and opened again: all of it is there, and the log is gone."""

    async def body(it: Machine) -> None:
        store = await it.open()
        with pytest.raises(StoreLocked):
            await it.open()
        await it.write(store, 20)
        await store.close()
        assert LOG not in it.disk.files
        store = await it.open()
        assert len(await stored(store.journal(0))) == 21
        await store.close()

    on_a_machine(body)


def test_an_fsync_takes_its_time() -> None:
    """A commit is acknowledged when its fsync is over, and not before."""

    async def body(it: Machine) -> None:
        store = await it.open()
        it.disk.fsync_ms = (200, 200)
        before_s = asyncio.get_running_loop().time()
        await it.write(store, 1)
        # The campaign's commit, and the batch's: a log that is new has its header synced too.
        assert 0.4 <= asyncio.get_running_loop().time() - before_s <= 0.8
        await store.close()

    on_a_machine(body)


@pytest.mark.parametrize("seed", range(20))
def test_killed_amid_anything(seed: int) -> None:
    """Kill -9 at any moment, also amid an fsync or a checkpoint, costs nothing acknowledged."""

    async def body(it: Machine) -> None:
        rng = Random(seed)
        it.disk.fsync_ms = (1, 20)
        for _ in range(4):
            store = await it.open()
            await it.check(store)
            it.spawn(it.write(store, size=rng.choice((100, 20_000))))
            await elapse(rng.uniform(0, 0.3))
            await it.kill()

    on_a_machine(body, seed)


@pytest.mark.fault(48)
@pytest.mark.parametrize("seed", range(40))
def test_row_48_power_loss_amid_anything(seed: int) -> None:
    """Power lost at any moment, writes torn: the tail is cut, all that was acknowledged is kept."""

    async def body(it: Machine) -> None:
        rng = Random(seed)
        it.disk.fsync_ms = (1, 20)
        for _ in range(4):
            started = it.spawn(run(it, rng))
            await elapse(rng.uniform(0, 0.3))
            await it.power_loss(rng.getrandbits(32))
            assert started.done()

    async def run(it: Machine, rng: Random) -> None:
        store = await it.open()
        await it.check(store)
        await it.write(store, rng.choice((3, 1_000)), rng.choice((100, 20_000)))
        await store.close()

    on_a_machine(body, seed)


@pytest.mark.fault(47)
@pytest.mark.parametrize("seed", range(20))
def test_row_47_what_only_the_cache_shows_is_written_again(seed: int) -> None:
    """A commit whose fsync failed, and that the next process finds, is no ground to build on."""

    async def body(it: Machine) -> None:
        store = await it.open()
        await it.write(store, 10)
        it.disk.fsync_ms = (10, 10)
        # One for the campaign; the next one is the batches'.
        writing = it.spawn(it.write(store))
        await elapse(0.015)
        it.disk.fail_next_fsync()
        await elapse(0.01)
        # It dies before it can undo what it wrote.
        await it.kill()
        assert writing.done()
        store = await it.open()
        await it.write(store, 10)
        await it.power_loss(seed)
        await it.check(await it.open())
        await it.kill()

    on_a_machine(body, seed)


def test_no_temporary_file_is_needed() -> None:
    """Several large batches in one transaction want no file beside the store: there is none."""

    async def body(it: Machine) -> None:
        store = await it.open()
        await it.write(store, 300, 9_000)
        await store.close()
        assert set(it.disk.files) == {str(PATH)}

    on_a_machine(body)


def test_a_full_disk_takes_what_fits_into_what_it_has() -> None:
    """Refused while it is full, but for a truncation; taken as soon as there is space."""

    async def body(it: Machine) -> None:
        store = await it.open()
        await it.write(store, 20, 100_000)
        # Long enough idle for a checkpoint.
        await elapse(1)
        it.disk.full = True
        with pytest.raises(ExceptionGroup) as caught:
            await it.write(store, 1, 20_000_000)
        assert caught.group_contains(StoreFull)
        office = await won(store)
        assert await store.journal(0).truncate(office.token, 15) == 15
        it.disk.full = False
        assert (await won(store)).token > office.token
        assert [batch.number for batch in await stored(store.journal(0), 15)] == [*range(15, 21)]
        await store.close()

    on_a_machine(body)


def test_a_broken_disk_ends_the_store() -> None:
    """After an error nothing more is taken, though the disk works again."""

    async def body(it: Machine) -> None:
        store = await it.open()
        await it.write(store, 5)
        it.disk.eio = True
        with pytest.raises(StoreIoError):
            await it.write(store, 5)
        it.disk.eio = False
        with pytest.raises(StoreIoError):
            await store.journal(0).last_number()
        await store.close()
        await it.check(await it.open())
        await it.kill()

    on_a_machine(body)


def test_one_seed_gives_one_disk() -> None:
    """What a power loss leaves is drawn from its seed."""
    contents = []

    async def body(it: Machine) -> None:
        store = await it.open()
        it.disk.fsync_ms = (5, 50)
        it.spawn(it.write(store))
        await elapse(1)
        await it.power_loss(7)
        contents.append({name: len(content) for name, content in it.disk.files.items()})
        store = await it.open()
        contents.append({"last": await store.journal(0).last_number()})
        await it.kill()

    on_a_machine(body)
    on_a_machine(body)
    assert contents[:2] == contents[2:]


@pytest.mark.fault(49)
@pytest.mark.parametrize("seed", range(30))
def test_row_49_a_flipped_bit_is_told_or_harmless(seed: int) -> None:
    """One bit anywhere: refused or harmless, never a journal with something else in it."""

    async def body(it: Machine) -> None:
        rng = Random(seed)
        store = await it.open()
        await it.write(store, 60, 5_000)
        before = await stored(store.journal(0))
        await store.close()
        name = str(PATH)
        it.disk.flip_bit(name, rng.randrange(len(it.disk.files[name])), rng.randrange(8))
        damaged = it.disk.files[name]
        try:
            store = await it.open()
        except CorruptJournal:
            assert it.disk.files[name] == damaged
            return
        try:
            await followed(store.journal(0))
            assert await stored(store.journal(0)) == before
        except CorruptJournal:
            pass
        await store.close()

    on_a_machine(body, seed)
