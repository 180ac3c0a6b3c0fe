"""The checkers of single jobs' lives pass a good one and refuse each corrupted one."""

from __future__ import annotations

from math import inf

import pytest

from tests.oracles.commits import CommitTimes, check_commits, told_after
from tests.oracles.delays import (
    check_delays,
    check_early_starts,
    check_late_ready,
    check_term_time,
)
from tests.oracles.evidence import FaultWindow
from tests.oracles.facts import (
    Adopted,
    CancelAsked,
    Closed,
    Fact,
    Granted,
    JobFact,
    Purged,
    Readied,
    Requeued,
    Settled,
    Submitted,
    TermBegan,
    Waits,
)
from tests.oracles.history import (
    CANCEL,
    DEFY,
    END,
    GET,
    PURGE,
    REQUEUE,
    RESULT,
    START,
    SUBMIT,
    Row,
)
from tests.oracles.journal_facts import Extents
from tests.oracles.lifecycle import check_lives, check_times
from tests.oracles.overlaps import check_overlaps, hit_ms, overlaps
from tests.unit.oracles.sample import TERM_1, at, lease

FIRST, SECOND = lease(TERM_1, 1), lease(TERM_1, 2)
FREEZE = FaultWindow(12, "pause", "w", 0.0, 5_000.0)


def life() -> list[JobFact]:
    """A job is delayed, fails once, is asked to stop, cancelled, requeued, done and forgotten."""
    third = lease(TERM_1, 3, run=1)
    return [
        Submitted(1, "A", "a", 4, 3, at_ms=0, ready_ms=1_000, pending=False),
        Readied(2, "A", 1_000),
        Granted(3, "A", FIRST, 1, at_ms=1_001),
        Closed(4, "A", FIRST, "attempt"),
        Waits(4, "A", 3_000, False),
        Readied(5, "A", 3_000),
        Granted(6, "A", SECOND, 2, at_ms=3_000),
        CancelAsked(7, "A"),
        Closed(8, "A", SECOND, ""),
        Settled(8, "A", 0, SECOND, "CANCELLED", ""),
        Requeued(9, "A", 1, 4_000),
        Granted(10, "A", third, 1, at_ms=4_000),
        Closed(11, "A", third, ""),
        Settled(11, "A", 1, third, "COMPLETED", "a"),
        Purged(12, "A"),
    ]


def of_life(corrupted: list[JobFact]) -> set[str]:
    """What the order of these facts breaks."""
    return {found.invariant for found in check_lives({"A": corrupted})}


def test_a_whole_life_passes() -> None:
    """Also one in which a lease was adopted, or a late result saved the work."""
    adopted = [*life()[:6], Adopted(6, "A", SECOND, 2), *life()[7:]]
    late = [*life()[:5], Settled(5, "A", 0, FIRST, "COMPLETED", "a")]

    for good in (life(), adopted, late):
        assert of_life(good) == set()


@pytest.mark.parametrize("lost", [0, 1, 2, 4, 5, 6, 9, 10, 11, 13])
def test_a_lost_fact_is_found(lost: int) -> None:
    """What follows needs it."""
    assert of_life([*life()[:lost], *life()[lost + 1 :]]) == {"S10"}


@pytest.mark.parametrize("doubled", [0, 1, 2, 9, 10, 11, 13, 14])
def test_a_doubled_fact_is_found(doubled: int) -> None:
    """It happens once."""
    assert of_life([*life()[: doubled + 1], *life()[doubled:]]) == {"S10"}


@pytest.mark.parametrize("place", [0, 1, 2, 5, 6, 9, 10, 12, 13])
def test_reordered_facts_are_found(place: int) -> None:
    """A cause comes before its effect."""
    facts = life()
    facts[place : place + 2] = reversed(facts[place : place + 2])
    assert of_life(facts) == {"S10"}


def test_a_grant_after_a_cancel_is_found() -> None:
    """Released after it was asked to stop, it must not be granted again."""
    again = [
        *life()[:8],
        Closed(8, "A", SECOND, ""),
        Waits(8, "A", 3_000, True),
        Granted(9, "A", lease(TERM_1, 3), 3, at_ms=3_000),
    ]
    assert of_life(again) == {"S10"}


# ---- real time ----------------------------------------------------------------------------------


def rows() -> list[Row]:
    """One job: submitted, started, ended, read."""
    return [
        at(0, "invoke", SUBMIT, 1, content="a"),
        at(5, "ok", SUBMIT, 1, job="A", content="a"),
        at(10, "ok", START, 2, job="A", lease=FIRST, attempt=1),
        at(20, "ok", END, 3, job="A", lease=FIRST, content="a"),
        at(21, "invoke", RESULT, 4, job="A"),
        at(30, "ok", RESULT, 4, job="A", content="a", state="COMPLETED"),
    ]


def submitted() -> dict[str, list[JobFact]]:
    """The journal's word for it."""
    return {"A": [Submitted(1, "A", "a", 4, 3)]}


def of_times(history: list[Row], faults: list[FaultWindow] | None, *more: JobFact) -> list[str]:
    """What the times of this history break."""
    lives = {"A": [*submitted()["A"], *more]}
    history.sort(key=lambda row: row.boottime)
    found = check_times(history, lives, faults, lease_ttl_ms=100, reaction_ms=10)
    return [violation.invariant for violation in found]


def test_times_in_order_pass() -> None:
    """Submit, start, end and result follow each other; a submit nobody answered counts as well."""
    assert of_times(rows(), []) == []
    assert of_times([row for row in rows() if row.f != SUBMIT or row.type == "invoke"], []) == []


def test_times_out_of_order_are_found() -> None:
    """A start before the submit, an end before the start, a result that no worker came to."""
    history = rows()
    assert of_times([*history[1:], at(15, "invoke", SUBMIT, 1, content="a")], []) == ["S10"]
    late_start = at(25, "ok", START, 2, job="A", lease=FIRST)
    assert of_times([*history[:2], late_start, *history[3:]], []) == ["S10"]
    assert of_times([row for row in history if row.f != END], []) == ["S10"]
    other = at(30, "ok", RESULT, 4, job="A", content="b", state="COMPLETED")
    assert of_times([*history[:5], other], []) == ["S10"]


def test_a_start_long_after_a_cancel_is_found() -> None:
    """A lease that was out may start until it lapses; later only a requeue lets it start."""
    asked = [at(7, "invoke", CANCEL, 5, job="A"), at(8, "ok", CANCEL, 5, job="A")]
    soon = [*rows()[:2], *asked, at(8 + 110, "ok", START, 2, job="A", lease=FIRST)]
    late = [*rows()[:2], *asked, at(8 + 112, "ok", START, 2, job="A", lease=FIRST)]

    assert of_times(soon, []) == []
    assert of_times(late, []) == ["S10"]
    assert of_times(late, None) == []
    assert of_times(late, [FREEZE._replace(node="p", until_ms=50.0)]) == []
    assert of_times(late, [FREEZE._replace(node="another", until_ms=50.0)]) == ["S10"]
    assert of_times(late, [], Requeued(9, "A", 1)) == []


def test_overlaps_are_measured_and_bounded() -> None:
    """Without faults there are none; with some they are as long as leases live, not longer."""

    def twice(end_ms: float) -> list[Row]:
        return [
            at(0, "ok", START, 1, job="A", lease=FIRST),
            at(100, "ok", START, 2, job="A", lease=SECOND),
            at(end_ms, "ok", END, 3, job="A", lease=FIRST, content="a"),
            at(9_000, "ok", END, 4, job="A", lease=SECOND, content="a"),
        ]

    def broken(end_ms: float, *faults: FaultWindow) -> list[str]:
        found = check_overlaps(overlaps(twice(end_ms)), faults, lease_ttl_ms=1_000, reaction_ms=100)
        return [violation.invariant for violation in found]

    assert [overlap.length_ms for overlap in overlaps(twice(350))] == [250]
    assert overlaps(twice(50)) == []
    assert overlaps([row for row in twice(350) if row.f == START]) == []
    assert broken(50) == []
    assert broken(350) == ["S5"]
    elsewhere = FREEZE._replace(node="elsewhere")
    assert broken(1_100, elsewhere) == []
    assert broken(1_300, elsewhere) == ["S5"]
    assert broken(1_300, FREEZE._replace(node="p", until_ms=200.0)) == []


def test_each_moment_in_which_something_was_wrong_counts_once() -> None:
    """However many faults hit a process at once; those that hit others only do not count."""
    pause = FREEZE._replace(node="p", since_ms=0.0, until_ms=100.0)
    later = pause._replace(since_ms=50.0, until_ms=120.0)
    far = pause._replace(since_ms=200.0, until_ms=inf)
    elsewhere = pause._replace(node="e1", until_ms=inf)
    several = pause._replace(node="", since_ms=110.0, until_ms=130.0)

    assert hit_ms([pause, pause], "p", 10.0, 1_000.0) == 90.0
    assert hit_ms([far, later, pause], "p", 0.0, 250.0) == 170.0
    assert hit_ms([elsewhere], "p", 0.0, 250.0) == 0.0
    assert hit_ms([pause, later, several, elsewhere], "p", 0.0, 250.0) == 130.0


def test_code_that_defies_its_worker_is_no_execution_any_more() -> None:
    """From when it says that it goes on; what ran side by side before is counted all the same."""

    def twice(defies_ms: float, which: str) -> list[float]:
        found = overlaps(
            [
                at(0, "ok", START, 1, job="A", lease=FIRST),
                at(100, "ok", START, 2, job="A", lease=SECOND),
                at(defies_ms, "ok", DEFY, 3, job="A", lease=which),
                at(9_000, "ok", END, 4, job="A", lease=FIRST, content="a"),
                at(9_500, "ok", END, 5, job="A", lease=SECOND, content="a"),
            ]
        )
        return [overlap.length_ms for overlap in found]

    assert twice(90, FIRST) == []
    assert twice(250, FIRST) == [150]
    assert twice(250, SECOND) == [8_900]


# ---- commits ------------------------------------------------------------------------------------

#: Batch n holds seq n and has committed at 10 n.
TIMES = CommitTimes(
    Extents(range(13), range(13), [9] * 13), {number: 10.0 * number for number in range(13)}
)


@pytest.mark.parametrize(
    ("f", "seq", "fields"),
    [
        (SUBMIT, 1, {}),
        (START, 1, {"lease": FIRST, "attempt": 1}),
        (START, 6, {"lease": SECOND, "attempt": 2}),
        (START, 10, {"lease": lease(TERM_1, 3, run=1), "attempt": 1}),
        (CANCEL, 7, {}),
        (GET, 1, {"state": "RUNNING"}),
        (GET, 8, {"state": "CANCELLED"}),
        (REQUEUE, 9, {}),
        (RESULT, 11, {"state": "COMPLETED", "content": "a"}),
        (PURGE, 12, {}),
    ],
)
def test_what_was_told_before_its_commit_is_found(f: str, seq: int, fields: dict[str, str]) -> None:
    """It passes from the commit on, and not a moment before."""

    def told(at_ms: float) -> list[str]:
        row = at(at_ms, "ok", f, 1, job="A", **fields)
        return [found.invariant for found in check_commits([row], {"A": life()}, TIMES)]

    assert told(10.0 * seq) == []
    assert told(10.0 * seq - 1) == ["S8"]


def test_what_was_told_and_never_committed_is_found() -> None:
    """A second attempt whose grant, or a cancel that the journal does not have."""
    short = {"A": life()[:6]}
    started = at(999, "ok", START, 1, job="A", lease=SECOND, attempt=2)
    cancelled = at(999, "ok", CANCEL, 1, job="A")

    for row in (started, cancelled):
        assert [found.invariant for found in check_commits([row], short, TIMES)] == ["S8"]
    assert check_commits([started], short, CommitTimes(Extents([], [], []), {})) == []


def test_traces_bound_when_others_could_tell() -> None:
    """A master that hears late of its commit does not accuse the one that recovered it."""

    def trace(event: str, number: int, at_ms: int) -> dict[str, object]:
        return {"event": event, "number": number, "boot_ms": at_ms}

    zombie = [trace("append_sent", 1, 5), trace("append_committed", 1, 8)]
    zombie += [trace("append_sent", 2, 10), trace("append_committed", 2, 900)]
    heir = [trace("append_sent", 3, 50), trace("append_committed", 3, 60)]
    heir += [trace("append_sent", 4, 70)]

    assert told_after([*zombie, *heir], [3]) == {1: 8, 2: 50, 3: 60}


# ---- delays -------------------------------------------------------------------------------------


def test_what_comes_before_its_time_is_found() -> None:
    """By the term's clock neither a delay nor a backoff ends early."""
    assert check_delays({"A": life()}) == []
    for place in (1, 2, 5, 6, 11):
        early = life()
        early[place] = early[place]._replace(at_ms=900)  # type: ignore[call-arg]
        assert {found.invariant for found in check_delays({"A": early})} == {"S12"}, place


def test_a_clock_that_runs_back_is_found() -> None:
    """Two events change places, or a term begins before the last one's end."""
    whole: list[Fact] = [TermBegan(0, TERM_1, "m", 0), *life()]
    assert check_term_time(whole) == []
    assert check_term_time([*whole, TermBegan(13, TERM_1, "m", 3_999)]) != []
    assert check_term_time([whole[3], whole[2]]) != []


def test_an_early_start_is_found() -> None:
    """From the call on its delay passes, but for what clocks are apart."""
    asked = at(0, "invoke", SUBMIT, 1, content="a", delay_ms=1_000)
    for at_ms, skew_ms, wrong in ((998, 0, 0), (995, 0, 1), (900, 0, 1), (900, 100, 0)):
        started = at(at_ms, "ok", START, 2, job="A", lease=FIRST)
        found = check_early_starts([asked, started], submitted(), skew_ms=skew_ms)
        assert [violation.invariant for violation in found] == ["S12"] * wrong


def test_a_late_readiness_is_found_while_all_is_well() -> None:
    """It is excused near a fault, and in a young term."""
    late: list[Fact] = [
        TermBegan(0, TERM_1, "m", 0),
        Submitted(1, "A", "a", 4, 3, ready_ms=50_000, pending=False),
        Readied(2, "A", 53_000),
    ]
    fault = FREEZE._replace(since_ms=51_000 - 7, until_ms=51_500 - 7)

    assert [found.invariant for found in check_late_ready(late, [], wall_ahead_ms=7)] == ["S12"]
    assert check_late_ready(late, [fault], wall_ahead_ms=7) == []
    young = [late[1], TermBegan(1, TERM_1, "m", 45_000), late[2]]
    assert check_late_ready(young, [], wall_ahead_ms=7) == []
    assert check_late_ready([*late[:2], Readied(2, "A", 51_000)], [], wall_ahead_ms=7) == []
