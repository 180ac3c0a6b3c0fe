"""S1, S2, S20: the checker passes a whole history and refuses each corrupted one."""

from __future__ import annotations

from tests.oracles.facts import Submitted
from tests.oracles.history import CANCEL, RESULT, SUBMIT
from tests.oracles.submits import Present, check_failed_cancels, check_submits, check_wholes
from tests.unit.oracles.sample import at, present, row, rows


def invariants(present: list[Present]) -> set[str]:
    """The invariants that the sample history breaks, given what was found after it."""
    return {violation.invariant for violation in check_submits(rows(), present).violations}


def test_whole_history_passes() -> None:
    """Every acknowledged job is there, an unknown one may be, and the counts say so."""
    tally = check_submits(rows(), present())

    assert tally.violations == []
    assert (tally.acked, tally.failed, tally.unknown, tally.recovered) == (3, 1, 1, 1)
    assert check_submits(rows(), present()[:-1]).violations == []


def test_one_lost_job_is_found() -> None:
    """An acknowledged job that is not there was lost."""
    assert invariants(present()[1:]) == {"S1"}


def test_one_duplicated_job_is_found() -> None:
    """One submit is one job: neither a second entry nor a second id of the same content."""
    assert invariants([*present(), present()[0]]) == {"S1"}
    assert invariants([*present(), Present("A2", "a", "PENDING")]) == {"S1"}


def test_one_duplicate_under_an_id_that_was_acked_is_found() -> None:
    """A blind retry that minted a new id shows in the acks alone."""
    history = [*rows(), row("ok", SUBMIT, 1, job="A2", content="a")]

    found = check_submits(history, present()).violations

    assert {violation.invariant for violation in found} == {"S1"}


def test_content_changed_on_the_way_is_found() -> None:
    """A job that is there under its id, with another job's payload, is lost all the same."""
    swapped = [Present("A", "b", "COMPLETED"), Present("B", "a", "COMPLETED"), *present()[2:]]

    assert invariants(swapped) == {"S1"}


def test_job_that_nobody_submitted_is_found() -> None:
    """What is there was asked for."""
    assert invariants([*present(), Present("X", "x", "PENDING")]) == {"S2"}


def test_failed_submit_that_took_effect_is_found() -> None:
    """FAILED means that it did not happen."""
    assert invariants([*present(), Present("R", "refused", "PENDING")]) == {"S20"}


def test_failed_cancel_that_took_effect_is_found() -> None:
    """A cancel that was refused cancels nothing, in the store or in what was read."""
    refused = [row("invoke", CANCEL, 20, job="C"), row("fail", CANCEL, 20, job="C")]
    read = [row("ok", RESULT, 21, job="C", state="CANCELLED")]

    assert check_failed_cancels([*rows(), *refused], {"C": "FAILED"}) == []
    assert check_failed_cancels([*rows(), *refused], {"C": "CANCELLED"}) != []
    assert check_failed_cancels([*rows(), *refused, *read], {"C": "FAILED"}) != []


def test_a_part_of_a_whole_is_found() -> None:
    """Jobs that are all or nothing are there together, written at once, or none of them is."""
    history = [at(n, "invoke", SUBMIT, n, content=f"w{n}", whole="w") for n in range(3)]
    taken = [Submitted(7, f"W{n}", f"w{n}", 1, 0) for n in range(3)]
    other = Submitted(8, "A", "a", 1, 0)

    assert check_wholes([*rows(), *history], [*taken, other]) == []
    assert check_wholes(history, [other]) == []
    for parts in (taken[:2], [*taken[:2], taken[2]._replace(seq=8)]):
        assert [found.invariant for found in check_wholes(history, [*parts, other])] == ["S20"]
