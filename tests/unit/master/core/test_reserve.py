"""Reserves by themselves: how many slots are kept free, for whom, and what of it is taken."""

import pytest

from tenure.master.core.command import CloseSession, DrainSession
from tenure.master.core.gate import MANY, Queue
from tenure.master.core.record import Policy
from tenure.master.core.reserve import Reserves
from tenure.master.core.session import Session
from tenure.master.core.settings import QueueSettings
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig, held

URGENT = Policy(name="job", queue="urgent")
OTHER = Policy(name="job", queue="other")


def reserving(rig: Rig, **shares: float) -> list[Queue]:
    """Gives queues their shares, for priorities up to 4."""
    for name, share in shares.items():
        settings = QueueSettings(reserved=share, reserved_priority=4)
        rig.configure(("default", name), settings)
    queues = state_of(rig.partition).lanes.queues
    return [queues["default", name] for name in shares]


def session_of(rig: Rig, session_id: int) -> Session:
    """A session that is there."""
    return state_of(rig.partition).sessions[session_id]


def reserves_of(rig: Rig, *credits: tuple[int, int]) -> Reserves:
    """What is kept free while these take: (session, credit)."""
    state = state_of(rig.partition)
    takers = [(state.sessions[session_id], credit) for session_id, credit in credits]
    return Reserves(state.lanes.reserving, state.sessions.values(), takers)


def test_without_a_reserve_all_may_be_taken() -> None:
    """As much as anybody likes, whatever has been taken."""
    rig = Rig()
    rig.submit(1, OTHER)
    rig.open_session(1)
    queue = state_of(rig.partition).lanes.queues["default", "other"]
    reserves = reserves_of(rig, (1, 10))
    skill = session_of(rig, 1).skill
    reserves.take(skill, queue, 0, 5)
    assert not reserves
    assert (reserves.spare(skill), reserves.room(skill, queue, 0)) == (MANY, MANY)
    assert reserves.unmet(skill) == []


@pytest.mark.parametrize(("share", "due"), [(0.3, 3), (0.25, 3), (0.01, 1), (0.99, 10)])
def test_a_share_of_the_slots_is_due_and_rounded_up(share: float, due: int) -> None:
    """Others may take the rest, and jobs of the reserve's priorities all of it."""
    rig = Rig()
    (queue,) = reserving(rig, urgent=share)
    rig.open_session(1, slots=10)
    skill = session_of(rig, 1).skill
    reserves = reserves_of(rig, (1, 10))
    assert reserves
    assert (reserves.spare(skill), reserves.unmet(skill)) == (10 - due, [(queue, due)])
    assert [reserves.room(skill, queue, priority) for priority in (4, 5)] == [10, 10 - due]


def test_what_runs_of_the_reserves_priorities_is_not_due_any_more() -> None:
    """However much that is; what runs of other priorities does not count."""
    rig = Rig()
    (queue,) = reserving(rig, urgent=0.3)
    rig.open_session(1, slots=10)
    skill = session_of(rig, 1).skill
    for priority, due in ((5, 3), (4, 2), (0, 1), (4, 0), (4, 0)):
        rig.submit(1, URGENT, priority=priority)
        assert len(rig.grant(1, 10)) == 1
        reserves = reserves_of(rig, (1, 1))
        assert reserves.unmet(skill) == ([(queue, due)] if due else [])
        assert reserves.spare(skill) == 1 - due


def test_slots_of_those_who_serve_the_queue_count() -> None:
    """Not of those who serve other queues or jobs, drain, or have another stream by now."""
    rig = Rig()
    (queue,) = reserving(rig, urgent=0.5)
    rig.open_session(1, slots=50)
    rig.open_session(7, "w1", slots=4)
    rig.open_session(2, queues=("urgent",), slots=6)
    rig.open_session(3, queues=("other",), slots=100)
    rig.open_session(4, slots=100)
    rig.do(DrainSession(session_id=4))
    rig.open_session(5, slots=100)
    rig.do(CloseSession(session_id=5))
    rig.open_session(6, names=("another",), slots=20)
    skills = [session_of(rig, number).skill for number in (7, 2, 3, 6)]
    # Nobody knows yet which jobs the queue will have.
    assert [bool(reserves_of(rig).unmet(skill)) for skill in skills] == [True, True, False, True]
    assert reserves_of(rig).unmet(skills[0]) == [(queue, 15)]
    rig.submit(1, URGENT)
    assert [bool(reserves_of(rig).unmet(skill)) for skill in skills] == [True, True, False, False]
    reserves = reserves_of(rig, (7, 4), (2, 6), (3, 100))
    assert [reserves.unmet(skill) for skill in skills[:2]] == [[(queue, 5)]] * 2
    # What is free of all who serve it is what others may use together.
    assert [reserves.spare(skill) for skill in skills] == [5, 5, MANY, MANY]
    assert reserves.room(skills[2], queue, 0) == MANY


def test_slots_that_are_taken_are_not_free() -> None:
    """A taker may take its credit, and no more than it has slots; fewer than none are none."""
    rig = Rig()
    (queue,) = reserving(rig, urgent=0.1)
    rig.open_session(1, slots=10)
    skill = session_of(rig, 1).skill
    rig.submit(7, OTHER)
    rows = rig.grant(1, 10)
    assert len(rows) == 7
    spare = [reserves_of(rig, (1, credit)).spare(skill) for credit in (2, 3, 9)]
    assert spare == [1, 2, 2]
    rig.open_session(2, "w1", slots=5, declare=[held(row) for row in rows])
    reserves, skill = reserves_of(rig, (2, 9)), session_of(rig, 2).skill
    assert (reserves.spare(skill), reserves.room(skill, queue, 9)) == (-1, 0)


def test_two_reserves_are_kept_beside_each_other() -> None:
    """Others leave both free; each one's own jobs may use their own."""
    rig = Rig()
    first, second = reserving(rig, first=0.2, second=0.3)
    rig.open_session(1, slots=10)
    rig.open_session(2, queues=("first",), slots=10)
    both, one = (session_of(rig, number).skill for number in (1, 2))
    reserves = reserves_of(rig, (1, 10), (2, 10))
    assert reserves.unmet(both) == [(first, 4), (second, 3)]
    # Of the second only the ten are free that serve it.
    assert (reserves.spare(both), reserves.spare(one)) == (3, 16)
    assert [reserves.room(both, queue, 4) for queue in (first, second)] == [7, 6]
    assert [reserves.room(one, queue, 4) for queue in (first, second)] == [20, 16]


def test_what_is_taken_leaves_less_and_meets_what_is_due() -> None:
    """Who takes in a reserve takes of what it is due; whoever else does, of the rest."""
    rig = Rig()
    (queue,) = reserving(rig, urgent=0.3)
    rig.submit(1, OTHER)
    other = state_of(rig.partition).lanes.queues["default", "other"]
    rig.open_session(1, slots=10)
    skill = session_of(rig, 1).skill
    reserves = reserves_of(rig, (1, 10))
    steps = [(queue, 9, 1, 6, 3), (other, 0, 1, 5, 3), (queue, 4, 2, 5, 1), (queue, 0, 2, 4, 0)]
    for taken, priority, jobs, spare, due in steps:
        reserves.take(skill, taken, priority, jobs)
        assert reserves.spare(skill) == spare
        assert reserves.unmet(skill) == ([(queue, due)] if due else [])
