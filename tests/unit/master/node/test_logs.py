"""StreamLogs: what jobs have said and say, each line once, whoever asks and however often."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tenure.master.core.record import Policy, RetryPolicy
from tenure.master.node import log_taps
from tenure.master.node.jobs import JobApi
from tenure.master.node.link import WorkerLink
from tenure.master.node.logs import LogApi
from tenure.master.node.translate import log_from_wire, log_lines
from tenure.protocol.errors import Rejected, TenureError, Unavailable
from tenure.protocol.ids import JobId
from tenure.protocol.limits import ATTEMPT_LOG_BYTES_MAX
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import Backoff
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.v1 import common_pb2, jobs_pb2, worker_pb2
from tests.unit.master.node.fakes import settle
from tests.unit.master.node.term_rig import TermRig, leading, outcome

COMPLETED = common_pb2.ATTEMPT_OUTCOME_COMPLETED
FAILED = common_pb2.ATTEMPT_OUTCOME_FAILED
STUBBORN = Policy(name="job", retry=RetryPolicy(backoff=Backoff.NONE, max_attempts=9))

Lines = list[tuple[int, int, int, str]]


def line(number: int) -> common_pb2.LogLine:
    """A line that says its number."""
    return common_pb2.LogLine(number=number, time_ms=number, text=f"line {number}")


def job_log(*numbers: int) -> bytes:
    """What is kept of an attempt."""
    return common_pb2.JobLog(lines=[line(number) for number in numbers]).SerializeToString()


class Reader:
    """Somebody who reads a job."""

    def __init__(self, rig: TermRig) -> None:
        self.lines: Lines = []
        self.done = False
        self._api = LogApi(
            jobs=JobApi(roster=rig.roster, rng=random.Random(1)), taps=rig.workers.taps
        )

    async def read(self, job_id: str, **wanted: Any) -> None:
        """Reads until there is no more."""
        await self._api.stream_logs(jobs_pb2.StreamLogsRequest(job_id=job_id, **wanted), self._send)

    async def _send(self, said: jobs_pb2.StreamLogsResponse) -> None:
        self.lines += [(said.run, said.attempt, row.number, row.text) for row in said.lines]
        self.done = self.done or said.done

    @property
    def numbers(self) -> list[tuple[int, int]]:
        """Attempts and numbers of the lines."""
        return [(attempt, number) for _, attempt, number, _ in self.lines]


class Stage:
    """A term, one worker, and its running job."""

    def __init__(self, rig: TermRig, link: WorkerLink, job_id: JobId) -> None:
        self.rig = rig
        self.link = link
        self.job_id = job_id
        self.ref = worker_pb2.LeaseRef()
        #: What the master wants to hear: behind which line, or None for a stop.
        self._wishes: list[int | None] = []

    async def granted(self) -> None:
        """The job is granted to the worker, and begins."""
        await self.rig.commit()
        self._hear()
        self.rig.say(self.link, accepted_assignment=1, started=[self.ref])
        await self.rig.commit()

    async def hear(self) -> list[int | None]:
        """What the worker is told; wishes since the last time."""
        await settle()
        self._hear()
        wishes, self._wishes = self._wishes, []
        return wishes

    def _hear(self) -> None:
        for part in self.rig.heard(self.link):
            for grant in part.assignment.grants:
                self.ref = worker_pb2.LeaseRef(job_id=grant.job_id, seq=grant.seq, run=grant.run)
            self._wishes += [None if wish.stop else wish.after for wish in part.logs]

    async def say(self, after: int, *numbers: int) -> None:
        """The job has said these lines behind one."""
        chunk = worker_pb2.LogChunk(
            lease=self.ref, after=after, lines=[line(number) for number in numbers]
        )
        self.rig.say(self.link, logs=[chunk])
        await settle()

    async def end(self, outcome: Any, *kept: int) -> None:
        """The attempt ends."""
        report = worker_pb2.Report(lease=self.ref, outcome=outcome)
        if kept:
            report.log = job_log(*kept)
        if outcome != COMPLETED:
            report.error.type = "app.Error"
        self.rig.say(self.link, reports=[report])
        await self.rig.commit()


@asynccontextmanager
async def running() -> AsyncIterator[Stage]:
    """A job that runs."""
    async with leading() as rig:
        link = rig.connect()
        (job_id,) = rig.submit(STUBBORN)
        stage = Stage(rig, link, job_id)
        await stage.granted()
        yield stage


def play(scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    """Plays a scene with a running job, on virtual time."""

    async def main() -> None:
        async with running() as stage:
            await scene(stage)

    run_virtual(main)


def test_kept_logs_are_told_in_order() -> None:
    """All attempts, or one of them; from behind a line that is known, if the reader has one."""

    async def scene(stage: Stage) -> None:
        await stage.end(FAILED, 1, 2)
        await SimClock().sleep(100)
        await stage.granted()
        await stage.end(COMPLETED, 1, 5)
        whole, one, rest = (Reader(stage.rig) for _ in range(3))
        await whole.read(stage.job_id)
        assert whole.numbers == [(1, 1), (1, 2), (2, 1), (2, 5)]
        assert whole.done
        await one.read(stage.job_id, attempt=2, follow=True)
        assert one.numbers == [(2, 1), (2, 5)]
        await rest.read(stage.job_id, after=jobs_pb2.LogPosition(attempt=2, line=1))
        assert rest.numbers == [(2, 5)]
        assert (await stage.hear()) == []

    play(scene)


def test_a_running_job_is_asked_once_for_who_does_not_follow() -> None:
    """Its worker's answer is all; after that it is told to stop."""

    async def scene(stage: Stage) -> None:
        reader = Reader(stage.rig)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(reader.read(stage.job_id))
            assert await stage.hear() == [0]
            await stage.say(0, 1, 2)
            await reading
        assert reader.numbers == [(1, 1), (1, 2)]
        assert await stage.hear() == [None]

    play(scene)


def test_a_worker_that_does_not_answer_is_not_waited_for_long() -> None:
    """Who does not follow gets what there is within seconds."""

    async def scene(stage: Stage) -> None:
        reader = Reader(stage.rig)
        async with asyncio.timeout(3):
            await reader.read(stage.job_id)
        assert (reader.numbers, reader.done) == ([], True)

    play(scene)


def test_a_follower_goes_through_attempts() -> None:
    """What the worker says, then what was kept behind that, then the next attempt, to the end."""

    async def scene(stage: Stage) -> None:
        reader = Reader(stage.rig)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(reader.read(stage.job_id, follow=True))
            await stage.hear()
            await stage.say(0, 1)
            await stage.say(1, 2, 3)
            await stage.end(FAILED, 1, 3, 4)
            await SimClock().sleep(500)
            await stage.granted()
            await SimClock().sleep(500)
            # The first attempt's worker need say no more, the second one's all.
            assert await stage.hear() == [None, 0]
            await stage.say(0, 1, 2)
            await stage.end(COMPLETED, 1, 2)
            await reading
        assert reader.numbers == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2)]
        assert reader.done

    play(scene)


def test_two_readers_are_told_what_each_lacks() -> None:
    """The second one's earlier lines are not told to the first again, nor are later ones taken
    before its own have come.
    """

    async def scene(stage: Stage) -> None:
        first, second = Reader(stage.rig), Reader(stage.rig)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(first.read(stage.job_id, follow=True))
            await stage.hear()
            await stage.say(0, 1, 2)
            tasks.create_task(second.read(stage.job_id, follow=True))
            assert await stage.hear() == [0]
            # Sent before the second one's wish had arrived.
            await stage.say(2, 3)
            await stage.say(0, 1, 2, 3)
            await stage.say(3, 4)
            await stage.end(COMPLETED, 4)
        expected = [(1, 1), (1, 2), (1, 3), (1, 4)]
        assert first.numbers == expected
        assert second.numbers == expected

    play(scene)


def test_a_worker_that_comes_back_is_asked_again() -> None:
    """Over its new stream, and only for what the reader lacks."""

    async def scene(stage: Stage) -> None:
        reader = Reader(stage.rig)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(reader.read(stage.job_id, follow=True))
            await stage.hear()
            await stage.say(0, 1, 2)
            stage.rig.hub.disconnect(stage.link)
            stage.link = stage.rig.hub.connect(stage.link.hello)
            lease = worker_pb2.LeaseSet(
                leases=[worker_pb2.HeldLease(lease=stage.ref, started=True)]
            )
            stage.rig.say(stage.link, declare=lease)
            await stage.rig.commit()
            await SimClock().sleep(500)
            assert await stage.hear() == [2]
            await stage.say(2, 3)
            await stage.end(COMPLETED, 1, 2, 3)
            await reading
        assert reader.numbers == [(1, 1), (1, 2), (1, 3)]

    play(scene)


def test_a_slow_reader_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that wait for who does not take them are bounded; what was dropped is asked for."""
    monkeypatch.setattr(log_taps, "_WAITING_MAX", 3)

    async def scene(stage: Stage) -> None:
        term = stage.rig.term
        record = term.partition.get(stage.job_id)
        lease = getattr(record, "lease", None)
        assert lease is not None
        with stage.rig.workers.taps.reading(term, stage.job_id, lease, 0) as reader:
            assert await reader.next(0.1) == []
            assert await stage.hear() == [0]
            await stage.say(0, 1, 2)
            await stage.say(2, 3, 4)
            assert await reader.next(0.1) == []
            await reader.next(0.1)
            assert await stage.hear() == [0]
            await stage.say(0, 1, 2, 3, 4)
            assert [row.number for row in await reader.next(0.1)] == [1, 2, 3, 4]

    play(scene)


def test_readers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused, and there is room again when one has gone."""
    monkeypatch.setattr(log_taps, "READERS_MAX", 1)

    async def scene(stage: Stage) -> None:
        first, second = Reader(stage.rig), Reader(stage.rig)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(first.read(stage.job_id, follow=True))
            await stage.hear()
            refused = await outcome(second.read(stage.job_id))
            assert isinstance(refused, Unavailable)
            assert refused.reason is Reason.TOO_MANY_LOG_READERS
            reading.cancel()
        assert await outcome(second.read(stage.job_id)) is None

    play(scene)


def test_readers_learn_that_the_leader_has_gone() -> None:
    """A deposed leader ends the call with an error, so that the reader looks for the next one."""

    async def scene(stage: Stage) -> None:
        reader = Reader(stage.rig)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(outcome(reader.read(stage.job_id, follow=True)))
            await stage.hear()
            stage.rig.abandon()
            ended = await reading
        assert isinstance(ended, TenureError)
        assert ended.reason is Reason.NOT_LEADER
        assert not reader.done

    play(scene)


def test_unknown_jobs_have_no_log() -> None:
    """NOT_FOUND, as of every other call."""

    async def scene(stage: Stage) -> None:
        refused = await outcome(Reader(stage.rig).read(stage.rig.mint()))
        assert isinstance(refused, Rejected)
        assert refused.reason is Reason.NOT_FOUND

    play(scene)


def test_a_described_attempt_says_how_much_is_kept() -> None:
    """GetJob tells whether there is something to read, without it."""

    async def scene(stage: Stage) -> None:
        await stage.end(COMPLETED, 1, 2)
        api = JobApi(roster=stage.rig.roster, rng=random.Random(1))
        job = (await api.get_job(jobs_pb2.GetJobRequest(job_id=stage.job_id))).job
        assert [attempt.log_bytes for attempt in job.attempts] == [len(job_log(1, 2))]

    play(scene)


def test_more_than_is_kept_is_cut_to_its_end() -> None:
    """A worker that sends too much cannot make a master keep it; nor can what is no log harm."""
    lines = [common_pb2.LogLine(number=n, text="x" * 1_000) for n in range(1, 40)]
    cut = log_from_wire(common_pb2.JobLog(lines=lines).SerializeToString())
    assert ATTEMPT_LOG_BYTES_MAX - 1_100 < len(cut) <= ATTEMPT_LOG_BYTES_MAX
    assert [row.number for row in log_lines(cut)][-1] == 39
    assert log_lines(b"\xff\xff") == ()
    assert log_from_wire(b"\xff" * (ATTEMPT_LOG_BYTES_MAX + 1)) == b""
