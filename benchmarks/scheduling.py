"""What a grant costs in the core: with ever more jobs waiting, and with all that may order them.

Runs one partition alone, as its owner loop would: every step is ``decide`` and ``apply`` of the
batched commands that a job passes through. No store, no wire, no effects sent.

    python -m benchmarks.scheduling [--jobs 20000] [--backlog 1000 100000 1000000]
"""

import argparse
import gc
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.table import Line, at_most
from tenure.master.core.command import (
    AcceptAssignment,
    Command,
    DeclareLeases,
    Dispatch,
    FireTimers,
    LeaseRow,
    OpenSession,
    OpenTerm,
    ReportAttempts,
    ReportRow,
    StartLeases,
    SubmitJobs,
    SubmitRow,
    SubmitSetting,
    UpdateSettings,
)
from tenure.master.core.config import PartitionConfig, Retention
from tenure.master.core.effect import Decision, SendAssignment
from tenure.master.core.partition import Partition
from tenure.master.core.record import LabelSelector, Policy
from tenure.master.core.settings import QueueSettings, TenantSettings
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import mint
from tenure.protocol.vocabulary import AttemptOutcome

_TOKEN: Final = Token(1, 1)
_PAYLOAD: Final = b"x" * 100
_SUBMIT_BATCH: Final = 256
_GRANT_BATCH: Final = 64
_RETAINED: Final = 5_000
_DAY_MS: Final = 86_400_000
_BACKLOGS: Final = (1_000, 100_000, 1_000_000)
_JOBS: Final = 20_000
_ROUNDS: Final = 3


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
    """A partition, its clock, and the CPU that each step has taken."""

    def __init__(self, shape: Shape) -> None:
        """Opens a term and one session, and sets up the queues."""
        self._shape = shape
        retention = Retention(completed_max=_RETAINED)
        config = PartitionConfig(
            partition=0, partitions=1, retention=retention, queue_depth_max=10_000_000
        )
        self.partition = Partition(config)
        self.partition.finish_replay()
        self._now_ms = 1_700_000_000_000
        self.spent: dict[str, float] = defaultdict(float)
        self._random = random.Random(7)
        self._step("open", OpenTerm(token=_TOKEN, incarnation="m", window_ms=0))
        self._set_up()
        self._step(
            "open",
            OpenSession(
                session_id=1,
                incarnation="w",
                worker="w",
                job_names=frozenset({"noop"}),
                queues=frozenset(),
                slots=_GRANT_BATCH,
                labels=(("region", "eu"),),
            ),
        )
        self._hear()

    def _set_up(self) -> None:
        shape, weight = self._shape, self._random.choice
        limited = 0.0
        for tenant in range(shape.tenants):
            if shape.weighted:
                settings = TenantSettings(weight=weight([1.0, 2.0, 4.0]))
                self._step("open", UpdateSettings(key=(f"t{tenant}",), settings=settings))
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
                    self._step("open", UpdateSettings(key=key, settings=own))

    def _hear(self) -> None:
        """Keeps the session alive."""
        self._step("open", DeclareLeases(session_id=1, rows=[]))

    def _step(self, name: str, command: Command) -> Decision:
        """Decides and applies one command, and counts what it cost."""
        partition = self.partition
        begin = time.process_time()
        decision = partition.decide(command, self._now_ms)
        if not isinstance(decision, Decision):
            raise TypeError(decision.message)
        for event in decision.events:
            partition.apply(event)
        self.spent[name] += time.process_time() - begin
        return decision

    def submit(self, count: int) -> None:
        """Submits jobs in batches, each of a few settings, as clients' streams make them."""
        for first in range(0, count, _SUBMIT_BATCH):
            self._now_ms += 5
            settings = [self._setting() for _ in range(4 if self._shape.queues > 1 else 1)]
            rows = [self._row(settings) for _ in range(min(_SUBMIT_BATCH, count - first))]
            self._step("submit", SubmitJobs(settings=settings, rows=rows))
        self._hear()

    def _setting(self) -> SubmitSetting:
        shape, draw = self._shape, self._random
        requires = (LabelSelector("region", ("eu", "us")),)
        policy = Policy(
            name="noop",
            tenant=f"t{draw.randrange(shape.tenants)}",
            queue=f"q{draw.randrange(shape.queues)}",
            requires=requires if draw.random() < shape.labelled else (),
        )
        delay_ms = _DAY_MS if draw.random() < shape.delayed else 0
        return SubmitSetting(policy, draw.choice(shape.priorities), delay_ms, 0)

    def _row(self, settings: list[SubmitSetting]) -> SubmitRow:
        shape, draw = self._shape, self._random
        key = f"k{draw.randrange(shape.keys)}" if draw.random() < shape.keyed else ""
        job_id = mint(0, self._now_ms, draw.getrandbits(62))
        return SubmitRow(job_id, draw.randrange(len(settings)), _PAYLOAD, "", key)

    def run(self, count: int) -> int:
        """Grants, accepts, starts and reports jobs in batches; purges what is too many."""
        done = 0
        while done < count:
            self._now_ms += 2
            grant = Dispatch(
                credits=[(1, _GRANT_BATCH)],
                committed_seq=self.partition.next_seq - 1,
                grants_max=_GRANT_BATCH,
            )
            granted = 0
            for effect in self._step("grant", grant).effects:
                if isinstance(effect, SendAssignment):
                    granted += len(effect.rows)
                    self._finish(effect)
            done += granted
            self._hear()
            due = self.partition.next_timer_ms()
            if due is not None and due <= self._now_ms:
                self._step("purge", FireTimers(rows_max=256, jitter=[0.5]))
            if not granted:
                break
        return done

    def _finish(self, sent: SendAssignment) -> None:
        """Plays the worker's part for one assignment."""
        leases = [LeaseRow(row.record.job_id, Lease(_TOKEN, row.lease_seq, 0)) for row in sent.rows]
        reports = [
            ReportRow(row.job_id, row.lease, AttemptOutcome.COMPLETED, b"ok", "", None, 1)
            for row in leases
        ]
        self._step("start", AcceptAssignment(session_id=1, number=sent.number))
        self._step("start", StartLeases(session_id=1, rows=leases))
        self._step("report", ReportAttempts(session_id=1, rows=reports, jitter=[0.5]))


def costs(shape: Shape, backlog: int, jobs: int) -> dict[str, float]:
    """µs of CPU per job of each step, with so many jobs waiting all the time; best of rounds."""
    loop = Loop(shape)
    loop.submit(backlog)
    loop.submit(2 * _RETAINED)
    loop.run(_RETAINED)
    gc.collect()
    gc.freeze()
    best: dict[str, float] = {}
    for _ in range(_ROUNDS):
        loop.spent.clear()
        ran = 0
        while ran < jobs // _ROUNDS:
            loop.submit(2 * _SUBMIT_BATCH if shape.delayed else _SUBMIT_BATCH)
            ran += loop.run(_SUBMIT_BATCH)
        for step in ("submit", "grant", "start", "report", "purge"):
            cost = loop.spent[step] / ran * 1e6
            best[step] = min(cost, best.get(step, cost))
    gc.unfreeze()
    return best


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
        grants = [costs(shape, backlog, jobs)["grant"] for backlog in backlogs]
        for backlog, cost in zip(backlogs, grants, strict=True):
            what = f"a grant, {name}, {backlog:,} waiting"
            lines.append(Line(what=what, value=f"{cost:.2f} µs"))
        most = max(grants[1:], default=grants[0]) / grants[0]
        lines.append(at_most(f"{name}: most beside the fewest", most, 1.2, "times", digits=2))
    plain = sum(costs(PLAIN, backlogs[0], jobs).values())
    mixed = sum(costs(MIXED, 10 * backlogs[0], jobs).values())
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
    for name, shape in (("plain", PLAIN), ("mix", MIXED)):
        steps = costs(shape, arguments.backlog[0], arguments.jobs)
        print(name, ", ".join(f"{step} {cost:.2f} µs" for step, cost in steps.items()))
    for line in measure(arguments.backlog, arguments.jobs):
        print(f"{line.what:44}{line.value:>16}  {line.target:14}{line.verdict}".rstrip())


if __name__ == "__main__":
    main()
