"""Sticky keys by themselves: whom each is bound to, which are let go, and what is forgotten."""

from tenure.master.core.gate import Queue, Tenant
from tenure.master.core.lanes import Lanes
from tenure.master.core.settings import QueueSettings, Settings, TenantSettings
from tenure.master.core.sticky import Bindings
from tests.unit.master.core.test_ready import lane_of


def queue_of(tenant: str = "t", name: str = "q") -> Queue:
    """A queue without settings."""
    settings = QueueSettings()
    return Queue(Tenant(tenant, TenantSettings()), name, settings, 0, Lanes(Settings()))


def test_a_key_is_one_in_its_queue() -> None:
    """Another queue's or tenant's is another one; which object the queue is does not matter."""
    bindings = Bindings(9)
    key = bindings.get(queue_of(), "k")
    assert bindings.get(queue_of(), "k") is key
    others = [bindings.get(queue, "k") for queue in (queue_of("u"), queue_of(name="r"))]
    others.append(bindings.get(queue_of(), "l"))
    bindings.bind(key, "w1")
    assert bindings.is_bound(queue_of(), "k")
    assert [other.incarnation for other in others] == ["", "", ""]
    assert not bindings.is_bound(queue_of("u"), "k")
    assert not bindings.is_bound(queue_of(), "unknown")


def test_a_key_goes_with_its_last_job() -> None:
    """It is bound to one worker at a time, and who has changed hands is told."""
    bindings, queue = Bindings(9), queue_of()
    first, second = [bindings.get(queue, name) for name in ("a", "b")]
    assert bindings.bind(first, "w1") == [first]
    assert bindings.bind(second, "w1") == [second]
    assert bindings.bind(first, "w1") == []
    assert bindings.bind(first, "w2") == [first]
    assert (bindings.of("w1"), bindings.of("w2")) == ([second], [first])
    assert bindings.bind(second, "w2") == [second]
    assert (bindings.of("w1"), bindings.of("w2")) == ([], [first, second])


def test_of_too_many_bound_keys_the_oldest_is_let_go() -> None:
    """The one whose last grant is the longest ago, and it is told."""
    bindings, queue = Bindings(2), queue_of()
    a, b, c = [bindings.get(queue, name) for name in ("a", "b", "c")]
    for key in (a, b, a):
        bindings.bind(key, "w1")
    assert bindings.bound() == [b, a]
    assert bindings.bind(c, "w1") == [c, b]
    assert (bindings.bound(), bindings.of("w1"), b.incarnation) == ([a, c], [a, c], "")


def test_a_key_that_nobody_has_and_nothing_needs_is_forgotten() -> None:
    """While it has a lane or a worker it is kept."""
    bindings, queue, lane = Bindings(9), queue_of(), lane_of()
    key = bindings.get(queue, "k")
    key.lanes[lane] = None
    bindings.bind(key, "w1")
    bindings.unbind(key)
    assert bindings.get(queue, "k") is key
    assert (bindings.bound(), bindings.of("w1"), key.incarnation) == ([], [], "")
    bindings.bind(key, "w1")
    del key.lanes[lane]
    bindings.forget_if_idle(key)
    assert bindings.get(queue, "k") is key
    bindings.unbind(key)
    assert bindings.get(queue, "k") is not key
