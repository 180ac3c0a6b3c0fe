"""Faults of the disk under the only master of a cluster on SQLite; see ``stage``."""

from __future__ import annotations

from contextlib import suppress

from tenure.testing.nodes import SimMaster
from tests.simulation.stage import Stage, fault, of_leader

_MIB = 1024 * 1024


@fault(43, stores=("sqlite",), weight=2)
async def fill_disk(stage: Stage) -> None:
    """The disk has no more space, or little of it, for a while from when that is felt."""
    disk = stage.cluster.disk
    stage.aim(stage.master())
    refused = disk.refused
    disk.free_bytes = stage.rng.choice((0, 0, stage.rng.randrange(2 * _MIB)))
    with suppress(TimeoutError):
        await stage.cluster.until(lambda: disk.refused > refused, within_s=10)
        stage.hit()
    await stage.last(0.5, 10)
    disk.free_bytes = None


@fault(46, stores=("sqlite",))
async def slow_disk(stage: Stage) -> None:
    """Each fsync takes 0.2 to 5 s, for a while."""
    disk = stage.cluster.disk
    stage.aim(stage.master())
    fsyncs = disk.fsyncs
    disk.fsync_ms = (200, stage.rng.choice((500, 5_000)))
    await stage.last(2, 15)
    disk.heal_fsync()
    if disk.fsyncs > fsyncs:
        stage.hit()


@fault(47, stores=("sqlite",), weight=2)
@of_leader
async def fail_fsync(stage: Stage, leader: SimMaster) -> None:
    """One fsync fails, and those after it work; the master exits, and is started again."""
    stage.aim(leader)
    await _fail_fsync(stage, leader)


@fault(47, 48, stores=("sqlite",))
@of_leader
async def fail_fsync_then_lose_power(stage: Stage, leader: SimMaster) -> None:
    """One fsync fails; later, with the next master at work, the power fails.

    Who takes what an fsync did not write for written, because the system shows it, loses it here.
    """
    stage.aim(leader)
    await _fail_fsync(stage, leader)
    await stage.last(0, 6)
    await _lose_power(stage, leader)


@fault(stores=("sqlite",))
async def break_disk(stage: Stage) -> None:
    """Nothing can be written for a while: each master that tries exits."""
    disk = stage.cluster.disk
    master = stage.master()
    stage.strike(master)
    disk.eio = True
    await stage.last(0.5, 5)
    disk.eio = False


@fault(48, stores=("sqlite",))
async def lose_power(stage: Stage) -> None:
    """The machine dies amid its writes, and comes back: some are torn, some are not there."""
    master = stage.master()
    stage.aim(master)
    await _lose_power(stage, master)


@fault(48, stores=("sqlite",))
async def lose_power_in_a_slow_fsync(stage: Stage) -> None:
    """The same, while an fsync has been under way for some time."""
    master = stage.master()
    stage.aim(master)
    disk = stage.cluster.disk
    disk.fsync_ms = (200, 2_000)
    await stage.last(0.2, 3)
    disk.heal_fsync()
    await _lose_power(stage, master)


async def _fail_fsync(stage: Stage, master: SimMaster) -> None:
    disk = stage.cluster.disk
    process = master.process
    failed = disk.failed_fsyncs
    disk.fail_next_fsync()
    try:
        await stage.cluster.until(lambda: disk.failed_fsyncs > failed, within_s=10)
    except TimeoutError:
        # Nobody has anything to commit.
        disk.heal_fsync()
        return
    stage.hit(47)
    if stage.rng.random() < 0.5 and master.process is process:
        # Dead before it could undo what it wrote: the next one finds it in the system's cache.
        master.kill()
    await process.join()
    await stage.last(0, 2)
    await stage.restart(master, process)


async def _lose_power(stage: Stage, master: SimMaster) -> None:
    process = master.process
    stage.hit(48)
    master.kill()
    stage.cluster.disk.power_loss(stage.rng)
    await process.join()
    await stage.last(0, 5)
    await stage.restart(master, process)
