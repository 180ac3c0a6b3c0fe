"""L1, L2: after healing the cluster leads, ends all that was accepted, and is as quick as before.

Quiet time begins when the last fault that ends has ended; those that never end (L2) are part of it.

- Each partition has a leader at some moment of the first 2 × TTL + 3 s of every quiet time that is
  that long. A leader is who said so, until it said otherwise, ended, or was hit for good.
- After the drain every accepted job has ended: completed, cancelled, or dead letter.
- The 99th percentile of the time that submits take is, from 30 s after healing on, at most twice
  what it was before the first fault (held only where there are enough of both to tell).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Final, NamedTuple

from tests.oracles.evidence import FaultWindow, Said
from tests.oracles.history import KILLED, RESULT, SUBMIT, Row
from tests.oracles.submits import Present
from tests.oracles.verdict import Violation

LEADER_SLACK_MS: Final = 3_000
RECOVERED_MS: Final = 30_000
SAMPLES_MIN: Final = 200
#: Below this a percentile is the machine's noise.
NOISE_MS: Final = 20.0


class Quiet(NamedTuple):
    """A time in which nothing was wrong, but for what is wrong for good."""

    since_ms: float
    until_ms: float


def quiet_times(faults: Iterable[FaultWindow]) -> list[Quiet]:
    """After the first fault, in order; the last one has no end."""
    healed_ms = -inf
    found: list[Quiet] = []
    for fault in sorted(faults, key=lambda fault: fault.since_ms):
        if -inf < healed_ms < fault.since_ms:
            found.append(Quiet(healed_ms, fault.since_ms))
        lasting = fault.until_ms == inf
        healed_ms = max(healed_ms, fault.since_ms if lasting else fault.until_ms)
    return [*found, Quiet(healed_ms, inf)] if healed_ms > -inf else []


def check_leaders(
    announcements: Iterable[Said],
    faults: Sequence[FaultWindow],
    partitions: int,
    *,
    until_ms: float,
    office_ttl_ms: float,
) -> list[Violation]:
    """Hold every quiet time that ended before ``until_ms``, or was long enough by then."""
    reigns = _reigns(announcements, faults)
    bound_ms = 2 * office_ttl_ms + LEADER_SLACK_MS
    violations = []
    for quiet in quiet_times(faults):
        deadline_ms = quiet.since_ms + bound_ms
        if deadline_ms > min(quiet.until_ms, until_ms):
            continue
        for partition in range(partitions):
            led = any(
                since_ms <= deadline_ms and end_ms > quiet.since_ms
                for since_ms, end_ms in reigns.get(partition, ())
            )
            if not led:
                detail = f"no leader within {bound_ms:.0f} ms after healing at {quiet.since_ms:.0f}"
                violations.append(Violation("L1", f"partition {partition}", detail))
    return violations


def _reigns(
    announcements: Iterable[Said], faults: Iterable[FaultWindow]
) -> dict[int, list[tuple[float, float]]]:
    """By partition: from when to when somebody led, as far as one could know."""
    gone_ms = {fault.node: fault.since_ms for fault in faults if fault.until_ms == inf}
    leading: dict[tuple[int, str, str], float] = {}
    reigns: dict[int, list[tuple[float, float]]] = {}

    def end(name: tuple[int, str, str], at_ms: float) -> None:
        since_ms = leading.pop(name)
        reigns.setdefault(name[0], []).append((since_ms, at_ms))

    for said in announcements:
        name = (said.partition, said.process, said.incarnation)
        if said.event == "leader":
            leading.setdefault(name, said.at_ms)
        elif said.event == "follower" and name in leading:
            end(name, said.at_ms)
        elif said.event == "ended":
            for other in [other for other in leading if other[1:] == name[1:]]:
                end(other, said.at_ms)
    for name in list(leading):
        end(name, gone_ms.get(name[1], inf))
    return reigns


def check_drained(rows: Sequence[Row], present: Sequence[Present]) -> list[Violation]:
    """After the drain: what was accepted has ended, and who asked for a result has got an answer.

    Clients that were killed, and calls that nobody could answer any more because of it, are left
    out.
    """
    killed = {row.incarnation for row in rows if row.detail == KILLED}
    states = {job.job: job.state for job in present}
    acked = {
        row.job
        for row in rows
        if row.f == SUBMIT and row.type == "ok" and row.incarnation not in killed
    }
    violations = [
        Violation("L1", job, "accepted, and still not at its end after the drain")
        for job in sorted(acked)
        if states.get(job) == ""
    ]
    asked: set[str] = set()
    answered: set[str] = set()
    for row in rows:
        if row.f == RESULT and row.incarnation not in killed:
            (answered if row.type in ("ok", "fail") else asked).add(row.job)
    return violations + [
        Violation("L1", job, "nobody was ever told how it ended")
        for job in sorted(asked - answered)
    ]


class SubmitTimes(NamedTuple):
    """How long submits took, in ms: under a steady load before the first fault, and healed."""

    before: list[float]
    after: list[float]

    @property
    def enough(self) -> bool:
        """Whether there are enough of both to tell."""
        return min(len(self.before), len(self.after)) >= SAMPLES_MIN


def submit_times(
    rows: Iterable[Row], faults: Sequence[FaultWindow], *, steady_ms: float = -inf
) -> SubmitTimes:
    """Those acknowledged before the first fault, and those begun 30 s after the last healing.

    Args:
        rows: The history.
        faults: All that there were; with none, nothing is found.
        steady_ms: Calls that began before are left out.
    """
    found = SubmitTimes([], [])
    if not faults:
        return found
    first_ms = min(fault.since_ms for fault in faults)
    healed_ms = quiet_times(faults)[-1].since_ms + RECOVERED_MS
    begun: dict[tuple[str, str, int], float] = {}
    for row in rows:
        if row.f != SUBMIT:
            continue
        name = (row.process, row.incarnation, row.call)
        if row.type == "invoke":
            begun[name] = row.boottime
        elif row.type == "ok" and name in begun:
            since_ms = begun[name]
            if since_ms >= steady_ms and row.boottime < first_ms:
                found.before.append(row.boottime - since_ms)
            elif since_ms >= healed_ms:
                found.after.append(row.boottime - since_ms)
    return found


def p99(times: Sequence[float]) -> float:
    """Of at least one."""
    return sorted(times)[len(times) * 99 // 100]


def check_latency(
    rows: Iterable[Row], faults: Sequence[FaultWindow], *, steady_ms: float = -inf
) -> list[Violation]:
    """Compare the submits before the first fault with those long after the last one."""
    times = submit_times(rows, faults, steady_ms=steady_ms)
    if not times.enough:
        return []
    base_ms, now_ms = p99(times.before), p99(times.after)
    if now_ms <= 2 * max(base_ms, NOISE_MS):
        return []
    detail = f"p99 {now_ms:.1f} ms, {RECOVERED_MS} ms after healing; it was {base_ms:.1f}"
    return [Violation("L1", "submits", detail)]
