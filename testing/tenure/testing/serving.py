"""A client of a test's own cluster: the workers serve what is submitted or scheduled through it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from tenure.client.client import AsyncClient
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import JobDef
from tenure.client.middleware import Middleware, Submission
from tenure.client.schedule import AsyncSchedules
from tenure.v1 import schedules_pb2

#: Lets the workers serve one more job.
Serve = Callable[[JobDef[..., Any]], None]


class ServingClient(AsyncClient):
    """See the module.

    Args:
        serve: Lets the workers serve one more job.
        handles: Gets the handles of all that is submitted.
        options: As ``AsyncClient`` takes them.
    """

    def __init__(
        self, address: str, *, serve: Serve, handles: list[AsyncJobHandle[Any]], **options: Any
    ) -> None:
        super().__init__(address, middleware=[_Serving(serve, handles)], **options)
        self._serve = serve

    @property
    def schedules(self) -> AsyncSchedules:
        """Jobs by the calendar, served."""
        return _ServingSchedules(self, self._timeout_s, self._serve)


class _Serving(Middleware):
    """Lets the workers serve what is submitted, and keeps the handles."""

    def __init__(self, serve: Serve, handles: list[AsyncJobHandle[Any]]) -> None:
        self._serve = serve
        self._handles = handles

    @contextmanager
    def on_submit(self, submission: Submission, /) -> Generator[None, None, None]:
        self._serve(submission.job)
        yield
        self._handles += submission.handles


class _ServingSchedules(AsyncSchedules):
    """Lets the workers serve what is scheduled."""

    def __init__(self, client: AsyncClient, timeout_s: float, serve: Serve) -> None:
        super().__init__(client, timeout_s)
        self._serve = serve

    async def _put(
        self,
        name: str,
        spec: schedules_pb2.ScheduleSpec,
        job: JobDef[..., Any],
        *,
        create_only: bool,
    ) -> schedules_pb2.Schedule:
        self._serve(job)
        return await super()._put(name, spec, job, create_only=create_only)
