"""Real processes on a disk that fails: rows 46 to 49 of the fault table (43: ``test_full_disk``).

Slow and failing fsyncs are made by ``strace``, which bends the system calls of a running master.
Power loss is what it leaves: the files of a crashed master, cut off at arbitrary places.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tenure.client import Client, JobHandle, TenureError
from tenure.master.backend.errors import CorruptJournal
from tenure.master.election.port import Candidate
from tenure.master.journal.frame import Chain
from tenure.master.sqlite_store import SqliteStore
from tests.chaos.cluster import Cluster
from tests.chaos.strace import injected
from tests.integration.app import size

FSYNC = "fsync,fdatasync"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster on SQLite; nothing runs yet."""
    with Cluster(tmp_path / "cluster", f"sqlite://{tmp_path}/data/store.db") as cluster:
        yield cluster


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where its store lies."""
    return tmp_path / "data" / "store.db"


def submit_some(client: Client, count: int) -> list[JobHandle[int]]:
    """Jobs that were accepted, one after another."""
    return [client.submit(size, f"{number:04} " * 200) for number in range(count)]


def submit_until_refused(client: Client) -> tuple[list[JobHandle[int]], TenureError]:
    """Jobs that were accepted, one after another, and why the next one was not."""
    accepted = []
    for _ in range(100):
        try:
            accepted += submit_some(client, 1)
        except TenureError as error:
            return accepted, error
    raise AssertionError("expected the disk to fail at some time, but it never did")


def finish(cluster: Cluster, accepted: list[JobHandle[int]]) -> None:
    """All that was accepted gets done."""
    worker = cluster.start_worker("worker-1", app="tests.integration.app")
    cluster.wait_said(worker, "registered")
    assert {handle.result(timeout=30) for handle in accepted} == {1_000}


@pytest.mark.fault(46)
def test_row_46_a_slow_fsync_delays_acks_and_loses_nothing(cluster: Cluster) -> None:
    """No ack comes before its fsync is over; a kill amid one costs nothing that was acked."""
    master = cluster.start_master("master-1")
    cluster.wait_said(master, "leader")
    with Client(cluster.addresses, timeout=20.0) as client:
        accepted = submit_some(client, 3)
        with injected(master.pid, FSYNC, "delay_enter=300000"):
            began_s = time.monotonic()
            accepted += submit_some(client, 5)
            assert time.monotonic() - began_s >= 5 * 0.3
            master.kill()
        cluster.start_master("master-1")
        finish(cluster, accepted)


@pytest.mark.fault(47)
def test_row_47_a_failed_fsync_ends_the_master_and_loses_nothing(cluster: Cluster) -> None:
    """The one fsync that fails is not tried again: the master exits, and the next one recovers."""
    master = cluster.start_master("master-1")
    cluster.wait_said(master, "leader")
    with Client(cluster.addresses, timeout=2.0) as client:
        with injected(master.pid, FSYNC, "error=EIO:when=5"):
            accepted, refused = submit_until_refused(client)
            code = master.wait_exit(20)
        cluster.start_master("master-1")
        finish(cluster, accepted)

    assert code == 1
    assert refused.retryable
    assert len(accepted) == 4
    assert "check the disk" in master.log_tail(50)


async def numbers(path: Path) -> int:
    """How many batches a store has, all of them checked."""
    me = Candidate(incarnation="1", name="reader", address="")
    store = await SqliteStore.open(path, candidate=me, wall_ms=0)
    try:
        chain = Chain.start(0)
        async for batch in store.journal(0).read(0):
            chain.follow(batch)
        return chain.number
    finally:
        await store.close()


@pytest.mark.fault(48)
def test_row_48_a_log_that_was_cut_ends_cleanly(
    cluster: Cluster, database: Path, tmp_path: Path
) -> None:
    """Wherever a power loss has cut the log: each batch before is there, and the tail is not."""
    log = database.with_name("store.db-wal")
    master = cluster.start_master("master-1")
    cluster.wait_said(master, "leader")
    #: How long the log was when the store had acknowledged so many jobs.
    lengths = []
    with Client(cluster.addresses, timeout=20.0) as client:
        for _ in range(30):
            submit_some(client, 1)
            lengths.append(log.stat().st_size)
    master.kill()
    rng = Random(48)
    copy = tmp_path / "copy" / "store.db"
    found = []
    for cut in [0, *sorted(rng.randrange(lengths[-1]) for _ in range(60)), lengths[-1]]:
        shutil.rmtree(copy.parent, ignore_errors=True)
        copy.parent.mkdir()
        shutil.copy(database, copy)
        copy.with_name("store.db-wal").write_bytes(log.read_bytes()[:cut])
        batches = asyncio.run(numbers(copy))
        # Each job has a batch of its own at least.
        assert batches >= sum(length <= cut for length in lengths)
        found.append(batches)
    assert found == sorted(found)
    assert found[0] <= 1
    assert found[-1] > 30


@pytest.mark.fault(48)
def test_row_48_a_database_that_was_cut_is_refused(cluster: Cluster, database: Path) -> None:
    """A database that lacks pages it once had is told apart from a whole one, and kept."""
    master = cluster.start_master("master-1")
    cluster.wait_said(master, "leader")
    with Client(cluster.addresses, timeout=20.0) as client:
        submit_some(client, 30)
    master.terminate()
    master.wait_exit(20)
    whole = database.read_bytes()
    rng = Random(48)
    for _ in range(20):
        cut = whole[: rng.randrange(len(whole) // 4, len(whole))]
        database.write_bytes(cut)
        with pytest.raises(CorruptJournal):
            asyncio.run(numbers(database))
        # An open writes down that it was there; nothing else has changed.
        pairs = zip(database.read_bytes(), cut, strict=False)
        assert sum(found != given for found, given in pairs) < 64
        assert database.stat().st_size >= len(cut) // 8192 * 8192
    database.write_bytes(whole)
    assert asyncio.run(numbers(database)) > 30


@pytest.mark.fault(49)
def test_row_49_flipped_bits_halt_the_partition_and_delete_nothing(
    cluster: Cluster, database: Path
) -> None:
    """The damaged batch is named, the partition halted, and every stored batch kept as it is."""
    master = cluster.start_master("master-1")
    cluster.wait_said(master, "leader")
    with Client(cluster.addresses, timeout=20.0) as client:
        submit_some(client, 20)
    master.terminate()
    master.wait_exit(20)
    content = bytearray(database.read_bytes())
    at = content.index(b"0007 " * 20)
    content[at] ^= 1
    database.write_bytes(content)
    damaged = batches_of(database)
    for _ in range(2):
        master = cluster.start_master("master-1")
        cluster.wait_said(master, "serving")
        halted = pytest.raises(TenureError, match="halted")
        with Client(cluster.addresses, timeout=5.0) as client, halted:
            client.submit(size, "refused")
        master.terminate()
        master.wait_exit(20)
        assert batches_of(database) == damaged


def batches_of(path: Path) -> list[tuple[int, bytes]]:
    """What a database has in its journal."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT number, data FROM batch ORDER BY number").fetchall()
    connection.close()
    return rows
