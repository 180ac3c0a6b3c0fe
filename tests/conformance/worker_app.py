"""The jobs that a worker under test serves; ``examples/node/serve.mjs`` has the same."""

import asyncio

from tenure.client import job


@job(name="echo")
async def echo(text: str, hold_s: float = 0.0) -> str:
    """Returns its argument after a while."""
    await asyncio.sleep(hold_s)
    return text


@job(name="fail")
async def fail(message: str) -> None:
    """Fails."""
    raise TypeError(message)
