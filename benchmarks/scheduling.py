"""What a grant costs in the core: with ever more jobs waiting, and with all that may order them.

python -m benchmarks.scheduling [--jobs 20000] [--backlog 1000 100000 1000000]
"""

import argparse
import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.core import JOB_NAME, Core, Half
from benchmarks.table import Line, at_most
from tenure.master.core.command import (
    Dispatch,
    FireTimers,
    SubmitJobs,
    SubmitRow,
    SubmitSetting,
    UpdateSettings,
)
from tenure.master.core.config import PartitionConfig, Retention
from tenure.master.core.effect import SendAssignment
from tenure.master.core.record import LabelSelector, Policy
from tenure.master.core.settings import QueueSettings, TenantSettings

_PAYLOAD: Final = b"x" * 100
_SUBMIT_BATCH: Final = 256
_GRANT_BATCH: Final = 64
_RETAINED: Final = 5_000
_DAY_MS: Final = 86_400_000
_BACKLOGS: Final = (1_000, 100_000, 1_000_000)
_JOBS: Final = 20_000
_ROUNDS: Final = 3
_STEPS: Final = ("submit", "grant", "start", "report", "purge")
_HALVES: Final[tuple[Half, ...]] = ("decide", "apply")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What jobs are like.

    Attributes:
        tenants: How many tenants.
        queues: How many queues each has.
        priorities: Which priorities.
        keys: How many limit keys each queue has; 0: none.
        keyed: The share of jobs that have one.
        limited: The share of queues with a limit on what runs at once.
        labelled: The share of jobs that ask for a label.
        delayed: The share of jobs that wait for a time.
        weighted: Whether queues and tenants have different weights.
    """

    tenants: int = 1
    queues: int = 1
    priorities: Sequence[int] = (5,)
    keys: int = 0
    keyed: float = 0.0
    limited: float = 0.0
    labelled: float = 0.0
    delayed: float = 0.0
    weighted: bool = False


PLAIN: Final = Shape()
MIXED: Final = Shape(
    tenants=20,
    queues=50,
    priorities=(0, 2, 5, 7, 10),
    keys=10,
    keyed=0.1,
    limited=0.5,
    labelled=0.1,
    weighted=True,
)


class Loop:
    """Jobs of a shape in a core by itself."""

    def __init__(self, shape: Shape) -> None:
        """Opens a term and one session, and sets up the queues."""
        self._shape = shape
        retention = Retention(completed_max=_RETAINED)
        self.core = Core(
            PartitionConfig(
                partition=0, partitions=1, retention=retention, queue_depth_max=10_000_000
            )
        )
        self._random = self.core.random
        self._set_up()
        self._session = self.core.open_session(_GRANT_BATCH, (("region", "eu"),))

    def _set_up(self) -> None:
        shape, weight = self._shape, self._random.choice
        limited = 0.0
        for tenant in range(shape.tenants):
            if shape.weighted:
                settings = TenantSettings(weight=weight([1.0, 2.0, 4.0]))
                self.core.do(UpdateSettings(key=(f"t{tenant}",), settings=settings))
            for queue in range(shape.queues):
                limited += shape.limited
                concurrency = 0
                if limited >= 1.0:
                    limited -= 1.0
                    concurrency = _GRANT_BATCH
                own = QueueSettings(
                    weight=weight([0.5, 1.0, 3.0]) if shape.weighted else 1.0,
                    concurrency=concurrency,
                    key_concurrency=2 if shape.keys else 0,
                )
                if own != QueueSettings():
                    key = (f"t{tenant}", f"q{queue}")
                    self.core.do(UpdateSettings(key=key, settings=own))

    def submit(self, count: int) -> None:
        """Submits jobs in batches, each of a few settings, as clients' streams make them."""
        for first in range(0, count, _SUBMIT_BATCH):
            self.core.now_ms += 5
            settings = [self._setting() for _ in range(4 if self._shape.queues > 1 else 1)]
            rows = [self._row(settings) for _ in range(min(_SUBMIT_BATCH, count - first))]
            self.core.do(SubmitJobs(settings=settings, rows=rows), "submit")
        self.core.hear()

    def _setting(self) -> SubmitSetting:
        shape, draw = self._shape, self._random
        requires = (LabelSelector("region", ("eu", "us")),)
        policy = Policy(
            name=JOB_NAME,
            tenant=f"t{draw.randrange(shape.tenants)}",
            queue=f"q{draw.randrange(shape.queues)}",
            requires=requires if draw.random() < shape.labelled else (),
        )
        delay_ms = _DAY_MS if draw.random() < shape.delayed else 0
        return SubmitSetting(policy, draw.choice(shape.priorities), delay_ms, 0)

    def _row(self, settings: list[SubmitSetting]) -> SubmitRow:
        shape, draw = self._shape, self._random
        key = f"k{draw.randrange(shape.keys)}" if draw.random() < shape.keyed else ""
        setting = draw.randrange(len(settings))
        return SubmitRow(self.core.new_id(), setting, _PAYLOAD, "", key)

    def run(self, count: int) -> int:
        """Grants, accepts, starts and reports jobs in batches; purges what is too many."""
        core = self.core
        done = 0
        while done < count:
            core.now_ms += 2
            grant = Dispatch(
                credits=[(self._session, _GRANT_BATCH)],
                committed_seq=core.partition.next_seq - 1,
                grants_max=_GRANT_BATCH,
            )
            granted = 0
            for effect in core.do(grant, "grant").effects:
                if isinstance(effect, SendAssignment):
                    granted += len(effect.rows)
                    core.finish(core.sent(effect))
            done += granted
            core.hear()
            due = core.partition.next_timer_ms()
            if due is not None and due <= core.now_ms:
                core.do(FireTimers(rows_max=256, jitter=[0.5]), "purge")
            if not granted:
                break
        return done

    def measured(self, jobs: int) -> dict[tuple[str, Half], float]:
        """Runs so many jobs while others come; µs of CPU per job of each step."""
        spent = self.core.spent
        spent.clear()
        ran = 0
        while ran < jobs:
            self.submit(2 * _SUBMIT_BATCH if self._shape.delayed else _SUBMIT_BATCH)
            ran += self.run(_SUBMIT_BATCH)
        return {(step, half): spent[step, half] / ran * 1e6 for step in _STEPS for half in _HALVES}


def costs(shape: Shape, backlogs: Sequence[int], jobs: int) -> list[dict[tuple[str, Half], float]]:
    """µs of CPU per job of each step, for each number of jobs that wait all the time.

    The best of some rounds. The backlogs take turns, so that the machine is the same for all.
    """
    loops = [_filled(shape, backlog) for backlog in backlogs]
    gc.collect()
    gc.freeze()
    found: list[dict[tuple[str, Half], float]] = [{} for _ in loops]
    for _ in range(_ROUNDS):
        for loop, best in zip(loops, found, strict=True):
            for step, cost in loop.measured(jobs // _ROUNDS).items():
                best[step] = min(cost, best.get(step, cost))
    gc.unfreeze()
    return found


def _filled(shape: Shape, backlog: int) -> Loop:
    loop = Loop(shape)
    loop.submit(backlog)
    loop.submit(2 * _RETAINED)
    loop.run(_RETAINED)
    return loop


def measure(backlogs: Sequence[int] = _BACKLOGS, jobs: int = _JOBS) -> list[Line]:
    """The lines of `make bench`."""
    shapes = {
        "1 queue": PLAIN,
        "1,000 queues": Shape(tenants=20, queues=50),
        "1,000 limited keys": Shape(keys=1_000, keyed=1.0),
        "half of them delayed": Shape(delayed=0.5),
    }
    lines: list[Line] = []
    for name, shape in shapes.items():
        found = costs(shape, backlogs, jobs)
        grants = [best["grant", "decide"] + best["grant", "apply"] for best in found]
        for backlog, cost in zip(backlogs, grants, strict=True):
            what = f"a grant, {name}, {backlog:,} waiting"
            lines.append(Line(what=what, value=f"{cost:.2f} µs"))
        most = max(grants[1:], default=grants[0]) / grants[0]
        lines.append(at_most(f"{name}: most beside the fewest", most, 1.2, "times", digits=2))
    plain = sum(costs(PLAIN, backlogs[:1], jobs)[0].values())
    mixed = sum(costs(MIXED, [10 * backlogs[0]], jobs)[0].values())
    lines.append(Line(what="the core, a plain job", value=f"{plain:.1f} µs"))
    lines.append(Line(what="the core, a job of the mix", value=f"{mixed:.1f} µs"))
    # What that comes to end to end, ``benchmarks.mix`` says.
    lines.append(Line(what="a job of the mix costs more by", value=f"{mixed - plain:.1f} µs"))
    return lines


def main() -> None:
    """Prints every step's cost of the plain jobs and of the mix, then the lines of the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=_JOBS)
    parser.add_argument("--backlog", type=int, nargs="+", default=list(_BACKLOGS))
    arguments = parser.parse_args()
    shapes = {"plain": PLAIN, "mix": MIXED}
    found = [costs(shape, arguments.backlog[:1], arguments.jobs)[0] for shape in shapes.values()]
    print(f"{'µs per job':20}" + "".join(f"{name:>12}" for name in shapes))
    for step in found[0]:
        print(f"{' '.join(step):20}" + "".join(f"{column[step]:12.2f}" for column in found))
    for line in measure(arguments.backlog, arguments.jobs):
        print(f"{line.what:44}{line.value:>16}  {line.target:14}{line.verdict}".rstrip())


if __name__ == "__main__":
    main()
