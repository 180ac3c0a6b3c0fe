"""A seat's life around its terms."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from tenure.master.backend.errors import (
    CorruptJournal,
    OfficeLost,
    StoreFull,
    StoreUnavailable,
)
from tenure.master.core.config import PartitionConfig
from tenure.master.election.port import Candidate, Leader, Member
from tenure.master.journal.frame import genesis
from tenure.master.journal.port import HaltRecord, ReplayMark, SealedBatch
from tenure.master.node.alarms import Alarms
from tenure.master.node.hub import WorkerHub
from tenure.master.node.roster import Roster
from tenure.master.node.seat import Seat, Surroundings, _SteppedDown
from tenure.master.node.solitude import Solitude
from tenure.master.node.space import SpaceWatch
from tenure.master.node.standby import Standbys
from tenure.master.node.trace import Trace
from tenure.master.node.walls import Walls
from tenure.protocol.errors import TenureError
from tenure.protocol.fence import Token
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.v1 import cluster_pb2
from tests.unit.master.node.fakes import FakeOffice, count_states, settle


class WonElection:
    """Gives an office to whoever asks, which is never vacant then."""

    def __init__(self) -> None:
        self.campaigns = 0

    async def campaign(self) -> FakeOffice:
        self.campaigns += 1
        return FakeOffice()

    async def leader(self) -> None:
        return None

    async def vacancy(self, timeout_ms: int) -> bool:
        return await asyncio.Event().wait()


class UnmarkedJournal:
    """A journal in which no recovery has died, and that was not halted."""

    async def halted(self) -> None:
        return None

    async def replay_mark(self) -> None:
        return None

    async def mark_replay(self, token: Token, mark: ReplayMark | None) -> None:
        return None


class HangingJournal(UnmarkedJournal):
    """Never answers; says that the office is lost when it is no longer waited for."""

    async def load_snapshot(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OfficeLost("lost at the same moment") from None


class CorruptStore(UnmarkedJournal):
    """A journal that cannot be read, in a store that takes no mark of it."""

    def __init__(self, refusal: TenureError) -> None:
        self._refusal = refusal
        self.halts = 0
        self.on_many_halts = lambda: None

    async def load_snapshot(self) -> None:
        raise CorruptJournal("expected a batch")

    async def halt(self, token: Token, record: HaltRecord) -> None:
        self.halts += 1
        if self.halts > 100:
            self.on_many_halts()
        raise self._refusal


class LonelySolitude(Solitude):
    """No worker reaches this master, but others."""

    def look(self) -> bool:
        return True


class LosingJournal(UnmarkedJournal):
    """A new journal; the first append finds that a batch is gone which was stored."""

    pipeline_depth = 1

    def __init__(self) -> None:
        self.halts: list[HaltRecord] = []
        self.on_halt = lambda: None

    async def load_snapshot(self) -> None:
        return None

    async def read(self, first: int) -> AsyncIterator[SealedBatch]:
        yield genesis(0, Token(1, 0), 1)

    async def append(self, token: Token, batch: SealedBatch) -> None:
        raise CorruptJournal("expected batch 3, but it is gone", metadata={"batch": "3"})

    async def halt(self, token: Token, record: HaltRecord) -> None:
        self.halts.append(record)
        self.on_halt()


class _NoPeers:
    """Nobody is called: there is one partition."""

    async def unary(self, address: str, *_: object) -> NoReturn:
        raise AssertionError(f"expected no call, but {address} was called")


async def _hear_nothing() -> None:
    """No operator wishes anything."""


def _seat(election: object, journal: object, solitude: type[Solitude] = Solitude) -> Seat:
    clock = SimClock()
    me = Candidate(incarnation="i", name="m", address="127.0.0.1:1")
    roster = Roster(cluster_id="c", partitions=1, me=me, clock=clock)
    hub = WorkerHub()
    config = PartitionConfig(partition=0, partitions=1)
    around = Surroundings(
        roster=roster,
        hub=hub,
        clock=clock,
        rng=random.Random(1),
        trace=Trace(None, clock),
        announce=lambda event, fields: None,
        config=lambda partition: config,
        space=SpaceWatch(None, clock, Alarms()),  # type: ignore[arg-type]
        walls=Walls(roster, clock, Alarms()),
        solitude=solitude(roster=roster, hub=hub, clock=clock, alone_ms=30_000),
        standbys=Standbys(
            roster,
            clock,
            reader=lambda partition: journal,  # type: ignore[arg-type, return-value]
            config=lambda partition: config,
        ),
        hear_wishes=_hear_nothing,
        peers=_NoPeers(),
    )
    return Seat(
        partition=0,
        election=election,  # type: ignore[arg-type]
        journal=journal,  # type: ignore[arg-type]
        around=around,
    )


def test_a_cancelled_seat_ends_even_if_its_office_is_lost_at_that_moment() -> None:
    """A cancellation that arrives together with an error ends the seat: it campaigns no more."""

    async def main() -> None:
        election = WonElection()
        async with asyncio.TaskGroup() as tasks:
            seat = tasks.create_task(_seat(election, HangingJournal()).run())
            await settle()
            assert election.campaigns == 1
            seat.cancel()
            await settle()
            ended, campaigns = seat.done(), election.campaigns
            seat.cancel()
        assert (ended, campaigns) == (True, 1)

    run_virtual(main, limit_s=60)


@pytest.mark.fault(49)
def test_row_49_what_an_append_finds_is_what_the_halt_says() -> None:
    """The text that stays in the store, for operators and clients, names the damage."""

    async def main() -> None:
        journal = LosingJournal()
        seat = _seat(WonElection(), journal)
        journal.on_halt = seat.stop
        await seat.run()
        assert journal.halts == [
            HaltRecord(batch_number=3, detail="expected batch 3, but it is gone")
        ]

    run_virtual(main, limit_s=60)


class HaltingJournal(LosingJournal):
    """As it is; what is left of a term is looked at when its partition is looked at again."""

    def __init__(self) -> None:
        super().__init__()
        self.on_look = lambda: None

    async def halted(self) -> HaltRecord | None:
        if self.halts:
            self.on_look()
        return self.halts[-1] if self.halts else None


def test_nothing_is_left_of_a_term_that_has_ended(rare_collector: None) -> None:
    """Its state goes at once: the collector, which comes hardly ever, had to find it."""
    left: list[int] = []

    async def main() -> None:
        journal = HaltingJournal()
        seat = _seat(WonElection(), journal)

        def look() -> None:
            left.append(count_states())
            seat.stop()

        journal.on_look = look
        await seat.run()

    before = count_states()
    run_virtual(main, limit_s=60)
    assert left == [before]


@pytest.mark.fault(26)
def test_row_26_a_leader_that_cannot_hand_over_now_does_so_later() -> None:
    """A store that is full at that moment does not make it stay for the rest of its term."""
    seat = _seat(WonElection(), UnmarkedJournal(), LonelySolitude)
    gate = SimpleNamespace(full=True)
    seat._term = SimpleNamespace(gate=gate, open=True)  # type: ignore[assignment]
    seat._keeper = SimpleNamespace(frozen=False)  # type: ignore[assignment]

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(seat._look_for_workers())
            await SimClock().sleep(30_000)
            assert not looking.done()
            gate.full = False
        assert seat._leaving.is_set()

    run_virtual(main)


class HeldElection:
    """Another leads until it is freed; a look at the office ends after its time, as a watch does.

    Attributes:
        vacant: Set when the office is free.
        campaigned_ms: When this master asked for the office.
    """

    def __init__(self, clock: SimClock) -> None:
        self.vacant = asyncio.Event()
        self.campaigned_ms: list[int] = []
        self._clock = clock
        other = Candidate(incarnation="j", name="n", address="127.0.0.1:2")
        self._leader = Leader(candidate=other, token=Token(1, 5))

    async def campaign(self) -> None:
        self.campaigned_ms.append(self._clock.boot_ms())
        # The other was quicker.
        self.vacant.clear()

    async def leader(self) -> Leader | None:
        return None if self.vacant.is_set() else self._leader

    async def vacancy(self, timeout_ms: int) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1_000):
                await self.vacant.wait()
        return self.vacant.is_set()


@pytest.mark.parametrize(("ready", "taken"), [(True, True), (True, False), (False, False)])
def test_a_master_asks_for_a_free_office_after_those_that_should_lead(
    ready: bool, taken: bool
) -> None:
    """It never asks for one that is held; it waits 3 s for a master that could lead at once."""

    async def main() -> None:
        clock = SimClock()
        election = HeldElection(clock)
        seat = _seat(election, UnmarkedJournal())
        _meet_another(seat, *([0] if ready else []))
        rank_ms = 150 * seat._around.roster.rank(0)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(seat.run())
            for free_ms in (20_000, 21_999, 22_001):
                election.vacant.clear()
                election.campaigned_ms.clear()
                await clock.sleep(free_ms)
                assert election.campaigned_ms == []
                election.vacant.set()
                since_ms = clock.boot_ms()
                await clock.sleep(500)
                if taken:
                    election.vacant.clear()
                await clock.sleep(5_000)
                waited_ms = [at_ms - since_ms for at_ms in election.campaigned_ms]
                assert waited_ms[:1] == ([] if taken else [rank_ms + 3_000 * ready])
            seat.stop()
            running.cancel()

    run_virtual(main, limit_s=120)


@pytest.mark.parametrize("stopped_ms", [0, 1_000])
def test_a_master_that_is_stopped_does_not_ask_for_an_office(stopped_ms: int) -> None:
    """It would have to give it up at once, to a master that may have nothing replayed."""

    async def main() -> None:
        clock = SimClock()
        election = HeldElection(clock)
        seat = _seat(election, UnmarkedJournal())
        _meet_another(seat, 0)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(seat.run())
            await clock.sleep(5_000)
            election.vacant.set()
            await clock.sleep(stopped_ms)
            seat.stop()
        assert election.campaigned_ms == []

    run_virtual(main, limit_s=120)


def test_a_state_is_hashed_for_a_trace_when_the_office_is_free(tmp_path: Path) -> None:
    """That of a large partition takes a second, in which nobody would lead."""
    (line,) = _traced_end(tmp_path / "trace", committed_seq=7)
    assert (line["event"], line["last_seq"], line["hash"]) == ("state", 7, "01")


def test_a_state_that_was_not_committed_is_not_traced(tmp_path: Path) -> None:
    """The store did not take the end of the term in time: the next leader goes on from less."""
    assert not _traced_end(tmp_path / "trace", committed_seq=6)


def _traced_end(path: Path, *, committed_seq: int) -> list[dict[str, Any]]:
    """What is traced of a term that ends when 7 events were applied."""
    seat, office = _seat(WonElection(), UnmarkedJournal()), FakeOffice()
    trace = Trace(path, SimClock())
    seat._around = replace(seat._around, trace=trace)
    term = SimpleNamespace(
        partition=SimpleNamespace(next_seq=8, state_hash=lambda: bytes([office.lost])),
        gate=SimpleNamespace(committed_seq=committed_seq),
        abandon=lambda _: None,
    )

    async def step_down(*_: object) -> NoReturn:
        seat._term = term  # type: ignore[assignment]
        raise _SteppedDown

    async def main() -> None:
        await seat._lead(office, 0)  # type: ignore[arg-type]
        trace.close()

    seat._reign = step_down  # type: ignore[method-assign, assignment]
    asyncio.run(main())
    return [json.loads(line) for line in path.read_text().splitlines()]


def _leading_seat(jobs: int) -> Seat:
    seat = _seat(WonElection(), UnmarkedJournal())
    gate = SimpleNamespace(full=False)
    partition = SimpleNamespace(stats=lambda: SimpleNamespace(jobs=jobs))
    seat._term = SimpleNamespace(gate=gate, partition=partition)  # type: ignore[assignment]
    seat._keeper = SimpleNamespace(frozen=False)  # type: ignore[assignment]
    return seat


def _meet_another(seat: Seat, *caught_up: int, ending: bool = False) -> None:
    another = Candidate(incarnation="j", name="n", address="127.0.0.1:2")
    seat._around.roster.meet(
        [Member(candidate=another, version="1", wall_ms=0, caught_up=caught_up, ending=ending)]
    )


def _leaves_after_ms(
    seat: Seat, *, ready_ms: int | None, alone: bool = False, ending: bool = False
) -> int:
    """How long a seat that is stopped leads on; another is ready after so long."""

    async def main() -> int:
        clock = SimClock()
        if not alone:
            _meet_another(seat, *([0] if ready_ms == 0 else []), ending=ending)
        async with asyncio.TaskGroup() as tasks:
            leaving = tasks.create_task(seat._leave_when_stopped())
            await clock.sleep(60_000)
            assert not leaving.done()
            seat.stop()
            since_ms = clock.boot_ms()
            if ready_ms:
                await clock.sleep(ready_ms)
                _meet_another(seat, 0)
            await seat._leaving.wait()
            return clock.boot_ms() - since_ms

    return run_virtual(main, limit_s=120)


def test_a_master_that_is_stopped_leads_on_until_another_could_lead_at_once() -> None:
    """A large partition is served until its next leader has it replayed, or for 24 s."""
    assert 4_000 <= _leaves_after_ms(_leading_seat(jobs=100_000), ready_ms=4_000) <= 4_200
    assert 24_000 <= _leaves_after_ms(_leading_seat(jobs=100_000), ready_ms=None) <= 24_100


def test_a_master_that_is_stopped_while_it_recovers_leads_on_too() -> None:
    """Others would have to begin at the beginning, and a small partition is left at once."""
    seat = _seat(WonElection(), UnmarkedJournal())
    assert 4_000 <= _leaves_after_ms(seat, ready_ms=4_000) <= 4_200
    assert _leaves_after_ms(_seat(WonElection(), UnmarkedJournal()), ready_ms=0) == 0

    async def main() -> int:
        clock = SimClock()
        seat = _seat(WonElection(), UnmarkedJournal())
        _meet_another(seat)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(seat._leave_when_stopped())
            seat.stop()
            await clock.sleep(1_000)
            assert not seat._leaving.is_set()
            began = _leading_seat(jobs=100)
            seat._term, seat._keeper = began._term, began._keeper
            since_ms = clock.boot_ms()
            await seat._leaving.wait()
            return clock.boot_ms() - since_ms

    assert run_virtual(main, limit_s=120) <= 100


@pytest.mark.parametrize("why", ["ready", "alone", "ending", "small", "frozen", "full"])
def test_a_master_that_is_stopped_waits_for_nothing_that_helps_nobody(why: str) -> None:
    """It goes at once: another is ready, or none stays, or recovers soon, or it cannot serve."""
    seat = _leading_seat(jobs=100 if why == "small" else 100_000)
    assert seat._term is not None
    assert seat._keeper is not None
    seat._keeper.frozen = why == "frozen"
    seat._term.gate.full = why == "full"
    ready_ms = 0 if why == "ready" else None
    alone, ending = why == "alone", why == "ending"
    assert _leaves_after_ms(seat, ready_ms=ready_ms, alone=alone, ending=ending) == 0


@pytest.mark.parametrize("refusal", [StoreFull("full"), StoreUnavailable("away")])
def test_a_mark_of_a_corrupt_journal_that_cannot_be_written_is_tried_now_and_then(
    refusal: TenureError,
) -> None:
    """A partition that cannot be read is campaigned for every few seconds, not all the time."""

    async def main() -> None:
        election, journal = WonElection(), CorruptStore(refusal)
        seat = _seat(election, journal)
        journal.on_many_halts = seat.stop
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(seat.run())
            await SimClock().sleep(60_000)
            assert 5 <= journal.halts <= 15
            assert election.campaigns == journal.halts
            status = seat.status()
            assert status.role == cluster_pb2.PARTITION_ROLE_HALTED
            assert "expected a batch" in status.detail
            seat.stop()

    run_virtual(main, limit_s=120)
