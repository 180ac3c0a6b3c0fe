"""The balancer: gentle, one at a time, and nothing while anything is amiss."""

import asyncio
import itertools

from tenure.master.election.port import Candidate, Leader, Member, Nomination
from tenure.master.node.balance import Balancer
from tenure.master.node.roster import Roster
from tenure.protocol.fence import Token
from tests.unit.master.node.test_clock import Machine

PARTITIONS = 6


def candidate(name: str) -> Candidate:
    """A master."""
    return Candidate(incarnation=f"{name}-1", name=name, address=f"{name}:1")


class Desk:
    """One master's balancer and what it does, in a cluster that the test describes."""

    def __init__(self, me: str) -> None:
        self.machine = Machine()
        self.roster = Roster(
            cluster_id="c", partitions=PARTITIONS, me=candidate(me), clock=self.machine
        )
        self.well = True
        self.handed: list[tuple[int, int]] = []
        self.now_ms = 0
        self.wishes: dict[int, Nomination] = {}
        #: By name: what a master has replayed; others have all.
        self.replayed: dict[str, list[int]] = {}
        #: Masters that do not answer, though their keys stand.
        self.dead: set[str] = set()
        self.balancer = Balancer(
            self.roster,
            self.machine,
            well=lambda: self.well,
            answers=self._answers,
            hand_over=self._hand_over,
        )

    async def _answers(self, name: str) -> bool:
        return name not in self.dead

    def _hand_over(self, partition: int) -> bool:
        self.handed.append((self.now_ms, partition))
        return True

    def members(self, *names: str, workers: str = "") -> None:
        """These masters live, and some of them have workers."""
        self.roster.meet(
            [
                Member(
                    candidate=candidate(name),
                    version="1",
                    wall_ms=0,
                    workers=int(name in workers),
                    nominations=self.wishes,
                    caught_up=self.replayed.get(name, range(PARTITIONS)),
                )
                for name in names
            ]
        )

    def leaders(self, *names: str | None) -> None:
        """These lead; this master's own partitions are led in full."""
        self.roster.leaders.clear()
        self.roster.terms.clear()
        for number, name in enumerate(names):
            if name == self.roster.me.name:
                self.roster.terms[number] = Settled()  # type: ignore[assignment]
            elif name is not None:
                self.roster.leaders[number] = Leader(
                    candidate=candidate(name), token=Token(1, number + 1)
                )

    def watch(self, seconds: float) -> list[int]:
        """What is handed over in this time."""
        before = len(self.handed)
        asyncio.run(self._watch(int(1_000 * seconds)))
        return [number for _, number in self.handed[before:]]

    async def _watch(self, ms: int) -> None:
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            self.now_ms += 500
            await self.balancer.run_once(self.now_ms)


class Settled:
    """A term in which all is as it should be."""

    open, closing = True, False

    @property
    def partition(self) -> "Settled":
        """Its state."""
        return self

    window_open = False


def test_a_master_that_returns_gets_its_share() -> None:
    """Not at once, one partition, and the next only when all have leaders again for a while."""
    desk = Desk("a")
    desk.members("a")
    desk.leaders(*"aaaaaa")
    assert desk.watch(60) == []
    desk.members("a", "b")
    wanted = desk.roster.shares()
    first, second, *_ = (number for number, name in enumerate(wanted) if name == "b")
    assert desk.watch(5) == []
    assert desk.watch(2) == [first]
    led = ["a"] * PARTITIONS
    led[first] = None  # type: ignore[call-overload]
    desk.leaders(*led)
    assert desk.watch(20) == []
    led[first] = "b"
    desk.leaders(*led)
    assert desk.watch(1.5) == []
    assert desk.watch(1.5) == [second]


def test_only_the_leader_of_the_next_one_acts() -> None:
    """Two masters that both lead too much do not move theirs at the same time."""
    names = ("a", "b", "c")
    shares = share_of(names)
    # c has returned and leads nothing yet: the others lead its part.
    led = [name if name != "c" else "ab"[index % 2] for index, name in enumerate(shares)]
    moved = {}
    for me in names:
        desk = Desk(me)
        desk.members(*names)
        desk.leaders(*led)
        moved[me] = desk.watch(8)

    assert sum(map(len, moved.values())) == 1


def share_of(names: tuple[str, ...]) -> list[str]:
    """Who should lead what among these."""
    desk = Desk(names[0])
    desk.members(*names)
    return desk.roster.shares()


def test_nothing_moves_while_anything_is_amiss() -> None:
    """Neither with a store that does not answer, nor with a master that comes and goes."""
    desk = Desk("a")
    desk.members("a", "b")
    desk.leaders(*"aaaaaa")
    desk.well = False
    assert desk.watch(60) == []
    desk.well = True
    for _ in range(10):
        desk.members("a")
        desk.watch(3)
        desk.members("a", "b")
        assert desk.watch(3) == []


def test_workers_that_come_back_move_nothing() -> None:
    """Masters tell of them one after the other; who is the last is not therefore without any."""
    desk = Desk("a")
    desk.members("a", "b")
    desk.leaders(*desk.roster.shares())
    assert desk.watch(60) == []
    for _ in range(10):
        desk.members("a", "b", workers="b")
        assert desk.watch(3) == []
        desk.members("a", "b", workers="ab")
        assert desk.watch(20) == []
    desk.members("a", "b", workers="b")
    assert desk.watch(8) != []


def test_a_partition_that_comes_back_is_tried_more_and_more_seldom() -> None:
    """Who wins the office in the other's place keeps it for long: it does not flap."""
    desk = Desk("a")
    desk.members("a", "b")
    desk.leaders(*"aaaaaa")
    desk.watch(400)
    first = desk.handed[0][1]
    times = [now_ms for now_ms, number in desk.handed if number == first]
    waits = [later - sooner for sooner, later in itertools.pairwise(times)]

    assert waits == sorted(waits)
    assert waits[0] >= 5_000
    assert len(times) <= 8


def test_an_operators_wish_outweighs_the_balance() -> None:
    """What was handed over by hand stays there while the master lives; the newest wish counts."""
    desk = Desk("a")
    desk.wishes = {number: Nomination("a", 5) for number in range(PARTITIONS)}
    desk.members("a", "b")
    desk.leaders(*"aaaaaa")
    assert desk.watch(60) == []
    desk.wishes[3] = Nomination("gone", 9)
    desk.members("a", "b")
    assert desk.roster.nominations()[3].name == "gone"
    assert desk.roster.shares()[3] in ("a", "b")


def test_a_partition_waits_for_its_next_leader() -> None:
    """Until that has replayed it; one that never does gets it in the end."""
    desk = Desk("a")
    desk.replayed["b"] = []
    desk.members("a", "b")
    desk.leaders(*"aaaaaa")
    first = desk.roster.shares().index("b")
    assert desk.watch(20) == []
    desk.replayed["b"] = [first]
    desk.members("a", "b")
    assert desk.watch(1) == [first]
    other = Desk("a")
    other.replayed["b"] = []
    other.members("a", "b")
    other.leaders(*"aaaaaa")
    assert other.watch(29) == []
    assert other.watch(3) == [first]


def test_nothing_is_handed_to_a_master_that_does_not_answer() -> None:
    """It may have died just now, and its key still stands. It gets its share when it is back."""
    desk = Desk("a")
    desk.members("a", "b")
    desk.leaders(*"aaaaaa")
    first = desk.roster.shares().index("b")
    desk.dead = {"b"}
    assert desk.watch(60) == []
    desk.dead = set()
    assert desk.watch(1) == [first]
