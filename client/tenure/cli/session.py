"""Runs a command's coroutine with a client, and closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tenure.client import AsyncClient

T = TypeVar("T")


def connect(address: str | None, timeout_s: float) -> AsyncClient:
    """A client of the cluster. Imported late: ``--help`` needs no gRPC."""
    from tenure.client import AsyncClient

    return AsyncClient(address, timeout=timeout_s)


def with_client(
    address: str | None, timeout_s: float, work: Callable[[AsyncClient], Awaitable[T]]
) -> T:
    """Runs ``work`` with an open client on an event loop of its own.

    Raises:
        TenureError: What the work raised; ``main`` turns it into a line and an exit code.
    """

    async def run() -> T:
        async with connect(address, timeout_s) as client:
            return await work(client)

    return asyncio.run(run())
