"""Recoveries that die in one place: the fourth of them halts the partition, and no other does."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tenure.master.backend.errors import CorruptJournal, StoreFull
from tenure.master.core.config import PartitionConfig
from tenure.master.core.event import JobsReadied
from tenure.master.core.partition import Partition
from tenure.master.election.port import Candidate, Office
from tenure.master.journal.frame import Chain
from tenure.master.journal.port import Journal, ReplayMark
from tenure.master.journal.sqlite import SqliteJournal
from tenure.master.node.recovery import recover
from tenure.master.node.replay import Replay, ReplayFailed
from tenure.master.store import open_store
from tenure.protocol.errors import TenureError
from tenure.protocol.fence import Token
from tests.encoded import encode_events

CONFIG = PartitionConfig(partition=0, partitions=1)
BATCHES, EVENTS = 6, 10


class Killed(BaseException):
    """What ends a process: nothing of ours sees it."""


def killing(seq: int) -> Callable[[Partition, object, int], None]:
    """A replay that dies at one event."""

    def replay(self: Partition, event: object, at: int) -> None:
        if at == seq:
            raise Killed

    return replay


class Bed:
    """A journal of 60 events in SQLite, and recoveries of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._url = f"sqlite://{folder / 'store.db'}"
        self._patch = monkeypatch
        self.stretch_events = EVENTS

    def dies_at(self, seq: int) -> None:
        """From now on, replaying this event kills the process; 0: none does."""
        self._patch.setattr(Partition, "replay", killing(seq))

    def fails_at(self, seq: int) -> None:
        """From now on, this event cannot be applied."""

        def replay(partition: Partition, event: object, at: int) -> None:
            if at == seq:
                raise ZeroDivisionError("a bug")

        self._patch.setattr(Partition, "replay", replay)

    def fill(self) -> None:
        """Writes the journal."""

        async def write(journal: Journal, office: Office) -> None:
            chain = Chain.start(0)
            async for batch in journal.read(0):
                chain.follow(batch)
            for _ in range(BATCHES):
                events = [JobsReadied(now_ms=1, job_ids=[]) for _ in range(EVENTS)]
                data = encode_events(events)
                sealed = chain.seal(
                    token=office.token, stamp_ms=1, events=data, event_count=len(events)
                )
                await journal.append(office.token, sealed)

        self.lead(write)

    def recover(self, dies: str = "") -> type[BaseException] | None:
        """One recovery to its end, or until it dies ``before`` or ``behind`` the replay; why."""

        async def work(journal: Journal, office: Office) -> None:
            replay = Replay(journal, office.token, 0, stretch_events=self.stretch_events)
            await replay.begin()
            if dies == "before":
                raise Killed
            await recover(journal, CONFIG, replay)
            if dies == "behind":
                raise Killed
            await replay.end()

        try:
            self.lead(work)
        except (Killed, TenureError) as error:
            self.error = error
            return type(error)
        return None

    def mark(self) -> ReplayMark | None:
        """What the next leader will find."""
        found: list[ReplayMark | None] = []

        async def look(journal: Journal, office: Office) -> None:
            found.append(await journal.replay_mark())

        self.lead(look)
        return found[0]

    def lead(self, work: Callable[..., object]) -> None:
        """Opens the store, wins the office, works, and closes."""

        async def main() -> None:
            me = Candidate(incarnation="i", name="m", address="m:1")
            store = await open_store(self._url, candidate=me, wall_ms=1)
            try:
                office = await store.election(0).campaign()
                await work(store.journal(0), office)  # type: ignore[misc]
            finally:
                await store.close()

        asyncio.run(main())


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    """A filled one."""
    made = Bed(tmp_path, monkeypatch)
    made.dies_at(0)
    made.fill()
    return made


@pytest.mark.fault(3)
@pytest.mark.parametrize("seq", [1, 33, 60])
def test_row_03_the_fourth_crash_in_replay_halts_and_names_the_event(bed: Bed, seq: int) -> None:
    """Whichever event it is; the fifth recovery replays nothing."""
    bed.dies_at(seq)
    assert [bed.recover() for _ in range(4)] == [Killed] * 4
    assert bed.mark() == ReplayMark(crashes=3, seq=seq)
    assert bed.recover() is CorruptJournal
    assert f"at event {seq};" in str(bed.error)
    assert "clear-halt" in str(bed.error)


@pytest.mark.fault(3)
def test_row_03_crashes_in_other_places_are_no_series(bed: Bed) -> None:
    """Masters that are killed again and again, each time elsewhere, halt nothing."""
    for seq in (11, 31, 51, 12, 58, 41, 21):
        bed.dies_at(seq)
        assert bed.recover() is Killed
    bed.dies_at(0)
    assert bed.recover() is None
    assert bed.mark() is None


@pytest.mark.fault(3)
def test_row_03_crashes_at_several_events_of_one_place_are_no_series(bed: Bed) -> None:
    """Masters that are killed, or cut from their store, at several moments of one stretch."""
    for seq in (33, 33, 33, 35, 36, 32, 38, 31):
        bed.dies_at(seq)
        assert bed.recover() is Killed
    assert bed.mark() == ReplayMark(crashes=2, seq=31)
    bed.dies_at(0)
    assert bed.recover() is None


@pytest.mark.fault(3)
def test_row_03_a_series_may_begin_behind_kills_at_other_moments(bed: Bed) -> None:
    """An event that kills is found, whatever has killed others before."""
    for seq in (33, 33, 38, 31, 36, 36):
        bed.dies_at(seq)
        assert bed.recover() is Killed
    assert bed.recover() is CorruptJournal
    assert "at event 36;" in str(bed.error)


@pytest.mark.fault(3)
def test_row_03_masters_that_die_behind_the_replay_halt_nothing(bed: Bed) -> None:
    """A slow store makes the opening of a term long; who is killed there has replayed all."""
    assert [bed.recover(dies="behind") for _ in range(9)] == [Killed] * 9
    assert bed.recover() is None


@pytest.mark.fault(3)
def test_row_03_deaths_before_and_amid_the_replay_are_no_series(bed: Bed) -> None:
    """While the snapshot is loaded is another place than any event."""
    bed.dies_at(33)
    assert [bed.recover() for _ in range(2)] == [Killed] * 2
    assert bed.recover(dies="before") is Killed
    bed.dies_at(0)
    assert bed.recover() is None


@pytest.mark.fault(3)
def test_row_03_the_fourth_death_before_the_first_event_halts(bed: Bed) -> None:
    """A snapshot that cannot be loaded kills like an event."""
    assert [bed.recover(dies="before") for _ in range(4)] == [Killed] * 4
    assert bed.recover() is CorruptJournal
    assert "before the first event" in str(bed.error)


@pytest.mark.fault(3)
def test_row_03_a_careful_recovery_is_not_slow(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a mark a stretch, not for one a batch; and still finds the event."""
    bed.stretch_events = 1_000
    marks: list[ReplayMark | None] = []
    mark_replay = SqliteJournal.mark_replay

    async def noting(self: SqliteJournal, token: Token, mark: ReplayMark | None) -> None:
        marks.append(mark)
        await mark_replay(self, token, mark)

    monkeypatch.setattr(SqliteJournal, "mark_replay", noting)
    bed.dies_at(33)
    assert [bed.recover() for _ in range(2)] == [Killed] * 2
    assert marks == [ReplayMark(crashes=0), ReplayMark(crashes=1), ReplayMark(crashes=1, seq=1)]
    assert bed.recover() is Killed
    assert marks[-1] == ReplayMark(crashes=2, seq=33)


@pytest.mark.fault(3)
def test_row_03_an_event_that_fails_behind_the_place_of_a_death_is_the_first(bed: Bed) -> None:
    """A recovery that gets past the place where another died counts anew, whatever ends it."""
    bed.dies_at(11)
    assert [bed.recover() for _ in range(2)] == [Killed] * 2
    bed.fails_at(44)
    assert bed.recover() is ReplayFailed
    assert bed.mark() == ReplayMark(crashes=0, seq=44)


@pytest.mark.fault(3)
def test_row_03_a_recovery_that_ends_takes_the_count_away(bed: Bed) -> None:
    """Two crashes, a success, two crashes: no third in a row."""
    for _ in range(3):
        bed.dies_at(33)
        assert [bed.recover() for _ in range(2)] == [Killed] * 2
        bed.dies_at(0)
        assert bed.recover() is None


@pytest.mark.fault(3)
def test_row_03_an_event_that_cannot_be_applied_costs_no_process(bed: Bed) -> None:
    """It is a crash like any other to the count, but named at once, and others go on."""
    bed.fails_at(33)
    assert [bed.recover() for _ in range(4)] == [ReplayFailed] * 4
    assert bed.mark() == ReplayMark(crashes=3, seq=33)
    assert bed.recover() is CorruptJournal


def test_a_full_store_keeps_no_recovery_from_its_end() -> None:
    """Rather no mark than no leader."""

    class FullJournal:
        async def replay_mark(self) -> None:
            return None

        async def mark_replay(self, token: Token, mark: ReplayMark | None) -> None:
            raise StoreFull("no space")

    async def main() -> None:
        replay = Replay(FullJournal(), Token(1, 1), 0)  # type: ignore[arg-type]
        await replay.begin()
        await replay.end()

    asyncio.run(main())
