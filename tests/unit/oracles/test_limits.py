"""S17: what stays within its limits passes, and each grant too many or too early is found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.oracles.crowding import GIVES_WAY, RELIEVED_WITHIN_MS, check_crowding
from tests.oracles.facts import (
    CancelAsked,
    Closed,
    Fact,
    Fuse,
    Granted,
    JobTypeSet,
    QueueSet,
    Rate,
    Readied,
    Requeued,
    Settled,
    Submitted,
    TenantSet,
    TermBegan,
    Waits,
)
from tests.oracles.gates import check_gates
from tests.oracles.limits import check_limits
from tests.unit.oracles.sample import TERM_1, TERM_2, lease

JOBS = [
    Submitted(seq, job, job, 1, 0, seq, "t", "q", "j", limit_key=key)
    for seq, (job, key) in enumerate((("A", "x"), ("B", "x"), ("C", "y"), ("D", "")), 1)
]


def rules(seq: int, at_ms: int = 0, **limits: object) -> QueueSet:
    """How the queue is run from now on."""
    return QueueSet(seq, at_ms, "t", "q")._replace(**limits)


def granted(job: str, at_ms: int) -> Granted:
    """A worker has it."""
    return Granted(at_ms, job, lease(TERM_1, at_ms), 1, at_ms)


def closed(job: str, at_ms: int, outcome: str = "COMPLETED") -> Closed:
    """Its attempt has ended."""
    return Closed(at_ms, job, lease(TERM_1, 1), "", at_ms=at_ms, outcome=outcome)


def over(facts: Sequence[Fact]) -> list[str]:
    """Jobs that were granted too many or too early."""
    found = check_limits([*JOBS, *facts])
    assert {violation.invariant for violation in found} <= {"S17"}
    return [violation.subject for violation in found]


# ---- concurrency and rates ----------------------------------------------------------------------


def test_as_many_as_may_run_do() -> None:
    """One more when one has ended, or when more may run; a failover changes nothing."""
    two = rules(5, concurrency=2)
    began = TermBegan(15, TERM_2, at_ms=15)

    assert over([two, granted("A", 10), granted("C", 11), closed("A", 12), granted("D", 13)]) == []
    assert over([two, granted("A", 10), granted("C", 11), granted("D", 13)]) == ["D"]
    assert over([two, granted("A", 10), granted("C", 11), began, granted("D", 16)]) == ["D"]
    more = rules(14, concurrency=3)
    assert over([two, granted("A", 10), granted("C", 11), more, granted("D", 15)]) == []
    fewer = rules(14, concurrency=1)
    assert over([two, granted("A", 10), granted("C", 11), fewer]) == []
    assert over([two, granted("A", 10), fewer, granted("D", 15)]) == ["D"]


def test_limit_keys_are_counted_by_themselves() -> None:
    """Jobs of another key, or of none, do not count."""
    one = rules(5, key_concurrency=1)
    assert over([one, granted("A", 10), granted("C", 11), granted("D", 12)]) == []
    assert over([one, granted("A", 10), granted("B", 11)]) == ["B"]
    assert over([one, granted("A", 10), closed("A", 11), granted("B", 12)]) == []


def test_a_bucket_gives_what_it_has() -> None:
    """From the beginning on by its rate alone; later never more than it holds."""
    rate = rules(5, rate=Rate(count=2, per_ms=1_000, burst=2))

    assert over([rate, granted("A", 499)]) == ["A"]
    assert over([rate, granted("A", 500), granted("B", 1_000), granted("C", 1_500)]) == []
    assert over([rate, granted("A", 500), granted("B", 999)]) == ["B"]
    full = [rate, granted("A", 9_000), granted("B", 9_000)]
    assert over(full) == []
    assert over([*full, granted("C", 9_499)]) == ["C"]
    assert over([*full, granted("C", 9_500)]) == []


def test_a_bucket_is_empty_when_a_term_begins_or_the_rate_changes() -> None:
    """Whatever it held before; other settings do not matter to it."""
    rate = rules(5, rate=Rate(1, 1_000, 5))
    began = TermBegan(6, TERM_2, at_ms=5_000)
    other = rules(6, 5_000, rate=Rate(1, 500, 5))
    same = rules(6, 5_000, rate=Rate(1, 1_000, 5), concurrency=9)

    assert over([rate, began, granted("A", 5_999)]) == ["A"]
    assert over([rate, began, granted("A", 6_000)]) == []
    assert over([rate, granted("A", 4_000), other, granted("B", 5_499)]) == ["B"]
    assert over([rate, granted("A", 4_000), same, granted("B", 5_001)]) == []


def test_each_key_has_a_bucket() -> None:
    """Of its own."""
    rate = rules(5, key_rate=Rate(1, 1_000, 1))
    assert over([rate, granted("A", 1_000), granted("C", 1_000), granted("D", 1)]) == []
    assert over([rate, granted("A", 1_000), granted("B", 1_999)]) == ["B"]


# ---- strategies ---------------------------------------------------------------------------------


def crowded(facts: Sequence[Fact], strategy: str) -> list[str]:
    """Jobs of one key, of which one may run, that are wrongly cancelled, or not."""
    jobs = [job._replace(limit_key="x") for job in JOBS]
    found = check_crowding([rules(0, key_concurrency=1, strategy=strategy), *jobs, *facts])
    assert {violation.invariant for violation in found} <= {"S17"}
    return [violation.subject for violation in found]


def goes(job: str, seq: int, reason: str = GIVES_WAY) -> Settled:
    """A job that waits is cancelled."""
    return Settled(seq, job, 0, "", "CANCELLED", "", reason, at_ms=seq)


def test_the_newest_give_way() -> None:
    """Those that came after as many as may run; nobody else, and they do."""
    newest = "CANCEL_NEWEST"
    assert crowded([granted("A", 10), goes("B", 11), goes("C", 11), goes("D", 11)], newest) == []
    assert crowded([goes("B", 11), goes("C", 11), goes("D", 11)], newest) == []
    assert crowded([goes("A", 11)], newest) == ["A"]
    assert crowded([goes("A", 11, "enough")], newest) == []
    late = granted("A", 11 + RELIEVED_WITHIN_MS)
    assert crowded([goes("C", 11), goes("D", 11), late], newest) == ["B"]
    assert crowded([goes("B", 11), goes("C", 11), goes("D", 11), late], newest) == []


def test_the_oldest_give_way() -> None:
    """Those that run first, and as many as are too many."""
    running = "CANCEL_IN_PROGRESS"
    three = [goes("B", 11), goes("C", 11)]
    asked = CancelAsked(12, "A", GIVES_WAY)
    assert crowded([granted("A", 10), *three, asked], running) == []
    assert (
        crowded([granted("A", 10), *three, asked, closed("A", 13), granted("D", 14)], running) == []
    )
    assert crowded([granted("A", 10), goes("D", 11)], running) == ["D"]
    assert crowded([granted("A", 10), *three, goes("D", 12)], running) == ["D"]
    assert crowded([*three, goes("A", 11), asked._replace(job="D")], running) == ["D"]
    late = closed("A", 12 + RELIEVED_WITHIN_MS)
    assert crowded([granted("A", 10), *three, late], running) == []
    assert crowded([granted("A", 10), *three, granted("A", 13 + RELIEVED_WITHIN_MS)], running) != []


def test_a_retry_has_the_place_of_its_submit() -> None:
    """One that finds a newer job in its place goes itself, or waits; a new run is a new claim."""
    newest, running = "CANCEL_NEWEST", "CANCEL_IN_PROGRESS"
    others = [goes("C", 5, "enough"), goes("D", 5, "enough")]
    retried = [Waits(7, "A", 9, pending=False), granted("B", 8), Readied(9, "A", 9)]
    facts = [*others, granted("A", 6), *retried]
    asked = CancelAsked(10, "B", GIVES_WAY)
    late = closed("B", 10 + RELIEVED_WITHIN_MS)

    assert crowded([*facts, goes("A", 10), late], running) == []
    assert crowded([*facts, asked], running) == ["B"]
    assert crowded([*facts, goes("A", 10)], newest) == ["A"]
    assert crowded([*facts, late], newest) == []
    anew = [*facts, goes("A", 10, "enough"), Requeued(11, "A", 1, 11)]
    assert crowded([*anew, goes("A", 12)], newest) == []


# ---- gates --------------------------------------------------------------------------------------


def through(facts: Sequence[Fact]) -> list[str]:
    """Jobs that were granted though something was closed."""
    found = check_gates([*JOBS, *facts])
    assert {violation.invariant for violation in found} <= {"S17"}
    return [violation.subject for violation in found]


@pytest.mark.parametrize(
    ("gate", "closed_by"),
    [
        (QueueSet(7, 7, "t", "q"), {"paused": True}),
        (TenantSet(7, 7, "t"), {"paused": True}),
        (JobTypeSet(7, 7, "t", "j"), {"paused": True}),
        (JobTypeSet(7, 7, "t", "j"), {"override": "OPEN"}),
    ],
)
def test_nothing_goes_through_what_is_closed(
    gate: QueueSet | TenantSet | JobTypeSet, closed_by: dict[str, object]
) -> None:
    """From the event that closes it to the one that opens it, over failovers."""
    opened, gate = gate, gate._replace(seq=5, at_ms=5, **closed_by)
    began = TermBegan(6, TERM_2, at_ms=6)

    assert through([gate, granted("A", 6)]) == ["A"]
    assert through([gate, began, granted("A", 7)]) == ["A"]
    assert through([granted("A", 4), gate, opened, granted("B", 8)]) == []
    elsewhere = [job._replace(tenant="u") for job in JOBS]
    assert check_gates([*elsewhere, gate, granted("A", 6)]) == []


FUSE = Fuse(failure_rate=0.5, window_ms=12_000, volume_min=2, open_for_ms=5_000, probes=1)


def breaker(*facts: Fact) -> list[str]:
    """Jobs that a breaker should have held up; two have failed at 2,000 ms."""
    failed = [
        JobTypeSet(5, 5, "t", "j", breaker=FUSE),
        granted("A", 1_000),
        granted("B", 1_000),
        closed("A", 2_000, "FAILED"),
        closed("B", 2_000, "LOST"),
    ]
    return through([*failed, *facts])


def test_an_open_breaker_lets_probes_through() -> None:
    """None before its time, one then; a success closes it, and a failure opens it again."""
    assert breaker(granted("C", 6_999)) == ["C"]
    assert breaker(granted("C", 7_000)) == []
    assert breaker(granted("C", 7_000), granted("D", 7_001)) == ["D"]
    assert breaker(granted("C", 7_000), closed("C", 7_500, "RELEASED"), granted("D", 7_501)) == []
    good = closed("C", 7_500)
    assert breaker(granted("C", 7_000), good, granted("D", 7_501), granted("A", 7_502)) == []
    bad = closed("C", 7_500, "TIMED_OUT")
    assert breaker(granted("C", 7_000), bad, granted("D", 12_499)) == ["D"]
    assert breaker(granted("C", 7_000), bad, granted("D", 12_500)) == []


def test_a_breaker_that_is_closed_lets_all_through() -> None:
    """Too few attempts, too few failures, too long ago; in a new term; in people's hands."""
    began = TermBegan(6, TERM_2, at_ms=3_000)
    assert breaker(began, granted("C", 3_001)) == []
    held = JobTypeSet(9, 3_000, "t", "j", breaker=FUSE, override="CLOSED")
    assert breaker(held, granted("C", 3_001)) == []

    def attempts(*ends: tuple[int, str]) -> list[str]:
        facts: list[Fact] = [JobTypeSet(5, 5, "t", "j", breaker=FUSE)]
        for at_ms, outcome in ends:
            facts += [granted("A", at_ms - 1), closed("A", at_ms, outcome)]
        return through([*facts, granted("C", ends[-1][0] + 1)])

    assert attempts((100, "FAILED")) == []
    assert attempts((100, "FAILED"), (200, "FAILED")) == ["C"]
    assert attempts((100, "COMPLETED"), (101, "COMPLETED"), (200, "FAILED")) == []
    assert attempts((100, "FAILED"), (20_000, "FAILED")) == []
    # Whether the first one is known still is the leader's own affair.
    assert attempts((100, "FAILED"), (11_500, "FAILED")) == []


def test_a_key_whose_override_is_taken_back_is_followed_at_once() -> None:
    """Ends of attempts that began in people's hands count from then on."""
    held = rules(5, 5, key_breaker=FUSE, key_overrides=(("x", "CLOSED"),))
    failed = [closed("A", 2_000, "FAILED"), closed("B", 2_001, "FAILED"), granted("A", 3_000)]

    assert through([held, granted("A", 6), granted("B", 7), *failed]) == []
    back = rules(8, 8, key_breaker=FUSE)
    assert through([held, granted("A", 6), granted("B", 7), back, *failed]) == ["A"]


def test_ends_count_though_their_grants_are_not_in_the_journal() -> None:
    """A leader that lost its office took grants with it that workers had: their ends count, too."""
    set_up = rules(0, key_breaker=FUSE._replace(failure_rate=1.0, volume_min=1))
    failed = [granted("B", 2_001), closed("B", 2_002, "FAILED"), granted("A", 2_003)]
    good = closed("A", 2_000)

    assert [one.subject for one in check_gates([set_up, *JOBS, *failed])] == ["A"]
    assert check_gates([set_up, *JOBS, good, *failed]) == []
