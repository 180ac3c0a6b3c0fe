"""Watches: changes after a cursor, and cursors that are too old."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest

from tenure.master.core.record import Policy
from tenure.master.core.state import JobChange
from tenure.master.node.changes import CHANGES_KEPT, Changes
from tenure.master.node.pace import Pace
from tenure.master.node.selection import select_changes
from tenure.master.node.watch import Watch
from tenure.protocol.errors import Rejected, Unavailable
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState
from tenure.testing.loop import run_virtual
from tenure.v1 import jobs_pb2


def _change(seq: int, queue: str = "default") -> JobChange:
    job_id = JobId(f"job-{seq}")
    return JobChange(job_id, JobState.PENDING, Policy(name="app.f", queue=queue), 1_000, seq)


def _watch(
    committed_seq: int = 0, after_seq: int | None = None, told: list[bool] | None = None
) -> Watch:
    return Watch(
        number=0,
        committed_seq=lambda: committed_seq,
        applied_seq=lambda: committed_seq,
        changes=Changes(committed_seq if after_seq is None else after_seq),
        record_changes=lambda watched: None if told is None else told.append(watched),
    )


def _pace() -> Pace:
    return Pace(lambda: 0)


async def _next(
    follow: AsyncIterator[jobs_pb2.WatchJobsResponse],
) -> jobs_pb2.WatchJobsResponse:
    return await anext(follow)


async def _take(watch: Watch, count: int, after_seq: int | None, queue: str = "") -> list[str]:
    found: list[str] = []
    wanted = select_changes(f"queue = {queue}" if queue else "")
    async with aclosing(watch.follow(wanted, after_seq, _pace())) as responses:
        async for response in responses:
            found += [change.job_id for change in response.changes]
            if len(found) >= count:
                return found
    return found


def test_a_watch_sees_what_comes_after_it_began() -> None:
    """From now on means: every later change, once, in order."""

    async def main() -> list[str]:
        watch = _watch(5)
        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(_take(watch, 3, None))
            await asyncio.sleep(0)
            watch.record([_change(6), _change(7)])
            await asyncio.sleep(0)
            watch.record([_change(8)])
        return taking.result()

    assert run_virtual(main) == ["job-6", "job-7", "job-8"]


def test_a_cursor_resumes() -> None:
    """A watch that broke goes on behind its cursor without a gap."""

    async def main() -> list[str]:
        watch = _watch()
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(_take(watch, 1, None))
            await asyncio.sleep(0)
            watch.record([_change(1)])
            await first
            watch.record([_change(2), _change(3)])
            return await _take(watch, 2, 1)

    assert run_virtual(main) == ["job-2", "job-3"]


def test_a_filter_leaves_out_the_rest() -> None:
    """Only matching jobs are told."""

    async def main() -> list[str]:
        watch = _watch()
        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(_take(watch, 1, None, queue="mail"))
            await asyncio.sleep(0)
            watch.record([_change(1), _change(2, "mail")])
        return taking.result()

    assert run_virtual(main) == ["job-2"]


def test_a_cursor_behind_the_ring_is_expired() -> None:
    """What is no longer known is refused, never skipped."""

    async def main() -> None:
        watch = _watch(100)
        async for _ in watch.follow(select_changes(""), None, _pace()):
            break
        with pytest.raises(Rejected) as caught:
            await _take(watch, 1, 50)
        assert caught.value.reason is Reason.CURSOR_EXPIRED

    run_virtual(main)


def test_followers_learn_that_the_term_ended() -> None:
    """A watch ends with the reason, not in silence."""

    async def followed(watch: Watch) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_take(watch, 1, None))
            await asyncio.sleep(0)
            watch.abandon(Unavailable("stepped down", reason=Reason.NOT_LEADER))

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await followed(_watch())
        assert caught.group_contains(Unavailable)

    run_virtual(main)


def test_followers_are_told_in_the_order_of_their_coming() -> None:
    """Not in the order of their addresses: a simulated run would be another in each process."""
    told: list[int] = []

    async def take(watch: Watch, number: int) -> None:
        await _take(watch, 1, None)
        told.append(number)

    async def main() -> None:
        watch = _watch()
        async with asyncio.TaskGroup() as tasks:
            for number in range(50):
                tasks.create_task(take(watch, number))
            await asyncio.sleep(0)
            watch.record([_change(1)])

    run_virtual(main)
    assert told == [*range(50)]


def test_a_position_is_never_in_the_middle_of_an_event() -> None:
    """Many changes of one event take several messages: who breaks off in between misses none."""

    async def main() -> tuple[set[str], set[str]]:
        watch = _watch()
        everything = [
            msgspec.structs.replace(_change(1), job_id=JobId(f"job-{n}")) for n in range(1_200)
        ]
        seen: set[str] = set()
        follow = watch.follow(select_changes(""), None, _pace())
        await anext(follow)
        watch.record(everything)
        first = await anext(follow)
        seen.update(change.job_id for change in first.changes)
        await follow.aclose()
        seen.update(await _take(watch, 1_200, first.position.seq))
        return seen, {change.job_id for change in everything}

    seen, everything = run_virtual(main)
    assert seen == everything


def test_a_cursor_before_the_first_recorded_change_is_expired() -> None:
    """What was applied before anybody watched, and committed after, is known to be missing."""

    async def main() -> None:
        seq = CHANGES_KEPT
        watch = Watch(
            number=0,
            committed_seq=lambda: seq,
            applied_seq=lambda: seq + 2,
            changes=Changes(0),
            record_changes=lambda on: None,
        )
        watch.record([_change(number) for number in range(1, seq + 1)])
        assert not watch.on
        with pytest.raises(Rejected) as caught:
            await _take(watch, 1, seq)
        assert caught.value.reason is Reason.CURSOR_EXPIRED
        first = await anext(watch.follow(select_changes(""), None, _pace()))
        # What has not committed is no position: its seq may be another event's one day.
        assert first.position.seq == seq

    run_virtual(main)


def test_a_cursor_of_the_term_before_resumes() -> None:
    """What recovery found is told behind the cursor, and then what happens in the term."""

    async def main() -> list[str]:
        changes = Changes(10)
        changes.record([_change(11), _change(12), _change(13)])
        watch = Watch(
            number=0,
            committed_seq=lambda: 13,
            applied_seq=lambda: 13,
            changes=changes,
            record_changes=lambda on: None,
        )
        watch.record([_change(14)])
        with pytest.raises(Rejected) as caught:
            await _take(watch, 1, 9)
        assert caught.value.reason is Reason.CURSOR_EXPIRED
        return await _take(watch, 3, 11)

    assert run_virtual(main) == ["job-12", "job-13", "job-14"]


def test_changes_are_recorded_as_long_as_a_cursor_can_be_of_use() -> None:
    """Recording ends when nobody has followed for as many changes as are kept; a watch resumes it.

    Until then who comes back finds all that came after the last watch ended.
    """

    async def main() -> None:
        told: list[bool] = []
        watch, last = _watch(told=told), 0

        def record(count: int) -> None:
            nonlocal last
            watch.record([_change(seq) for seq in range(last + 1, last + count + 1)])
            last += count

        record(CHANGES_KEPT - 1)
        assert len(await _take(watch, 1, 0)) > 0
        record(CHANGES_KEPT - 1)
        assert (watch.on, told) == (True, [])
        kept = await _take(watch, CHANGES_KEPT - 1, CHANGES_KEPT - 1)
        assert kept == [f"job-{seq}" for seq in range(CHANGES_KEPT, last + 1)]
        record(CHANGES_KEPT)
        assert (watch.on, told) == (False, [False])
        await anext(watch.follow(select_changes(""), None, _pace()))
        assert (watch.on, told) == (True, [False, True])

    run_virtual(main)


def test_a_position_is_told_though_nothing_matches() -> None:
    """A watch for rare changes keeps a cursor that is good for a successor.

    It hears where it is after many other changes, and when a snapshot is about to replace them.
    """

    async def main() -> None:
        watch = _watch()
        follow = watch.follow(select_changes("queue = mail"), None, _pace())
        await anext(follow)
        passed = CHANGES_KEPT // 10
        watch.record([_change(seq) for seq in range(1, passed + 1)])
        assert (await _next(follow)).position.seq == passed
        async with asyncio.TaskGroup() as tasks:
            told = tasks.create_task(_next(follow))
            await asyncio.sleep(0)
            watch.record([_change(passed + 1)])
            await asyncio.sleep(0)
            assert not told.done()
            # Not every event changes a job's state: there may be more of them.
            watch.mark(passed + 5)
        assert told.result().position.seq == passed + 5
        assert not told.result().changes
        watch.record([_change(passed + 6, "mail"), _change(passed + 7)])
        last = await _next(follow)
        assert ([c.seq for c in last.changes], last.position.seq) == ([passed + 6], passed + 7)

    run_virtual(main)


def test_a_change_while_a_message_is_sent_is_told() -> None:
    """A slow reader hears what came meanwhile without waiting for the next change."""

    async def main() -> list[str]:
        watch = _watch()
        follow = watch.follow(select_changes(""), None, _pace())
        await anext(follow)
        watch.record([_change(1)])
        await anext(follow)
        # The message is on its way.
        watch.record([_change(2)])
        async with asyncio.timeout(1):
            return [change.job_id for change in (await anext(follow)).changes]

    assert run_virtual(main) == ["job-2"]


def test_a_dear_filter_lets_others_work() -> None:
    """Who comes back with an old cursor has much to look at, and does so in slices."""

    async def main() -> int:
        watch, now_ms, turns = _watch(), 0, 0

        def dear(change: JobChange) -> bool:
            nonlocal now_ms
            now_ms += 1
            return change.seq == 1_000

        follow = watch.follow(dear, None, Pace(lambda: now_ms))
        await anext(follow)
        watch.record([_change(seq) for seq in range(1, 1_001)])
        async with asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(_next(follow))
            while not taking.done():
                turns += 1
                await asyncio.sleep(0)
        assert [change.job_id for change in taking.result().changes] == ["job-1000"]
        return turns

    assert run_virtual(main) > 100
