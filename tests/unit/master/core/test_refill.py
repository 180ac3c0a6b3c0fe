"""Refills by themselves: gates wait for their time once, and open when it has come."""

import pytest

from tenure.master.core.gate import Gate, LimitKey
from tenure.master.core.refill import Refills
from tenure.master.core.settings import BreakerSettings, QueueSettings, RateLimit
from tests.unit.master.core.test_gate import queue_of


def refills() -> Refills:
    """No gate waits."""
    return Refills(lambda: 9)


def waiting(found: Refills) -> list[tuple[int, Gate]]:
    """Which gates wait, and until when."""
    return sorted(found.things(), key=lambda entry: entry[0])


def test_the_last_token_closes_its_gate_until_the_next_one() -> None:
    """Not the one before it; and it waits once, whatever else is charged."""
    queue, found = queue_of(rate=RateLimit(1, 1_000, 2)), refills()
    found.charge(queue, 1, 2_000)
    assert (queue.is_dry, queue.is_open, waiting(found)) == (False, True, [])
    for _ in range(2):
        found.charge(queue, 1, 2_000)
        assert (queue.is_dry, queue.is_open) == (True, False)
        assert waiting(found) == [(3_000, queue)]


def test_a_gate_without_a_rate_waits_for_nothing() -> None:
    """Whatever is charged."""
    queue, found = queue_of(), refills()
    found.charge(queue, 9, 2_000)
    found.await_tokens(queue, 2_000)
    assert (queue.is_open, waiting(found)) == (True, [])


@pytest.mark.parametrize(("now_ms", "is_dry"), [(999, True), (1_000, False)])
def test_a_new_bucket_is_awaited_while_it_is_empty(now_ms: int, is_dry: bool) -> None:
    """One that has a token lets its gate be."""
    queue, found = queue_of(rate=RateLimit(1, 1_000, 2)), refills()
    found.await_tokens(queue, now_ms)
    assert (queue.is_dry, queue.is_open) == (is_dry, not is_dry)
    assert waiting(found) == ([(1_000, queue)] if is_dry else [])


def test_a_gate_opens_when_its_time_has_come() -> None:
    """Looked at before, it goes on waiting; afterwards it waits no more."""
    queue, found = queue_of(rate=RateLimit(1, 1_000, 2)), refills()
    found.await_tokens(queue, 0)
    for now_ms, is_open, left in ((999, False, 1), (1_000, True, 0)):
        (gate,) = found.take((1_000, 99))
        found.look_at(gate, now_ms)
        assert (queue.is_open, len(found)) == (is_open, left)
    found.look_at(queue, 2_000)
    assert (queue.is_open, len(found)) == (True, 0)


def test_a_gate_that_waits_for_two_times_is_looked_at_for_both() -> None:
    """Its bucket has a token before its breaker lets probes through."""
    settings = QueueSettings(
        key_rate=RateLimit(1, 500, 1), key_breaker=BreakerSettings(volume_min=1, open_for_ms=700)
    )
    queue, found = queue_of(), refills()
    queue.settings = settings
    key = LimitKey(queue, "k")
    assert key.breaker is not None
    found.await_tokens(key, 0)
    key.breaker.failed("job", 0)  # type: ignore[arg-type]
    key.refresh()
    for now_ms, is_open, due_ms in ((500, False, 700), (700, True, None)):
        (gate,) = found.take((now_ms, 99))
        found.look_at(gate, now_ms)
        assert (key.is_open, found.next_ms()) == (is_open, due_ms)
