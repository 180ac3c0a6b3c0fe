"""S11: the sweep lets an ordered queue go and finds whoever was passed over."""

from __future__ import annotations

import pytest

from tests.oracles.facts import Fact, Granted, Readied, Requeued, Settled, Submitted, Waits
from tests.oracles.journal_facts import Extents
from tests.oracles.queue_order import check_order, order_key
from tests.unit.oracles.sample import TERM_1, lease

STEP_MS = 1_000


def job(
    seq: int, job_id: str, *, priority: int = 5, ready_ms: int = 0, lane: str = "t q work"
) -> Submitted:
    """A job that is due at once, unless ``ready_ms`` says otherwise."""
    tenant, queue, name = lane.split()
    return Submitted(
        seq,
        job_id,
        job_id,
        4,
        3,
        tenant=tenant,
        queue=queue,
        name=name,
        priority=priority,
        ready_ms=ready_ms,
        pending=ready_ms == 0,
    )


def grant(seq: int, name: str, at_ms: int = 500, holder: str = "w") -> Granted:
    """Somebody gets it."""
    return Granted(seq, name, lease(TERM_1, seq), 1, at_ms, holder)


def passed_over(*facts: Fact) -> list[str]:
    """The jobs that were, with one event a batch."""
    extents = Extents(range(100), range(100), [9] * 100)
    found = check_order(facts, extents, aging_step_ms=STEP_MS)
    assert {violation.invariant for violation in found} <= {"S11"}
    return [violation.subject for violation in found]


def test_keys_are_the_documented_ones() -> None:
    """Critical jobs first, then age; without aging, priority and then age."""
    assert order_key(0, 9_999, STEP_MS) < order_key(1, 0, STEP_MS)
    assert order_key(1, 1_500, STEP_MS) > order_key(2, 0, STEP_MS)
    assert order_key(1, 1_500, 0) < order_key(2, 0, 0)


def test_grants_in_order_pass() -> None:
    """By key, not by submit; whoever leaves in between is not passed over."""
    low, high = job(1, "low", priority=9), job(2, "high", priority=1)
    assert passed_over(low, high, grant(20, "high"), grant(21, "low", 600)) == []
    gone = Settled(5, "high", 0, "", "CANCELLED", "")
    assert passed_over(low, high, gone, grant(20, "low")) == []


def test_a_job_that_is_passed_over_is_found() -> None:
    """Two grants have changed places, or one was lost."""
    low, high = job(1, "low", priority=9), job(2, "high", priority=1)
    assert passed_over(low, high, grant(20, "low"), grant(21, "high", 600)) == ["high"]
    assert passed_over(low, high, grant(20, "low")) == ["high"]


@pytest.mark.parametrize(
    ("seq", "at_ms", "wrong"),
    [(20, 500, True), (20, 249, False), (5, 500, False)],
    ids=["old", "young", "perhaps not committed"],
)
def test_only_what_is_eligible_and_old_counts(seq: int, at_ms: int, wrong: bool) -> None:
    """A job may have become ready too late for the decision, or its batch be on its way."""
    low, high = job(1, "low", priority=9), job(2, "high", priority=1)
    assert bool(passed_over(low, high, grant(seq, "low", at_ms))) is wrong


def test_one_decision_has_no_order_inside() -> None:
    """Its grants are told worker by worker."""
    low, high = job(1, "low", priority=9), job(2, "high", priority=1)
    assert passed_over(low, high, grant(20, "low", 500, "x"), grant(21, "high", 500, "y")) == []


def test_only_what_the_worker_serves_counts() -> None:
    """Other queues, tenants and job names; a name counts once the worker was given it."""
    low = job(1, "low", priority=9)
    for other in ("t r work", "u q work", "t q rest"):
        high = job(2, "high", priority=1, lane=other)
        assert passed_over(low, high, grant(20, "low")) == []
    rest = job(2, "high", priority=1, lane="t q rest")
    other_rest = job(3, "later", priority=9, lane="t q rest")
    served: list[Fact] = [low, rest, other_rest, grant(20, "low"), grant(30, "later", 900)]
    assert "high" in passed_over(*served)


def test_jobs_that_go_apart_are_no_measure() -> None:
    """What a limit key, a sticky key or a label holds up or sends elsewhere, the queue does not."""
    low, high = job(1, "low", priority=9), job(2, "high", priority=1)
    apart = high._replace(apart=True)
    assert passed_over(low, apart, grant(20, "low")) == []
    assert passed_over(low._replace(apart=True), high, grant(20, "low")) == []


def test_waiting_begins_with_what_makes_ready() -> None:
    """A delay that is over, a release, a requeue."""
    low = job(1, "low", priority=9)
    delayed = job(2, "high", priority=1, ready_ms=100)
    assert passed_over(low, delayed, grant(20, "low", 5_000)) == []
    assert passed_over(low, delayed, Readied(3, "high", 100), grant(20, "low", 5_000)) == ["high"]
    for again in (Waits(5, "high", 100, True), Requeued(5, "high", 1, 100)):
        life: list[Fact] = [low, job(2, "high", priority=1), grant(4, "high", 90), again]
        assert passed_over(*life, grant(20, "low", 5_000)) == ["high"]
