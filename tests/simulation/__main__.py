"""The simulator at a terminal: ``make simulate SEED= SEEDS= MINUTES=``.

Without arguments it plays a thousand seeds, holds them to the bar, and writes what they came to
into out/simulate.json. With a seed it plays that one and tells what happened. Whatever fails is
shrunk, and told as the story of the job it is about.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.revision import commit
from tests.simulation.runner import Bar, Totals, run
from tests.simulation.shrink import shrink
from tests.simulation.story import offender, story
from tests.simulation.swarm import Outcome, Plan, draw_plan, simulate

#: So many failed seeds are shrunk and told; the others are named.
_TOLD_MAX: Final = 3
#: What a whole run came to.
_REPORT: Final = Path(__file__).parents[2] / "out" / "simulate.json"
#: And the digest of each seed: `diff` of two such files names the seeds whose runs differ.
_DIGESTS: Final = _REPORT.with_name("simulate-digests.txt")


def main() -> int:
    """Plays what is asked for; the exit code."""
    asked = _arguments()
    if asked.seed is not None:
        return _play_one(_plan(asked))
    return _play_many(asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one, and tell what happened")
    parser.add_argument("--strokes", help="with --seed: only these of its faults, as in 1,4")
    parser.add_argument("--users", help="with --seed: only these of its users, as in 0,7")
    parser.add_argument("--transient", action="store_true", help="with --seed: no lasting fault")
    parser.add_argument("--first", type=int, default=0, help="the first of many seeds")
    parser.add_argument("--seeds", type=int, help="how many; default 1000")
    parser.add_argument("--cores", type=int, help="how many to use; default all")
    parser.add_argument("--minutes", type=float, help="play seeds for so long")
    return parser.parse_args()


def _plan(asked: argparse.Namespace) -> Plan:
    """The plan of a seed, or the part of it that is asked for."""
    plan = draw_plan(asked.seed)
    if asked.strokes is not None:
        kept = _numbers(asked.strokes)
        plan = replace(plan, strokes=tuple(one for one in plan.strokes if one.number in kept))
    if asked.users is not None:
        kept = _numbers(asked.users)
        plan = replace(plan, users=tuple(user for user in plan.users if user in kept))
    if asked.transient:
        plan = replace(plan, lasting=None)
    return plan


def _numbers(text: str) -> set[int]:
    return {int(word) for word in text.split(",") if word}


def _play_many(asked: argparse.Namespace) -> int:
    seeds = asked.seeds
    if seeds is None and asked.minutes is None:
        seeds = Bar().seeds
    totals, started_s = Totals(), time.monotonic()
    for some in run(asked.first, seeds, minutes=asked.minutes, cores=asked.cores):
        totals.add(some)
        for seed, violation in some.failed.items():
            print(_line(draw_plan(seed), violation), flush=True)
    bar = None if seeds is None or seeds < Bar().seeds else Bar().of(seeds)
    took_s = time.monotonic() - started_s
    print(f"{totals}\n{took_s:.0f} s in all")
    if bar is not None:
        print(totals.timing(bar, took_s))
        _REPORT.parent.mkdir(exist_ok=True)
        _REPORT.write_text(json.dumps(totals.report(took_s), indent=2) + "\n")
        lines = [f"{seed} {digest}\n" for seed, digest in sorted(totals.digests.items())]
        _DIGESTS.write_text("".join(lines))
    for seed in sorted(totals.failed)[:_TOLD_MAX]:
        _tell(simulate(seed))
    missed = [] if bar is None else totals.missed(bar)
    for what in missed:
        print(f"below the bar: {what}")
    if bar is not None and not missed and not totals.failed:
        print("all counts of the bar are met")
    return 1 if totals.failed or missed else 0


def _play_one(plan: Plan) -> int:
    print(f"{plan}\n")
    outcome = simulate(plan.seed, plan=plan)
    if outcome.violations:
        _tell(outcome)
        return 1
    for line in story(outcome, None):
        print(line)
    print(
        f"\nno violation: {outcome.acked} jobs accepted, {outcome.delivered} messages delivered,"
        f" {len(outcome.struck)} faults, {outcome.failovers} failovers,"
        f" {outcome.virtual_s:.1f} s of virtual time, digest {outcome.digest()}"
    )
    return 0


def _tell(outcome: Outcome) -> None:
    """Shrinks a failed run, and tells its story."""
    smaller = shrink(outcome)
    print(f"\n{_line(smaller.plan, str(smaller.violations[0]))}")
    for violation in smaller.violations[:10]:
        print(f"  {violation}")
    job = offender(smaller)
    print(f"the story of {'the run' if job is None else f'job {job}'}:")
    for line in story(smaller, job):
        print(line)


def _line(plan: Plan, violation: str) -> str:
    """All that is needed to see a failure again."""
    whole = draw_plan(plan.seed)
    parts = ""
    if plan.strokes != whole.strokes:
        parts += " --strokes " + (",".join(str(one.number) for one in plan.strokes) or ",")
    if plan.users != whole.users:
        parts += " --users " + (",".join(map(str, plan.users)) or ",")
    if plan.lasting != whole.lasting:
        parts += " --transient"
    first = violation.strip().splitlines()[0]
    return (
        f"FAILED seed {plan.seed} at {commit()}: {first}; again with:"
        f" .venv/bin/python -m tests.simulation --seed {plan.seed}{parts}"
    )


if __name__ == "__main__":
    sys.exit(main())
