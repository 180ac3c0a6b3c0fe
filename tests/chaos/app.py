"""The jobs that chaos runs: each records its start and its end in its worker's history."""

from __future__ import annotations

import asyncio
import os
import time
from functools import cache
from pathlib import Path
from typing import Final

from tenure.client import LeaseLost, Retry, current_job, job
from tests.oracles.history import DEFY, END, QUIT, SAVE, START, Recorder, hash_of

#: Retries come at once and losses are no poison: a run has many of both.
_PATIENT = Retry(max_attempts=4, max_lost=10, backoff="none")


#: The detail of a job's end that was asked to stop: its lease is lost, or it was cancelled.
ASKED: Final = "asked to stop"


@cache
def _recorder() -> Recorder:
    """This process's writer; the worker's name and the folder come from the test."""
    return Recorder(Path(os.environ["CHAOS_HISTORY"]), os.environ["CHAOS_PROCESS"])


def _observe(f: str, content: str = "", *, saved: str = "", detail: str = "") -> None:
    me = current_job()
    _recorder().observe(
        f,
        job=me.id,
        lease=me.fence,
        attempt=me.attempt,
        hash=content,
        saved=saved,
        detail=detail,
    )


def _started(text: str, saved: object = None) -> str:
    """It begins, with what an earlier attempt has saved; the hash of what it is about."""
    content = hash_of(text)
    _observe(START, content, saved="" if saved is None else hash_of(saved))
    return content


def _quit(error: BaseException) -> None:
    """It ends without a result: by itself, or because it is told to."""
    asked = isinstance(error, asyncio.CancelledError | LeaseLost)
    _observe(QUIT, detail=ASKED if asked else repr(error))


@job(name="echo", retry=_PATIENT)
async def echo(text: str, hold_s: float = 0.0) -> str:
    """Returns its argument after a while, without holding up others."""
    content = _started(text)
    try:
        await asyncio.sleep(hold_s)
    except BaseException as error:
        _quit(error)
        raise
    _observe(END, content)
    return text


@job(name="flaky", retry=_PATIENT)
async def flaky(text: str, hold_s: float, failures: int) -> str:
    """As ``echo``, once it has failed so often."""
    content = _started(text)
    try:
        await asyncio.sleep(hold_s)
        if current_job().attempt <= failures:
            raise RuntimeError("as it was told to")
    except BaseException as error:
        _quit(error)
        raise
    _observe(END, content)
    return text


@job(name="kill_the_worker", queue="poison", retry=Retry(max_lost=1, backoff="none"))
async def kill_the_worker(text: str, hold_s: float) -> str:
    """Takes its worker's whole process with it."""
    _started(text)
    os.abort()


@job(name="block_the_loop", queue="blocking", retry=_PATIENT)
async def block_the_loop(text: str, hold_s: float) -> str:
    """Holds the worker's event loop: nothing else in that loop runs meanwhile."""
    content = _started(text)
    time.sleep(hold_s)  # noqa: ASYNC251 - it is what this job is for
    _observe(END, content)
    return text


@job(name="defy", retry=_PATIENT)
async def defy(text: str, hold_s: float) -> str:
    """As ``echo``, but it goes on when it is asked to stop."""
    content = _started(text)
    loop, defying = asyncio.get_running_loop(), False
    until_s = loop.time() + hold_s
    while loop.time() < until_s:
        try:
            await asyncio.sleep(until_s - loop.time())
        except asyncio.CancelledError:
            if not defying:
                defying = True
                _observe(DEFY)
    _observe(END, content)
    return text


@job(name="climb", retry=Retry(max_lost=1, backoff="none"))
def climb(text: str, steps: int, step_s: float, trail: str = "") -> str:
    """Goes up step by step, and goes on where it was lost; it may note each as it begins it."""
    me = current_job()
    saved = me.last_checkpoint
    content = _started(text, saved)
    height = 0 if saved is None else saved[1]
    try:
        for step in me.iterate(range(steps)):
            if trail:
                with Path(trail).open("a") as file:
                    file.write(f"{step} {me.fence}\n")
            time.sleep(step_s)
            height += 1
            state = [me.fence, height]
            _observe(SAVE, hash_of(state))
            me.checkpoint(state)
        if height != steps:
            raise RuntimeError(f"expected to have come to {steps}, but it was {height}")
    except BaseException as error:
        # Handed back between two steps (``Cancelled``) it was let end, and goes on elsewhere.
        _quit(error)
        raise
    _observe(END, content)
    return text
