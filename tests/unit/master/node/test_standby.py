"""Standbys: who follows what, what they have, and what a new leader may take from them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest

from tenure.master.backend.errors import CorruptJournal, StoreUnavailable
from tenure.master.core.command import CloseTerm
from tenure.master.core.partition import Partition
from tenure.master.election.port import Candidate, Leader, Member, Nomination
from tenure.master.journal.frame import Chain, seal_manifest, seal_slice
from tenure.master.journal.port import HaltRecord, Journal, ReplayMark, SealedBatch, SnapshotRef
from tenure.master.node.recovery import TURN_BYTES, Replayed, recover
from tenure.master.node.roster import Roster
from tenure.master.node.standby import Pace, Standby, Standbys
from tenure.protocol.fence import Token
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tests.unit.master.core.audit import audit
from tests.unit.master.core.rig import CONFIG, Rig

TOKEN = Token(1, 7)


class Log:
    """A partition that a leader writes, and the part of the journal port that standbys read.

    Attributes:
        reads: The first number of each read.
        errors: Raised by the next reads, first one first.
        batch_ms: So long it takes to read a batch.
    """

    def __init__(self) -> None:
        self.batch_ms = 0
        self.rig = Rig()
        self.batches: list[SealedBatch] = []
        self.snapshot: SnapshotRef | None = None
        self.halt: HaltRecord | None = None
        self.mark: ReplayMark | None = None
        self.reads: list[int] = []
        self.errors: list[Exception] = []
        self._chain = Chain.start(CONFIG.partition)
        self._written = 0
        self.write()

    @property
    def port(self) -> Journal:
        """As its readers see it."""
        return self  # type: ignore[return-value]

    def write(self) -> None:
        """Journals what was decided since, an event a batch."""
        for data in self.rig.journal[self._written :]:
            sealed = self._chain.seal(token=TOKEN, stamp_ms=1, events=data, event_count=1)
            self.batches.append(sealed)
        self._written = len(self.rig.journal)

    def submit(self, count: int) -> None:
        """A client submits jobs."""
        self.rig.submit(count)
        self.write()

    def cut(self, *, keep: int = 1) -> None:
        """A snapshot takes the place of all batches but the last ones."""
        cursor, slices = self.rig.partition.snapshot(), []
        while (rows := cursor.next_slice(8)) is not None:
            data = msgspec.msgpack.encode(rows)
            slices.append(seal_slice(CONFIG.partition, "s", len(slices), data))
        manifest = seal_manifest(
            partition=CONFIG.partition,
            snapshot_id="s",
            slice_count=len(slices),
            first_batch=self._chain.number,
            previous_hash=self._chain.previous_hash,
            last_seq=self._written,
            token=TOKEN,
            stamp_ms=1,
        )
        self.snapshot = SnapshotRef(manifest=manifest, slices=slices)
        del self.batches[:-keep]

    async def halted(self) -> HaltRecord | None:
        return self.halt

    async def replay_mark(self) -> ReplayMark | None:
        return self.mark

    async def load_snapshot(self) -> SnapshotRef | None:
        return self.snapshot

    async def snapshot_manifest(self) -> bytes | None:
        return self.snapshot and self.snapshot.manifest

    async def read(self, first: int) -> AsyncIterator[SealedBatch]:
        self.reads.append(first)
        if self.errors:
            raise self.errors.pop(0)
        for sealed in list(self.batches):
            if sealed.number > first:
                raise CorruptJournal(f"expected batch {first}")
            if sealed.number == first:
                first += 1
                if self.batch_ms:
                    await SimClock().sleep(self.batch_ms)
                yield sealed


async def follow(log: Log, seconds: float) -> Replayed | None:
    """What a standby has after a time."""
    standby = Standby(CONFIG, log.port, SimClock())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(standby.run())
        await SimClock().sleep(int(seconds * 1000))
        task.cancel()
    return standby.replayed


async def followed(log: Log) -> Replayed:
    """What a standby has once it has caught up."""
    replayed = await follow(log, 1)
    assert replayed is not None
    return replayed


def check_same(found: Partition, log: Log) -> None:
    """Checks that a new leader has what the former one had."""
    audit(found)
    assert found.state_hash() == log.rig.partition.state_hash()
    assert found.stats() == log.rig.partition.stats()


@pytest.mark.parametrize("cut", [False, True])
def test_a_new_leader_reads_only_what_the_standby_has_not(cut: bool) -> None:
    """It has the whole state all the same, from a snapshot or without one."""

    async def main() -> None:
        log = Log()
        log.submit(20)
        if cut:
            log.cut()
            log.submit(3)
        standby = await followed(log)
        log.submit(5)
        log.reads.clear()
        known = standby.chain.number
        recovered = await recover(log.port, CONFIG, standby=standby)
        assert log.reads == [known - 1]
        assert recovered is standby
        check_same(recovered.partition, log)
        assert recovered.chain == log._chain

    run_virtual(main, limit_s=60)


def test_what_is_journaled_meanwhile_is_followed() -> None:
    """A standby is behind by a second at most, and derives all that the leader derives."""

    async def main() -> None:
        log = Log()
        standby = Standby(CONFIG, log.port, SimClock())
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(standby.run())
            for _ in range(4):
                log.submit(7)
                await SimClock().sleep(1_100)
                assert standby.replayed is not None
                check_same(standby.replayed.partition, log)
            task.cancel()

    run_virtual(main, limit_s=60)


def test_a_standby_that_read_the_end_of_a_term_needs_no_window() -> None:
    """TermClosed may be the last thing that it read, or the first thing after it."""

    async def main() -> None:
        for early in (False, True):
            log = Log()
            log.submit(3)
            standby = None if early else await followed(log)
            log.rig.do(CloseTerm())
            log.write()
            recovered = await recover(log.port, CONFIG, standby=standby or await followed(log))
            assert recovered.closed

    run_virtual(main, limit_s=60)


def test_what_does_not_fit_the_journal_is_not_used() -> None:
    """Another history, a journal that is shorter, or one cut behind it: recovery begins anew."""

    async def main() -> None:
        log, other = Log(), Log()
        log.submit(20)
        other.submit(4)
        for journal in (other, log):
            standby = await followed(log)
            if journal is log:
                log.submit(2)
                log.cut()
            recovered = await recover(journal.port, CONFIG, standby=standby)
            assert recovered is not standby
            check_same(recovered.partition, journal)
        standby = await followed(other)
        del other.batches[-1]
        shorter = await recover(other.port, CONFIG, standby=standby)
        assert shorter.partition.next_seq == standby.partition.next_seq - 1

    run_virtual(main, limit_s=60)


def test_damage_is_not_hidden_by_a_standby() -> None:
    """A bad batch behind what the standby has ends the recovery as it does without one."""

    async def main() -> None:
        log = Log()
        log.submit(20)
        standby = await followed(log)
        log.submit(1)
        bad = log.batches[-1]
        log.batches[-1] = SealedBatch(number=bad.number, data=bad.data[:-1] + b"?")
        with pytest.raises(CorruptJournal):
            await recover(log.port, CONFIG, standby=standby)

    run_virtual(main, limit_s=60)


def test_a_partition_with_a_mark_is_not_followed() -> None:
    """What a recovery may have died of, and what is halted, ends no process that only follows."""

    async def main() -> None:
        log = Log()
        log.mark = ReplayMark(crashes=0, seq=3)
        assert await follow(log, 30) is None
        log.mark, log.halt = None, HaltRecord(batch_number=1, detail="why")
        assert await follow(log, 30) is None
        assert log.reads == []
        log.halt = None
        assert await follow(log, 30) is not None

    run_virtual(main, limit_s=120)


def test_errors_cost_a_standby_what_it_has_and_nothing_else() -> None:
    """A cut log, a bad batch, anything: it begins anew, ever more slowly, until it goes well."""

    async def main() -> None:
        log = Log()
        log.submit(3)
        log.errors = [CorruptJournal("cut"), ValueError("a bug"), StoreUnavailable("away")]
        assert await follow(log, 4) is None
        assert len(log.reads) == 1
        log.reads.clear()
        log.errors = [CorruptJournal("cut"), ValueError("a bug"), StoreUnavailable("away")]
        assert await follow(log, 34.9) is None
        assert len(log.reads) == 3
        replayed = await followed(log)
        check_same(replayed.partition, log)

    run_virtual(main, limit_s=120)


def test_a_store_that_is_away_costs_nothing_that_was_replayed() -> None:
    """It is a whole beginning of the journal still; the next leader proves that anyway."""

    async def main() -> None:
        log = Log()
        standby = Standby(CONFIG, log.port, SimClock())
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(standby.run())
            await SimClock().sleep(1_500)
            before = standby.replayed
            log.errors = [StoreUnavailable("away")] * 5
            log.submit(5)
            await SimClock().sleep(8_000)
            assert log.errors == []
            assert standby.replayed is before is not None
            check_same(before.partition, log)
            task.cancel()

    run_virtual(main, limit_s=60)


def test_the_length_of_the_log_is_known() -> None:
    """A term that began with a standby takes its snapshots when the log is as long as ever."""

    async def main() -> None:
        log = Log()
        for _ in range(40):
            log.rig.submit(4, payload=b"x" * 8_000)
            log.write()
        standby = await followed(log)
        size = sum(len(sealed.data) for sealed in log.batches)
        assert standby.log_bytes() == size
        log.cut(keep=2)
        recovered = await recover(log.port, CONFIG, standby=standby)
        assert recovered is standby
        assert 0 < recovered.log_bytes() < 200_000 < size

    run_virtual(main, limit_s=60)


def _standbys(roster: Roster, clock: SimClock, *logs: Log) -> Standbys:
    """Those of a master whose partitions have these journals."""
    return Standbys(
        roster, clock, reader=lambda number: logs[number].port, config=lambda number: CONFIG
    )


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


def test_a_master_that_is_to_end_is_nobodys_standby() -> None:
    """It follows nothing more, and begins nothing: the next leader is to be one that stays."""

    async def main() -> None:
        clock = SimClock()
        me, boss = (Candidate(incarnation=n, name=n, address=f"{n}:1") for n in ("a", "b"))
        roster = Roster(cluster_id="c", partitions=1, me=me, clock=clock)
        roster.leaders[0] = Leader(candidate=boss, token=TOKEN)
        log = Log()
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
            roster.meet([*roster.members, replace(members[preferred], caught_up=[0])])
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


def test_small_batches_do_not_take_a_turn_of_the_loop_each() -> None:
    """Turns are long at a busy leader, and its journal may have tens of thousands of batches."""

    async def main() -> None:
        log = Log()
        for _ in range(300):
            log.submit(1)
        standby = Standby(CONFIG, log.port, SimClock(), pace=lambda: Pace.HASTE)
        turns = 0
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(standby.run())
            while not standby.caught_up:
                turns += 1
                await asyncio.sleep(0)
            task.cancel()
        assert turns < 30

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
    """Its partition is followed at once, and loaded before others, also those that were begun."""

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
            assert sorted(standbys.caught_up()) == [0, 1]
            task.cancel()

    run_virtual(main, limit_s=60)


def test_what_a_leader_waits_for_leaves_half_of_the_loop_to_a_term_that_begins() -> None:
    """Each slice is followed by a pause as long as itself; without a new term by none."""

    async def main() -> None:
        log, clock = Log(), SimClock()
        for _ in range(300):
            log.submit(1)
        took_ms = {}
        for pace in (Pace.HASTE, Pace.HALF):
            standby = Standby(CONFIG, log.port, clock, pace=lambda pace=pace: pace)
            began_ms = clock.boot_ms()
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(standby.run())
                while not standby.caught_up:
                    await clock.sleep(1)
                task.cancel()
            took_ms[pace] = clock.boot_ms() - began_ms
        slices = sum(len(sealed.data) for sealed in log.batches) // TURN_BYTES
        assert took_ms[Pace.HASTE] <= 2
        # Replaying takes no virtual time: each pause is the shortest there is.
        assert took_ms[Pace.HALF] >= 10 * slices > 0

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
