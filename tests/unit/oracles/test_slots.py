"""S22: the checker passes workers within their slots, and refuses those that run too much."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.oracles.evidence import Capacity, FaultWindow
from tests.oracles.history import DEFY, END, QUIT, START, Row
from tests.oracles.slots import GRACE_MAX_MS, GRACE_MIN_MS, check_slots, given_up
from tests.unit.oracles.sample import TERM_1, at, lease

SLOTS, LOST_MAX = 2, 1


@dataclass
class Worker:
    """A history of one process, by the numbers of its jobs."""

    rows: list[Row] = field(default_factory=list)

    def note(self, at_ms: float, f: str, *jobs: int) -> None:
        """The same of several jobs."""
        for job in jobs:
            said = at(at_ms, "ok", f, len(self.rows), job=f"j{job}", lease=lease(TERM_1, job))
            self.rows.append(said)

    def wrong(self, *faults: FaultWindow) -> list[str]:
        """The jobs that should not have begun."""
        found = check_slots(self.rows, faults, Capacity(SLOTS, LOST_MAX), {})
        assert {violation.invariant for violation in found} <= {"S22"}
        return [violation.subject for violation in found]


def test_no_more_than_the_slots() -> None:
    """One may begin when another has ended, in whatever way; one more is found."""
    worker = Worker()
    worker.note(0, START, 1, 2)
    worker.note(5, END, 1)
    worker.note(5, START, 3)
    worker.note(9, QUIT, 2)
    worker.note(9, START, 4)
    assert worker.wrong() == []
    worker.note(10, START, 5)
    assert worker.wrong() == ["j5"]


def test_what_was_given_up_has_no_slot() -> None:
    """When its grace is over, not as soon as it is asked; and one slot is one job's."""
    soon, later = Worker(), Worker()
    for worker, begun_ms in ((soon, GRACE_MIN_MS - 1), (later, GRACE_MIN_MS + 1)):
        worker.note(0, START, 1, 2)
        worker.note(100, DEFY, 1)
        worker.note(100 + begun_ms, START, 3)
    assert soon.wrong() == ["j3"]
    assert later.wrong() == []
    later.note(100 + GRACE_MAX_MS, START, 4)
    assert later.wrong() == ["j4"]


def test_a_late_end_frees_nothing() -> None:
    """The slot went to another job when the attempt was given up."""
    worker = Worker()
    worker.note(0, START, 1, 2)
    worker.note(100, DEFY, 1)
    worker.note(9_000, START, 3)
    worker.note(9_500, END, 1)
    assert worker.wrong() == []
    worker.note(9_500, START, 4)
    assert worker.wrong() == ["j4"]


def test_who_has_lost_too_many_begins_nothing() -> None:
    """It drains, unless one of them has ended, or something keeps it from acting."""
    worker = Worker()
    worker.note(0, START, 1, 2)
    worker.note(100, DEFY, 1, 2)
    assert worker.wrong() == []
    worker.note(8_000, START, 3)
    assert worker.wrong() == ["j3"]
    frozen = FaultWindow(12, "pause", "p", 200.0, 7_900.0)
    assert worker.wrong(frozen) == []
    assert worker.wrong(frozen._replace(node="another")) == ["j3"]
    ended = Worker([*worker.rows[:-1]])
    ended.note(7_000, END, 1)
    ended.note(8_000, START, 3)
    assert ended.wrong() == []


def test_attempts_that_were_given_up_are_counted() -> None:
    """Those that went on for longer than any grace, and that never ended, too; not who was late."""
    worker = Worker()
    worker.note(0, START, 1, 2, 3, 4)
    worker.note(100, DEFY, 1, 2, 4)
    worker.note(100 + GRACE_MAX_MS, QUIT, 2)
    assert given_up(worker.rows) == 0
    worker.note(101 + GRACE_MAX_MS, END, 3)
    assert given_up(worker.rows) == 2
    worker.note(102 + GRACE_MAX_MS, END, 1)
    assert given_up(worker.rows) == 2
