"""``current_job()``: inert outside a worker, exact inside, apart between tasks and threads."""

import asyncio
import contextvars
import logging
import threading
from datetime import UTC, datetime

import pytest

from tenure.client import (
    Cancelled,
    Fenced,
    JobContext,
    LeaseLost,
    Reason,
    Rejected,
    current_job,
)
from tenure.client.context import activate, enter_job
from tenure.protocol.fence import Lease, Token, parse_fence


def context(**settings: object) -> JobContext:
    """A context with some settings."""
    lease = Lease(Token(1, 2), 3, 0)
    values = {"id": "i", "name": "app.n", "attempt": 2, "lease": lease, **settings}
    return JobContext(**values)  # type: ignore[arg-type]


def test_outside_a_worker_it_is_inert() -> None:
    """A job's function called plainly meets a context that does nothing and never stops it."""
    me = current_job()
    me.progress(50)
    me.checkpoint()
    assert (me.id, me.attempt, me.cancelled, me.deadline) == ("", 1, False, None)
    assert parse_fence(me.fence) < parse_fence(context().fence)


def test_activation_nests_and_ends() -> None:
    """The innermost active context is the current one; after the block the outer one is back."""
    outer, inner = context(id="outer"), context(id="inner")
    with activate(outer):
        with activate(inner) as active:
            assert current_job() is inner is active
        assert current_job() is outer
    assert current_job().id == ""


def test_it_is_made_once_and_only_when_asked_for() -> None:
    """A job that never asks costs no context; one that does always gets the same."""
    made: list[JobContext] = []

    def make() -> JobContext:
        made.append(context())
        return made[-1]

    def code() -> None:
        enter_job(make)
        assert made == []
        assert current_job() is current_job()
        assert made == [current_job()]

    contextvars.Context().run(code)
    assert current_job().id == ""


def test_tasks_and_threads_do_not_share_it() -> None:
    """Each task and each thread has its own current job."""
    seen: list[str] = []

    async def run(name: str) -> str:
        with activate(context(id=name)):
            await asyncio.sleep(0)
            return current_job().id

    async def both() -> list[str]:
        return await asyncio.gather(run("a"), run("b"))

    assert asyncio.run(both()) == ["a", "b"]
    with activate(context(id="here")):
        thread = threading.Thread(target=lambda: seen.append(current_job().id))
        thread.start()
        thread.join()
    assert seen == [""]


def test_progress_reports_and_is_a_checkpoint() -> None:
    """Progress goes to the worker, unless the job has been cancelled or has lost its lease."""
    reported: list[float] = []
    context(on_progress=reported.append).progress(12.5)
    assert reported == [12.5]
    with pytest.raises(Cancelled):
        context(is_cancelled=lambda: True, on_progress=reported.append).progress(20)
    with pytest.raises(LeaseLost):
        context(is_cancelled=lambda: True, is_lost=lambda: True).checkpoint()
    assert reported == [12.5]
    assert issubclass(LeaseLost, Fenced)


@pytest.mark.parametrize(
    ("superseded", "reason"), [(False, Reason.LEASE_EXPIRED), (True, Reason.SUPERSEDED)]
)
def test_a_lost_lease_says_how_it_was_lost(superseded: bool, reason: Reason) -> None:
    """By nobody's renewal in time, or taken away by a master that gives the job to another one."""
    with pytest.raises(LeaseLost, match="stop") as lost:
        context(is_lost=lambda: True, is_superseded=lambda: superseded).checkpoint()

    assert lost.value.reason is reason


@pytest.mark.parametrize("pct", [-0.1, 100.1, float("nan")])
def test_progress_out_of_range_is_refused(pct: float) -> None:
    """A percentage is from 0 to 100."""
    with pytest.raises(Rejected) as caught:
        context().progress(pct)
    assert caught.value.field == "pct"


def test_cancelled_and_deadline_can_be_asked() -> None:
    """A job may look instead of being stopped; its deadline has a time zone."""
    me = context(is_cancelled=lambda: True, deadline_ms=1_500)
    assert me.cancelled
    assert me.deadline == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


def test_log_records_name_the_job(caplog: pytest.LogCaptureFixture) -> None:
    """What a job logs carries its id, name and attempt, beside the caller's own extras."""
    with caplog.at_level(logging.INFO, logger="tenure.job"):
        context().log.info("half way", extra={"rows": 5})
    (record,) = caplog.records
    assert record.__dict__["job_id"] == "i"
    assert record.__dict__["attempt"] == 2
    assert record.__dict__["rows"] == 5
