"""Watermarks: what is refused when, and what one partition may keep."""

import pytest

from tenure.master.backend.errors import StoreUnavailable
from tenure.master.backend.space import Space
from tenure.master.core.command import Intake
from tenure.master.node.alarms import Alarms
from tenure.master.node.space import SpaceWatch, demand_quota
from tenure.protocol.errors import Rejected
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.v1 import cluster_pb2

Level = cluster_pb2.SpaceLevel
MIB = 1024**2


class Shelf:
    """A store of 100 MiB that is as full as the test says.

    Attributes:
        used: Percent that hold data; None: it does not answer.
        file: Percent that its file takes.
        tidied: How often it was told to tidy up.
    """

    partitions = 4

    def __init__(self) -> None:
        self.used: int | None = 0
        self.file = 0
        self.tidied = 0
        self.has_quota = True
        self.file_counts = True

    async def space(self) -> Space | None:
        if self.used is None:
            raise StoreUnavailable("no answer")
        if not self.has_quota:
            return None
        return Space(
            used_bytes=self.used * MIB,
            file_bytes=self.file * MIB,
            quota_bytes=100 * MIB,
            file_counts=self.file_counts,
        )

    async def tidy(self) -> None:
        self.tidied += 1


def watching(shelf: Shelf) -> tuple[SpaceWatch, Alarms]:
    """A watch of it, that has not looked yet."""
    alarms = Alarms()
    return SpaceWatch(shelf, SimClock(), alarms), alarms  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("used", "level", "intake", "tight"),
    [
        (0, Level.SPACE_LEVEL_ROOMY, Intake.OPEN, False),
        (59, Level.SPACE_LEVEL_ROOMY, Intake.OPEN, False),
        (60, Level.SPACE_LEVEL_TIDYING, Intake.OPEN, True),
        (75, Level.SPACE_LEVEL_NO_BULK, Intake.NO_BULK, True),
        (85, Level.SPACE_LEVEL_NO_SUBMITS, Intake.CLOSED, True),
        (120, Level.SPACE_LEVEL_NO_SUBMITS, Intake.CLOSED, True),
    ],
)
def test_each_watermark_has_its_effect(
    used: int, level: Level, intake: Intake, tight: bool
) -> None:
    """60 % tidies, 75 % refuses bulk, 85 % refuses all new jobs."""

    async def main() -> None:
        shelf = Shelf()
        shelf.used = used
        watch, alarms = watching(shelf)
        await watch.run_once()
        status = watch.status()
        assert status is not None
        assert (status.level, watch.intake(), watch.tight()) == (level, intake, tight)
        assert bool(alarms.texts()) == (intake is not Intake.OPEN)
        assert shelf.tidied == int(tight)

    run_virtual(main)


def test_a_level_ends_only_clearly_below_its_mark() -> None:
    """A share that wavers about a mark does not flip what is refused."""

    async def main() -> None:
        shelf = Shelf()
        watch, _ = watching(shelf)
        seen = []
        for used in (84, 85, 84, 82, 81, 84, 74, 72, 71, 58, 57, 56):
            shelf.used = used
            await watch.run_once()
            seen.append((watch.intake(), watch.tight()))
        closed, no_bulk = (Intake.CLOSED, True), (Intake.NO_BULK, True)
        tidying, roomy = (Intake.OPEN, True), (Intake.OPEN, False)
        assert seen == [
            *[no_bulk, closed, closed, closed, no_bulk, no_bulk],
            *[no_bulk, no_bulk, tidying, tidying, tidying, roomy],
        ]

    run_virtual(main)


def test_a_large_file_is_an_alarm_by_itself() -> None:
    """Nothing is refused for it: the space inside is used again; an operator defragments."""

    async def main() -> None:
        shelf = Shelf()
        shelf.used, shelf.file = 10, 80
        watch, alarms = watching(shelf)
        await watch.run_once()
        assert watch.intake() is Intake.OPEN
        assert [text for text in alarms.texts() if "defragment" in text] == alarms.texts() != []
        shelf.file = 20
        await watch.run_once()
        assert alarms.texts() == []
        # SQLite's file is not held against its quota, and nobody could defragment it.
        shelf.file, shelf.file_counts = 100, False
        await watch.run_once()
        assert alarms.texts() == []

    run_virtual(main)


def test_what_was_seen_last_stands_while_the_store_is_silent() -> None:
    """A store that does not answer is no reason to let more in."""

    async def main() -> None:
        shelf = Shelf()
        shelf.used = 90
        watch, _ = watching(shelf)
        await watch.run_once()
        shelf.used = None
        await watch.run_once()
        assert watch.intake() is Intake.CLOSED

    run_virtual(main)


def test_a_partition_keeps_its_part_of_the_quota_or_of_the_memory() -> None:
    """15 % of the quota for all partitions together, or what the master may keep."""

    async def main() -> None:
        shelf = Shelf()
        watch, _ = watching(shelf)
        assert watch.bytes_max(400 * MIB) == 100 * MIB
        await watch.run_once()
        assert watch.bytes_max(400 * MIB) == 15 * MIB // 4
        assert watch.bytes_max(8 * MIB) == 2 * MIB
        shelf.has_quota = False
        watch, _ = watching(shelf)
        await watch.run_once()
        assert (watch.bytes_max(8 * MIB), watch.status()) == (2 * MIB, None)

    run_virtual(main)


@pytest.mark.parametrize(
    ("partitions", "log_bytes"), [(4, 256 * 1024), (400, 26_214), (4_000, 16 * 1024)]
)
def test_the_logs_of_a_tight_store_do_not_keep_it_tight(partitions: int, log_bytes: int) -> None:
    """All of them together hold 10 % of the quota, unless they are too many for it."""

    async def main() -> None:
        shelf = Shelf()
        shelf.partitions = partitions
        watch, _ = watching(shelf)
        assert watch.log_bytes_max() is None
        shelf.used = 60
        await watch.run_once()
        assert watch.log_bytes_max() == log_bytes

    run_virtual(main)


def test_a_quota_that_is_too_small_for_the_partitions_is_refused() -> None:
    """The smallest logs of all of them must have their place; the message says how much that is."""
    demand_quota(None, 4_096)
    demand_quota(MIB, 6)
    with pytest.raises(Rejected, match="at least 1146880 bytes for 7 partitions"):
        demand_quota(MIB, 7)


def test_it_tidies_at_most_once_a_minute() -> None:
    """A store that stays full is not compacted every few seconds."""

    async def main() -> None:
        shelf = Shelf()
        shelf.used = 70
        watch, _ = watching(shelf)
        for _ in range(10):
            await watch.run_once()
        assert shelf.tidied == 1

    run_virtual(main)
