"""The jobs of a shop, some of which never end or never succeed: what explanations are about."""

from __future__ import annotations

import asyncio

from tenure.client import Retry, job

NEVER_TIRED = Retry(max_attempts=100, backoff="none")


@job(name="app.jobs.send")
async def send(number: int) -> int:
    """Done at once."""
    return number


@job(name="app.jobs.pack")
async def pack(number: int) -> None:
    """Keeps a slot until it is cancelled."""
    await asyncio.Event().wait()


@job(name="app.jobs.charge", retry=Retry(max_attempts=1))
async def charge(number: int) -> None:
    """The bank does not answer."""
    raise ConnectionError(f"no answer about payment {number}")


@job(name="app.jobs.fetch", retry=NEVER_TIRED)
async def fetch(number: int) -> None:
    """Neither does the stock, and this is tried again."""
    raise ConnectionError(f"no answer about part {number}")
