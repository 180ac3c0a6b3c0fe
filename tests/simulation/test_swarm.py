"""Random runs of the whole cluster: whatever strikes, the invariants hold; and a seed is a run."""

from __future__ import annotations

import json
import subprocess
import sys
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


def test_a_seed_gives_one_run() -> None:
    """The same seed gives the same history, to the last row and its time."""
    first, second = played(4), simulate(4)
    assert first.plan == second.plan == draw_plan(4)
    assert first.evidence.rows == second.evidence.rows
    assert first.announcements == second.announcements
    assert first.digest() == second.digest() != played(5).digest()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_gives_one_run_in_every_process(hash_seed: str) -> None:
    """Neither the hashes of strings nor what ran before has a say in it."""
    program = "from tests.simulation.swarm import simulate; print(simulate(4).digest())"
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == played(4).digest()


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
