"""S3: the checker passes a whole history and refuses each corrupted one."""

from __future__ import annotations

from tests.oracles.facts import Settled
from tests.oracles.history import RESULT, SUBMIT
from tests.oracles.results import check_echo, check_results
from tests.unit.oracles.sample import at, facts, row, rows


def test_whole_history_passes() -> None:
    """One accepted result a job, and all reads equal it."""
    assert check_results(rows(), facts()) == []
    assert check_echo(rows()) == []


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
    read = row("ok", RESULT, 30, job="A", state="COMPLETED", content="b")

    assert [found.subject for found in check_echo([*rows(), read])] == ["A"]


def test_what_is_handed_on_is_no_result_of_ones_own() -> None:
    """Jobs that were handed what others have come to return that."""
    asked = at(12, "ok", SUBMIT, 12, job="D", content="whose", handed=True)
    read = row("ok", RESULT, 30, job="D", state="COMPLETED", content="b")

    assert check_echo([*rows(), asked, read]) == []
