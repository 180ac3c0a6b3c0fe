"""The report of a chaos run, for people (Markdown) and for machines (JSON)."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos.arena import Kill
from tests.chaos.measure import Failover, Measured, quantiles
from tests.chaos.rounds import Log
from tests.chaos.scope import Unjudged
from tests.oracles.liveness import p99

_SHOWN = 30
#: From here on a run has the time for all that must be judged.
_WHOLE_MINUTES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was asked for, and what this machine could not do."""

    seed: int
    minutes: float
    faults: list[str]
    missing: Mapping[str, str]
    etcd_version: str
    took_s: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One bound that a run has to keep."""

    name: str
    found: str
    held: bool


def bars(plan: Plan, log: Log, measured: Measured, kills: Sequence[Kill]) -> list[Bar]:
    """What must hold of every run; how much has to happen goes by its length."""
    verdict, share = measured.verdict, plan.minutes / 30
    everything = len(plan.faults) > 10
    lost, twice = verdict.count("S1"), verdict.count("S3")
    violations = [*verdict.violations, *log.violations]
    unexplained = measured.unexplained()
    found = [
        Bar("lost 0", str(lost), lost == 0),
        Bar("accepted twice 0", str(twice), twice == 0),
        Bar("every invariant that was judged", f"{len(violations)} violations", not violations),
        Bar("false failovers 0", str(len(measured.false_failovers)), not measured.false_failovers),
        Bar("restarted while their worker lived 0", str(len(unexplained)), not unexplained),
        *_time_bars(measured),
    ]
    if everything:
        met = sum(failover.running_here >= 300 for failover in measured.failovers)
        found += [
            Bar(f"acked ≥ {200_000 * share:.0f}", str(verdict.acked), verdict.acked >= 2e5 * share),
            Bar(
                f"failovers of partitions with ≥ 300 running jobs ≥ {20 * share:.0f}",
                str(met),
                met >= 20 * share,
            ),
            Bar(f"kills ≥ {50 * share:.0f}", str(len(kills)), len(kills) >= 50 * share),
            *_planned_bars(measured.planned, share),
        ]
    if plan.minutes >= _WHOLE_MINUTES:
        missing = [one for one in measured.unjudged if one.due]
        found.append(Bar("judged what a whole run must", _missing(missing), not missing))
    return found


def _missing(unjudged: Sequence[Unjudged]) -> str:
    return f"not {'; '.join(one.what for one in unjudged)}" if unjudged else "all"


def _time_bars(measured: Measured) -> Iterable[Bar]:
    """How long changes of leaders may take, where nothing else is wrong."""
    alone = [failover for failover in measured.failovers if failover.alone]
    leaders = quantiles([failover.new_leader_ms for failover in alone])
    grants = quantiles([failover.first_grant_ms for failover in alone])
    if alone:
        yield Bar("new leader, median ≤ 8 s", _s(leaders["median"]), leaders["median"] <= 8_000)
        yield Bar("new leader, worst ≤ 15 s", _s(leaders["max"]), leaders["max"] <= 15_000)
        yield Bar("first grant, worst ≤ 18 s", _s(grants["max"]), grants["max"] <= 18_000)
    orderly = [one.first_grant_ms for one in measured.hand_overs if one.alone]
    if orderly:
        worst = max(orderly)
        yield Bar("no grant around a hand-over ≤ 1.5 s", _s(worst), worst <= 1_500)


def _planned_bars(planned: Mapping[str, int], share: float) -> Iterable[Bar]:
    """How much there has to be besides single jobs."""
    for what, least in (("ticks", 1_000), ("workflows", 300), ("children", 1_500)):
        found = planned[what]
        yield Bar(f"{what} ≥ {least * share:.0f}", str(found), found >= least * share)


def write(
    folder: Path,
    plan: Plan,
    log: Log,
    measured: Measured,
    kills: Sequence[Kill],
    results: Sequence[Bar],
) -> str:
    """Write ``chaos-report.md`` and ``.json``; returns the former's text."""
    facts = collect(plan, log, measured, kills, results)
    folder.mkdir(exist_ok=True)
    (folder / "chaos-report.json").write_text(json.dumps(facts, indent=1) + "\n")
    text = "\n".join(page(facts)) + "\n"
    (folder / "chaos-report.md").write_text(text)
    return text


def collect(
    plan: Plan,
    log: Log,
    measured: Measured,
    kills: Sequence[Kill],
    results: Sequence[Bar],
) -> dict[str, Any]:
    """All figures."""
    verdict = measured.verdict
    alone = [failover for failover in measured.failovers if failover.alone]
    others = [failover for failover in measured.failovers if not failover.alone]
    orderly = [one.first_grant_ms for one in measured.hand_overs if one.alone]
    amid = [one.first_grant_ms for one in measured.hand_overs if not one.alone]
    struck = Counter(strike.fault.name for strike in log.strikes)
    rows = Counter(row for strike in log.strikes for row in strike.fault.rows)
    return {
        "commit": commit(),
        "plan": asdict(plan),
        "held": all(bar.held for bar in results),
        "bars": [asdict(bar) for bar in results],
        "faults": dict(sorted(struck.items())),
        "rows": {str(row): count for row, count in sorted(rows.items())},
        "not_done": log.busy,
        "kills": dict(Counter(kill.name for kill in kills)),
        "acked": verdict.acked,
        "refused": verdict.refused,
        "unknown": verdict.unknown,
        "recovered": verdict.recovered,
        "results": verdict.results,
        "executions": verdict.executions,
        "started_again": len(verdict.reruns),
        "terms": verdict.terms,
        "lost": verdict.count("S1"),
        "accepted_twice": verdict.count("S3"),
        "violations": [str(v) for v in [*verdict.violations, *log.violations]],
        "unjudged": [one._asdict() for one in measured.unjudged],
        "false_failovers": measured.false_failovers,
        "restarts_excused": dict(sorted(measured.excused().items())),
        "leaders_killed": len({failover.killed for failover in measured.failovers}),
        "etcd": plan.etcd_version,
        "revoked_by_etcd": measured.revoked_by_etcd,
        "hand_overs": [asdict(one) for one in measured.hand_overs],
        "planned": dict(measured.planned),
        "failovers": [asdict(failover) for failover in measured.failovers],
        "new_leader_ms": quantiles([f.new_leader_ms for f in alone]),
        "first_grant_ms": quantiles([f.first_grant_ms for f in alone]),
        "new_leader_with_other_faults_ms": quantiles([f.new_leader_ms for f in others]),
        "first_grant_with_other_faults_ms": quantiles([f.first_grant_ms for f in others]),
        "handed_over_ms": quantiles(orderly),
        "handed_over_with_other_faults_ms": quantiles(amid),
        "settled_ms": quantiles(log.settled_ms),
        "longest_stall_ms": measured.stall_ms,
        "submit_ms": submits(measured),
        "resources": resources(log, measured),
    }


def submits(measured: Measured) -> dict[str, dict[str, float]]:
    """How long submits took: before the first fault, and from 30 s after the last healing on."""
    times = {"before": measured.submits.before, "after": measured.submits.after}
    return {when: {"count": len(ms), "p99": p99(ms)} for when, ms in times.items() if ms}


def resources(log: Log, measured: Measured) -> dict[str, dict[str, float]]:
    """By node: what it held before the first fault and at the end (medians), and at most."""
    found: dict[str, dict[str, float]] = {}
    for one in measured.held:
        held = found.setdefault(one.process, {})
        held |= {f"{one.measure}_before": one.base, f"{one.measure}_end": one.now}
        kept = measured.kept.get((one.process, one.measure), 0)
        if kept:
            held[f"{one.measure}_kept_allowed"] = kept
    for sample in log.samples:
        held = found.setdefault(sample.process, {})
        for name in ("memory_bytes", "descriptors", "store_bytes"):
            value = getattr(sample, name)
            if value >= 0:
                held[f"{name}_most"] = max(held.get(f"{name}_most", 0), value)
    return dict(sorted(found.items()))


def page(facts: Mapping[str, Any]) -> Iterable[str]:
    """The report as Markdown."""
    plan = facts["plan"]
    yield f"# Chaos: {'held' if facts['held'] else 'BROKEN'}"
    yield ""
    yield f"`make chaos MINUTES={plan['minutes']:g} SEED={plan['seed']}` at {facts['commit']},"
    yield f"{plan['took_s']:.0f} s: three etcd members, three masters, four partitions."
    yield ""
    yield "| bar | found | |"
    yield "|---|---|---|"
    for bar in facts["bars"]:
        yield f"| {bar['name']} | {bar['found']} | {'held' if bar['held'] else '**BROKEN**'} |"
    yield ""
    yield from _operations(facts)
    yield from _unjudged(facts)
    yield from _times(facts)
    yield "## Faults"
    yield ""
    yield "| fault | times |"
    yield "|---|---|"
    for name, count in facts["faults"].items():
        yield f"| {name} | {count} |"
    yield ""
    rows = ", ".join(f"{row} ({count})" for row, count in facts["rows"].items())
    yield f"Rows of the table: {rows}. Kills: {facts['kills']}."
    for means, why in plan["missing"].items():
        yield f"Not done here, {means}: {why}."
    yield ""
    yield from _failovers(facts)
    yield from _hand_overs(facts)
    yield "## Resources"
    yield ""
    for name, held in facts["resources"].items():
        yield f"- {name}: {', '.join(f'{what} {value:.0f}' for what, value in held.items())}"


def _operations(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## Operations"
    yield ""
    yield (
        f"{facts['acked']} jobs acknowledged, {facts['refused']} refused, {facts['unknown']} of"
        f" unknown outcome ({facts['recovered']} took effect), {facts['results']} results read;"
        f" {facts['executions']} executions, {facts['started_again']} jobs started again,"
        f" {facts['terms']} terms. Lost {facts['lost']}, accepted twice {facts['accepted_twice']}."
    )
    planned = ", ".join(f"{count} {what}" for what, count in facts["planned"].items())
    yield f"Among them, and beside them: {planned}."
    yield ""
    by_etcd = (
        f"Offices lost amid faults that cost one only on an etcd as old as {facts['etcd']}: its"
        " former leader revokes leases that its successor renewed (etcd issue 15247)"
    )
    for what, title in (
        ("violations", "Violations"),
        ("false_failovers", "False failovers"),
        ("revoked_by_etcd", by_etcd),
    ):
        if facts[what]:
            yield f"{title}:"
            yield ""
            yield from (f"- {line.splitlines()[0]}" for line in facts[what][:_SHOWN])
            yield ""


def _unjudged(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## Not judged"
    yield ""
    yield from (f"- {one['what']}: {one['why']}" for one in facts["unjudged"])
    yield ""


def _times(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## Times"
    yield ""
    yield "| | of them | min | median | p99 | max |"
    yield "|---|---|---|---|---|---|"
    for name, what in (
        ("new_leader_ms", "new leader after kill -9"),
        ("first_grant_ms", "first grant after kill -9"),
        ("new_leader_with_other_faults_ms", "new leader, with other faults at once"),
        ("first_grant_with_other_faults_ms", "first grant, with other faults at once"),
        ("handed_over_ms", "no grant around a hand-over"),
        ("handed_over_with_other_faults_ms", "no grant around a hand-over, with other faults"),
        ("settled_ms", "all clients go on after healing"),
    ):
        if facts[name]:
            values = " | ".join(_s(facts[name][at]) for at in ("min", "median", "p99", "max"))
            yield f"| {what} | {facts[name]['count']:.0f} | {values} |"
    stalls = ", ".join(f"{p}: {_s(ms)}" for p, ms in facts["longest_stall_ms"].items())
    yield ""
    yield f"Longest time without a start, by partition: {stalls}."
    for when, what in (("before", "the first fault"), ("after", "the last healing, by 30 s")):
        if when in facts["submit_ms"]:
            found = facts["submit_ms"][when]
            yield f"Submits {when} {what}: {found['count']:.0f}, p99 {found['p99']:.0f} ms."
    yield ""


def _failovers(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## Failovers after kill -9"
    yield ""
    yield "| partition | killed | new leader | first grant | running | of the partition | batches |"
    yield "|---|---|---|---|---|---|---|"
    for one in facts["failovers"]:
        mark = "" if one["alone"] else " (with other faults)"
        yield (
            f"| {one['partition']} | {one['killed']}{mark} | {_s(one['new_leader_ms'])} |"
            f" {_s(one['first_grant_ms'])} | {one['running']} | {one['running_here']} |"
            f" {one['in_flight']} |"
        )
    yield ""
    for one in facts["failovers"]:
        for job, why in one["restarted"]:
            yield f"- started again after {one['killed']}: {job}, {why or '**no reason known**'}"
    for why, count in facts["restarts_excused"].items():
        yield f"- ran at a failover and were started again, {why}: {count}"
    yield ""


def _hand_overs(facts: Mapping[str, Any]) -> Iterable[str]:
    yield "## Hand-overs, the slowest"
    yield ""
    yield "| partition | from | to | at | no grant for |"
    yield "|---|---|---|---|---|"
    # First those that the bar is for.
    slowest = sorted(
        facts["hand_overs"], key=lambda one: (not one["alone"], -one["first_grant_ms"])
    )
    for one in slowest[:_SHOWN]:
        mark = "" if one["alone"] else " (with other faults)"
        yield (
            f"| {one['partition']} | {one['by']}{mark} | {one['to']} | {one['at_ms'] / 1000:.3f} |"
            f" {_s(one['first_grant_ms'])} |"
        )
    yield ""


def commit() -> str:
    """What is being tested."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "an unknown commit"
    return found.stdout.strip()


def _s(ms: float) -> str:
    return f"{ms / 1000:.2f} s"


__all__ = ["Bar", "Failover", "Plan", "bars", "write"]
