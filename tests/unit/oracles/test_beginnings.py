"""S8: a term that begins behind the whole journal passes; one that missed a batch is refused."""

from __future__ import annotations

from tests.oracles.beginnings import check_beginnings
from tests.oracles.journal import BatchWritten, Change, OfficeTaken, OfficeVacated

CHANGES: list[Change] = [
    BatchWritten(5, 0, 0, True, b"", 1.0),
    OfficeTaken(7, 0, 1, "a", 10.0),
    BatchWritten(8, 0, 1, True, b"", 21.0),
    BatchWritten(9, 0, 2, True, b"", 22.0),
    OfficeVacated(10, 0, 30.0),
    OfficeTaken(11, 0, 1, "b", 40.0),
    BatchWritten(12, 0, 3, True, b"", 51.0),
]


def sent(at_ms: float, number: int, by: str) -> dict[str, object]:
    """One line of a master's trace."""
    return {"event": "append_sent", "boot_ms": at_ms, "number": number, "by": by}


GOOD = [sent(20.0, 1, "a"), sent(21.5, 2, "a"), sent(50.0, 3, "b")]


def test_each_term_goes_on_where_the_journal_ended() -> None:
    """Numbers that were free when the office was won."""
    assert check_beginnings(0, CHANGES, GOOD) == []


def test_a_term_that_missed_a_batch_is_refused() -> None:
    """Its number had been taken before: it has not recovered all there was."""
    (found,) = check_beginnings(0, CHANGES, [*GOOD[:2], sent(50.0, 2, "b")])
    assert found.invariant == "S8"
    assert "b sent batch 2" in found.detail


def test_who_holds_no_office_is_not_judged() -> None:
    """A deposed leader tries numbers that are taken: its guard refuses them."""
    assert check_beginnings(0, CHANGES, [*GOOD, sent(52.0, 2, "a")]) == []


def test_a_batch_may_be_sent_again() -> None:
    """A term's own batch is no predecessor's."""
    assert check_beginnings(0, CHANGES, [*GOOD, sent(55.0, 3, "b")]) == []
