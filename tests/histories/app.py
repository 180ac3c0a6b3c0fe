"""The jobs of the recorded runs; they run on real and on virtual time.

Their tracebacks are recorded, and must not name the folders of the machine that recorded them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from tenure.client import Permanent, Retry, current_job, job

AT_ONCE = Retry(max_attempts=3, backoff="none")
F = TypeVar("F", bound=Callable[..., Any])


def placeless(function: F) -> F:
    """The function with a file name that is the same on every machine."""
    function.__code__ = function.__code__.replace(co_filename="app.py")
    return function


@job(name="histories.steady", retry=AT_ONCE)
@placeless
async def steady(text: str, hold_s: float = 0.0) -> str:
    """Returns its argument after a while."""
    try:
        await asyncio.sleep(hold_s)
    except asyncio.CancelledError as error:
        # Without the frames of asyncio.
        raise error.with_traceback(None) from None
    return text


@job(name="histories.flaky", retry=AT_ONCE)
@placeless
async def flaky(failures: int) -> int:
    """Fails so many times before it succeeds."""
    attempt = current_job().attempt
    if attempt <= failures:
        raise RuntimeError(f"attempt {attempt} of {failures} that fail")
    return attempt


@job(name="histories.broken")
@placeless
async def broken(why: str) -> None:
    """Fails, and is not tried again."""
    raise Permanent(why)


JOBS = (steady, flaky, broken)
