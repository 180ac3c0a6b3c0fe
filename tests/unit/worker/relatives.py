"""Jobs that ask for the results of others, and jobs that leave something behind, in child processes
and elsewhere.
"""

import asyncio
import contextvars
import os
import threading
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

from tenure.client import current_job, job


def until(path: str) -> None:
    """Waits for a file."""
    tick = threading.Event()
    while not Path(path).exists():
        tick.wait(0.005)


@job(name="weigh_in_child", executor="process")
def weigh_in_child(parts: list[bytes]) -> list[int]:
    """How long others' results are."""
    return [len(part) for part in parts]


@job(name="zip_in_child", executor="process")
def zip_in_child(left: AsyncIterator[str], right: AsyncIterator[str]) -> list[list[str]]:
    """Two streams of others' results, side by side."""

    async def all_of(parts: AsyncIterator[str]) -> list[str]:
        return [part async for part in parts]

    async def both() -> list[list[str]]:
        return [*await asyncio.gather(all_of(left), all_of(right))]

    return asyncio.run(both())


@job(name="litter_in_child", executor="process")
def litter_in_child(go: str) -> int:
    """Leaves a thread behind that goes on for it when the file is there."""

    def linger() -> None:
        until(go)
        current_job().progress(99)
        current_job().checkpoint("left behind")
        Path(f"{go}.done").touch()

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(linger,), daemon=True).start()
    return os.getpid()


@job(name="sit_in_child", executor="process")
def sit_in_child(started: str, release: str) -> int:
    """Runs until a file is there, and says nothing."""
    Path(started).touch()
    until(release)
    return os.getpid()


def fork() -> int:
    """Makes a copy of this process, and waits until that has ended; 0 in the copy."""
    with warnings.catch_warnings():
        # That there are threads is known: that is what is tried.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return pid


@job(name="fork_and_return")
def fork_and_return(fails: bool) -> bool:
    """Comes back twice; in the copy it may fail."""
    is_copy = fork() == 0
    if is_copy and fails:
        raise OSError("in the copy")
    return is_copy


@job(name="fork_and_return_all", batch=2, linger_ms=0)
def fork_and_return_all(items: list[bool]) -> list[bool]:
    """The same in a call for many."""
    is_copy = fork() == 0
    if is_copy and items[0]:
        raise OSError("in the copy")
    return [is_copy] * len(items)


@job(name="fork_and_return_all_async", batch=2, linger_ms=0)
async def fork_and_return_all_async(items: list[bool]) -> list[bool]:
    """The same in the loop."""
    return fork_and_return_all.fn(items)  # type: ignore[no-any-return]


@job(name="fork_and_return_in_child", executor="process")
def fork_and_return_in_child(fails: bool) -> bool:
    """The same in a child process."""
    return fork_and_return(fails)
