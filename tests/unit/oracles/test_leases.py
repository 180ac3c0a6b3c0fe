"""S4 and S5: the checker passes a whole journal and refuses each corrupted one."""

from __future__ import annotations

from tests.oracles.facts import Adopted, Closed, Fact, Granted, Settled
from tests.oracles.history import END
from tests.oracles.leases import check_leases
from tests.unit.oracles.sample import TERM_1, TERM_2, facts, lease, row, rows


def invariants(corrupted: list[Fact]) -> set[str]:
    """What the sample's workers and this journal break together."""
    return {violation.invariant for violation in check_leases(rows(), corrupted)}


def without(kind: type[Fact], job: str) -> list[Fact]:
    """The sample's facts less one kind for one job."""
    return [fact for fact in facts() if not (isinstance(fact, kind) and fact[1] == job)]


def test_whole_journal_passes() -> None:
    """C's grant was never journaled, but its worker proved it."""
    assert check_leases(rows(), facts()) == []


def test_result_under_a_lease_never_issued_is_found() -> None:
    """The lease was neither granted nor adopted, or it is another job's."""
    assert invariants(without(Adopted, "C")) == {"S4"}
    borrowed = [*facts()[:-1], Settled(13, "C", 0, lease(TERM_1, 1), "FAILED", "")]
    assert invariants(borrowed) == {"S4"}


def test_result_that_no_worker_came_to_is_found() -> None:
    """Under the accepted lease a job ended, and with that very result."""
    unseen = [row for row in rows() if not (row.f == END and row.job == "B")]
    other = [*unseen, row("ok", END, 90, job="B", lease=lease(TERM_2, 1), content="x")]
    older = [*unseen, row("ok", END, 90, job="B", lease=lease(TERM_1, 2), content="b")]

    for history in (unseen, other, older):
        assert [found.invariant for found in check_leases(history, facts())] == ["S4"]


def test_result_under_an_old_lease_is_found() -> None:
    """A late report under a lease that was replaced must not win."""
    late = [fact for fact in facts() if not (isinstance(fact, Settled) and fact.job == "B")]

    late.append(Settled(13, "B", 0, lease(TERM_1, 2), "FAILED", ""))

    assert invariants(late) == {"S4"}


def test_lease_of_a_term_that_never_began_is_found() -> None:
    """A deposed or imagined master grants nothing."""
    unknown = Granted(13, "C", lease(f"{1:08x}{99:016x}", 1), 1)

    assert invariants([*facts(), unknown]) == {"S4"}


def test_falling_or_repeated_leases_are_found() -> None:
    """Leases of a job rise: neither the same again, nor reordered."""
    assert "S5" in invariants([*facts(), Granted(13, "B", lease(TERM_2, 1), 3)])
    reordered = facts()
    first, second = facts()[5], facts()[10]
    reordered[5], reordered[10] = second, first
    assert "S5" in invariants(reordered)


def test_one_lease_for_two_jobs_is_found() -> None:
    """A lease names one job."""
    assert "S5" in invariants([*facts(), Granted(14, "C", lease(TERM_2, 1), 1)])


def test_grant_while_a_lease_is_open_is_found() -> None:
    """The next grant comes only after the former lease was closed."""
    assert invariants(without(Closed, "B")) == {"S5"}


def test_adoption_of_a_lease_that_was_known_is_found() -> None:
    """Only a lease that the journal had lost, and that is newer than all it knows, is adopted."""
    for seq in (1, 2):
        adopted = Adopted(14, "B", lease(TERM_1, seq), 2)
        assert "S5" in invariants([*facts(), adopted])
