"""Standbys: who follows what, in which order and at what pace."""

import asyncio
from dataclasses import replace

from tenure.master.election.port import Candidate, Leader, Member, Nomination
from tenure.master.node.roster import Roster
from tenure.master.node.standby import Standbys
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tests.unit.master.core.rig import CONFIG
from tests.unit.master.node.fakes import count_states
from tests.unit.master.node.standby_rig import TOKEN, Log


def _standbys(roster: Roster, clock: SimClock, *logs: Log) -> Standbys:
    """Those of a master whose partitions have these journals."""
    return Standbys(
        roster, clock, reader=lambda number: logs[number].port, config=lambda number: CONFIG
    )


def _follower(clock: SimClock) -> Roster:
    """Of one of two masters; the other leads the only partition."""
    me, boss = (Candidate(incarnation=n, name=n, address=f"{n}:1") for n in ("a", "b"))
    roster = Roster(cluster_id="c", partitions=1, me=me, clock=clock)
    roster.leaders[0] = Leader(candidate=boss, token=TOKEN)
    return roster


def test_the_next_leader_follows_and_nobody_else() -> None:
    """Of the masters that do not lead it, the first in the order of campaigns; not at once."""

    async def main() -> None:
        clock = SimClock()
        people = [Candidate(incarnation=n, name=n, address=f"{n}:1") for n in ("a", "b", "c")]
        members = [
            Member(candidate=person, version="1", wall_ms=clock.wall_ms()) for person in people
        ]
        log = Log()
        followers: list[str] = []
        order: list[str] = []
        for me in people:
            roster = Roster(cluster_id="c", partitions=1, me=me, clock=clock)
            roster.meet(members)
            order = roster.order(0)
            boss = next(person for person in people if person.name == order[1])
            roster.leaders[0] = Leader(candidate=boss, token=TOKEN)
            standbys = _standbys(roster, clock, log)
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(standbys.run())
                await clock.sleep(2_500)
                assert standbys.seqs() == {}
                await clock.sleep(3_000)
                if standbys.seqs():
                    followers.append(me.name)
                    await _leads_for_a_while(standbys, roster, clock)
                task.cancel()
        assert followers == [order[0]]

    run_virtual(main, limit_s=120)


async def _leads_for_a_while(standbys: Standbys, roster: Roster, clock: SimClock) -> None:
    """A follower's office is won, and lost again; a vacancy takes nothing from it."""
    leader = roster.leaders.pop(0)
    await clock.sleep(10_000)
    assert standbys.seqs()
    roster.leaders[0] = leader
    assert standbys.take(0) is not None
    await clock.sleep(10_000)
    assert standbys.seqs() == {}
    assert standbys.take(0) is None
    standbys.release(0)
    await clock.sleep(10_000)
    assert standbys.seqs()
    roster.halted[0] = "why"
    await clock.sleep(10_000)
    assert standbys.seqs() == {}


def test_nothing_is_left_of_what_is_followed_no_more(rare_collector: None) -> None:
    """Another follows it now, or leads it here: what was replayed goes, and the log stays."""

    async def main() -> None:
        clock = SimClock()
        roster, log = _follower(clock), Log()
        before = count_states()
        standbys = _standbys(roster, clock, log)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(standbys.run())
            await clock.sleep(10_000)
            assert count_states() == before + 1
            roster.halted[0] = "why"
            await clock.sleep(10_000)
            assert count_states() == before
            task.cancel()

    run_virtual(main, limit_s=60)


def test_a_master_that_is_to_end_is_nobodys_standby() -> None:
    """It follows nothing more, and begins nothing: the next leader is to be one that stays."""

    async def main() -> None:
        clock = SimClock()
        roster, log = _follower(clock), Log()
        standbys = _standbys(roster, clock, log)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(standbys.run())
            await clock.sleep(10_000)
            assert standbys.caught_up() == [0]
            standbys.end()
            assert standbys.caught_up() == []
            await clock.sleep(10_000)
            assert standbys.seqs() == {}
            task.cancel()

    run_virtual(main, limit_s=60)


def test_who_follows_goes_on_until_another_is_ready() -> None:
    """When another master should follow instead, there is a standby meanwhile."""

    async def main() -> None:
        clock, log = SimClock(), Log()
        people = [Candidate(incarnation=n, name=n, address=f"{n}:1") for n in ("a", "b", "c")]
        members = {
            person.name: Member(candidate=person, version="1", wall_ms=clock.wall_ms())
            for person in people
        }
        scout = Roster(cluster_id="c", partitions=1, me=people[0], clock=clock)
        scout.meet(list(members.values()))
        preferred, leader, me = scout.order(0)
        roster = Roster(cluster_id="c", partitions=1, me=members[me].candidate, clock=clock)
        roster.meet([members[leader], members[me]])
        roster.leaders[0] = Leader(candidate=members[leader].candidate, token=TOKEN)
        standbys = _standbys(roster, clock, log)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(standbys.run())
            await clock.sleep(8_000)
            assert standbys.caught_up() == [0]
            roster.meet(list(members.values()))
            await clock.sleep(60_000)
            assert standbys.caught_up() == [0]
            members[preferred] = replace(members[preferred], caught_up=[0])
            roster.meet(list(members.values()))
            await clock.sleep(8_000)
            assert standbys.caught_up() == []
            task.cancel()

    run_virtual(main, limit_s=120)


def test_nothing_is_replayed_while_a_term_begins() -> None:
    """A seat that is about to lead has the loop for itself; what is journaled is read later."""

    async def main() -> None:
        clock, log = SimClock(), Log()
        roster, _ = _pair(clock, "life", {})
        standbys = _standbys(roster, clock, log)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(standbys.run())
            await clock.sleep(8_000)
            with standbys.at_rest():
                log.submit(1)
                await clock.sleep(2_000)
                seqs = standbys.seqs()
                log.submit(5)
                await clock.sleep(2_000)
                assert standbys.seqs() == seqs
            await clock.sleep(2_000)
            assert standbys.seqs() == {0: log.rig.partition.next_seq - 1}
            task.cancel()

    run_virtual(main, limit_s=60)


def _long_logs() -> list[Log]:
    """Of two partitions; each takes five seconds to read."""
    logs = [Log(), Log()]
    for log in logs:
        log.batch_ms = 100
        for _ in range(50):
            log.submit(1)
    return logs


def test_one_partition_is_loaded_after_the_other() -> None:
    """The first is ready before the second is begun, and not both at the end."""

    async def main() -> None:
        clock, logs = SimClock(), _long_logs()
        roster, _ = _pair(clock, "life", {}, partitions=2)
        standbys = _standbys(roster, clock, *logs)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(standbys.run())
            while not standbys.caught_up():
                await clock.sleep(100)
            assert standbys.caught_up() == [0]
            assert standbys.seqs().get(1, 0) == 0
            await clock.sleep(6_000)
            assert standbys.caught_up() == [0, 1]
            task.cancel()

    run_virtual(main, limit_s=60)


def test_a_leader_that_is_to_end_is_not_kept_waiting() -> None:
    """Its partition is followed at once; others are loaded when nobody waits any more."""

    async def main() -> None:
        clock, logs = SimClock(), _long_logs()
        roster, members = _pair(clock, "life", {}, partitions=2)
        leader = Candidate(incarnation="ending", name="ending", address="ending:1")
        del roster.leaders[1]
        standbys = _standbys(roster, clock, *logs)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(standbys.run())
            while not standbys.seqs():
                await clock.sleep(100)
            roster.leaders[1] = Leader(candidate=leader, token=TOKEN)
            mine = replace(members[0], nominations={1: Nomination("me", 1)})
            last = Member(candidate=leader, version="1", wall_ms=0, ending=True)
            roster.meet([mine, *members[1:], last])
            # Others rest while this master is about to lead something else; this one does not.
            with standbys.at_rest():
                await clock.sleep(6_500)
                assert standbys.caught_up() == [1]
                await clock.sleep(6_500)
                assert standbys.caught_up() == [1]
            await clock.sleep(7_000)
            assert standbys.caught_up() == [1]
            roster.meet([mine, *members[1:]])
            await clock.sleep(8_000)
            assert sorted(standbys.caught_up()) == [0, 1]
            task.cancel()

    run_virtual(main, limit_s=60)


def test_a_master_that_is_about_to_take_over_keeps_half_of_its_loop_free() -> None:
    """A leader that ends hands over what is ready: what else it waits for is loaded more slowly."""

    async def main() -> None:
        clock, logs = SimClock(), [Log(), Log()]
        for log in logs:
            for _ in range(40):
                log.submit(100)
        roster, members = _pair(clock, "life", {}, partitions=2)
        roster.meet([members[0], replace(members[1], ending=True)])
        standbys = _standbys(roster, clock, *logs)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(standbys.run())
            ready_ms = []
            for count in (1, 2):
                while len(standbys.caught_up()) < count:
                    await clock.sleep(1)
                ready_ms.append(clock.boot_ms())
            # The first takes no virtual time but that of the review that begins it.
            # A load that nobody has to make room for takes no virtual time but the test's own.
            assert ready_ms[0] < 1_050
            assert ready_ms[1] - ready_ms[0] >= 200
            task.cancel()

    run_virtual(main, limit_s=60)


def test_what_a_leader_waits_for_is_loaded_also_by_who_has_died_of_it() -> None:
    """The partition is about to be recovered by somebody in any case, and then without a leader."""

    async def main() -> None:
        clock, log = SimClock(), Log()
        roster, members = _pair(clock, "life", {0: 3})
        standbys = _standbys(roster, clock, log)
        standbys.inherit(members)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(standbys.run())
            await clock.sleep(20_000)
            assert not standbys.seqs()
            roster.meet([members[0], replace(members[1], ending=True)])
            await clock.sleep(3_000)
            assert standbys.caught_up() == [0]
            task.cancel()

    run_virtual(main, limit_s=60)


def test_who_dies_of_what_it_follows_waits_longer_and_longer() -> None:
    """A process that is killed once follows on at once; one that dies of it costs little."""

    async def main() -> None:
        clock = SimClock()
        log = Log()
        following: dict[int, int] = {}
        waits_s: list[int] = []
        for life in range(7):
            roster, members = _pair(clock, f"life-{life}", following)
            standbys = _standbys(roster, clock, log)
            standbys.inherit(members)
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(standbys.run())
                began_ms = clock.boot_ms()
                while not standbys.seqs():
                    following = dict(standbys.deaths())
                    await clock.sleep(1_000)
                waits_s.append((clock.boot_ms() - began_ms) // 1_000)
                assert following == dict(standbys.deaths()) == {0: life % 6}
                if life == 5:
                    await clock.sleep(70_000)
                    following = dict(standbys.deaths())
                    assert following == {0: 0}
                    following = {}
                task.cancel()
        short = waits_s[0]
        assert short < 6
        assert waits_s[1] == waits_s[6] == short
        for found, wait in zip(waits_s[2:6], (60, 240, 960, 960), strict=True):
            assert wait <= found <= wait + 6

    run_virtual(main, limit_s=4_000)


def _pair(
    clock: SimClock, incarnation: str, following: dict[int, int], *, partitions: int = 1
) -> tuple[Roster, list[Member]]:
    """A master's view beside the one that leads; its former self, which followed, has just died."""
    me = Candidate(incarnation=incarnation, name="me", address="me:1")
    other = Candidate(incarnation="other", name="other", address="other:1")
    former = Candidate(incarnation="former", name="me", address="me:1")
    wall_ms = clock.wall_ms()
    members = [
        Member(candidate=me, version="1", wall_ms=wall_ms),
        Member(candidate=other, version="1", wall_ms=wall_ms),
        Member(candidate=former, version="1", wall_ms=wall_ms, following=following),
    ]
    roster = Roster(cluster_id="c", partitions=partitions, me=me, clock=clock)
    roster.meet(members)
    for number in range(partitions):
        roster.leaders[number] = Leader(candidate=other, token=TOKEN)
    return roster, members
