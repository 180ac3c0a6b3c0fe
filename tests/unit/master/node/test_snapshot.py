"""When a term takes a snapshot."""

import asyncio

import pytest

from tenure.master.core.command import SubmitJobs, SubmitRow, SubmitSetting
from tenure.master.node.sizes import LogSizes
from tenure.master.node.snapshot import Snapshotter
from tenure.protocol.fence import Token
from tests.unit.master.node.term_rig import JOB, TermRig, leading

JOBS = 500
SIZES = LogSizes(log_bytes_min=1_000)


class Slices:
    """The part of a journal that takes snapshots."""

    def __init__(self) -> None:
        self.size = 0

    async def write_slice(self, token: Token, snapshot_id: str, index: int, data: bytes) -> None:
        self.size += len(data)

    async def publish_snapshot(self, token: Token, snapshot_id: str, manifest: bytes) -> None: ...

    async def truncate(self, token: Token, before: int) -> int:
        return 0


async def fill(rig: TermRig, payload: bytes) -> None:
    """Jobs are submitted that carry so much."""
    rows = [SubmitRow(rig.mint(), 0, payload, "") for _ in range(JOBS)]
    rig.term.post(SubmitJobs(settings=[SubmitSetting(JOB, 5, 0, 0)], rows=rows))
    await rig.commit()


def begun(rig: TermRig, journal: Slices, log_bytes: int) -> Snapshotter:
    """The snapshots of a term that found so long a log."""
    rig.gate.log_bytes = 0
    return Snapshotter(
        term=rig.term,
        journal=journal,  # type: ignore[arg-type]
        clock=rig.clock,
        log_bytes=log_bytes,
        sizes=SIZES,
    )


@pytest.mark.parametrize("payload", [b"", b"x" * 2_000])
def test_a_leader_takes_its_first_snapshot_no_earlier_than_the_others(payload: bytes) -> None:
    """As soon as the log is about twice what a snapshot comes to; the size of none is journaled."""

    async def main() -> None:
        async with leading() as rig:
            await fill(rig, payload)
            journal = Slices()
            await begun(rig, journal, 0).take()
            size = journal.size
            assert not await begun(rig, journal, size * 4 // 3).run_once()
            assert await begun(rig, journal, size * 3).run_once()
            assert journal.size > size

    asyncio.run(main())


def test_a_small_partition_waits_for_a_log_worth_cutting() -> None:
    """With hardly any job the least length of a log decides."""

    async def main() -> None:
        async with leading() as rig:
            journal = Slices()
            assert not await begun(rig, journal, 900).run_once()
            assert await begun(rig, journal, 1_000).run_once()

    asyncio.run(main())
