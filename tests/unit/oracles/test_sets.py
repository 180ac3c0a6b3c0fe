"""Tokens, keys and tenants: what is whole passes, what is mixed up is refused."""

from __future__ import annotations

from tests.oracles.evidence import Said
from tests.oracles.facts import (
    Closed,
    Fact,
    Granted,
    Readied,
    Requeued,
    Settled,
    Submitted,
    TermBegan,
    Withdrawn,
)
from tests.oracles.history import GET, LIST, START, SUBMIT, Kind, Row
from tests.oracles.journal import OfficeTaken
from tests.oracles.keys import check_keys
from tests.oracles.tenants import check_tenants
from tests.oracles.tokens import check_tokens
from tests.unit.oracles.sample import TERM_1, TERM_2, at, lease

# ---- S7 -----------------------------------------------------------------------------------------

BEGAN: list[Fact] = [TermBegan(1, TERM_1, "me"), TermBegan(9, TERM_2, "you")]
TAKEN = [OfficeTaken(7, 0, 1, "me"), OfficeTaken(9, 0, 1, "you")]
SAID = [Said(1.0, "m1", "1", "leader", 0, TERM_1), Said(2.0, "m2", "2", "leader", 0, TERM_2)]


def test_tokens_of_one_holder_pass() -> None:
    """All witnesses agree; one process may hold all partitions under one token (SQLite)."""
    assert check_tokens({0: BEGAN}, TAKEN, SAID) == []
    assert check_tokens({0: BEGAN[:1], 1: BEGAN[:1]}) == []


def test_a_token_with_two_holders_is_found() -> None:
    """Two incarnations, by the journal, by the office, or by what they say; or a second term."""
    other = TermBegan(5, TERM_1, "another")
    assert {found.invariant for found in check_tokens({0: [*BEGAN, other]})} == {"S7"}
    assert check_tokens({0: BEGAN[:1], 1: [other]}) != []
    assert check_tokens({0: BEGAN}, [OfficeTaken(7, 0, 1, "another")]) != []
    assert check_tokens({0: BEGAN}, (), [*SAID, SAID[0]._replace(process="m3")]) != []
    assert check_tokens({0: BEGAN}, (), [*SAID, SAID[0]._replace(incarnation="3")]) != []
    assert check_tokens({0: [*BEGAN, BEGAN[1]]}) != []


# ---- S16 ----------------------------------------------------------------------------------------


def keyed(
    seq: int, job: str, at_ms: int, *, key: str = "k", tenant: str = "t", queue: str = "q"
) -> Submitted:
    """A job whose key holds for 100 ms."""
    return Submitted(
        seq,
        job,
        job,
        4,
        3,
        at_ms=at_ms,
        tenant=tenant,
        queue=queue,
        key=key,
        key_window_ms=100,
    )


def answered(job: str, key: str = "k") -> Row:
    """A submit with a key was answered this job."""
    return at(1, "ok", SUBMIT, 1, job=job, key=key)


def test_a_key_names_one_job_at_a_time() -> None:
    """After its window, in another queue, or for another tenant, it names another."""
    jobs = [keyed(1, "A", 0), keyed(2, "B", 100)]
    jobs += [keyed(3, "C", 0, queue="r"), keyed(4, "D", 0, tenant="u"), keyed(5, "E", 0, key="")]
    assert check_keys([answered("A"), answered("A"), answered("B")], jobs) == []


def test_a_key_with_two_jobs_is_found() -> None:
    """A job too many in a window, or an answer that is another key's job."""
    doubled = check_keys([], [keyed(1, "A", 0), keyed(2, "B", 99)])
    assert [found.invariant for found in doubled] == ["S16"]
    jobs = [keyed(1, "A", 0), keyed(2, "X", 0, key="x")]
    assert [found.invariant for found in check_keys([answered("X")], jobs)] == ["S16"]


def test_a_key_is_taken_from_a_job_that_waits() -> None:
    """Who replaces takes it from one that does not run, which is cancelled by the next event."""
    first, second = keyed(1, "A", 0), keyed(4, "B", 50)._replace(conflict="REPLACE")
    lease = f"{TERM_1}{1:024x}"
    runs, waits = Granted(2, "A", lease, 1), Closed(3, "A", lease, "")
    gone = Settled(5, "A", 0, "", "CANCELLED", "", "replaced by a newer job with its key")
    later = Readied(6, "B")
    ended = Settled(3, "A", 0, lease, "COMPLETED", "a")

    def wrong(*facts: Fact) -> bool:
        found = check_keys([], facts)
        assert {violation.invariant for violation in found} <= {"S16"}
        return bool(found)

    assert not wrong(first, second, gone, later)
    assert not wrong(first, runs, waits, second, gone, later)
    assert not wrong(first, runs, waits, ended, second, later)
    assert wrong(first, runs, second, gone, later)
    assert wrong(first, second, later)
    assert wrong(first, second, gone._replace(reason="enough"), later)
    assert wrong(first, second._replace(conflict="REJECT"), gone, later)
    assert not wrong(first, Withdrawn(2, "A"), second._replace(conflict="REJECT"), later)


def test_answers_to_taken_keys_are_what_was_asked_for() -> None:
    """Who is to be rejected gets its own job or none, and is told who has the key."""
    jobs = [keyed(1, "A", 0), keyed(2, "X", 0, key="x")]

    def wrong(kind: Kind, job: str, content: str) -> bool:
        told = at(1, kind, SUBMIT, 1, job=job, key="k", conflict="REJECT", content=content)
        return bool(check_keys([told], jobs))

    assert not wrong("ok", "A", "A")
    assert wrong("ok", "A", "other")
    assert not wrong("fail", "A", "other")
    assert not wrong("fail", "", "other")
    assert wrong("fail", "X", "other")
    assert wrong("fail", "?", "other")


# ---- S19 ----------------------------------------------------------------------------------------

OWNED = [Submitted(1, "A", "a", 4, 3, tenant="t"), Submitted(2, "B", "b", 4, 3, tenant="u")]


def test_what_is_ones_own_is_shown() -> None:
    """Lists without a tenant show all; jobs that the journal does not have are no matter here."""
    rows = [
        at(1, "ok", LIST, 1, tenant="t", seen=(("A", "PENDING"), ("?", "PENDING"))),
        at(2, "ok", LIST, 2, seen=(("A", "PENDING"), ("B", "PENDING"))),
        at(3, "ok", SUBMIT, 3, job="A", tenant="t", content="a"),
        at(4, "ok", GET, 4, job="A", content="a"),
        at(5, "ok", START, 5, job="B", content="b"),
    ]
    assert check_tenants(rows, OWNED) == []


def test_a_run_is_given_what_it_was_requeued_with() -> None:
    """And its job shows what one of its runs has; a run is given nothing of another run."""
    jobs = [*OWNED, Requeued(3, "A", 1, content="a2"), Requeued(4, "A", 2)]

    def wrong(f: str, content: str, run: int) -> bool:
        held = lease(TERM_1, 9, run) if f == START else ""
        shown = at(5, "ok", f, 5, job="A", lease=held, content=content)
        return bool(check_tenants([shown], jobs))

    assert not any((wrong(START, "a", 0), wrong(START, "a2", 1), wrong(START, "a2", 2)))
    assert all((wrong(START, "a2", 0), wrong(START, "a", 1), wrong(START, "a2", 3)))
    assert [wrong(GET, content, 0) for content in ("a", "a2", "b")] == [False, False, True]


def test_what_is_anothers_is_found() -> None:
    """A job in the wrong list or answer, a payload in the wrong hands."""
    for row in (
        at(1, "ok", LIST, 1, tenant="t", seen=(("A", "PENDING"), ("B", "PENDING"))),
        at(3, "ok", SUBMIT, 3, job="B", tenant="t"),
        at(4, "ok", GET, 4, job="A", content="b"),
        at(5, "ok", START, 5, job="A", content="b"),
    ):
        assert [found.invariant for found in check_tenants([row], OWNED)] == ["S19"]
