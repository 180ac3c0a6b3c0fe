"""A standby: what it has of a partition, and what a new leader may take from it."""

import asyncio

import pytest

from tenure.master.backend.errors import CorruptJournal, FormatTooNew, StoreUnavailable
from tenure.master.core.command import CloseTerm
from tenure.master.core.partition import Partition
from tenure.master.journal.port import HaltRecord, ReplayMark, SealedBatch
from tenure.master.node.recovery import TURN_BYTES, Replayed, recover
from tenure.master.node.standby import Pace, Standby
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tests.unit.master.core.audit import audit
from tests.unit.master.core.rig import CONFIG
from tests.unit.master.node.standby_rig import Log


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
        log.errors = [FormatTooNew("later"), ValueError("a bug"), StoreUnavailable("away")]
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
