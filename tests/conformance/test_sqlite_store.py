"""What only the store in SQLite can get wrong: its lock, its file, its disk, its thread."""

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tenure.master.backend.errors import (
    CorruptJournal,
    FormatTooNew,
    StoreFull,
    StoreIoError,
    StoreLocked,
    StoreMismatch,
)
from tenure.master.sqlite_store import SqliteStore
from tenure.master.store import open_store
from tenure.protocol.errors import Rejected, TenureError
from tests.conformance.bench import (
    WALL_MS,
    SqliteBench,
    candidate,
    followed,
    sealed,
    stored,
    won,
)

MIB = 1024 * 1024


@pytest.fixture
def sqlite_bench(tmp_path: Path) -> SqliteBench:
    """A database of this test's own."""
    return SqliteBench(tmp_path)


async def _open(path: Path) -> SqliteStore:
    return await SqliteStore.open(path, candidate=candidate("alice"), wall_ms=WALL_MS)


# ---- opening --------------------------------------------------------------------------------


async def test_a_second_open_is_refused(sqlite_bench: SqliteBench) -> None:
    """While the database is open nobody else gets in; the error names path and process."""
    store = await sqlite_bench.open()
    with pytest.raises(StoreLocked, match=r"store\.db, but process \d+ has it open; stop that"):
        await sqlite_bench.open("bob")
    assert await store.journal(0).last_number() == 0
    await store.close()
    await store.close()
    await (await sqlite_bench.open("bob")).close()


async def test_the_directory_is_made(sqlite_bench: SqliteBench) -> None:
    """A data directory that is missing is created, parents included."""
    sqlite_bench.path = sqlite_bench.path.parent / "a" / "b" / "store.db"
    await (await sqlite_bench.open()).close()
    assert sqlite_bench.path.is_file()


async def test_an_unusable_path_is_refused(sqlite_bench: SqliteBench, tmp_path: Path) -> None:
    """A path below a file, or that is a directory, is named with what is wrong about it."""
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "file" / "store.db", tmp_path / "directory"):
        with pytest.raises(Rejected, match="name a file in a directory") as caught:
            await _open(path)
        assert str(path) in caught.value.message


async def test_another_cluster_is_refused(sqlite_bench: SqliteBench) -> None:
    """A master that is told its cluster takes no other one's store."""
    store = await sqlite_bench.open()
    await store.close()
    url = f"sqlite://{sqlite_bench.path}"
    with pytest.raises(StoreMismatch, match="be cluster other's"):
        await open_store(url, candidate=candidate("a"), wall_ms=0, cluster_id="other")
    again = await open_store(url, candidate=candidate("a"), wall_ms=0, cluster_id=store.cluster_id)
    await again.close()


async def test_a_foreign_database_is_refused(sqlite_bench: SqliteBench, tmp_path: Path) -> None:
    """Another program's database is left exactly as it is."""
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE cluster (x)")
    theirs.close()
    before = path.read_bytes()
    with pytest.raises(StoreMismatch, match="another program's"):
        await _open(path)
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused(
    sqlite_bench: SqliteBench, tmp_path: Path
) -> None:
    """Garbage is reported as damage, and left exactly as it is."""
    path = tmp_path / "garbage.db"
    path.write_bytes(b"no database at all " * 1_000)
    before = path.read_bytes()
    with pytest.raises(CorruptJournal, match="copy it away"):
        await _open(path)
    assert path.read_bytes() == before


async def test_a_newer_store_is_refused(sqlite_bench: SqliteBench) -> None:
    """A store that a newer release made is told apart from damage, and unlocked again."""
    store = await sqlite_bench.open()
    await store.connection.run(lambda c: c.execute("UPDATE cluster SET format = 99").rowcount)
    await store.close()
    for _ in range(2):
        with pytest.raises(FormatTooNew, match="upgrade this master"):
            await sqlite_bench.open()


async def test_a_failed_open_leaves_no_token_behind(sqlite_bench: SqliteBench) -> None:
    """Tokens of before an open are stale after it, though nobody has campaigned yet."""
    store = await sqlite_bench.open()
    office = await won(store)
    chain = await followed(store.journal(0))
    store = await sqlite_bench.reopen(store)
    with pytest.raises(TenureError):
        await store.journal(0).append(office.token, sealed(chain, office.token))
    assert await store.journal(0).last_number() == 0
    await store.close()


async def test_no_two_partitions_share_a_token(sqlite_bench: SqliteBench) -> None:
    """A fence tells its lease from those of all partitions, as it does on etcd."""
    store = await sqlite_bench.open(partitions=3)
    tokens = []
    for _ in range(3):
        for partition in (0, 1, 1, 2):
            office = await won(store, partition)
            tokens.append(office.token)
            if partition == 2:
                await office.resign()
        store = await sqlite_bench.reopen(store)
    assert len(set(tokens)) == len(tokens)
    await store.close()


# ---- the thread -----------------------------------------------------------------------------


async def test_a_cancelled_caller_leaves_its_batch(sqlite_bench: SqliteBench) -> None:
    """What was handed in is committed though its caller stopped waiting; nothing hangs."""
    store = await sqlite_bench.open()
    office, journal = await won(store), store.journal(0)
    chain = await followed(journal)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await journal.append(office.token, sealed(chain, office.token))
    async with asyncio.timeout(10):
        await journal.append(office.token, sealed(chain, office.token))
    numbers = [batch.number for batch in await stored(journal)]
    assert numbers == list(range(chain.number))
    await store.close()


async def test_no_operation_of_a_crowd_is_forgotten(sqlite_bench: SqliteBench) -> None:
    """However many operations wait at once, each of them is answered."""
    store = await sqlite_bench.open()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        looks = [group.create_task(store.journal(0).last_number()) for _ in range(1_000)]
    assert {look.result() for look in looks} == {0}
    await store.close()


async def test_closing_commits_what_waits(sqlite_bench: SqliteBench) -> None:
    """Appends that were handed in before the close are done; later ones are refused."""
    store = await sqlite_bench.open()
    office, journal = await won(store), store.journal(0)
    chain = await followed(journal)
    async with asyncio.TaskGroup() as group:
        for _ in range(journal.pipeline_depth):
            group.create_task(journal.append(office.token, sealed(chain, office.token)))
        await asyncio.sleep(0)
        await store.close()
    with pytest.raises(StoreIoError, match="it was closed"):
        await journal.append(office.token, sealed(chain, office.token))
    store = await sqlite_bench.open()
    assert await store.journal(0).last_number() == journal.pipeline_depth
    await store.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_broken_operation_hangs_nobody(sqlite_bench: SqliteBench) -> None:
    """If the thread ends of a bug, every waiting and later caller is told."""
    store = await sqlite_bench.open()
    async with asyncio.timeout(10):
        with pytest.raises(StoreIoError, match="its thread has ended"):
            await store.connection.run(lambda c: 1 // 0)
        with pytest.raises(StoreIoError, match="its thread has ended"):
            await store.journal(0).last_number()
        await store.close()


# ---- the disk -------------------------------------------------------------------------------


@contextmanager
def _file_size_limit(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond the limit: writes fail with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ already; said here because the test rests on it.
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)


async def test_an_io_error_is_final(sqlite_bench: SqliteBench) -> None:
    """After a failed write everything is refused, even when the disk would work again."""
    store = await sqlite_bench.open()
    office, journal = await won(store), store.journal(0)
    chain = await followed(journal)
    for _ in range(10):
        await journal.append(office.token, sealed(chain, office.token, bytes(1_000)))
    batches = await stored(journal)
    lost = sealed(chain, office.token, bytes(4 * MIB))
    with _file_size_limit(MIB), pytest.raises(StoreIoError, match="start again"):
        await journal.append(office.token, lost)
    with pytest.raises(StoreIoError):
        await journal.append(office.token, lost)
    with pytest.raises(StoreIoError):
        await journal.last_number()
    await store.close()
    store = await sqlite_bench.open()
    assert await stored(store.journal(0)) == batches
    await store.close()


async def _read_all(bench: SqliteBench) -> None:
    store = await bench.open()
    try:
        await followed(store.journal(0))
    finally:
        await store.close()


async def test_damaged_pages_are_reported(sqlite_bench: SqliteBench) -> None:
    """Pages overwritten with noise end in CorruptJournal, not in an answer that leaves some out."""
    store = await sqlite_bench.open()
    office, journal = await won(store), store.journal(0)
    chain = await followed(journal)
    for _ in range(50):
        await journal.append(office.token, sealed(chain, office.token, bytes(20_000)))
    await store.close()
    data = bytearray(sqlite_bench.path.read_bytes())
    # From the second page on: the header stays, so that it opens as a database.
    data[8_192 : len(data) // 2] = b"\xa5" * (len(data) // 2 - 8_192)
    sqlite_bench.path.write_bytes(data)
    with pytest.raises(CorruptJournal):
        await _read_all(sqlite_bench)


@pytest.mark.fault(49)
async def test_row_49_a_damaged_log_is_refused_and_kept(
    sqlite_bench: SqliteBench, tmp_path: Path
) -> None:
    """A flipped bit in the write-ahead log ends no log early: the store is refused, as it is."""
    store = await sqlite_bench.open()
    office, journal = await won(store), store.journal(0)
    chain = await followed(journal)
    for _ in range(10):
        await journal.append(office.token, sealed(chain, office.token, bytes(1_000)))
    crashed = SqliteBench(tmp_path / "crashed")
    crashed.path.parent.mkdir(parents=True)
    names = (sqlite_bench.path.name, sqlite_bench.path.name + "-wal")
    contents = {name: sqlite_bench.path.with_name(name).read_bytes() for name in names}
    await store.close()
    log = contents[names[1]]
    for at in (20, len(log) // 4, len(log) // 2):
        contents[names[1]] = log[:at] + bytes([log[at] ^ 1]) + log[at + 1 :]
        for name, content in contents.items():
            crashed.path.with_name(name).write_bytes(content)
        with pytest.raises(CorruptJournal, match="nothing was changed or deleted"):
            await crashed.open()
        for name, content in contents.items():
            assert crashed.path.with_name(name).read_bytes() == content
    crashed.path.with_name(names[1]).write_bytes(log)
    store = await crashed.open()
    assert await store.journal(0).last_number() == 10
    await store.close()


@contextmanager
def _tmpfs(directory: Path, size: int) -> Iterator[Path]:
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True, capture_output=True)


def _can_mount() -> bool:
    # In a namespace of its own: the probe leaves nothing behind.
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


if _can_mount():

    async def test_a_full_disk_is_survived(sqlite_bench: SqliteBench, tmp_path: Path) -> None:
        """On a disk that fills up: refusals, a truncation that works, space, and on it goes."""
        with _tmpfs(tmp_path / "small", 12 * MIB) as disk:
            sqlite_bench.path = disk / "store.db"
            store = await sqlite_bench.open()
            office, journal = await won(store), store.journal(0)
            chain = await followed(journal)
            filler = disk / "filler"
            filler.write_bytes(bytes(6 * MIB))
            while True:
                batch = sealed(chain, office.token, bytes(200_000))
                try:
                    await journal.append(office.token, batch)
                except StoreFull:
                    break
            count = batch.number
            for _ in range(3):
                with pytest.raises(StoreFull):
                    await journal.append(office.token, batch)
            assert (await followed(journal)).number == count
            assert await journal.truncate(office.token, count - 2) == count - 2
            filler.unlink()
            await journal.append(office.token, batch)
            store = await sqlite_bench.reopen(store)
            kept = [found.number for found in await stored(store.journal(0), count - 2)]
            assert kept == [count - 2, count - 1, count]
            await store.close()


# ---- kill -9 --------------------------------------------------------------------------------

_WRITER = """
import asyncio, sys
from pathlib import Path
from tests.conformance.bench import SqliteBench, followed, sealed, won

async def main():
    store = await SqliteBench(Path(sys.argv[1])).open()
    office, journal = await won(store), store.journal(0)
    chain = await followed(journal)
    while True:
        async with asyncio.TaskGroup() as group:
            for _ in range(journal.pipeline_depth):
                group.create_task(journal.append(office.token, sealed(chain, office.token)))
        print(chain.number - 1, flush=True)

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill_9(
    sqlite_bench: SqliteBench, tmp_path: Path
) -> None:
    """Again and again: a writer is killed amid its appends, and the next one goes on after it."""
    for round_number in range(3):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        acknowledged = 0
        for _ in range(20 + 7 * round_number):
            acknowledged = int(await writer.stdout.readline())
        writer.kill()
        rest, _ = await writer.communicate()
        acknowledged = int((rest.splitlines() or [b"%d" % acknowledged])[-1])
        store = await sqlite_bench.open()
        assert (await followed(store.journal(0))).number > acknowledged
        await store.close()
