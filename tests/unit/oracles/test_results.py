"""S3: the checker passes a whole history and refuses each corrupted one."""

from __future__ import annotations

from tests.oracles.facts import Requeued, Settled, Submitted
from tests.oracles.history import REQUEUE, RESULT, SUBMIT
from tests.oracles.results import check_echo, check_results
from tests.unit.oracles.sample import at, facts, row, rows


def test_whole_history_passes() -> None:
    """One accepted result a job, and all reads equal it."""
    assert check_results(rows(), facts()) == []
    assert check_echo(rows(), facts()) == []


def test_second_accepted_result_is_found() -> None:
    """A job settles once a run, even with the same content; a requeued run is another."""
    again = Settled(13, "A", 0, "", "COMPLETED", "a")

    assert len(check_results(rows(), [*facts(), again])) == 1
    assert check_results(rows(), [*facts(), again._replace(run=1)]) == []


def test_one_read_of_another_result_is_found() -> None:
    """A read that differs from what was accepted: by content, or by state."""
    for state, content in (("COMPLETED", "b"), ("FAILED", "a")):
        read = row("ok", RESULT, 30, job="A", state=state, content=content)
        assert len(check_results([*rows(), read], facts())) == 1


def test_read_of_a_result_that_was_lost_is_found() -> None:
    """A result that was read is in the journal."""
    lost = [fact for fact in facts() if not (isinstance(fact, Settled) and fact.job == "B")]

    assert [found.subject for found in check_results(rows(), lost)] == ["B"]


def test_result_of_another_job_is_found() -> None:
    """Jobs that return their argument return their own."""
    wrong = [f._replace(content="b") if isinstance(f, Settled) else f for f in facts()]

    assert [found.subject for found in check_echo(rows(), wrong)] == ["A"]


def test_what_is_handed_on_is_no_result_of_ones_own() -> None:
    """Jobs that were handed what others have come to return that."""
    asked = at(12, "ok", SUBMIT, 12, job="D", content="whose", handed=True)
    ended = [Submitted(14, "D", "whose", 1, 0), Settled(15, "D", 0, "", "COMPLETED", "b")]

    assert check_echo([*rows(), asked], [*facts(), *ended]) == []


def test_what_was_requeued_with_other_arguments_has_those() -> None:
    """From that run on, and whoever requeues it again; and only if that was asked for."""
    asked = row("invoke", REQUEUE, 30, job="C", content="c2")
    edited = [*facts(), Requeued(14, "C", 1, content="c2"), Requeued(15, "C", 2)]
    ended = [*edited, Settled(16, "C", 2, "", "COMPLETED", "c2")]

    assert check_echo([*rows(), asked], ended) == []
    assert [found.invariant for found in check_echo(rows(), ended)] == ["S2"]
    old = [*edited, Settled(16, "C", 2, "", "COMPLETED", "c")]
    assert [found.invariant for found in check_echo([*rows(), asked], old)] == ["S3"]
