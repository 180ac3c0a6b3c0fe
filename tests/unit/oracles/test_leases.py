"""S4 and S5: the checker passes a whole journal and refuses each corrupted one."""

from __future__ import annotations

from tests.oracles.facts import Closed, Fact, Granted, Settled
from tests.oracles.leases import check_leases
from tests.unit.oracles.sample import TERM_1, TERM_2, facts, lease, rows


def invariants(corrupted: list[Fact]) -> set[str]:
    """What the sample's workers and this journal break together."""
    return {violation.invariant for violation in check_leases(rows(), corrupted)}


def without(kind: type[Fact], job: str) -> list[Fact]:
    """The sample's facts less one kind for one job."""
    return [fact for fact in facts() if not (isinstance(fact, kind) and fact[1] == job)]


def test_whole_journal_passes() -> None:
    """C's grant was never journaled, but a worker started it: that is a witness enough."""
    assert check_leases(rows(), facts()) == []


def test_result_under_a_lease_never_issued_is_found() -> None:
    """Neither the journal nor a worker knows the lease: lost, made up, or another job's."""
    starts = [row for row in rows() if row.job != "C"]

    assert {found.invariant for found in check_leases(starts, facts())} == {"S4"}
    borrowed = Settled(13, "C", 0, lease(TERM_1, 1), "COMPLETED", "c")
    assert invariants([*facts()[:-1], borrowed]) == {"S4"}


def test_result_under_an_old_lease_is_found() -> None:
    """A late report under a lease that was replaced must not win."""
    late = [fact for fact in facts() if not (isinstance(fact, Settled) and fact.job == "B")]

    late.append(Settled(13, "B", 0, lease(TERM_1, 2), "COMPLETED", "b"))

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
    assert "S5" in invariants([*facts(), Granted(13, "C", lease(TERM_2, 1), 1)])


def test_grant_while_a_lease_is_open_is_found() -> None:
    """The next grant comes only after the former lease was closed."""
    assert invariants(without(Closed, "B")) == {"S5"}
