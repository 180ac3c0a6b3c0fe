"""Runs a command's coroutine with a client, and closes it. An interrupt is heard at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tenure.cli import exits, security, terminal

if TYPE_CHECKING:
    from tenure.client import AsyncClient

T = TypeVar("T")

_SHOW_CURSOR: Final = "\x1b[?25h"


def connect(settings: Mapping[str, Any]) -> AsyncClient:
    """A client of the cluster.

    Args:
        settings: What the table ``client`` of the configuration holds.
    """
    from tenure.client import AsyncClient

    return AsyncClient(**security.arguments(settings))


def with_client(
    settings: Mapping[str, Any],
    work: Callable[[AsyncClient], Awaitable[T]],
    say: Callable[[str], None],
) -> T:
    """Runs ``work`` with an open client on an event loop of its own.

    Who waits because no master answers is told by ``say``. The first interrupt ends the work and
    closes the client, a second one ends the process.

    Raises:
        KeyboardInterrupt: It was interrupted.
        TenureError: What the work raised; ``main`` turns it into a line and an exit code.
    """

    async def run() -> T:
        from tenure.cli.onlooker import beside, tell_silence

        async with connect(settings) as client:
            try:
                async with beside(tell_silence(client, settings["address"], say)):
                    return await work(client)
            except asyncio.CancelledError:
                # asyncio has heard the first interrupt; closing must not swallow the next one.
                signal.signal(signal.SIGINT, _give_up)
                raise

    return asyncio.run(run())


def _give_up(*_: object) -> None:
    if terminal.is_lively(sys.stderr):
        sys.stderr.write(_SHOW_CURSOR)
        sys.stderr.flush()
    os._exit(exits.INTERRUPTED)
