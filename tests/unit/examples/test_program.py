"""The event log that the demos wait on."""

import threading
import time

import pytest

from examples.stdlib_metrics.program import DemoFailed, EventLog, Line


def line(event: str) -> Line:
    """A line as a program prints it."""
    return Line("master-1", {"event": event}, time.monotonic())


def test_a_line_that_came_before_is_found() -> None:
    """Waiting for what has already happened returns at once."""
    log = EventLog()
    log.add(line("serving"))
    found = log.wait("a line", lambda row: row.event == "serving", timeout_s=0)
    assert found.source == "master-1"


def test_a_waiter_is_woken_by_the_line() -> None:
    """A line from another thread ends the wait."""
    log = EventLog()
    thread = threading.Thread(target=lambda: log.add(line("leader")))
    thread.start()
    assert log.wait("a line", lambda row: row.event == "leader", timeout_s=30).event == "leader"
    thread.join()


def test_a_wait_ends_with_a_clear_line() -> None:
    """Time that has run out, and a line that cannot come any more, name what was expected."""
    log = EventLog()
    with pytest.raises(DemoFailed, match="expected a leader, but it did not within 0 s"):
        log.wait("a leader", lambda _: True, timeout_s=0)
    with pytest.raises(DemoFailed, match="expected a leader, but it ended"):
        log.wait("a leader", lambda _: True, timeout_s=9, giving_up=lambda: "it ended")
