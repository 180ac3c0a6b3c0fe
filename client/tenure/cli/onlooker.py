"""Who looks at a job while somebody waits for it, and says what they would want to know.

Why no worker begins it; each attempt that has failed, and when the next one is. The wait itself
goes on beside it, and it alone decides how the command ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from tenure.cli.job_view import when
from tenure.client.scope import TaskScope
from tenure.client.unserved import LOGGER
from tenure.protocol.errors import TenureError
from tenure.protocol.vocabulary import TERMINAL, AttemptOutcome, JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenure.cli.progress import Bar
    from tenure.client import AsyncClient, AsyncJobHandle
    from tenure.v1 import jobs_pb2

#: How often a job is looked at. Where nobody sees a bar move, looks grow rarer up to the second.
LOOK_S: Final = 0.5
LOOK_MAX_S: Final = 2.0
#: When a command is late, and how long a master may take to say that it is there.
SILENCE_S: Final = 1.0
#: A job that is not begun after so many looks (1 s) has its workers asked for.
_PATIENCE: Final = 2
#: Of several jobs so many are looked at, each of another name.
_NAMES_MAX: Final = 5
_FAILED: Final = {
    AttemptOutcome.FAILED: "failed",
    AttemptOutcome.FAILED_PERMANENT: "failed",
    AttemptOutcome.TIMED_OUT: "timed out",
    AttemptOutcome.LOST: "was lost with its worker",
}


class Onlooker:
    """Looks at jobs that are waited for.

    Args:
        client: Asks the cluster.
        say: Takes a line for people.
    """

    def __init__(self, client: AsyncClient, say: Callable[[str], None]) -> None:
        self._client = client
        self._say = say
        self._told: set[str] = set()

    async def follow(self, handle: AsyncJobHandle[Any], bar: Bar) -> None:
        """Looks at one job until cancelled."""
        looks, pause_s = 0, LOOK_S
        with _instead_of_the_log():
            while True:
                await asyncio.sleep(pause_s)
                looks += 1
                if not bar.is_shown:
                    pause_s = min(pause_s + LOOK_S / 2, LOOK_MAX_S)
                with contextlib.suppress(TenureError):
                    job = await self._client.describe(handle.id)
                    bar.set(job.progress, JobState(job.state).name.lower())
                    self._tell_attempts(job)
                    if looks >= _PATIENCE:
                        await self._tell_unserved(job)

    async def follow_all(self, waiting: Mapping[str, AsyncJobHandle[Any]]) -> None:
        """Looks at some of several jobs until cancelled; ``waiting`` shrinks as they end."""
        with _instead_of_the_log():
            while True:
                await asyncio.sleep(LOOK_S * _PATIENCE)
                by_name = {handle.name: handle for handle in waiting.values()}
                for handle in [*by_name.values()][:_NAMES_MAX]:
                    with contextlib.suppress(TenureError):
                        await self._tell_unserved(await self._client.describe(handle.id))

    async def _tell_unserved(self, job: jobs_pb2.Job) -> None:
        if int(job.state) == JobState.SCHEDULED:
            self._tell_once(f"still waiting: it is due at {when(job.ready_at)}")
            return
        why = await self._client.cluster.unserved(job)
        if why is not None:
            self._tell_once(f"still waiting: {why}")

    def _tell_attempts(self, job: jobs_pb2.Job) -> None:
        if int(job.state) in TERMINAL:
            return  # The result says it.
        for attempt in job.attempts:
            if attempt.outcome and AttemptOutcome(attempt.outcome) in _FAILED:
                self._tell_once(_account(attempt), _when_next(job, attempt))

    def _tell_once(self, text: str, more: str = "") -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text + more)


async def tell_silence(client: AsyncClient, address: str, say: Callable[[str], None]) -> None:
    """Says that no master answers, if so, to who has waited for longer than most commands take."""
    await asyncio.sleep(SILENCE_S)
    try:
        async with asyncio.timeout(SILENCE_S):
            await client.cluster.topology()
    except (TenureError, TimeoutError):
        say(f"no master has answered yet; still trying {address}")


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs something while the body runs. What the body raises is not wrapped into a group."""
    scope = TaskScope()
    scope.spawn(work)
    try:
        yield
    finally:
        await scope.close()


@contextlib.contextmanager
def _instead_of_the_log() -> Iterator[None]:
    """We say sooner why a wait is silent; one without a command line leaves it to the log."""
    logger = logging.getLogger(LOGGER)
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def _account(attempt: jobs_pb2.Attempt) -> str:
    error = attempt.error
    text = f"attempt {attempt.number} {_FAILED[AttemptOutcome(attempt.outcome)]}"
    if error.type:
        message = " ".join(error.message.split())
        text += f": {error.type}: {message}" if message else f": {error.type}"
    return text


def _when_next(job: jobs_pb2.Job, attempt: jobs_pb2.Attempt) -> str:
    """When it is tried again, if this was its last attempt so far. By the cluster's clock alone."""
    if int(job.state) != JobState.RETRYING or attempt != job.attempts[-1]:
        return ""
    delay_s = job.ready_at.ToMilliseconds() - attempt.ended_at.ToMilliseconds()
    return f"; next in {max(delay_s, 0) / 1_000:.1f} s"
