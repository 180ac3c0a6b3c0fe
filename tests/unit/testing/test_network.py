"""The simulated network: order, delay, cuts, crashes and refusals, as gRPC would show them."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tenure.client.transport import Stream, Transport
from tenure.master.node.method import Bidi, Method, Send, ServerStream, Unary
from tenure.protocol.errors import Rejected, TenureError, Unavailable
from tenure.protocol.refusal import Reason
from tenure.testing.network import KEEPALIVE_S, SimNetwork
from tenure.testing.process import Process, elapse, run_processes
from tenure.v1 import jobs_pb2

MASTER = "m1:7400"
GET = "/tenure.v1.JobService/GetJob"
RESULTS = "/tenure.v1.JobService/StreamResults"
WATCH = "/tenure.v1.JobService/WatchJobs"


class Echo:
    """A master's services in small; notes what its handlers go through."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    async def get_job(self, request: jobs_pb2.GetJobRequest) -> jobs_pb2.GetJobResponse:
        self.notes.append(request.job_id)
        match request.job_id:
            case "unknown":
                raise Rejected("no such job", reason=Reason.NOT_FOUND, metadata={"job_id": "x"})
            case "bug":
                raise ValueError("a bug")
            case "slow":
                try:
                    await elapse(60)
                finally:
                    self.notes.append("gave up")
        return jobs_pb2.GetJobResponse(job=jobs_pb2.Job(job_id=request.job_id))

    async def stream_results(
        self, requests: AsyncIterator[jobs_pb2.StreamResultsRequest], send: Send
    ) -> None:
        try:
            async for request in requests:
                results = [jobs_pb2.JobResult(job_id=job_id) for job_id in request.job_ids]
                await send(jobs_pb2.StreamResultsResponse(results=results))
        finally:
            self.notes.append("stream over")

    async def watch_jobs(self, request: jobs_pb2.WatchJobsRequest, send: Send) -> None:
        for seq in range(3):
            change = jobs_pb2.JobChange(job_id=request.filter, seq=seq)
            await send(jobs_pb2.WatchJobsResponse(changes=[change]))

    @property
    def methods(self) -> dict[str, Method]:
        return {
            GET: Unary(self.get_job, jobs_pb2.GetJobRequest),
            RESULTS: Bidi(self.stream_results, jobs_pb2.StreamResultsRequest),
            WATCH: ServerStream(self.watch_jobs, jobs_pb2.WatchJobsRequest),
        }


class World:
    """One master that echoes, and one client."""

    def __init__(self, seed: int = 1) -> None:
        self.network = SimNetwork(random.Random(seed), delay_ms=(1, 20))
        self.process = Process("m1")
        self.echo = Echo()
        self.client: Transport = self.network.transport("client")

    async def get(self, job_id: str, timeout_s: float = 10) -> str:
        request = jobs_pb2.GetJobRequest(job_id=job_id)
        response = await self.client.unary(MASTER, GET, request, jobs_pb2.GetJobResponse, timeout_s)
        return response.job.job_id

    def results(self) -> "Stream[jobs_pb2.StreamResultsRequest, jobs_pb2.StreamResultsResponse]":
        return self.client.stream(MASTER, RESULTS, jobs_pb2.StreamResultsResponse)

    def crash(self) -> None:
        self.network.crash(MASTER)
        self.process.kill()


@asynccontextmanager
async def a_world(seed: int = 1) -> AsyncIterator[World]:
    """Starts the master, and kills it in the end."""
    world = World(seed)
    async with asyncio.TaskGroup() as group:
        world.process.start(group, asyncio.Event().wait)  # type: ignore[arg-type]
        world.network.listen(MASTER, world.process, world.echo.methods)
        await asyncio.sleep(0)
        yield world
        world.crash()


def run(program: Callable[[World], Awaitable[None]], seed: int = 1) -> World:
    """Runs a program in a world."""

    async def main() -> World:
        async with a_world(seed) as world:
            await program(world)
        return world

    return run_processes(main)


def now_s() -> float:
    """The virtual time."""
    return asyncio.get_running_loop().time()


def ask(*job_ids: str) -> jobs_pb2.StreamResultsRequest:
    """A request for results."""
    return jobs_pb2.StreamResultsRequest(job_ids=job_ids)


def test_a_call_travels_there_and_back() -> None:
    """A unary call brings its answer, after a delay each way."""

    async def program(world: World) -> None:
        assert await world.get("a") == "a"
        assert 0.002 <= now_s() <= 0.04

    run(program)


def test_errors_travel_as_statuses() -> None:
    """A refusal arrives with its class, reason and metadata; a bug in a handler as INTERNAL."""

    async def program(world: World) -> None:
        with pytest.raises(Rejected, match="no such job") as refused:
            await world.get("unknown")
        assert refused.value.reason is Reason.NOT_FOUND
        assert refused.value.metadata == {"job_id": "x"}
        with pytest.raises(TenureError) as failed:
            await world.get("bug")
        assert failed.value.reason is Reason.INTERNAL

    world = run(program)
    assert [str(error) for error in world.network.failures] == ["a bug"]


def test_a_deadline_ends_both_ends() -> None:
    """When the caller's time is up it gets DEADLINE_EXCEEDED, and the handler is cancelled."""

    async def program(world: World) -> None:
        with pytest.raises(Unavailable) as late:
            await world.get("slow", timeout_s=3)
        assert late.value.reason is Reason.DEADLINE_EXCEEDED
        assert now_s() == 3
        await elapse(1)
        assert world.echo.notes == ["slow", "gave up"]

    run(program)


def test_a_stream_keeps_its_order() -> None:
    """What is sent at once arrives in order, however the delays fall; half-close ends the call."""

    async def program(world: World) -> None:
        stream = world.results()
        for number in range(50):
            await stream.send(ask(str(number)))
        await stream.close_sending()
        answers = [answer.results[0].job_id async for answer in stream]
        assert answers == [str(number) for number in range(50)]
        assert world.echo.notes == ["stream over"]

    run(program)


def test_a_server_stream_ends_in_order() -> None:
    """A watch brings all that is sent, then the end."""

    async def program(world: World) -> None:
        stream: Stream[jobs_pb2.WatchJobsRequest, jobs_pb2.WatchJobsResponse]
        stream = world.client.stream(MASTER, WATCH, jobs_pb2.WatchJobsResponse)
        await stream.send(jobs_pb2.WatchJobsRequest(filter="n"))
        await stream.close_sending()
        assert [answer.changes[0].seq async for answer in stream] == [0, 1, 2]

    run(program)


def test_nobody_shares_an_object() -> None:
    """What the sender changes after sending does not change what arrives."""

    async def program(world: World) -> None:
        stream = world.results()
        request = ask("before")
        await stream.send(request)
        request.job_ids[0] = "after"
        await stream.close_sending()
        assert [answer.results[0].job_id async for answer in stream] == ["before"]

    run(program)


def test_nobody_listens_there() -> None:
    """A call to a node without a server is refused after a round trip."""

    async def program(world: World) -> None:
        world.network.crash(MASTER)
        with pytest.raises(Unavailable) as refused:
            await world.get("a")
        assert refused.value.reason is Reason.UNREACHABLE
        assert now_s() < 0.1
        stream = world.results()
        with pytest.raises(Unavailable):
            await anext(aiter(stream))

    run(program)


@pytest.mark.parametrize("seed", range(10))
def test_a_crash_breaks_streams(seed: int) -> None:
    """Of what a server sent before it died some first part arrives, then UNREACHABLE."""

    async def program(world: World) -> None:
        stream = world.results()
        for number in range(20):
            await stream.send(ask(str(number)))
        await elapse(0.025)
        world.crash()
        answers: list[str] = []

        async def read() -> None:
            async for answer in stream:
                answers.append(answer.results[0].job_id)

        with pytest.raises(Unavailable) as gone:
            await read()
        assert gone.value.reason is Reason.UNREACHABLE
        assert answers == [str(number) for number in range(len(answers))]
        with pytest.raises(Unavailable):
            await stream.send(ask("late"))

    run(program, seed)


def test_a_cut_link_holds_and_then_delivers() -> None:
    """A cut shorter than the keepalive only delays."""

    async def program(world: World) -> None:
        stream = world.results()
        await stream.send(ask("a"))
        assert (await anext(aiter(stream))).results[0].job_id == "a"
        world.network.cut("client", MASTER)
        await stream.send(ask("b"))
        await stream.send(ask("c"))
        await elapse(KEEPALIVE_S - 1)
        assert world.echo.notes == []
        world.network.heal("client", MASTER)
        answers = aiter(stream)
        assert (await anext(answers)).results[0].job_id == "b"
        assert (await anext(answers)).results[0].job_id == "c"
        assert now_s() < KEEPALIVE_S

    run(program)


@pytest.mark.parametrize(("source", "target"), [("client", MASTER), (MASTER, "client")])
def test_a_cut_in_one_direction_breaks_calls_in_the_end(source: str, target: str) -> None:
    """Pings need both directions: a lasting cut of either breaks the call at both ends."""

    async def program(world: World) -> None:
        stream = world.results()
        await stream.send(ask("a"))
        answers = aiter(stream)
        await anext(answers)
        cut_s = now_s()
        world.network.cut(source, target)
        with pytest.raises(Unavailable):
            await anext(answers)
        assert now_s() - cut_s == pytest.approx(KEEPALIVE_S)
        await elapse(1)
        assert world.echo.notes == ["stream over"]
        world.network.heal_all()
        assert await world.get("b") == "b"

    run(program)


def test_a_call_over_a_cut_link_waits_for_its_deadline() -> None:
    """Nobody refuses a call that nobody receives; when its link is whole again it gets through."""

    async def program(world: World) -> None:
        world.network.split(["client"], [MASTER])
        with pytest.raises(Unavailable) as late:
            await world.get("a", timeout_s=2)
        assert late.value.reason is Reason.DEADLINE_EXCEEDED
        async with asyncio.TaskGroup() as group:
            call = group.create_task(world.get("b"))
            await elapse(1)
            world.network.heal_all()
        assert call.result() == "b"

    run(program)


def test_a_frozen_server_is_given_up() -> None:
    """It takes bytes and answers no ping: calls break, and its handlers learn it on waking up."""

    async def program(world: World) -> None:
        stream = world.results()
        await stream.send(ask("a"))
        answers = aiter(stream)
        await anext(answers)
        world.process.freeze()
        world.network.stall(MASTER)
        await stream.send(ask("b"))
        with pytest.raises(Unavailable):
            await anext(answers)
        assert world.echo.notes == []
        await elapse(1)
        world.process.thaw()
        world.network.unstall(MASTER)
        await elapse(1)
        assert world.echo.notes == ["stream over"]
        assert await world.get("c") == "c"

    run(program)


def test_loss_breaks_calls() -> None:
    """A message that is lost takes its call with it; others get through."""

    async def program(world: World) -> None:
        world.network.link("client", MASTER).loss = 0.3
        outcomes = []
        for number in range(60):
            try:
                outcomes.append(await world.get(str(number)) == str(number))
            except Unavailable:
                outcomes.append(False)
        assert 30 <= sum(outcomes) <= 54
        assert world.network.link("client", MASTER).broken == outcomes.count(False)

    run(program)


def test_a_chosen_message_takes_its_call_along_where_it_arrives() -> None:
    """Its sender has sent it; of those before and after it none is lost."""

    async def program(world: World) -> None:
        link = world.network.link(MASTER, "client")
        answers = iter((False, True, False))
        link.dooms = lambda message: next(answers)
        assert await world.get("a") == "a"
        with pytest.raises(Unavailable, match="the connection is gone"):
            await world.get("b")
        assert await world.get("c") == "c"
        assert (link.sent, link.broken) == (3, 1)

    run(program)


def test_reset_calls_are_counted() -> None:
    """Whoever resets connections hears whether there were any."""

    async def program(world: World) -> None:
        assert world.network.break_calls("client", MASTER) == 0

        async def reset() -> int:
            await elapse(0.0001)
            return world.network.break_calls(MASTER, "client")

        answer, count = await asyncio.gather(world.get("a"), reset(), return_exceptions=True)
        assert isinstance(answer, Unavailable)
        assert count == 1

    run(program)


def test_the_client_gives_up() -> None:
    """A cancelled stream ends for its handler; its reader gets UNREACHABLE."""

    async def program(world: World) -> None:
        stream = world.results()
        await stream.send(ask("a"))
        answers = aiter(stream)
        await anext(answers)
        stream.cancel()
        stream.cancel()
        with pytest.raises(Unavailable):
            await anext(answers)
        await elapse(1)
        assert world.echo.notes == ["stream over"]
        await world.client.close()
        with pytest.raises(Unavailable):
            await world.get("b")

    run(program)


def test_a_seed_gives_one_run() -> None:
    """The same program with the same seed takes exactly the same times."""

    def times(seed: int) -> list[float]:
        seen: list[float] = []

        async def program(world: World) -> None:
            for number in range(10):
                await world.get(str(number))
                seen.append(now_s())

        run(program, seed)
        return seen

    assert times(1) == times(1)
    assert times(1) != times(2)
