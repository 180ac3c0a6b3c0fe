"""A job that keeps a slot busy for as long as it is told, and no processor."""

import asyncio

from tenure.client import job


@job(name="nap")
async def nap(seconds: float) -> None:
    """Waits."""
    await asyncio.sleep(seconds)
