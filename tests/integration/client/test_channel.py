"""The gRPC transport over loopback: what its port promises, errors included."""

import asyncio
import gc
import socket
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import grpc.aio
import pytest

from tenure.client.channel import GrpcTransport
from tenure.protocol.errors import Rejected, Unavailable
from tenure.protocol.ids import mint
from tenure.protocol.refusal import Reason
from tenure.v1 import cluster_pb2, common_pb2, jobs_pb2
from tests.integration.client.bridge import Bridge
from tests.unit.client.fake_master import EPOCH_MS

GET_JOB = "/tenure.v1.JobService/GetJob"
SUBMITS = "/tenure.v1.JobService/StreamSubmits"
RESULTS = "/tenure.v1.JobService/StreamResults"
TOPOLOGY = "/tenure.v1.ClusterService/GetTopology"


def play(work: Callable[[Bridge, GrpcTransport], Awaitable[None]]) -> None:
    """Runs a piece of work with a server and a transport."""

    async def main() -> None:
        async with Bridge() as bridge:
            transport = GrpcTransport()
            try:
                await work(bridge, transport)
            finally:
                await transport.close()
                await transport.close()

    asyncio.run(main())


@contextmanager
def nobody() -> Iterator[str]:
    """An address at which nobody listens, nor anybody else can meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def a_submit(number: int) -> jobs_pb2.StreamSubmitsRequest:
    """A numbered batch of one job."""
    request = jobs_pb2.SubmitJobsRequest(
        options=[common_pb2.JobOptions(name="a", queue="q", tenant="t")],
        jobs=[jobs_pb2.JobSpec(job_id=mint(0, EPOCH_MS, number))],
    )
    return jobs_pb2.StreamSubmitsRequest(number=number, request=request)


def test_unary_calls_answer_or_raise_what_the_master_refused() -> None:
    """An answer is a message; a refusal keeps its reason; a dead address is UNREACHABLE."""

    async def work(bridge: Bridge, transport: GrpcTransport) -> None:
        request = cluster_pb2.GetTopologyRequest()
        answer_type = cluster_pb2.GetTopologyResponse
        answer = await transport.unary(bridge.address, TOPOLOGY, request, answer_type, 5)
        assert answer.partition_count == 1
        with pytest.raises(Rejected) as refused:
            await transport.unary(
                bridge.address,
                GET_JOB,
                jobs_pb2.GetJobRequest(job_id=mint(0, EPOCH_MS, 1)),
                jobs_pb2.GetJobResponse,
                5,
            )
        assert refused.value.reason is Reason.NOT_FOUND
        with nobody() as address, pytest.raises(Unavailable, match=address) as lost:
            await transport.unary(address, TOPOLOGY, request, answer_type, 5)
        assert lost.value.reason is Reason.UNREACHABLE

    play(work)


def test_a_unary_call_has_a_deadline() -> None:
    """A server that takes a call and never answers is DEADLINE_EXCEEDED, in time."""

    async def main(address: str) -> None:
        transport = GrpcTransport()
        with pytest.raises(Unavailable) as caught:
            await transport.unary(
                address,
                TOPOLOGY,
                cluster_pb2.GetTopologyRequest(),
                cluster_pb2.GetTopologyResponse,
                0.2,
            )
        assert caught.value.reason in (Reason.DEADLINE_EXCEEDED, Reason.UNREACHABLE)
        await transport.close()

    # Who listens and accepts nothing takes bytes all the same. A server that did accept could have
    # a connection half open when the loop ends, for the collector to complain of in another test.
    with socket.create_server(("127.0.0.1", 0)) as server:
        asyncio.run(main(f"127.0.0.1:{server.getsockname()[1]}"))


def test_a_stream_carries_messages_both_ways() -> None:
    """Requests arrive in order, and so do their answers."""

    async def work(bridge: Bridge, transport: GrpcTransport) -> None:
        stream = transport.stream(bridge.address, SUBMITS, jobs_pb2.StreamSubmitsResponse)
        answers = aiter(stream)
        for number in range(1, 6):
            await stream.send(a_submit(number))
            assert (await anext(answers)).number == number
        stream.cancel()
        stream.cancel()

    play(work)


def test_a_refused_stream_says_why_to_reader_and_writer() -> None:
    """The error that ends a call reaches who reads, and who writes afterwards."""

    async def work(bridge: Bridge, transport: GrpcTransport) -> None:
        bridge.cluster.leaders[0] = "other:1"
        stream = transport.stream(bridge.address, RESULTS, jobs_pb2.StreamResultsResponse)
        request = jobs_pb2.StreamResultsRequest(job_ids=[mint(0, EPOCH_MS, 1)])
        await stream.send(request)
        with pytest.raises(Unavailable) as read:
            await anext(aiter(stream))
        assert read.value.reason is Reason.NOT_LEADER
        assert "other:1" in read.value.metadata.values()
        with pytest.raises(Unavailable) as written:
            await stream.send(request)
        assert written.value.reason is Reason.NOT_LEADER

    play(work)


def test_a_stream_to_nobody_is_unreachable() -> None:
    """Opening is lazy: the first read or write tells that nobody is there."""

    async def work(bridge: Bridge, transport: GrpcTransport) -> None:
        with nobody() as address:
            stream = transport.stream(address, RESULTS, jobs_pb2.StreamResultsResponse)
            with pytest.raises(Unavailable) as caught:
                await anext(aiter(stream))
        assert caught.value.reason is Reason.UNREACHABLE

    play(work)


def test_cancelling_a_stream_wakes_its_reader_with_an_error() -> None:
    """A cancelled call is an error of its reader, not a cancellation of the reader's task."""

    async def work(bridge: Bridge, transport: GrpcTransport) -> None:
        stream = transport.stream(bridge.address, SUBMITS, jobs_pb2.StreamSubmitsResponse)
        await stream.send(a_submit(1))
        answers = aiter(stream)
        await anext(answers)

        async def read() -> Reason:
            with pytest.raises(Unavailable) as caught:
                await anext(answers)
            return caught.value.reason

        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(read())
            await asyncio.sleep(0)
            stream.cancel()
        assert reader.result() is Reason.UNREACHABLE

    play(work)


def test_cancelling_the_reading_task_stays_a_cancellation() -> None:
    """Who cancels a task that reads gets a cancelled task."""

    async def work(bridge: Bridge, transport: GrpcTransport) -> None:
        stream = transport.stream(bridge.address, SUBMITS, jobs_pb2.StreamSubmitsResponse)
        await stream.send(a_submit(1))
        answers = aiter(stream)
        await anext(answers)

        async def read() -> None:
            await anext(answers)

        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(read())
            await asyncio.sleep(0)
            reader.cancel()
        assert reader.cancelled()
        stream.cancel()

    play(work)


def test_a_closed_transport_refuses_calls() -> None:
    """After close nothing is dialled any more."""

    async def main() -> None:
        transport = GrpcTransport()
        await transport.close()
        with pytest.raises(Unavailable, match="closed"):
            transport.stream("a:1", RESULTS, jobs_pb2.StreamResultsResponse)

    asyncio.run(main())


def test_a_forgotten_address_keeps_no_connection() -> None:
    """Its channels are closed; a later call makes new ones."""

    async def work(bridge: Bridge, transport: GrpcTransport) -> None:
        request = cluster_pb2.GetTopologyRequest()
        answer_type = cluster_pb2.GetTopologyResponse
        # Those of other tests may be closed at any moment.
        others = weakref.WeakSet(_channels())
        for _ in range(3):
            await transport.unary(bridge.address, TOPOLOGY, request, answer_type, 5)
            stream = transport.stream(bridge.address, SUBMITS, jobs_pb2.StreamSubmitsResponse)
            await stream.send(a_submit(1))
            assert await anext(aiter(stream))
            stream.cancel()
            del stream
            assert len(set(_channels()) - set(others)) == 2
            transport.forget(bridge.address)
            assert set(_channels()) <= set(others)

    play(work)


def _channels() -> list[grpc.aio.Channel]:
    """All that are open in this process."""
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, grpc.aio.Channel)]
