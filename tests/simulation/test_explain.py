"""Breakers and explanations on a whole cluster: what a user sees while a service is down."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tenure.client import (
    BlockerKind,
    BreakerSettings,
    BreakerState,
    JobState,
    RateLimit,
    Reason,
    Retry,
    Unavailable,
    job,
)
from tenure.testing.virtual import Shape, VirtualCluster

SERVICE = {"is_down": True}


@job(queue="mail", retry=Retry(max_attempts=50, backoff="fixed", base=timedelta(seconds=1)))
def call_service(number: int) -> int:
    """Fails while the service is down."""
    if SERVICE["is_down"]:
        raise ConnectionError("the service is down")
    return number


@pytest.fixture
def cluster() -> Iterator[VirtualCluster]:
    """One master, one worker."""
    SERVICE["is_down"] = True
    with VirtualCluster(Shape(masters=1, workers=1), [call_service]) as cluster:
        yield cluster


def test_a_breaker_spares_a_service_and_says_so(cluster: VirtualCluster) -> None:
    """It opens, jobs wait and are explained; when the service is back, probes close it."""
    client = cluster.client
    breaker = BreakerSettings(volume_min=4, open_for=timedelta(seconds=20), probes=2)
    client.job_types.set(call_service.name, breaker=breaker)
    handles = [client.submit(call_service, number) for number in range(6)]
    cluster.advance(timedelta(seconds=5))
    found = client.job_types.get(call_service.name)
    assert found.breaker_state is BreakerState.OPEN
    assert found.failure_rate == 1.0
    assert found.breaker_open_until is not None
    explanation = handles[0].explain()
    (blocker,) = explanation.blockers
    assert blocker.kind is BlockerKind.CIRCUIT_BREAKER
    assert blocker.until == found.breaker_open_until
    for handle in handles:
        explanation = handle.explain()
        assert (explanation.estimated_wait is None) is (explanation.ahead > 0)
    SERVICE["is_down"] = False
    cluster.advance(timedelta(minutes=1))
    assert [handle.result(timeout=1) for handle in handles] == [*range(6)]
    assert client.job_types.get(call_service.name).breaker_state is BreakerState.CLOSED
    assert client.explain(handles[0].id).blockers == ()
    assert handles[0].status() is JobState.COMPLETED


def test_a_late_job_is_refused_with_a_time_to_come_back(cluster: VirtualCluster) -> None:
    """By what waits and what has begun lately; nothing is lost by asking again later."""
    SERVICE["is_down"] = False
    client = cluster.client
    rate = RateLimit(count=2, per=timedelta(seconds=1))
    client.queues.set("mail", refuse_late=True, rate=rate)
    waiting = [client.submit(call_service, number) for number in range(40)]
    cluster.advance(timedelta(seconds=10))
    with pytest.raises(Unavailable) as refused:
        client.submit(call_service.options(schedule_timeout=timedelta(seconds=1)), 1)
    assert refused.value.reason is Reason.WOULD_EXPIRE
    assert refused.value.retry_after_ms
    assert waiting[-1].explain().blockers[0].kind is BlockerKind.QUEUE_RATE
