"""Streams of the listener, over real connections."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
import pytest

from tenure.master.rpc.server import _streaming
from tenure.protocol.errors import Unavailable
from tenure.protocol.refusal import Reason

_SERVICE, _METHOD = "test.Test", "Talk"


async def _refusal_of(serve: Callable[[Any, Any], Awaitable[None]]) -> grpc.aio.AioRpcError:
    """How a call of a method that is served so ends."""
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(_streaming(serve))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream(f"/{_SERVICE}/{_METHOD}")()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async with asyncio.timeout(10):
                    await _read_all(call)
            return caught.value
    finally:
        await server.stop(0)


async def _read_all(call: Any) -> None:
    async for _ in call:
        pass


def test_a_call_that_fails_while_it_sends_its_first_message_ends() -> None:
    """Its caller is told why, and never hangs."""

    async def fail() -> NoReturn:
        raise Unavailable(
            "expected to serve partition 0, but another does",
            reason=Reason.NOT_LEADER,
            metadata={"partition": "0"},
        )

    async def serve(requests: Any, send: Callable[[bytes], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            await send(b"a result")

    refusal = asyncio.run(_refusal_of(serve))
    assert refusal.code() is grpc.StatusCode.UNAVAILABLE
