"""The keeper: proof of an office, freeze and thaw, pauses."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tenure.master.backend.errors import OfficeLost
from tenure.master.node.keeper import Keeper
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tests.unit.master.node.fakes import FakeOffice


class FakeTerm:
    """What an office is kept for; remembers what it was told."""

    def __init__(self) -> None:
        self.turning = True
        self.stuck = 0
        self.freezes = 0
        self.thaws = 0
        self.gaps: list[int] = []
        self._turns = 0

    def turns(self) -> int:
        self._turns += self.turning
        return self._turns

    def stuck_ms(self) -> int:
        return self.stuck

    def freeze(self) -> None:
        self.freezes += 1

    def thaw(self) -> None:
        self.thaws += 1

    def resume(self, gap_ms: int) -> None:
        self.gaps.append(gap_ms)


Story = Callable[[Keeper, FakeOffice, FakeTerm, SimClock], Awaitable[None]]


def _tell(story: Story, ttl_ms: int | None = 6_000) -> None:
    async def main() -> None:
        clock, office, term = SimClock(), FakeOffice(ttl_ms), FakeTerm()
        keeper = Keeper(office, clock, sent_ms=clock.boot_ms())
        keeper.kept = term
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(keeper.run())
            await story(keeper, office, term, clock)
            run.cancel()

    run_virtual(main)


def test_answered_keepalives_hold_the_office() -> None:
    """With a store that answers, the office holds for as long as one likes."""

    async def story(keeper: Keeper, office: FakeOffice, term: FakeTerm, clock: SimClock) -> None:
        for _ in range(600):
            await clock.sleep(100)
            assert keeper.may_act()
        assert 35 <= office.renewals <= 45

    _tell(story)


def test_freezes_before_the_ttl_is_over() -> None:
    """Without answers, effects stop at sent + TTL - TTL/10 - 500 ms: before anyone else can win."""

    async def story(keeper: Keeper, office: FakeOffice, term: FakeTerm, clock: SimClock) -> None:
        office.answers = False
        await clock.sleep(4_800)
        assert keeper.may_act()
        assert term.freezes == 0
        await clock.sleep(200)
        assert not keeper.may_act()
        assert keeper.frozen
        await clock.sleep(5_000)
        assert term.freezes == 1

    _tell(story)


def test_thaws_with_the_same_office() -> None:
    """The store is back and the key is ours: the term is told to start all TTLs anew."""

    async def story(keeper: Keeper, office: FakeOffice, term: FakeTerm, clock: SimClock) -> None:
        office.answers = False
        await clock.sleep(20_000)
        assert term.thaws == 0
        office.answers = True
        await clock.sleep(600)
        assert term.thaws == 1
        assert keeper.may_act()
        assert office.verifications == 1

    _tell(story)


def test_a_lost_office_is_raised() -> None:
    """The store is back and the key is not ours: the term ends, frozen or not."""

    async def story(keeper: Keeper, office: FakeOffice, term: FakeTerm, clock: SimClock) -> None:
        office.lost = True
        await clock.sleep(2_000)

    with pytest.raises(ExceptionGroup) as caught:
        _tell(story)
    assert caught.group_contains(OfficeLost)


def test_a_pause_is_checked_before_anything_is_judged() -> None:
    """After a gap > TTL/3 nothing leaves until the key is verified; then deadlines are pushed."""

    async def story(keeper: Keeper, office: FakeOffice, term: FakeTerm, clock: SimClock) -> None:
        await clock.sleep(1_000)
        clock.boot_offset_ms += 3_000
        assert not keeper.may_act()
        assert term.gaps == []
        await clock.sleep(600)
        assert office.verifications == 1
        assert len(term.gaps) == 1
        assert 3_000 <= term.gaps[0] <= 3_500
        assert keeper.may_act()

    _tell(story)


def test_deadlines_are_pushed_by_the_check_too() -> None:
    """Heartbeats get HOLD until a pause is checked: workers get back all of that time."""

    async def story(keeper: Keeper, office: FakeOffice, term: FakeTerm, clock: SimClock) -> None:
        await clock.sleep(1_000)
        office.verify_ms = 4_000
        paused_ms = clock.boot_ms()
        clock.boot_offset_ms += 11_000
        while not term.gaps:
            assert not keeper.may_act()
            await clock.sleep(50)
        # The last tick may have been a while before the pause.
        assert 0 <= term.gaps[0] - (clock.boot_ms() - paused_ms) <= 300

    _tell(story, ttl_ms=30_000)


def test_deadlines_are_pushed_by_checks_that_failed() -> None:
    """A store that does not answer the first check costs no worker its leases either."""

    async def story(keeper: Keeper, office: FakeOffice, term: FakeTerm, clock: SimClock) -> None:
        await clock.sleep(1_000)
        office.answers = False
        paused_ms = clock.boot_ms()
        clock.boot_offset_ms += 11_000
        await clock.sleep(5_000)
        office.answers = True
        while not term.gaps:
            await clock.sleep(50)
        assert 0 <= term.gaps[0] - (clock.boot_ms() - paused_ms) <= 300

    _tell(story, ttl_ms=30_000)


def test_a_pause_past_the_ttl_freezes() -> None:
    """A zombie that wakes past its TTL sends nothing, and its keepalive decides what it is."""

    async def story(keeper: Keeper, office: FakeOffice, term: FakeTerm, clock: SimClock) -> None:
        await clock.sleep(1_000)
        clock.boot_offset_ms += 20_000
        assert not keeper.may_act()
        office.lost = True
        await clock.sleep(1_000)

    with pytest.raises(ExceptionGroup) as caught:
        _tell(story)
    assert caught.group_contains(OfficeLost)


@pytest.mark.parametrize("trouble", ["wedged loop", "stuck batch"])
def test_a_leader_that_cannot_work_lets_go(trouble: str) -> None:
    """No keepalive is sent while the owner loop does not turn, or while a batch is stuck."""

    async def story(keeper: Keeper, office: FakeOffice, term: FakeTerm, clock: SimClock) -> None:
        await clock.sleep(2_000)
        term.turning = trouble != "wedged loop"
        term.stuck = 10_000 if trouble == "stuck batch" else 0
        renewals = office.renewals
        await clock.sleep(3_000)
        assert office.renewals <= renewals + 1

    _tell(story)


def test_an_office_without_ttl_never_freezes() -> None:
    """SQLite's office cannot be lost; a pause still pushes the lease deadlines."""

    async def story(keeper: Keeper, office: FakeOffice, term: FakeTerm, clock: SimClock) -> None:
        await clock.sleep(100_000)
        assert keeper.may_act()
        assert office.renewals == 0
        clock.boot_offset_ms += 5_000
        await clock.sleep(600)
        assert len(term.gaps) == 1
        assert keeper.may_act()

    _tell(story, ttl_ms=None)


@pytest.mark.parametrize("wedge", ["stuck", "still"])
def test_a_wedged_leader_loses_its_office(wedge: str) -> None:
    """A store that answers keepalives does not keep a leader in office that gets nothing done."""

    async def story(keeper: Keeper, office: FakeOffice, term: FakeTerm, clock: SimClock) -> None:
        await clock.sleep(5_000)
        if wedge == "stuck":
            term.stuck = 10_000
        else:
            term.turning = False
        await clock.sleep(2_000)
        renewals = office.renewals
        await clock.sleep(20_000)
        assert office.renewals == renewals
        assert term.freezes == 1
        # Nobody has taken it: when the batch gets in after all, the office is kept.
        term.stuck, term.turning = 0, True
        await clock.sleep(1_000)
        assert term.thaws == 1
        assert keeper.may_act()

    _tell(story)
