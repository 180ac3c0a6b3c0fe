"""Random runs of the whole cluster: whatever strikes, the invariants hold; and a seed is a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from tenure.testing.cluster import Announcement
from tests.oracles.verdict import Violation
from tests.simulation import runner
from tests.simulation.load import PLAYS, TOPICS
from tests.simulation.runner import Bar, Totals, injectable, play
from tests.simulation.shrink import shrink
from tests.simulation.stage import KINDS, Stage, Struck
from tests.simulation.story import offender, story
from tests.simulation.swarm import Outcome, Plan, draw_plan, simulate, successions

ROOT = Path(__file__).resolve().parents[2]
#: Plays seeds, after it has said where it has its code from.
PROGRAM = """
import sys
from tenure.worker import attempt
from tests.simulation import swarm
print(attempt.__file__, swarm.__file__, sep="\\n")
for seed in sys.argv[1:]:
    print(seed, swarm.simulate(int(seed)).digest())
"""


@cache
def played(seed: int) -> Outcome:
    """A seed's run; tests that only look at it share it."""
    return simulate(seed)


# `make simulate`, which CI runs too, plays a thousand: here are those that other tests look at.
@pytest.mark.parametrize(
    "seed", [0, 1, 4, 5, *(pytest.param(s, marks=pytest.mark.nightly) for s in (2, 3, 6, 7))]
)
def test_random_faults(seed: int) -> None:
    """Whatever strikes: after it, every accepted job ends, once, and all invariants hold."""
    assert played(seed).violations == []


# In the second, snapshots are taken: they have ids.
@pytest.mark.parametrize("seed", [4, 5])
def test_a_seed_gives_one_run(seed: int) -> None:
    """The same seed gives the same history and the same store, to the last row and its time."""
    first, second = played(seed), simulate(seed)
    assert first.plan == second.plan == draw_plan(seed)
    assert first.evidence == second.evidence
    assert first.announcements == second.announcements
    assert first.digest() == second.digest() != played(1).digest()


# In `make nightly` a hundred more, and each after many others.
@pytest.mark.parametrize(
    "seeds",
    [(1, 4), pytest.param(tuple(range(100, 200)), marks=pytest.mark.nightly)],
    ids=["few", "many"],
)
def test_a_seed_gives_one_run_wherever_it_is_played(seeds: Sequence[int], tmp_path: Path) -> None:
    """Neither the hashes of strings, nor what ran before, nor where the code lies has a say."""
    expected = [f"{seed} {simulate(seed).digest()}" for seed in seeds]
    root = tmp_path / "a folder with a longer name" / "than most" / "code"
    root.parent.mkdir(parents=True)
    root.symlink_to(ROOT)
    assert played_elsewhere(root, seeds[::-1]) == expected[::-1]


def played_elsewhere(root: Path, seeds: Sequence[int]) -> list[str]:
    """What tells the runs of some seeds, one after the other in a process of its own.

    Args:
        root: The folder that it has all code from.
        seeds: Of the runs.
    """
    path = [root, *(root / part for part in ("protos", "client", "worker", "master", "testing"))]
    lines = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, *map(str, seeds)],
        cwd=root.parent,
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(map(str, path))},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert all(Path(file).is_relative_to(root) for file in lines[:2])
    return lines[2:]


def test_plans_draw_from_all_there_is() -> None:
    """Among some plans are all faults and topics, and each enables about half of them."""
    plans = [draw_plan(seed) for seed in range(300)]
    drawn = {stroke.kind for plan in plans for stroke in plan.strokes}
    drawn |= {plan.lasting.kind for plan in plans if plan.lasting is not None}
    assert drawn == set(KINDS)
    transient = sum(not kind.lasting for kind in KINDS.values())
    assert all(len({one.kind for one in plan.strokes}) <= transient / 2 + 1 for plan in plans)
    assert {topic for plan in plans for topic in plan.topics} == set(TOPICS)
    assert {len(plan.topics) for plan in plans} == {len(TOPICS) // 2}
    assert {plan.mode for plan in plans} == {"safety", "liveness"}
    assert {plan.partitions for plan in plans} == {1, 2, 3, 4}


def test_each_topic_is_something_that_users_do() -> None:
    """Some script is about it, or jobs of any script are."""
    by_options = {"explanations", "sticky"}
    assert {play.topic for play in PLAYS if play.topic} == set(TOPICS) - by_options


def test_totals_are_held_to_the_bar() -> None:
    """A few seeds are counted, and are far from enough."""
    totals = play([1])
    assert totals.seeds == 1
    assert totals.delivered > 0
    assert totals.rows.keys() <= set(injectable())
    assert any(what.startswith("seeds: 1 of 1,000") for what in totals.missed(Bar()))
    assert totals.missed(Bar(0, 0, 0, 0, 0, 0)) == []


def test_terms_are_told_apart_by_what_became_of_the_ones_before() -> None:
    """Only who did not hand a partition over is lost; the only master is followed by itself."""

    def said(event: str, partition: int, why: str = "") -> Announcement:
        return Announcement(0.0, "m", "i", event, {"partition": partition, "why": why})

    told = [
        said("leader", 0),
        said("leader", 1),
        said("follower", 0, "handed over"),
        said("leader", 0),
        said("leader", 1),
        said("follower", 1, "office lost"),
        said("leader", 0),
    ]
    assert successions(told, masters=3) == {"handed over": 1, "lost": 2}
    assert successions(told, masters=1) == {"restarted": 3}


def test_more_seeds_are_held_to_more() -> None:
    """All that is counted has to be there as often again, and may take as long again."""
    assert Bar().of(1_000) == Bar()
    assert Bar(10, 20, 30, 40, 5, 6, 2, 7.0).of(30) == Bar(30, 60, 90, 120, 15, 18, 2, 21.0)


def test_a_run_that_has_its_cores_is_judged_by_its_time() -> None:
    """By the clock on the wall. With fewer cores, or more, it says so, and nothing is judged."""
    bar = Bar(0, 0, 0, 0, 0, 0)
    alone = Totals(cpu_s=490.0)
    assert alone.timing(bar, 240.0).endswith(": met")
    assert alone.timing(bar, 245.0).endswith(": missed")
    for crowded_s in (300.0, 100.0):
        assert alone.timing(bar, crowded_s).endswith(": not judged")


def test_only_faults_with_an_effect_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only waited for something that did not come is in the story, and in no count."""
    waits = Struck(at_s=1.0, kind="lose_grants")
    stage = Stage(cluster=SimpleNamespace(), rng=Random(1), clients=(), struck=waits)
    stage.strike(SimpleNamespace(name="m1"))
    assert (waits.nodes, waits.rows) == (("m1",), {38})
    stage.aim(SimpleNamespace(name="m1"), how="to w1")
    assert (waits.target, waits.hit, waits.rows) == ("m1 to w1", False, set())
    lost = replace(waits, hit=True, rows={38})
    monkeypatch.setattr(runner, "simulate", lambda _: replace(played(1), struck=[waits, lost]))
    assert play([1]).struck == {"lose_grants": 1}


def test_what_a_whole_run_came_to_can_be_quoted() -> None:
    """The report has each row that is injected, and is JSON."""
    report = json.loads(json.dumps(Totals(seeds=2, failed={3: "S1"}).report(9.0)))
    assert report["seeds"] == 2
    assert report["failed"] == {"3": "S1"}
    assert report["rows"].keys() == {str(row) for row in injectable()}


def test_one_digest_stands_for_all_runs() -> None:
    """Whatever the order in which they end; it is another one if one of them was another run."""

    def totals(*digests: tuple[int, str]) -> Totals:
        whole = Totals()
        for seed, digest in digests:
            whole.add(Totals(digests={seed: digest}))
        return whole

    once = totals((1, "a"), (2, "b"))
    assert once.digest() == totals((2, "b"), (1, "a")).digest()
    assert once.digest() != totals((1, "a"), (2, "c")).digest()
    assert once.report(9.0)["digest"] == once.digest()
    assert play([1]).digests == {1: played(1).digest()}


# ---- what fails ---------------------------------------------------------------------------------


def needs_two(plan: Plan) -> bool:
    """A bug that shows when one stroke meets one user, and for nobody else."""
    strokes, users = {stroke.number for stroke in plan.strokes}, set(plan.users)
    return 3 in strokes and {2, 4} <= users


def test_a_failure_is_shrunk_to_what_it_needs() -> None:
    """Of ten faults and more, and of all users, those are left without which it does not fail."""
    tried: list[Plan] = []
    empty = replace(played(0), violations=[])

    def fail(plan: Plan) -> Outcome:
        tried.append(plan)
        found = [Violation("S1", "x", "planted")] if needs_two(plan) else []
        return replace(empty, plan=plan, violations=found)

    shrunk = shrink(fail(draw_plan(0)), fail).plan
    assert [stroke.number for stroke in shrunk.strokes] == [3]
    assert shrunk.users == (2, 4)
    assert len(tried) < 60


def test_shrinking_keeps_to_the_invariant_that_was_broken() -> None:
    """A part of a plan that breaks something else is another failure."""
    empty = replace(played(0), violations=[])

    def fail(plan: Plan) -> Outcome:
        broken = "S1" if needs_two(plan) else "L1"
        return replace(empty, plan=plan, violations=[Violation(broken, "x", "planted")])

    assert needs_two(shrink(fail(draw_plan(0)), fail).plan)


def test_shrinking_gives_up_in_time() -> None:
    """What cannot be made small is told as small as it has become."""
    empty = replace(played(0), violations=[Violation("S1", "x", "planted")])
    tried: list[Plan] = []

    def fail(plan: Plan) -> Outcome:
        tried.append(plan)
        return replace(empty, plan=plan)

    shrink(replace(empty, plan=draw_plan(0)), fail, tries=1)
    assert len(tried) == 1


def test_the_story_of_a_job() -> None:
    """It joins what was seen, what the journal says, what struck and who led, in time's order."""
    outcome = played(1)
    job = next(row.job for row in outcome.evidence.rows if row.job)
    failed = replace(outcome, violations=[Violation("S3", job, "planted")])
    assert offender(failed) == job
    lines = story(failed, job)
    assert [line.at_s for line in lines] == sorted(line.at_s for line in lines)
    text = "\n".join(map(str, lines))
    for said in ("ok submit", "Submitted", "Settled", " strikes ", "leader partition=0"):
        assert said in text


def test_a_run_that_never_ends_is_told_by_a_job_that_nobody_could_read() -> None:
    """The offender is then a job whose result somebody waits for."""
    outcome = played(1)
    rows = outcome.evidence.rows
    last = next(row for row in reversed(rows) if row.f == "result" and row.type == "ok")
    stuck = replace(outcome.evidence, rows=[row for row in rows if row is not last])
    failed = replace(outcome, evidence=stuck, violations=[Violation("L1", "run", "planted")])
    assert offender(failed) == last.job
