"""The jobs that a worker under test serves; ``examples/node/serve.mjs`` has the same."""

import asyncio
import time

from tenure.client import current_job, job

#: How often a job looks whether it must stop.
_LOOK_S = 0.05


@job(name="echo")
async def echo(text: str, hold_s: float = 0.0) -> str:
    """Returns its argument after a while, unless it must stop before."""
    me, began = current_job(), time.monotonic()
    while (left_s := began + hold_s - time.monotonic()) > 0:
        me.progress(100 * (1 - left_s / hold_s))
        await asyncio.sleep(min(left_s, _LOOK_S))
    return text


@job(name="fail")
async def fail(message: str) -> None:
    """Fails."""
    raise TypeError(message)
