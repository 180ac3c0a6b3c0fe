"""What a run could not judge: an invariant that nothing put to the test has not been held.

What a harness does not know, a run did not do, or there was too little of, is named with its
reason, so that "no violation" is not read for more than it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Final, NamedTuple

from tests.oracles.evidence import Evidence
from tests.oracles.facts import Fact, QueueSet, SchedulePut
from tests.oracles.history import CANCEL, DEFY, GET, LIST, PURGE, REQUEUE, SAVE, START, Row
from tests.oracles.liveness import SAMPLES_MIN, submit_times
from tests.oracles.resources import ALLOWED, compare
from tests.oracles.resources import SAMPLES_MIN as LOOKS_MIN

#: What can be measured from outside.
_DUE: Final = frozenset({"memory_bytes", "descriptors", "store_bytes"})


class Unjudged(NamedTuple):
    """Something that was not judged.

    Attributes:
        what: The invariant, or the part of it.
        why: What was missing.
        due: Whether a run of half an hour must have it.
    """

    what: str
    why: str
    due: bool = False


def find_unjudged(evidence: Evidence, facts: Sequence[Fact]) -> list[Unjudged]:
    """All of it, in the order of the invariants' names."""
    found = [
        *_by_rows(Counter(row.f for row in evidence.rows), evidence.rows),
        *_by_facts(facts),
        *_by_knowledge(evidence),
        *_by_samples(evidence),
    ]
    return sorted(found)


def _by_rows(done: Counter[str], rows: Sequence[Row]) -> Iterator[Unjudged]:
    if not done[CANCEL]:
        yield Unjudged("S10, a start after a cancel", "no job was cancelled by a client", due=True)
    if not any(row.key for row in rows):
        yield Unjudged("S16", "no job had a key", due=True)
    for f, what in ((REQUEUE, "requeue"), (PURGE, "purge"), (GET, "read"), (LIST, "list")):
        if not done[f]:
            yield Unjudged(f"S18, {what}s", f"no client did one ({f})", due=True)
    if not any(row.tenant not in ("", "default") for row in rows):
        yield Unjudged("S19", "there was one tenant", due=True)
    if not done[SAVE]:
        yield Unjudged("S21", "no job saved anything", due=True)
    elif not any(row.saved for row in rows):
        why = "no attempt was ended that had saved something"
        yield Unjudged("S21, what the next attempt begins with", why)
    if not done[DEFY]:
        why = "no job went on when it was asked to stop"
        yield Unjudged("S22, code that was given up", why, due=True)


def _by_facts(facts: Iterable[Fact]) -> Iterator[Unjudged]:
    kinds = {type(fact) for fact in facts}
    if SchedulePut not in kinds:
        yield Unjudged("S13", "there was no schedule", due=True)
    if QueueSet not in kinds:
        yield Unjudged("S17", "no queue had a limit", due=True)


def _by_knowledge(evidence: Evidence) -> Iterator[Unjudged]:
    if not evidence.words:
        why = "nobody listens to what masters tell workers on real connections"
        yield Unjudged("S5 and S6, acknowledged heartbeats", why)
    for log in evidence.logs:
        traced = any(row["event"] == "append_committed" for row in log.trace)
        if not traced and all(getattr(one, "at_ms", None) is None for one in log.changes or ()):
            why = "no master has told when its batches committed"
            yield Unjudged(f"S8, partition {log.partition}", why, due=True)
    if evidence.skew_ms is None:
        why = "nobody knows how far apart the masters' clocks were"
        yield Unjudged("S12 by the clients' clocks, and how late a delay may end", why)
    elif not any(row.delay_ms for row in evidence.rows):
        yield Unjudged("S12 by the clients' clocks", "no client asked for a delay")
    started = {row.process for row in evidence.rows if row.f == START}
    unknown = started - set(evidence.capacities)
    if evidence.capacity is None and unknown:
        yield Unjudged(f"S22 of {', '.join(sorted(unknown))}", "nobody knows their slots")
    faults = evidence.faults or ()
    if not any(fault.until_ms == inf for fault in faults):
        yield Unjudged("L2", "every fault ended")


def _by_samples(evidence: Evidence) -> Iterator[Unjudged]:
    faults = evidence.faults or ()
    times = submit_times(evidence.rows, faults, steady_ms=evidence.steady_ms)
    if not times.enough:
        counts = f"{len(times.before)} submits before the first fault, {len(times.after)} after"
        yield Unjudged("L1, the p99 of submits", f"{counts}; {SAMPLES_MIN} are needed", due=True)
    told = {(held.process, held.measure) for held in compare(evidence.samples, faults)}
    looked = {
        (sample.process, measure)
        for sample in evidence.samples
        for measure in ALLOWED
        if getattr(sample, measure) >= 0
    }
    for process, measure in sorted(looked - told):
        why = f"fewer than {LOOKS_MIN} samples before the first fault, or after it"
        yield Unjudged(f"R1, {measure} of {process}", why, due=True)
    for measure in sorted(set(ALLOWED) - {measure for _, measure in looked}):
        yield Unjudged(f"R1, {measure}", "nobody measured it", due=measure in _DUE)
