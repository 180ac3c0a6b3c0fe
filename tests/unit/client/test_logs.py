"""What a reader of a job's log is told: each line once, whatever its streams do."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from tenure.client import AsyncClient, LogLine, Rejected, Unavailable
from tenure.protocol.refusal import Reason
from tenure.v1 import common_pb2, jobs_pb2
from tests.unit.client.fake_master import EPOCH_MS, FakeCluster, FakeStream
from tests.unit.client.test_submitter import add, play


def said(
    *numbers: int, attempt: int = 1, run: int = 0, done: bool = False
) -> jobs_pb2.StreamLogsResponse:
    """A leader's answer."""
    lines = [
        common_pb2.LogLine(
            number=number,
            time_ms=EPOCH_MS + number,
            stream=common_pb2.LOG_STREAM_LOGGING,
            level=30,
            text=f"line {number}",
        )
        for number in numbers
    ]
    return jobs_pb2.StreamLogsResponse(run=run, attempt=attempt, lines=lines, done=done)


async def drained(lines: AsyncIterator[LogLine]) -> list[LogLine]:
    """All lines until there are no more."""
    return [line async for line in lines]


def reading(cluster: FakeCluster) -> FakeStream:
    """The one stream over which a log is read now."""
    (stream,) = [stream for stream in cluster.streams if stream.method == "StreamLogs"]
    return stream


def test_lines_are_told_as_they_are() -> None:
    """Time, stream, level, text, attempt and number; and how many lines were left out."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        task = cluster.tasks.create_task(drained(handle.logs(attempt=2)))
        await cluster.pass_time(1)
        stream = reading(cluster)
        assert (stream.sent[0].attempt, stream.sent[0].follow) == (2, False)
        assert not stream.sent[0].HasField("after")
        stream.deliver(said(1, 4, attempt=2))
        stream.deliver(said(done=True))
        first, second = await task
        assert first == LogLine(
            time=datetime.fromtimestamp((EPOCH_MS + 1) / 1000, UTC),
            stream="log",
            level="WARNING",
            text="line 1",
            attempt=2,
            run=0,
            number=1,
        )
        assert (second.number, second.skipped) == (4, 2)

    play(cluster, work)


def test_a_follower_lives_through_a_failover() -> None:
    """The next leader is asked for what is behind the last line; what it tells again is left out,
    and a stream that ends without its last message is no end.
    """
    cluster = FakeCluster(masters=("a:1", "b:1"))

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        task = cluster.tasks.create_task(drained(handle.logs(follow=True)))
        await cluster.pass_time(1)
        reading(cluster).deliver(said(1, 2))
        await cluster.pass_time(1)
        cluster.kill("a:1")
        cluster.lead("b:1")
        await cluster.pass_time(5)
        stream = reading(cluster)
        after = stream.sent[0].after
        assert (after.run, after.attempt, after.line) == (0, 1, 2)
        for answer in (said(2, 3), said(1, attempt=2), said(9), said(1, run=1), said(done=True)):
            stream.deliver(answer)
        assert [(line.run, line.attempt, line.number) for line in await task] == [
            (0, 1, 1),
            (0, 1, 2),
            (0, 1, 3),
            (0, 2, 1),
            (1, 1, 1),
        ]

    play(cluster, work)


def test_reading_goes_on_behind_a_line() -> None:
    """``after`` is where another reader stopped."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        task = cluster.tasks.create_task(drained(handle.logs()))
        await cluster.pass_time(1)
        reading(cluster).deliver(said(1, 2, done=True))
        last = (await task)[-1]
        task = cluster.tasks.create_task(drained(handle.logs(after=last)))
        await cluster.pass_time(1)
        stream = reading(cluster)
        assert stream.sent[0].after.line == 2
        stream.deliver(said(2, 3, done=True))
        assert [line.number for line in await task] == [3]

    play(cluster, work)


def test_who_does_not_follow_gives_up() -> None:
    """Without a leader there is an error after the client's timeout; a follower waits on."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        cluster.kill("a:1")
        with pytest.raises(Unavailable):
            await drained(handle.logs())
        waiting = cluster.tasks.create_task(drained(handle.logs(follow=True)))
        await cluster.pass_time(300)
        assert not waiting.done()
        waiting.cancel()

    play(cluster, work)


def test_unknown_jobs_and_attempts_that_cannot_be_are_refused() -> None:
    """NOT_FOUND by the leader, and an attempt below 1 before anybody is asked."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        with pytest.raises(Rejected) as refused:
            await drained(handle.logs(attempt=0))
        assert refused.value.field == "attempt"
        cluster.jobs.clear()
        with pytest.raises(Rejected) as refused:
            await drained(handle.logs())
        assert refused.value.reason is Reason.NOT_FOUND

    play(cluster, work)
