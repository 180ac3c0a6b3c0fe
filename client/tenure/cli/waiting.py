"""Waiting for jobs to end, with a progress bar for who looks at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from tenure.cli import exits, progress
from tenure.cli.invocation import Invocation
from tenure.cli.job_view import show_value

if TYPE_CHECKING:
    from tenure.client import AsyncClient, AsyncJobHandle
    from tenure.v1 import jobs_pb2

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

    from tenure.cli.onlooker import Onlooker, beside
    from tenure.client import WaitTimeout

    onlooker = Onlooker(client, cli.say)
    try:
        with progress.bar(handle.name, _FULL, shown=cli.shows_progress) as bar:
            async with beside(onlooker.follow(handle, bar)):
                ended = await handle.wait(timeout_s)
    except asyncio.CancelledError:
        cli.hint(f"the job goes on; to wait again: tenure jobs wait {handle.id}")
        raise
    if not ended:
        raise WaitTimeout(handle.id, timeout_s or 0)
    show_value(await handle.result(), cli.form)
    return exits.OK


async def wait_for_all(
    cli: Invocation, client: AsyncClient, job_ids: Sequence[str], timeout_s: float | None
) -> list[jobs_pb2.JobResult]:
    """Waits for several jobs; their results in the order of the ids.

    Raises:
        WaitTimeout: Not all have ended in time.
    """
    import asyncio

    from tenure.cli.onlooker import Onlooker, beside
    from tenure.client import WaitTimeout

    handles = [await client.get(job_id) for job_id in job_ids]
    waiting = {handle.id: handle for handle in handles}
    onlooker = Onlooker(client, cli.say)
    try:
        async with asyncio.timeout(timeout_s), beside(onlooker.follow_all(waiting)):
            with progress.bar("jobs", len(waiting), shown=cli.shows_progress) as bar:
                async for handle in client.as_completed(handles):
                    waiting.pop(handle.id, None)
                    bar.set(len(job_ids) - len(waiting))
    except TimeoutError:
        late = next(iter(waiting.values()))
        raise WaitTimeout(late.id, timeout_s or 0) from None
    return [await handle.outcome() for handle in handles]
