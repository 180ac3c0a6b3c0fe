"""What a calendar and a call come to, before anybody is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenure.client import Rejected, job
from tenure.client.parent_result import placeholder
from tenure.client.schedule import cron, spec_of
from tenure.protocol.ids import mint

PARENT = mint(0, 1_700_000_000_000, 1)


@job(queue="reports", limit_key=lambda text, **_: text)
def report(text: str, times: int = 1) -> str:
    """A job."""
    return text * times


@pytest.mark.parametrize(
    ("options", "args", "names"),
    [
        ({"key": "k"}, ("x",), "key"),
        ({"delay": timedelta(seconds=1)}, ("x",), "delay"),
        ({"at": datetime(2030, 1, 1, tzinfo=UTC)}, ("x",), "at"),
        ({"after": [PARENT]}, ("x",), "after"),
        ({"on_success": report}, ("x",), "on_success"),
        ({"on_failure": report.bind("x")}, ("x",), "on_failure"),
        ({}, (placeholder(PARENT),), "result_of"),
        ({}, ("x", placeholder(PARENT)), "result_of"),
    ],
)
def test_what_no_tick_could_have_is_refused(
    options: dict[str, Any], args: tuple[Any, ...], names: str
) -> None:
    """Nothing of a job is left out silently: the error names what has to go."""
    with pytest.raises(Rejected, match=rf"\b{names}\b") as refused:
        spec_of(cron("@daily"), report.options(**options), args, {})
    assert refused.value.field == "job"


def test_all_else_is_in_the_spec() -> None:
    """The job's options, the calendar and the arguments, with the row's keys made of these."""
    retried = report.options(priority=2, timeout=timedelta(seconds=9))
    spec = spec_of(cron("@daily", note="each day"), retried, ("x",), {"times": 2})
    assert (spec.cron, spec.note, spec.options.queue) == ("@daily", "each day", "reports")
    assert (spec.options.priority, spec.options.timeout.seconds) == (2, 9)
    assert spec.limit_key == "x"
    assert spec.payload
