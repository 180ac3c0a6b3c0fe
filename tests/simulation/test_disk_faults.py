"""A master whose disk fails, under the shipped store: rows 43 and 46 to 49 of the fault table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from tenure.client import AsyncJobHandle, Reason, TenureError
from tenure.master.node.sizes import LogSizes
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.ground import DiskGround
from tenure.testing.nodes import SimMaster
from tenure.testing.process import elapse, run_processes
from tests.simulation.run import Run

DATABASE = "/data/store.db"
LOG = "/data/store.db-wal"
#: So small that every few jobs make a snapshot.
SHORT_LOG = LogSizes(log_bytes_min=20_000)


class Stand:
    """A cluster of one master on a simulated disk, with a client.

    Attributes:
        run: What was submitted and seen.
        cluster: The cluster.
        client: A client of it.
    """

    def __init__(self, run: Run, cluster: SimCluster) -> None:
        self.run = run
        self.cluster = cluster
        self.client = cluster.client()

    @property
    def master(self) -> SimMaster:
        """The only one."""
        (master,) = self.cluster.masters.values()
        return master

    async def submit(self, count: int) -> list[AsyncJobHandle[str]]:
        """Submits jobs, all at once; those that were accepted."""
        first = len(self.run.ledger.rows)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self.run.submit(self.client, f"job {number}", 0.1))
                for number in range(first, first + count)
            ]
        return accepted(tasks)

    async def submit_later(self, after_s: float) -> AsyncJobHandle[str] | None:
        """Submits a job at some time."""
        await elapse(after_s)
        return await self.run.submit(self.client, f"at {after_s}", 0.2)

    async def read(self, handles: list[AsyncJobHandle[str]]) -> None:
        """Waits for all their results."""
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for handle in handles:
                group.create_task(self.run.result(handle))

    async def restart(self) -> None:
        """What a service manager does with a process that has ended."""
        await self.master.process.join()
        self.cluster.start(self.master)

    async def lose_power(self, rng: Random) -> None:
        """The machine dies amid its writes, and comes back."""
        self.master.kill()
        self.cluster.disk.power_loss(rng)
        await self.restart()

    async def stop(self) -> None:
        """As SIGTERM does, and waits for the end."""
        self.master.stop()
        await self.master.process.join()

    def judge(self) -> None:
        """Holds all that was seen to the invariants."""
        self.run.judge(self.cluster)


@asynccontextmanager
async def on_disk(seed: int, **settings: Any) -> AsyncIterator[Stand]:
    """Such a cluster, with other settings of ``simulated_cluster``."""
    run = Run()
    async with simulated_cluster(seed=seed, jobs=[run.echo], store="sqlite", **settings) as cluster:
        yield Stand(run, cluster)


def accepted(
    submits: list[asyncio.Task[AsyncJobHandle[str] | None]],
) -> list[AsyncJobHandle[str]]:
    """The jobs that were accepted."""
    return [handle for submit in submits if (handle := submit.result()) is not None]


@pytest.mark.fault(43)
def test_row_43_a_full_disk_refuses_and_recovers() -> None:
    """New work is refused as RESOURCE_EXHAUSTED; with space all goes on, and nothing is lost."""

    async def main() -> None:
        async with on_disk(43) as stand:
            cluster = stand.cluster
            hasty = cluster.client(timeout=3)
            master = await cluster.elected()
            process = master.process
            handles = await stand.submit(20)
            cluster.disk.full = True
            reasons = []
            for _ in range(5):
                try:
                    await hasty.submit(stand.run.echo, "refused", 0.1)
                except TenureError as error:
                    reasons.append(error.reason)
            assert set(reasons) <= {Reason.STORE_FULL, Reason.OUTCOME_UNKNOWN}
            assert reasons.count(Reason.STORE_FULL) >= 3
            cluster.disk.full = False
            # The leader looks every now and then whether the batch that it keeps is taken.
            await elapse(2)
            handles += await stand.submit(20)
            await stand.read(handles)
            assert len(handles) == 40
            assert master.process is process
            assert master.running

    run_processes(main, limit_s=300)


@pytest.mark.fault(43)
def test_row_43_a_leader_on_a_full_disk_can_be_stopped() -> None:
    """SIGTERM ends it, and what it had accepted is there when there is space again."""

    async def main() -> None:
        async with on_disk(44) as stand:
            cluster = stand.cluster
            master = await cluster.elected()
            handles = await stand.submit(20)
            cluster.disk.full = True
            master.stop()
            await cluster.until(lambda: not master.running, within_s=30)
            assert master.process.error is None
            cluster.disk.full = False
            cluster.start(master)
            await stand.read(handles)
            stand.judge()

    run_processes(main, limit_s=300)


@pytest.mark.fault(46)
def test_row_46_no_ack_before_a_slow_fsync_is_over() -> None:
    """An ack takes as long as the fsync; what was acked before a power loss is there after it."""

    async def main() -> None:
        async with on_disk(46) as stand:
            cluster = stand.cluster
            await cluster.elected()
            handles = await stand.submit(10)
            await stand.read(handles)
            cluster.disk.fsync_ms = (200, 5_000)
            for number in range(10):
                began_s = asyncio.get_running_loop().time()
                handles += await stand.submit(5)
                assert asyncio.get_running_loop().time() - began_s >= 0.2
                if number % 3 == 2:
                    await stand.lose_power(Random(number))
            # The batches behind one that is on its way wait: they do not pile up in the store.
            before = cluster.disk.fsyncs
            handles += await stand.submit(500)
            assert cluster.disk.fsyncs - before < 50
            cluster.disk.heal()
            await stand.read(handles[10:])
            assert len(handles) == 560
            stand.judge()

    run_processes(main, limit_s=1_200)


@pytest.mark.fault(47)
@pytest.mark.parametrize("seed", range(5))
def test_row_47_after_a_failed_fsync_the_master_exits(seed: int) -> None:
    """It acks nothing more and ends; the next one has all that was acked, and power may fail."""

    async def main() -> None:
        rng = Random(seed)
        async with on_disk(seed) as stand:
            cluster = stand.cluster
            master = await cluster.elected()
            async with asyncio.TaskGroup() as group:
                submits = [
                    group.create_task(stand.submit_later(rng.uniform(0, 10))) for _ in range(60)
                ]
                for _ in range(3):
                    await elapse(rng.uniform(0.5, 3))
                    process = master.process
                    cluster.disk.fail_next_fsync()
                    await cluster.until(lambda: not master.running, within_s=30)
                    assert process.error is not None
                    assert process.error.reason is Reason.STORE_IO
                    await stand.restart()
                    await cluster.elected()
            await stand.lose_power(rng)
            await stand.read(accepted(submits))
            stand.judge()

    run_processes(main, limit_s=300)


@pytest.mark.fault(48)
@pytest.mark.parametrize("seed", range(8))
def test_row_48_power_loss_at_any_moment(seed: int) -> None:
    """Writes are torn or missing; the tail is cut cleanly, all that was acked is kept and ends."""

    async def main() -> None:
        rng = Random(seed)
        async with on_disk(seed, partitions=1 + seed % 2) as stand:
            stand.cluster.disk.fsync_ms = (1, rng.choice((5, 100)))
            async with asyncio.TaskGroup() as group:
                submits = [
                    group.create_task(stand.submit_later(rng.uniform(0, 20))) for _ in range(100)
                ]
                for _ in range(8):
                    await elapse(rng.uniform(0.01, 4))
                    await stand.lose_power(rng)
            await stand.read(accepted(submits))
            stand.judge()

    run_processes(main, limit_s=300)


@pytest.mark.fault(49)
@pytest.mark.parametrize("what", ["batch", "snapshot"])
def test_row_49_a_flipped_bit_halts_and_deletes_nothing(what: str) -> None:
    """A damaged batch or snapshot: the partition is HALTED, by each new master, and kept as is."""

    async def main() -> None:
        sizes = SHORT_LOG if what == "snapshot" else LogSizes()
        async with on_disk(49, log_sizes=sizes) as stand:
            cluster = stand.cluster
            master = await cluster.elected()
            handles = await stand.submit(200)
            await stand.read(handles)
            # Long enough for a snapshot, too.
            await elapse(5)
            await stand.stop()
            stored = rows(cluster, what)
            assert stored
            damage(cluster, max(stored, key=len))
            damaged = rows(cluster, what)
            assert damaged != stored
            for _ in range(2):
                cluster.start(master)
                await cluster.until(lambda: halted(master))
                await elapse(10)
                assert master.running
                assert cluster.leader() is None
                await stand.stop()
                assert rows(cluster, what) == damaged

    run_processes(main, limit_s=300)


@pytest.mark.fault(49)
def test_row_49_a_flipped_bit_in_the_log_of_a_crash_is_refused() -> None:
    """Whoever opens the store is told, again and again, and every file stays as it is."""

    async def main() -> None:
        async with on_disk(50) as stand:
            cluster = stand.cluster
            master = await cluster.elected()
            await stand.read(await stand.submit(20))
            master.kill()
            await master.process.join()
            cluster.disk.flip_bit(LOG, len(cluster.disk.files[LOG]) // 2)
            files = cluster.disk.files
            for _ in range(2):
                cluster.start(master)
                await master.process.join()
                assert master.process.error is not None
                assert master.process.error.reason is Reason.STORE_CORRUPT
                assert cluster.disk.files == files

    run_processes(main, limit_s=300)


@pytest.mark.fault(49)
@pytest.mark.parametrize("table", ["halted", "batch", "snapshot"])
def test_row_49_a_damaged_page_ends_no_master_and_deletes_nothing(table: str) -> None:
    """What SQLite itself finds damaged: the partition is halted; no crash."""

    async def main() -> None:
        async with on_disk(51) as stand:
            cluster = stand.cluster
            master = await cluster.elected()
            await stand.read(await stand.submit(20))
            await stand.stop()
            batches = cluster.journal()
            assert isinstance(cluster.ground, DiskGround)
            # A page begins with its kind.
            at = (cluster.ground.root_page(table) - 1) * 8_192
            cluster.disk.flip_bit(DATABASE, at, 3)
            cluster.start(master)
            await cluster.until(lambda: halted(master))
            await elapse(30)
            assert halted(master)
            assert master.running
            master.kill()
            await master.process.join()
            cluster.disk.flip_bit(DATABASE, at, 3)
            assert cluster.journal() == batches

    run_processes(main, limit_s=300)


def rows(cluster: SimCluster, what: str) -> list[bytes]:
    """All stored batches, or all slices of the snapshot."""
    assert isinstance(cluster.ground, DiskGround)
    return cluster.ground.journal(0) if what == "batch" else cluster.ground.slices(0)


def damage(cluster: SimCluster, data: bytes) -> None:
    """Flips a bit in the middle of some stored bytes, where they lie on the disk."""
    content = cluster.disk.files[DATABASE]
    # What is long is stored in pieces; the second half of this one lies in one place. Much of a
    # snapshot is the same in every job.
    pieces = (data[at : at + 64] for at in range(len(data) // 2, len(data) - 64))
    piece = next(piece for piece in pieces if content.count(piece) == 1)
    cluster.disk.flip_bit(DATABASE, content.index(piece) + 32)


def halted(master: SimMaster) -> bool:
    """Whether a master knows that partition 0 is halted."""
    return master.node is not None and 0 in master.node.roster.halted
