"""What users have changed of how a cluster is run, and how that is put right after the storm."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from tenure.client import AsyncClient, Reason, Rejected, TenureError
from tenure.testing.process import elapse

T = TypeVar("T")

#: A call may be served so much later, for the second time (``faults.repeat_calls``).
_LATE_CALLS_S: Final = 12.0
_AGAIN_S: Final = 1.0
#: How queues, tenants and job types are run that nobody has touched.
_QUEUE: Final[dict[str, Any]] = {
    "weight": 1.0,
    "fair_by": "grants",
    "paused": False,
    "concurrency": 0,
    "key_concurrency": 0,
    "key_strategy": "queue",
    "rate": None,
    "key_rate": None,
    "reserved": 0.0,
    "depth_max": 0,
    "refuse_late": False,
    "key_breaker": None,
    "key_breaker_overrides": None,
}
_TENANT: Final[dict[str, Any]] = {"weight": 1.0, "paused": False}
_JOB_TYPE: Final[dict[str, Any]] = {
    "paused": False,
    "breaker": None,
    "breaker_override": "none",
    "retry_budget": 0.0,
    "adaptive_retry": False,
}


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Calls until there is an answer.

    Raises:
        Rejected: It is a refusal.
    """
    while True:
        try:
            return await call()
        except Rejected:
            raise
        except TenureError:
            await elapse(_AGAIN_S)


class Changed:
    """What was changed, by name.

    Attributes:
        queues: (tenant, queue).
        tenants: Their names.
        job_types: (tenant, job name).
        scheduled: Whether there were schedules.
        drained: Whether workers were drained.
    """

    def __init__(self) -> None:
        self.queues: dict[tuple[str, str], None] = {}
        self.tenants: dict[str, None] = {}
        self.job_types: dict[tuple[str, str], None] = {}
        self.scheduled = False
        self.drained = False
        self._at_work = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Somebody is about to change something."""
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1

    async def put_right(self, client: AsyncClient, late_calls: bool) -> None:
        """Sets everything as it was, when nobody will change it any more.

        Args:
            client: Who does.
            late_calls: Whether calls that were made before may yet be served.
        """
        while self._at_work:
            await elapse(_AGAIN_S)
        if late_calls:
            await elapse(_LATE_CALLS_S)
        for tenant, queue in self.queues:
            await insist(lambda q=queue, t=tenant: client.queues.set(q, tenant=t, **_QUEUE))
        for tenant in self.tenants:
            await insist(lambda t=tenant: client.tenants.set(t, **_TENANT))
        for tenant, name in self.job_types:
            await insist(lambda n=name, t=tenant: client.job_types.set(n, tenant=t, **_JOB_TYPE))
        if self.drained:
            for worker in await insist(client.workers.list):
                await _undrain(client, worker.incarnation)
        if self.scheduled:
            for schedule in await insist(client.schedules.list):
                await _delete(client, schedule.name, schedule.tenant)


async def _undrain(client: AsyncClient, incarnation: str) -> None:
    try:
        await insist(lambda: client.workers.undrain(incarnation))
    except Rejected as error:
        # It has ended since it was listed.
        if error.reason is not Reason.NOT_FOUND:
            raise


async def _delete(client: AsyncClient, name: str, tenant: str) -> None:
    try:
        await insist(lambda: client.schedules.delete(name, tenant=tenant))
    except Rejected as error:
        # An earlier try may have been heard.
        if error.reason is not Reason.NOT_FOUND:
            raise
