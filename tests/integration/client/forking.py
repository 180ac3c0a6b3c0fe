"""What a program does that forks after it has used a client: run by ``test_places``.

Arguments: the address of a master, and who is asked in the child.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

from tenure.client import AsyncClient, Client, Rejected


def old_client(address: str) -> Callable[[], object]:
    """The parent's client, used before the fork."""
    client = Client(address, timeout=5)
    client.count()
    return client.count


def new_client(address: str) -> Callable[[], object]:
    """A client made in the child, of a parent that has used another one."""
    old_client(address)
    return lambda: Client(address, timeout=5).count()


def new_async_client(address: str) -> Callable[[], object]:
    """The same with an async client."""
    old_client(address)

    async def count() -> object:
        async with AsyncClient(address, timeout=5) as client:
            return await client.count()

    return lambda: asyncio.run(count())


def unused_client(address: str) -> Callable[[], object]:
    """A client that the parent made and never used."""
    return Client(address, timeout=5).count


CASES = {case.__name__: case for case in (old_client, new_client, new_async_client, unused_client)}


def main(address: str, case: str) -> None:
    """Forks; the child writes what became of its call, in one line."""
    ask = CASES[case](address)
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    try:
        line = str(ask())
    except Rejected as error:
        line = f"{error.reason}: {error.message}"
    sys.stdout.write(line)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
