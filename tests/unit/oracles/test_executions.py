"""S15: the checker passes a whole history and refuses each corrupted one."""

from __future__ import annotations

from tests.oracles.executions import check_executions, duplicate_executions
from tests.oracles.facts import Closed, Granted, Saved
from tests.oracles.history import START, Row
from tests.oracles.word import Word
from tests.unit.oracles.sample import TERM_2, facts, lease, row, rows


def start(seq: int, attempt: int, job: str = "C") -> Row:
    """A worker starts a job under a lease of the second term."""
    return row("ok", START, 100 + seq, job=job, lease=lease(TERM_2, seq), attempt=attempt)


def test_whole_history_passes() -> None:
    """Executions are within the budgets; the one job that ran twice is named."""
    assert check_executions(rows(), facts(), failovers=0) == []
    assert duplicate_executions(rows()) == {"B": 2}


def test_one_execution_too_many_is_found() -> None:
    """C may fail once and not be lost: a second charged run needs a failover as its excuse."""
    history = [*rows(), start(3, 2)]

    assert [found.subject for found in check_executions(history, facts(), failovers=0)] == ["C"]
    assert check_executions(history, facts(), failovers=1) == []


def test_a_loss_that_a_checkpoint_took_back_is_free() -> None:
    """A job that gets on may be lost again; what forgives nothing excuses nothing."""
    history = [*rows(), start(3, 2)]
    saved = Saved(13, "C", lease(TERM_2, 2), 1, "state", forgiven=1)
    assert check_executions(history, [*facts(), saved], failovers=0) == []
    idle = saved._replace(forgiven=0)
    assert check_executions(history, [*facts(), idle], failovers=0) != []


def test_released_run_is_free() -> None:
    """A run that was handed back is charged to no budget."""
    history = [*rows(), start(3, 2)]
    released = Closed(13, "C", lease(TERM_2, 3), "")

    assert check_executions(history, [*facts(), released], failovers=0) == []


def test_a_charge_for_what_was_handed_back_is_found() -> None:
    """A worker that drains costs its jobs nothing, however many budgets are left."""
    released = Closed(13, "C", lease(TERM_2, 2), "attempt", outcome="RELEASED")

    assert check_executions(rows(), [*facts(), released], failovers=0) != []
    free = released._replace(charged="")
    assert check_executions(rows(), [*facts(), free], failovers=0) == []


def test_a_loss_that_nobody_reported_is_found() -> None:
    """A lease whose time was not over is lost by its worker's word only, where one listened."""
    of = ("C", lease(TERM_2, 2))
    lost = Closed(13, *of, "loss", outcome="LOST")

    def found(fact: Closed, *kinds: str) -> int:
        words = [Word(1.0, "a", 1, 0, TERM_2, kind, (of,)) for kind in kinds]
        return len(check_executions(rows(), [*facts(), fact], failovers=9, words=words))

    assert found(lost, "ack") == 1
    assert found(lost, "ack", "lost") == 0
    assert found(lost._replace(expired=True), "ack") == 0
    assert found(lost) == 0


def test_one_lease_executed_twice_is_found() -> None:
    """A duplicated grant must not become a second run."""
    history = [*rows(), start(2, 1)]

    found = check_executions(history, facts(), failovers=5)

    assert [violation.detail for violation in found] == [
        f"lease {lease(TERM_2, 2)} was executed 2 times"
    ]


def test_reordered_attempts_are_found() -> None:
    """Attempt numbers rise with the leases, at the workers and in the journal."""
    history = [*rows(), start(3, 1, "B")]
    journal = [*facts(), Granted(13, "B", lease(TERM_2, 3), 2)]

    assert check_executions(history, facts(), failovers=0) != []
    assert check_executions(rows(), journal, failovers=9) != []
