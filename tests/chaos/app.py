"""The jobs that chaos runs: each records its start and its end in its worker's history."""

from __future__ import annotations

import asyncio
import os
import time
from functools import cache
from pathlib import Path
from typing import Final

from tenure.client import Retry, current_job, job
from tests.oracles.history import END, QUIT, START, Recorder, hash_of

#: Retries come at once and losses are no poison: a run has many of both.
_PATIENT = Retry(max_attempts=4, max_lost=10, backoff="none")


#: The detail of a job's end that was asked to stop: its lease is lost, or it was cancelled.
ASKED: Final = "asked to stop"


@cache
def _recorder() -> Recorder:
    """This process's writer; the worker's name and the folder come from the test."""
    return Recorder(Path(os.environ["CHAOS_HISTORY"]), os.environ["CHAOS_PROCESS"])


def _started() -> None:
    me = current_job()
    _recorder().observe(START, job=me.id, lease=me.fence, attempt=me.attempt)


def _ended(text: str) -> str:
    me = current_job()
    _recorder().observe(END, job=me.id, lease=me.fence, attempt=me.attempt, hash=hash_of(text))
    return text


def _quit(error: BaseException) -> None:
    """It ends without a result: by itself, or because it is told to."""
    me = current_job()
    detail = ASKED if isinstance(error, asyncio.CancelledError) else repr(error)
    _recorder().observe(QUIT, job=me.id, lease=me.fence, attempt=me.attempt, detail=detail)


@job(name="echo", retry=_PATIENT)
async def echo(text: str, hold_s: float = 0.0) -> str:
    """Returns its argument after a while, without holding up others."""
    _started()
    try:
        await asyncio.sleep(hold_s)
    except BaseException as error:
        _quit(error)
        raise
    return _ended(text)


@job(name="flaky", retry=_PATIENT)
async def flaky(text: str, hold_s: float, failures: int) -> str:
    """As ``echo``, once it has failed so often."""
    _started()
    try:
        await asyncio.sleep(hold_s)
        if current_job().attempt <= failures:
            raise RuntimeError("as it was told to")
    except BaseException as error:
        _quit(error)
        raise
    return _ended(text)


@job(name="kill_the_worker", queue="poison", retry=Retry(max_lost=1, backoff="none"))
async def kill_the_worker(text: str, hold_s: float) -> str:
    """Takes its worker's whole process with it."""
    _started()
    os.abort()


@job(name="block_the_loop", queue="blocking", retry=_PATIENT)
async def block_the_loop(text: str, hold_s: float) -> str:
    """Holds the worker's event loop: nothing else in that loop runs meanwhile."""
    _started()
    time.sleep(hold_s)  # noqa: ASYNC251 - it is what this job is for
    return _ended(text)


@job(name="climb", retry=Retry(max_lost=1, backoff="none"))
def climb(trail: str, steps: int, step_s: float) -> int:
    """Goes up step by step, notes each as it begins it, and goes on where it was lost."""
    me = current_job()
    height = me.last_checkpoint or 0
    for step in me.iterate(range(steps)):
        with Path(trail).open("a") as file:
            file.write(f"{step} {me.fence}\n")
        time.sleep(step_s)
        height += 1
        me.checkpoint(height)
    return height
