"""The batch handlers that worker tests run."""

import asyncio
import logging
import threading
from datetime import timedelta
from pathlib import Path

from tenure.client import Cancelled, Permanent, RetryLater, current_batch, current_job, job
from tests.unit.worker.applications import BadInput

#: The items of each call of the batch handlers below, by what the calls are for.
CALLS: dict[str, list[list[int]]] = {}


def _note_call(items: list[tuple[str, int]]) -> None:
    CALLS.setdefault(items[0][0], []).append([number for _, number in items])


@job(name="double_all", batch=3, linger_ms=1_000)
def double_all(items: list[tuple[str, int]]) -> list[int]:
    """A batch handler."""
    _note_call(items)
    return [2 * number for _, number in items]


@job(name="double_all_async", batch=3, linger_ms=1_000)
async def double_all_async(items: list[tuple[str, int]]) -> list[int]:
    """The same in the loop."""
    await asyncio.sleep(0)
    _note_call(items)
    return [2 * number for _, number in items]


@job(name="double_what_came", batch=3, linger_ms=0)
def double_what_came(items: list[tuple[str, int]]) -> list[int]:
    """A batch handler that never waits."""
    return double_all.fn(items)  # type: ignore[no-any-return]


@job(name="outcomes", batch=6, linger_ms=0)
def outcomes(items: list[str]) -> list[object]:
    """Each item comes to what it asks for."""
    return [_outcome(item) for item in items]


@job(name="outcomes_async", batch=6, linger_ms=0)
async def outcomes_async(items: list[str]) -> list[object]:
    """The same in the loop."""
    return [_outcome(item) for item in items]


def _outcome(kind: str) -> object:
    return {
        "value": kind,
        "plain": RuntimeError("no luck"),
        "permanent": Permanent("never"),
        "later": RetryLater(timedelta(seconds=7)),
        "nonsense": threading.Lock(),
        "much": b"x" * (300 * 1024),
    }[kind]


@job(name="misshapen", batch=2, linger_ms=1_000)
def misshapen(items: list[str]) -> object:
    """Returns what its first item asks for, which is not a list of two outcomes."""
    return {"short": ["a"], "long": ["a", "b", "c"], "none": None, "text": "ab"}[items[0]]


@job(name="raise_all", batch=2, linger_ms=1_000)
def raise_all(items: list[str]) -> list[None]:
    """Raises."""
    raise BadInput(" ".join(items))


@job(name="who_all", batch=2, linger_ms=1_000)
def who_all(items: list[int]) -> list[list[str]]:
    """What a call knows of its items and of itself."""
    logging.getLogger("who").warning("%d items", len(items))
    call = current_job()
    return [
        [me.id, me.name, str(me.attempt), me.fence, call.id, call.name, call.fence]
        for me in current_batch()
    ]


@job(name="heed_all", batch=2, linger_ms=1_000)
def heed_all(items: list[str]) -> list[str | Exception]:
    """Runs until one of its items is told to stop, and ends that one."""
    Path(items[0]).touch()
    while not any(me.cancelled for me in current_batch()):
        threading.Event().wait(0.005)
    return [_heeded(number) for number in range(len(items))]


def _heeded(number: int) -> str | Exception:
    try:
        current_batch()[number].checkpoint()
    except Cancelled as stopped:
        return stopped
    return "done"


@job(name="heed_call", batch=2, linger_ms=1_000)
def heed_call(items: list[str]) -> list[str]:
    """Runs until there is nothing left to run for."""
    Path(items[0]).touch()
    while True:
        current_job().checkpoint()
        threading.Event().wait(0.005)


@job(name="until_told_all_async", batch=2, linger_ms=1_000)
async def until_told_all_async(items: list[str]) -> list[str]:
    """Waits until it is cancelled."""
    Path(items[0]).touch()
    await asyncio.Event().wait()
    return items


@job(name="deaf_all", batch=2, linger_ms=0)
def deaf_all(items: list[tuple[str, str]]) -> list[str]:
    """Never asks whether it should stop."""
    for started, _ in items:
        Path(started).touch()
    while not Path(items[0][1]).exists():
        threading.Event().wait(0.005)
    return ["late" for _ in items]
