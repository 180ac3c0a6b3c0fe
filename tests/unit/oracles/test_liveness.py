"""L1, L2 and R1: what comes back in time passes, what does not is refused."""

from __future__ import annotations

from math import inf

import msgspec

from tests.oracles.evidence import FaultWindow, Said, Sample
from tests.oracles.history import KILLED, RESULT, SUBMIT, Row
from tests.oracles.liveness import (
    Quiet,
    check_drained,
    check_latency,
    check_leaders,
    quiet_times,
)
from tests.oracles.resources import check_resources
from tests.oracles.submits import Present
from tests.unit.oracles.sample import at, present, rows

KILL = FaultWindow(1, "kill", "m1", 1_000, 2_000)
CUT = FaultWindow(25, "cut", "", 1_500, 4_000)
LASTING = FaultWindow(7, "wedge", "m2", 9_000, inf)
#: With an office TTL of 1 s a leader is there 5 s after healing.
TTL_MS = 1_000


def said(at_ms: float, process: str, event: str, partition: int = 0) -> Said:
    """One announcement."""
    return Said(at_ms, process, process, event, partition, "")


def leaderless(announcements: list[Said], faults: list[FaultWindow], until_ms: float = inf) -> int:
    """How many quiet times had no leader."""
    found = check_leaders(announcements, faults, 1, until_ms=until_ms, office_ttl_ms=TTL_MS)
    assert {violation.invariant for violation in found} <= {"L1"}
    return len(found)


def test_quiet_times_lie_between_faults() -> None:
    """Faults that overlap are one trouble; those that never end leave quiet behind them."""
    assert quiet_times([]) == []
    assert quiet_times([CUT, KILL, LASTING]) == [Quiet(4_000, 9_000), Quiet(9_000, inf)]


def test_a_leader_in_time_passes() -> None:
    """One that led all along, that came in time, or whose quiet time was too short to tell."""
    assert leaderless([said(0, "m3", "leader")], [KILL, CUT]) == 0
    assert leaderless([said(9_000, "m3", "leader")], [KILL, CUT]) == 0
    assert leaderless([], [KILL, CUT], until_ms=8_999) == 0


def test_a_missing_leader_is_found() -> None:
    """None, too late, gone before, ended, or hit for good."""
    before = said(0, "m2", "leader")
    assert leaderless([], [KILL, CUT]) == 1
    assert leaderless([said(9_001, "m3", "leader")], [KILL, CUT]) == 1
    assert leaderless([before, said(3_000, "m2", "follower")], [KILL, CUT]) == 1
    assert leaderless([before, said(3_000, "m2", "ended")], [KILL, CUT]) == 1
    assert leaderless([before], [LASTING]) == 1
    assert leaderless([before, said(14_000, "m3", "leader")], [LASTING]) == 0


def drained(history: list[Row], there: list[Present]) -> list[str]:
    """What is open after the drain."""
    return [found.invariant for found in check_drained(history, there)]


def test_what_was_drained_passes() -> None:
    """Everybody who asked was told; what nobody accepted may be open."""
    assert drained(rows(), [*present(), Present("X", "x", "")]) == []


def test_what_is_left_open_is_found() -> None:
    """A job that has not ended, or an answer that never came, but for the dead."""
    history = rows()
    assert drained(history, [job._replace(state="") for job in present()]) == ["L1"] * 3
    lost = [
        msgspec.structs.replace(row, type="info") if row.f == RESULT and row.job == "C" else row
        for row in history
    ]
    assert drained(lost, present()) == ["L1"]
    dead = [*lost[:-1], msgspec.structs.replace(lost[-1], detail=KILLED)]
    assert drained(dead, present()) == []


def submits(first_ms: float, each_ms: float, calls: int) -> list[Row]:
    """200 submits, each of which takes so long."""
    found = []
    for number in range(200):
        since_ms = first_ms + number
        found.append(at(since_ms, "invoke", SUBMIT, calls + number))
        found.append(at(since_ms + each_ms, "ok", SUBMIT, calls + number))
    return found


def test_latency_comes_back() -> None:
    """From 30 s after healing on; too few submits tell nothing."""
    faults = [KILL._replace(since_ms=5_000, until_ms=6_000)]
    slow = submits(6_000, 9_999, 1_000)
    base = submits(0, 50, 0)

    assert check_latency([*base, *slow, *submits(40_000, 100, 5_000)], faults) == []
    worse = [*base, *submits(40_000, 101, 5_000)]
    assert [found.invariant for found in check_latency(worse, faults)] == ["L1"]
    assert check_latency(worse, []) == []
    assert check_latency(worse[:300], faults) == []


def test_resources_come_back() -> None:
    """To their base and what is allowed; what was not measured claims nothing."""

    def held(after: int) -> list[Sample]:
        before = [Sample(at_ms, "m1", descriptors=100) for at_ms in (1, 2, 3)]
        peak = [Sample(1_500, "m1", descriptors=999)]
        return before + peak + [Sample(at_ms, "m1", descriptors=after) for at_ms in (7, 8, 9)]

    def leaks(after: int) -> list[str]:
        samples = [s._replace(at_ms=s.at_ms * 1_000) if s.at_ms > 3 else s for s in held(after)]
        return [found.invariant for found in check_resources(samples, [KILL], kept={})]

    assert leaks(141) == []
    assert leaks(142) == ["R1"]
    assert check_resources(held(999)[:5], [KILL], kept={}) == []
