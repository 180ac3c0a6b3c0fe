"""What a chaos run could not judge is said, and what it could is not; its witnesses are unbent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.audit import Traces
from tests.chaos.scope import find_unjudged
from tests.chaos.skewed import TrueTrace
from tests.oracles.court import judge
from tests.oracles.evidence import Capacity, Evidence, FaultWindow, PartitionLog, Said, Sample
from tests.oracles.facts import Cursor, Plan, QueueSet, SchedulePut
from tests.oracles.history import (
    CANCEL,
    DEFY,
    GET,
    LIST,
    PURGE,
    REQUEUE,
    SAVE,
    START,
    SUBMIT,
    Row,
    boottime_ms,
)
from tests.unit.oracles.sample import TERM_1, at, lease

#: The faults of a run, and when submits are to be as they were before.
KILL = FaultWindow(1, "leader-killed", "master-1", 5_000, 6_000)
CALM_MS = 36_000


#: What users and jobs do beside submits, and settings of theirs.
DEEDS = [
    *(at(0, "ok", f, call) for call, f in enumerate((CANCEL, REQUEUE, PURGE, GET, LIST, DEFY), -9)),
    at(0, "ok", SAVE, -1, job="j", content="h"),
    at(0, "ok", LIST, -2, tenant="acme"),
    at(0, "fail", SUBMIT, -3, key="k"),
]
FACTS = [
    SchedulePut(1, 0, "t", "n", Plan("* * * * *", "UTC", "h", "t", "q"), Cursor()),
    QueueSet(2, 0, "t", "q", concurrency=1),
]


def submits(first_ms: float, each_ms: float, count: int) -> list[Row]:
    """So many, of which each takes so long."""
    found = []
    for number in range(count):
        call = int(first_ms) + number
        found.append(at(first_ms + number, "invoke", SUBMIT, call))
        found.append(at(first_ms + number + each_ms, "ok", SUBMIT, call))
    return sorted(found, key=lambda row: row.boottime)


def samples(process: str, measure: str, before: int, after: int) -> list[Sample]:
    """Three looks at a node before the fault and three at the end, at the same name all along."""
    found = []
    for at_ms, value in ((1, before), (2, before), (3, before), (7, after), (8, after), (9, after)):
        found.append(Sample(at_ms * 1_000.0, process)._replace(**{measure: value}))
    return found


def run(**changes: object) -> Evidence:
    """A run with one fault, of which all that can be known is known, but for what is changed."""
    committed = {"event": "append_committed", "number": 0, "boot_ms": 0}
    found = Evidence(
        rows=[*DEEDS, *submits(0, 10, 200), *submits(CALM_MS, 10, 200)],
        logs=[PartitionLog(partition=0, trace=[committed])],
        faults=[KILL],
        announcements=[Said(0, "master-2", "master-2.0.log", "leader", 0, TERM_1)],
        samples=[
            *samples("master-1", "memory_bytes", 100, 100),
            *samples("master-1", "descriptors", 100, 100),
            *samples("m0", "store_bytes", 100, 100),
        ],
        drained=False,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def due(evidence: Evidence) -> list[str]:
    """What a whole run has to have judged, and this one did not."""
    return [one.what for one in find_unjudged(evidence, FACTS) if one.due]


def broken(evidence: Evidence) -> set[str]:
    """What the court refuses of liveness and resources."""
    return {found.invariant for found in judge(evidence)} & {"L1", "R1", "S22"}


def test_what_was_there_to_judge_is_not_missed() -> None:
    """Enough submits and samples before and after, and masters that traced their commits."""
    assert due(run()) == []
    assert broken(run()) == set()


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"rows": submits(0, 10, 200)}, "L1, the p99 of submits"),
        ({"rows": submits(CALM_MS, 10, 200)}, "L1, the p99 of submits"),
        ({"steady_ms": 100.0}, "L1, the p99 of submits"),
        (
            {"samples": samples("master-1", "memory_bytes", 1, 1)[1:]},
            "R1, memory_bytes of master-1",
        ),
        ({"samples": ()}, "R1, memory_bytes"),
        ({"logs": [PartitionLog(partition=0)]}, "S8, partition 0"),
    ],
)
def test_too_little_to_judge_by_is_said(changes: dict[str, object], missed: str) -> None:
    """Nothing found where there was too little to find it is no good news."""
    assert missed in due(run(**changes))


def test_what_a_run_did_not_do_is_said() -> None:
    """What its load should have done is due; whose words and clocks nobody knows is not."""
    found = find_unjudged(run(rows=submits(0, 10, 200)), ())
    due_ones = " ".join(one.what for one in found if one.due)
    for what in (
        "S10",
        "S13",
        "S16",
        "S17",
        "lists",
        "reads",
        "requeues",
        "purges",
        "S19",
        "S21",
        "S22",
    ):
        assert what in due_ones
    others = " ".join(one.what for one in found if not one.due)
    for what in ("S5 and S6, acknowledged", "S12 by", "L2"):
        assert what in others
    start = at(1, "ok", START, 1, job="j", lease=lease(TERM_1, 1))
    assert "S22 of p" in [one.what for one in find_unjudged(run(rows=[start]), ())]
    saved = at(2, "ok", SAVE, 2, job="j", lease=lease(TERM_1, 1), content="h")
    again = at(3, "ok", START, 3, job="j", lease=lease(TERM_1, 2), saved="h")
    unheld = "S21, what the next attempt begins with"
    assert unheld in [one.what for one in find_unjudged(run(rows=[start, saved]), ())]
    assert unheld not in [one.what for one in find_unjudged(run(rows=[start, saved, again]), ())]
    known = run(rows=[start], capacities={"p": Capacity(1, 2)})
    assert "S22 of p" not in [one.what for one in find_unjudged(known, ())]


def test_a_master_that_was_killed_is_no_leader() -> None:
    """If nobody has led since, its word that it leads does not stand for ever."""
    said = Said(0, "master-1", "master-1.0.log", "leader", 0, TERM_1)
    ended = Said(5_000, "master-1", "master-1.0.log", "ended")
    heir = Said(12_000, "master-2", "master-2.0.log", "leader", 0, lease(TERM_1, 9)[:24])
    assert broken(run(announcements=[said, ended])) == {"L1"}
    assert broken(run(announcements=[said, ended, heir])) == set()


def test_submits_that_stay_slow_are_refused() -> None:
    """Held to the steady load before the first fault, not to its first rush."""
    slow = submits(CALM_MS, 101, 200)
    assert broken(run(rows=[*submits(0, 50, 200), *slow])) == {"L1"}
    rush = sorted([*submits(0, 900, 200), *submits(1_000, 50, 200)], key=lambda row: row.boottime)
    assert broken(run(rows=[*rush, *slow])) == set()
    assert broken(run(rows=[*rush, *slow], steady_ms=1_000.0)) == {"L1"}


def test_what_a_node_does_not_give_back_is_refused() -> None:
    """Over all restarts of its process; what it keeps on purpose is its own, and no more."""
    leak = samples("master-1", "memory_bytes", 100, 100 << 20)
    assert broken(run(samples=leak)) == {"R1"}
    kept = {("master-1", "memory_bytes"): 64 << 20}
    assert broken(run(samples=leak, kept=kept)) == set()
    assert broken(run(samples=leak, kept={("master-2", "memory_bytes"): 64 << 20})) == {"R1"}


def test_more_jobs_than_a_worker_has_slots_are_refused() -> None:
    """By the slots of that worker."""
    begun = [at(n, "ok", START, n, job=f"j{n}", lease=lease(TERM_1, n)) for n in (1, 2)]
    evidence = run(rows=begun, logs=[])
    assert broken(replace(evidence, capacities={"p": Capacity(2, 2)})) == set()
    assert broken(replace(evidence, capacities={"p": Capacity(1, 2)})) == {"S22"}
    assert broken(replace(evidence, capacities={"q": Capacity(1, 2)})) == set()


def test_traces_are_read_by_partition(tmp_path: Path) -> None:
    """Of all masters; a line that a kill has cut is passed over."""
    rows = [
        {"event": "append_sent", "partition": 1, "number": 4, "boot_ms": 10},
        {"event": "state", "partition": 0, "last_seq": 7, "hash": "aa", "boot_ms": 11},
    ]
    first, second = tmp_path / "trace-0", tmp_path / "trace-1"
    first.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"event": "app')
    second.write_text(json.dumps({**rows[0], "event": "append_committed", "boot_ms": 12}) + "\n")
    traces = Traces([first, second, tmp_path / "never-began"])
    assert [row["event"] for row in traces.rows(1)] == ["append_sent", "append_committed"]
    assert (traces.hashes(0), traces.hashes(1)) == ({7: "aa"}, {})


def test_a_bent_clock_does_not_bend_the_trace(tmp_path: Path) -> None:
    """Who judges by it compares it with the clocks of others."""

    class Asleep:
        def boot_ms(self) -> int:
            return 1

        def wall_ms(self) -> int:
            return 1

        async def sleep(self, ms: int) -> None:
            raise NotImplementedError

    before_ms = int(boottime_ms())
    trace = TrueTrace(tmp_path / "trace", Asleep())
    trace.append_sent(0, 1, 1)
    trace.close()
    assert Traces([tmp_path / "trace"]).rows(0)[0]["boot_ms"] >= before_ms
