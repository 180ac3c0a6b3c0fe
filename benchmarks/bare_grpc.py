"""A process that has grpc.aio and one idle stream, and nothing else: what no worker can be below.

python -m benchmarks.bare_grpc ADDRESS
"""

from __future__ import annotations

import asyncio
import json
import sys

import grpc.aio
import uvloop


async def wait(address: str) -> None:
    """Keeps a stream open until killed."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream("/tenure.v1.WorkerService/Session")()
        async with asyncio.timeout(30):
            await channel.channel_ready()
        print(json.dumps({"event": "connected"}), flush=True)
        await call.read()


if __name__ == "__main__":
    uvloop.run(wait(sys.argv[1]))
