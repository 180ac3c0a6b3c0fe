"""A master that no worker reaches, while workers reach others."""

import pytest

from tenure.master.election.port import Candidate, Member
from tenure.master.node.hub import WorkerHub
from tenure.master.node.roster import Roster
from tenure.master.node.solitude import Solitude
from tenure.v1 import worker_pb2


class Hand:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_000

    def boot_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return self.now_ms

    async def sleep(self, ms: int) -> None:
        self.now_ms += ms


def member(name: str, workers: int) -> Member:
    """A master, and how many workers it says it has."""
    candidate = Candidate(incarnation=f"of {name}", name=name, address=f"{name}:7400")
    return Member(candidate=candidate, version="1", wall_ms=0, workers=workers)


class Scene:
    """Master "a", its hub and its clock."""

    def __init__(self) -> None:
        self.hub, self.clock = WorkerHub(), Hand()
        me = member("a", 0).candidate
        self.roster = Roster(cluster_id="c", partitions=1, me=me, clock=self.clock)
        self.solitude = Solitude(
            roster=self.roster, hub=self.hub, clock=self.clock, alone_ms=30_000
        )

    def others(self, workers: int) -> None:
        """How many workers the other master has."""
        self.roster.meet([member("a", 9), member("b", workers)])

    def looks(self, count: int) -> list[bool]:
        """What it says, second by second."""
        seen = []
        for _ in range(count):
            seen.append(self.solitude.look())
            self.clock.now_ms += 1_000
        return seen


@pytest.mark.fault(26)
def test_row_26_it_resigns_after_two_ttls_without_workers_that_others_have() -> None:
    """Not a moment earlier, and never while no worker asks anybody."""
    scene = Scene()
    scene.others(0)
    assert not any(scene.looks(100))
    scene.others(3)
    assert scene.looks(32) == [False] * 30 + [True] * 2


@pytest.mark.fault(26)
def test_row_26_one_worker_is_enough() -> None:
    """A worker that comes back begins the time anew."""
    scene = Scene()
    scene.others(3)
    scene.looks(25)
    link = scene.hub.connect(worker_pb2.Hello(incarnation="w", name="w"))
    assert not any(scene.looks(60))
    scene.hub.disconnect(link)
    assert scene.looks(31) == [False] * 30 + [True]


@pytest.mark.fault(26)
def test_row_26_each_time_it_stays_away_longer() -> None:
    """From half a minute up to eight; all partitions that resign together count once."""
    scene = Scene()
    scene.others(1)
    away = []
    for _ in range(6):
        scene.solitude.resign()
        scene.solitude.resign()
        since_ms = scene.clock.now_ms
        while scene.solitude.abstains():
            scene.clock.now_ms += 1_000
        away.append((scene.clock.now_ms - since_ms) // 1_000)
    assert away == [30, 60, 120, 240, 480, 480]


@pytest.mark.fault(26)
def test_row_26_it_stands_again_when_nobody_else_can() -> None:
    """The others are gone, or lost their workers, or a worker is here: it campaigns at once."""
    scene = Scene()
    scene.others(1)
    scene.solitude.resign()
    assert scene.solitude.abstains()
    scene.others(0)
    assert not scene.solitude.abstains()
    scene.others(1)
    assert scene.solitude.abstains()
    scene.hub.connect(worker_pb2.Hello(incarnation="w", name="w"))
    assert not scene.solitude.abstains()
