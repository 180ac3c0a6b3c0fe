"""Jobs that submit other jobs and wait for them, from each place that a job can run in."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from tenure.client import AsyncClient, Client, Job, Permanent, job

#: A job that has children: it takes an address and a number.
Parent = Job[[str, int], list[int]]


@functools.cache
def plain(address: str) -> Client:
    """The process's own client, as a module of an application keeps one."""
    return Client(address)


@functools.cache
def in_this_loop(address: str) -> AsyncClient:
    """The same for the loop of the worker's coroutine jobs."""
    return AsyncClient(address)


@job(name="family.square")
async def square(number: int) -> int:
    """The square."""
    return number * number


@job(name="family.in_thread")
def in_thread(address: str, count: int) -> list[int]:
    """Squares, computed by other jobs."""
    if count < 0:
        raise Permanent(f"expected how many squares, got a negative number: {count}")
    return [handle.result() for handle in plain(address).map(square, range(count))]


@job(name="family.in_process", executor="process")
def in_process(address: str, count: int) -> list[int]:
    """The same in a child process."""
    return [handle.result() for handle in plain(address).map(square, range(count))]


@job(name="family.add_up", executor="process")
def add_up(first: int, squares: Iterable[int]) -> int:
    """Results of other jobs as arguments, in a child process: one, and one after the other."""
    return first + sum(squares)


@job(name="family.in_loop")
async def in_loop(address: str, count: int) -> list[int]:
    """The same in the worker's event loop."""
    handles = await in_this_loop(address).map(square, range(count))
    return [await handle.result() for handle in handles]
