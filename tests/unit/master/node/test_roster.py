"""The roster: what it knows of the other masters' clocks, and who may lead next."""

from dataclasses import replace

from tenure.master.election.port import Candidate, Member, Nomination
from tenure.master.node.roster import Roster
from tests.unit.master.node.test_clock import Machine


def candidate(name: str) -> Candidate:
    """A master."""
    return Candidate(incarnation=f"{name}-1", name=name, address=f"{name}:1")


def member(name: str, wall_ms: int, **more: object) -> Member:
    """What a master has written of itself."""
    return Member(candidate=candidate(name), version="1", wall_ms=wall_ms, **more)  # type: ignore[arg-type]


def roster(machine: Machine) -> Roster:
    """Master a's."""
    return Roster(cluster_id="c", partitions=1, me=candidate("a"), clock=machine)


def test_walls_of_others_go_on() -> None:
    """A wall is as old as what its master wrote, and a dead master writes nothing any more."""
    machine = Machine()
    found = roster(machine)
    for _ in range(3):
        found.meet([member("a", 1_000_000), member("b", 1_000_400)])
        machine.boot += 5_000
        machine.wall += 5_000
    assert found.walls_ms() == [1_015_400, 1_015_000]


def test_the_freshest_word_counts() -> None:
    """What was read long after it was written does not hold a master's clock back."""
    machine = Machine()
    found = roster(machine)
    for delay_ms in (1_900, 40, 1_500):
        machine.boot += 2_000
        machine.wall += 2_000
        # Its clock is 10 s ahead.
        found.meet([member("b", machine.wall + 10_000 - delay_ms)])
    assert found.walls_ms() == [machine.wall + 9_960, machine.wall]


def test_news_that_was_long_on_its_way_is_no_clock_that_is_behind() -> None:
    """Of clocks that may be equal none is wrong."""
    machine = Machine()
    found = roster(machine)
    found.meet([member("b", machine.wall - 9_000), member("c", machine.wall - 4_000)])
    assert found.walls_ms() == [machine.wall] * 3


def test_a_clock_that_was_set_back_is_believed_in_the_end() -> None:
    """Only the last words of a master count."""
    machine = Machine()
    found = roster(machine)
    found.meet([member("b", machine.wall + 60_000)])
    for _ in range(8):
        machine.boot += 2_000
        machine.wall += 2_000
        found.meet([member("b", machine.wall)])
    assert found.walls_ms() == [machine.wall, machine.wall]


def test_who_has_gone_is_forgotten() -> None:
    """Alone, a master goes by its own wall."""
    machine = Machine()
    found = roster(machine)
    found.meet([member("a", 0), member("b", 0)])
    found.meet([member("a", 0)])
    assert found.walls_ms() == [machine.wall]


def test_who_has_it_replayed_may_lead_first() -> None:
    """All come to the same order, and an operator's word counts for more."""
    found = roster(Machine())
    found.meet([member(name, 0) for name in "abc"])
    first, second, third = found.order(0)
    assert found.heirs(0) == [first, second, third]
    ready = [member(first, 0), member(second, 0), member(third, 0, caught_up=[0])]
    found.meet(ready)
    assert found.heirs(0) == [third, first, second]
    assert found.rank(0) == found.heirs(0).index("a")
    assert found.yields(0) is (third != "a")
    found.meet([*ready[1:], member(first, 0, nominations={0: Nomination(second, 5)})])
    assert found.heirs(0) == [second, third, first]
    assert not found.yields(0)


def test_what_a_process_that_has_ended_had_replayed_makes_nobody_ready() -> None:
    """Its key may outlive it by a while: its successor begins with nothing."""
    found = roster(Machine())
    former = member("b", 0, caught_up=[0], ending=True)
    anew = replace(candidate("b"), incarnation="b-2")
    for caught_up in ([], [0]):
        found.meet([member("a", 0), former, replace(former, candidate=anew, caught_up=caught_up)])
        assert found.is_ready("b", 0) is bool(caught_up)


def test_who_is_to_end_is_nobodys_heir() -> None:
    """It goes; the partitions that it was to lead are shared out among those that stay."""
    found = roster(Machine())
    found.meet([member(name, 0, workers=1, caught_up=[0]) for name in "abc"])
    going, staying = (n for n in found.order(0) if n != "a")
    found.meet([replace(m, ending=m.candidate.name == going) for m in found.members])

    assert sorted(found.heirs(0)) == sorted(["a", staying])
    assert going not in found.shares()
    assert found.successors({0: "a"}) == {0: staying}
    assert [n for n in "abc" if found.is_ending(candidate(n))] == [going]


def test_who_no_worker_reaches_is_no_heir_for_having_it_replayed() -> None:
    """It would have to hand it over again."""
    found = roster(Machine())
    found.meet([member("a", 0, workers=1), member("b", 0, workers=1)])
    reached = found.heirs(0)
    found.meet([*found.members, member("c", 0, caught_up=[0])])
    assert [name for name in found.heirs(0) if name != "c"] == reached
    assert found.heirs(0)[0] != "c"
