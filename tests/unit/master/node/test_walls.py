"""A machine's wall clock beside the other masters' and the cluster's."""

import pytest

from tenure.master.election.port import Candidate, Member
from tenure.master.node.alarms import Alarms
from tenure.master.node.roster import Roster
from tenure.master.node.walls import Walls
from tests.unit.master.node.test_solitude import Hand


def member(name: str, wall_ms: int, heard_ms: int = 0) -> Member:
    """A master that says this of its clock, and when it last heard of master "a"."""
    candidate = Candidate(incarnation=name, name=name, address=f"{name}:1")
    return Member(candidate=candidate, version="1", wall_ms=wall_ms, heard_ms={"a": heard_ms})


def off(*others_ms: int) -> tuple[bool, list[str]]:
    """Whether master "a" prefers not to lead, and its alarms, given the others' clocks."""
    clock = Hand()
    clock.now_ms = 10_000_000
    me = Candidate(incarnation="a", name="a", address="a:1")
    roster, alarms = Roster(cluster_id="c", partitions=1, me=me, clock=clock), Alarms()
    for _ in range(2):
        clock.now_ms += 2_000
        walls = [clock.now_ms + other_ms for other_ms in others_ms]
        roster.meet([member(str(n), wall_ms, clock.now_ms) for n, wall_ms in enumerate(walls)])
    watch = Walls(roster, clock, alarms)
    watch.look()
    return watch.off, alarms.texts()


@pytest.mark.fault(39)
@pytest.mark.parametrize(
    ("others_ms", "expected"),
    [
        ((), ""),
        ((4_000,), ""),
        ((6_000,), "6.0 s behind"),
        ((-3_600_000,), "3600.0 s ahead of"),
        # Of three, the two that agree are right.
        ((0, 3_600_000), ""),
        ((3_600_000, 3_600_100), "3600.0 s behind"),
    ],
)
def test_row_39_a_clock_that_is_off_is_told_of(others_ms: tuple[int, ...], expected: str) -> None:
    """More than 5 s off the others raises an alarm, and the master prefers not to lead."""
    is_off, texts = off(*others_ms)
    assert is_off == bool(expected)
    assert len(texts) == int(is_off)
    assert all(expected in text for text in texts)


@pytest.mark.fault(39)
def test_row_39_a_clock_that_is_off_the_journal_is_told_of_until_the_term_ends() -> None:
    """The term's clock began at the last journaled stamp."""
    clock, alarms = Hand(), Alarms()
    me = Candidate(incarnation="a", name="a", address="a:1")
    walls = Walls(Roster(cluster_id="c", partitions=1, me=me, clock=clock), clock, alarms)
    walls.compare(0, clock.now_ms + 4_000)
    assert alarms.texts() == []
    walls.compare(0, clock.now_ms + 7_500)
    assert "7.5 s behind" in alarms.texts()[0]
    walls.forget(0)
    assert alarms.texts() == []


@pytest.mark.fault(45)
def test_row_45_a_wall_that_was_never_renewed_is_no_evidence() -> None:
    """In a full store member keys stay as they were: a master that starts then is not off."""
    clock, alarms = Hand(), Alarms()
    me = Candidate(incarnation="a", name="a", address="a:1")
    roster = Roster(cluster_id="c", partitions=1, me=me, clock=clock)
    walls = Walls(roster, clock, alarms)
    stale = member("b", clock.now_ms)
    for _ in range(10):
        clock.now_ms += 2_000
        roster.meet([stale])
        walls.look()
    assert (walls.off, alarms.texts()) == (False, [])
    roster.meet([member("b", clock.now_ms)])
    walls.look()
    assert (walls.off, alarms.texts()) == (False, [])


@pytest.mark.fault(45)
def test_row_45_no_term_begins_by_walls_of_unknown_age() -> None:
    """A master whose first key a full store refused waits until it takes keys, and all are new."""
    clock = Hand()
    me = Candidate(incarnation="a", name="a", address="a:1")
    roster = Roster(cluster_id="c", partitions=1, me=me, clock=clock)
    assert roster.knows_walls()
    roster.registered(done=False)
    clock.now_ms += 60_000
    assert not roster.knows_walls()
    roster.registered(done=True)
    assert not roster.knows_walls()
    clock.now_ms += 3_500
    assert roster.knows_walls()
    # Later it has seen the others' keys change: it knows how old they are.
    roster.registered(done=False)
    assert roster.knows_walls()
