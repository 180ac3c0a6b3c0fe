"""Waiting for jobs to end, with a progress bar for who looks at it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from tenure.cli import exits, progress
from tenure.cli.invocation import Invocation
from tenure.cli.job_view import show_value
from tenure.protocol.vocabulary import JobState

if TYPE_CHECKING:
    from tenure.client import AsyncClient, AsyncJobHandle
    from tenure.v1 import jobs_pb2

#: How often a job is asked how far it is, while somebody looks.
_LOOK_S: Final = 0.5
_FULL: Final = 100.0


async def result_of(
    cli: Invocation, client: AsyncClient, handle: AsyncJobHandle[Any], timeout_s: float | None
) -> int:
    """Waits for one job and prints its result.

    Raises:
        JobFailed: It failed for good.
        JobCancelled: It was cancelled.
        WaitTimeout: It has not ended in time, and goes on.
    """
    import asyncio

    try:
        if cli.shows_progress:
            await _look_on(client, handle, timeout_s)
            timeout_s = timeout_s and 0.0
        value = await handle.result(timeout_s)
    except asyncio.CancelledError:
        cli.hint(f"the job goes on; to wait again: tenure jobs wait {handle.id}")
        raise
    show_value(value, cli.form)
    return exits.OK


async def wait_for_all(
    cli: Invocation, client: AsyncClient, job_ids: Sequence[str], timeout_s: float | None
) -> list[jobs_pb2.JobResult]:
    """Waits for several jobs; their results in the order of the ids.

    Raises:
        WaitTimeout: Not all have ended in time.
    """
    import asyncio

    from tenure.client import WaitTimeout

    handles = [await client.get(job_id) for job_id in job_ids]
    late = handles[0]
    waiting = {handle.id for handle in handles}
    try:
        async with asyncio.timeout(timeout_s):
            with progress.bar("jobs", len(waiting), shown=cli.shows_progress) as bar:
                async for handle in client.as_completed(handles):
                    waiting.discard(handle.id)
                    bar.set(len(job_ids) - len(waiting))
    except TimeoutError:
        late = next(handle for handle in handles if handle.id in waiting)
        raise WaitTimeout(late.id, timeout_s or 0) from None
    return [await handle.outcome() for handle in handles]


async def _look_on(
    client: AsyncClient, handle: AsyncJobHandle[Any], timeout_s: float | None
) -> None:
    """Shows how far a job is, until it has ended or the time is over.

    Raises:
        WaitTimeout: It has not ended in time, and goes on.
    """
    from tenure.client import WaitTimeout

    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    with progress.bar(handle.name, _FULL, shown=True) as bar:
        while True:
            left_s = _LOOK_S if deadline_s is None else deadline_s - time.monotonic()
            if left_s <= 0:
                raise WaitTimeout(handle.id, timeout_s or 0)
            if await handle.wait(min(_LOOK_S, left_s)):
                return
            job = await client.describe(handle.id)
            bar.set(job.progress, JobState(job.state).name.lower())
