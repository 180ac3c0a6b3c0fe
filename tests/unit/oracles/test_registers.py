"""S18: the search finds an order where there is one, and none where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest

from tests.oracles.facts import CancelAsked, JobFact, Purged, Requeued, Settled, Submitted
from tests.oracles.history import (
    CANCEL,
    END,
    GET,
    LIST,
    NONE,
    PURGE,
    REQUEUE,
    RESULT,
    SUBMIT,
    Kind,
    Row,
)
from tests.oracles.registers import check_registers
from tests.unit.oracles.sample import TERM_1, at, lease

_numbers = count(1)


def call(f: str, since: float, until: float, state: str = "", kind: Kind = "ok") -> list[Row]:
    """One call on the job, and its answer."""
    number = next(_numbers)
    content = {"submit": "a", "result": "r" if state == "COMPLETED" else ""}.get(f, "")
    job = "" if f == SUBMIT and kind != "ok" else "A"
    asked = at(since, "invoke", f, number, content=content)
    return [asked, at(until, kind, f, number, job=job, state=state, content=content)]


def end(moment: float, content: str = "r") -> list[Row]:
    """A worker has come to a result."""
    return [at(moment, "ok", END, next(_numbers), job="A", lease=lease(TERM_1, 1), content=content)]


def broken(*calls: list[Row], purged: bool = False, more: Sequence[JobFact] = ()) -> bool:
    """Whether no order explains them.

    Args:
        *calls: The calls on the job.
        purged: Whether the journal says that it was forgotten.
        more: What else the journal says of it.
    """
    rows = sorted((row for rows in calls for row in rows), key=lambda row: row.boottime)
    life: list[JobFact] = [Submitted(1, "A", "a", 4, 3), *more]
    if purged:
        life.append(Purged(9, "A"))
    found = check_registers(rows, {"A": life})
    assert {violation.invariant for violation in found} <= {"S18"}
    return bool(found)


TAKEN = call(SUBMIT, 0, 10)
DONE = call(RESULT, 11, 30, "COMPLETED")


@pytest.mark.parametrize(
    "calls",
    [
        [TAKEN, end(20), DONE, call(GET, 31, 32, "COMPLETED")],
        [TAKEN, end(20), DONE, call(GET, 25, 32, "RUNNING")],
        [TAKEN, end(20), DONE, call(GET, 5, 9, NONE, "fail")],
        [TAKEN, call(CANCEL, 12, 15, "CANCELLED"), call(RESULT, 11, 30, "CANCELLED")],
        [TAKEN, call(CANCEL, 12, 15, "RUNNING"), end(20), DONE],
        [TAKEN, call(CANCEL, 12, 15, "", "info"), call(RESULT, 11, 30, "CANCELLED")],
        [TAKEN, call(CANCEL, 12, 15, "FAILED", "fail"), call(RESULT, 11, 30, "FAILED")],
        [TAKEN, call(RESULT, 11, 20, "FAILED"), call(REQUEUE, 21, 22), end(25), call(GET, 23, 24)],
        [call(SUBMIT, 0, 10, kind="info"), end(20), call(GET, 40, 41, "RUNNING")],
    ],
)
def test_what_an_order_explains_passes(calls: list[list[Row]]) -> None:
    """Calls that overlap may have taken effect in any order; unknown ones later, or never."""
    assert not broken(*calls)


@pytest.mark.parametrize(
    "calls",
    [
        [TAKEN, end(20), DONE, call(GET, 31, 32, "RUNNING")],
        [TAKEN, call(GET, 12, 13, NONE, "fail")],
        [TAKEN, end(40), DONE],
        [TAKEN, end(20, "other"), DONE],
        [TAKEN, end(20), DONE, call(RESULT, 12, 60, "FAILED")],
        [TAKEN, end(20), DONE, call(CANCEL, 31, 32, "CANCELLED")],
        [TAKEN, call(CANCEL, 12, 15, "CANCELLED"), end(20), DONE],
        [TAKEN, call(RESULT, 11, 30, "CANCELLED")],
        [TAKEN, call(CANCEL, 40, 41, "CANCELLED"), call(RESULT, 11, 30, "CANCELLED")],
        [TAKEN, call(RESULT, 11, 20, "FAILED"), call(GET, 23, 24, "PENDING")],
        [TAKEN, call(CANCEL, 12, 15, NONE, "fail")],
    ],
)
def test_what_no_order_explains_is_found(calls: list[list[Row]]) -> None:
    """Stale and lost states, results from nowhere, cancels too late."""
    assert broken(*calls)


def test_a_purge_ends_it() -> None:
    """Afterwards there is none, and it does not come back."""
    purge = call(PURGE, 31, 33)
    gone = call(GET, 34, 35, NONE, "fail")
    assert not broken(TAKEN, end(20), DONE, purge, gone, purged=True)
    assert broken(TAKEN, end(20), DONE, purge, call(GET, 34, 35, "COMPLETED"), purged=True)
    assert broken(TAKEN, end(20), DONE, gone)


def test_what_cancels_by_itself_needs_no_call() -> None:
    """A limit key, parents, a batch: the journal says why. One without a reason is a call's."""
    cancelled = call(RESULT, 11, 30, "CANCELLED")
    for more, explained in (
        ([Settled(2, "A", 0, "", "CANCELLED", "", "another job has its place")], True),
        ([Settled(2, "A", 0, "", "CANCELLED", "", outcomes=("COMPLETED",))], True),
        ([CancelAsked(2, "A", "another job has its place")], True),
        ([Settled(2, "A", 0, "", "CANCELLED", "")], False),
        ([CancelAsked(2, "A")], False),
    ):
        assert broken(TAKEN, cancelled, more=more) is not explained


def test_what_runs_again_by_itself_needs_no_call() -> None:
    """A batch requeues what has failed; calls on the job account for as many runs as they may."""
    failed, again = call(RESULT, 11, 20, "FAILED"), call(GET, 23, 24, "PENDING")
    one: list[JobFact] = [Requeued(3, "A", 1)]
    assert not broken(TAKEN, failed, again, end(25), call(RESULT, 26, 30, "COMPLETED"), more=one)
    assert not broken(TAKEN, failed, again, call(RESULT, 26, 30, "FAILED"), more=one)
    assert broken(TAKEN, failed, call(REQUEUE, 25, 26), again, more=one)
    # What has completed does not run again.
    done = [end(12), call(RESULT, 11, 20, "COMPLETED")]
    assert broken(TAKEN, *done, again, more=one)


def test_lists_are_reads() -> None:
    """Each job that is listed was read at some moment of the call."""
    for state, wrong in (("COMPLETED", False), ("PENDING", True)):
        number = next(_numbers)
        listed = [
            at(31, "invoke", LIST, number),
            at(32, "ok", LIST, number, seen=(("A", state), ("B", "PENDING"))),
        ]
        assert broken(TAKEN, end(20), DONE, listed) is wrong
