"""The report of a chaos run: what breaks it, and that nothing that was excused is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.chaos.measure import Failover, HandOver, Measured
from tests.chaos.report import Plan, bars, collect, page
from tests.chaos.rounds import Log
from tests.chaos.scope import Unjudged
from tests.oracles.court import hear
from tests.oracles.evidence import Evidence, Sample
from tests.oracles.liveness import SubmitTimes
from tests.oracles.resources import Held

PLAN = Plan(seed=1, minutes=30, faults=["one"], missing={}, etcd_version="3.5.21", took_s=1.0)
#: A killed leader of two partitions, of which one was hurt otherwise, too.
ALONE = Failover(
    partition=0,
    at_ms=0.0,
    killed="master-1.0.log",
    term="1.2",
    alone=True,
    new_leader_ms=6_000.0,
    first_grant_ms=8_000.0,
    in_flight=1,
    running=900,
    running_here=290,
    excused={"its worker was hurt: worker-killed": 3},
)
AMID = replace(ALONE, partition=1, alone=False, new_leader_ms=25_000.0, running_here=300)
ORDERLY = HandOver(partition=0, at_ms=0.0, by="a", to="b", alone=True, first_grant_ms=900.0)


def measured(
    unjudged: Sequence[Unjudged] = (), hand_overs: Sequence[HandOver] = (ORDERLY,)
) -> Measured:
    """What a run came to."""
    return Measured(
        verdict=hear(Evidence(rows=[], logs=[])),
        unjudged=list(unjudged),
        failovers=[ALONE, AMID],
        false_failovers=[],
        revoked_by_etcd=[],
        hand_overs=list(hand_overs),
        planned={"ticks": 0, "workflows": 0, "children": 0},
        stall_ms={0: 1.0},
        submits=SubmitTimes([10.0] * 200, [20.0] * 200),
        held=[Held("master-1", "memory_bytes", 100.0, 300.0)],
        kept={("master-1", "memory_bytes"): 400},
    )


def broken(plan: Plan, found: Measured) -> list[str]:
    """The bars that a run does not keep."""
    return [bar.name for bar in bars(plan, Log(), found, []) if not bar.held]


def test_a_whole_run_that_could_not_judge_what_it_must_is_broken() -> None:
    """A short one is not; and what no run can judge is said and breaks none."""
    due = Unjudged("R1, memory_bytes", "nobody measured it", due=True)
    assert broken(PLAN, measured()) == []
    assert broken(PLAN, measured([due])) == ["judged what a whole run must"]
    assert broken(replace(PLAN, minutes=2), measured([due])) == []
    assert broken(PLAN, measured([due._replace(due=False)])) == []


def test_a_slow_hand_over_breaks_a_run_unless_something_else_was_wrong() -> None:
    """Those with other faults are told beside it, with their number."""
    slow = replace(ORDERLY, first_grant_ms=1_501.0)
    assert broken(PLAN, measured(hand_overs=[ORDERLY, slow])) == [
        "no grant around a hand-over ≤ 1.5 s"
    ]
    assert broken(PLAN, measured(hand_overs=[ORDERLY, replace(slow, alone=False)])) == []


def test_failovers_count_by_the_jobs_of_their_own_partition() -> None:
    """However many ran in the whole cluster."""
    everything = replace(PLAN, faults=[str(number) for number in range(11)])
    (met,) = [bar for bar in bars(everything, Log(), measured(), []) if "300 running" in bar.name]
    assert met.found == "1"


def test_the_page_tells_what_the_bars_leave_out() -> None:
    """Failovers with other faults, restarts that were excused, what was not judged."""
    found = measured([Unjudged("S19", "there was one tenant")], [replace(ORDERLY, alone=False)])
    log = Log(samples=[Sample(1.0, "master-1", memory_bytes=350)])
    text = "\n".join(page(collect(PLAN, log, found, [], [])))
    for line in (
        "| new leader, with other faults at once | 1 | 25.00 s",
        "| no grant around a hand-over, with other faults | 1 | 0.90 s",
        "- ran at a failover and were started again, its worker was hurt: worker-killed: 6",
        "- S19: there was one tenant",
        "Submits before the first fault: 200, p99 10 ms.",
        "memory_bytes_before 100, memory_bytes_end 300, memory_bytes_kept_allowed 400",
    ):
        assert line in text
