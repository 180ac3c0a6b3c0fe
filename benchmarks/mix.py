"""Jobs of all kinds beside plain ones: what all that may order jobs costs, end to end.

One client, one master, one worker, as in the throughput runs, and both kinds on each of some such
clusters, one after the other: what the machine does meanwhile happens to both. The mix: 20 tenants
of 50 queues each, all with weights, 5 priorities, half of the queues with a limit on what runs at
once, a tenth of the jobs with a limit key and a tenth that ask for a label. Each call of the client
submits 100 jobs of one queue.

    python -m benchmarks.mix [--jobs 80000]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, NamedTuple

from benchmarks.process import ProcessGroup, workplace
from benchmarks.store import fresh_store
from benchmarks.table import Line, at_least, print_lines
from benchmarks.throughput import END_S, SLOTS, Throughput, sample

TENANTS: Final = 20
QUEUES: Final = 50
#: Jobs of one call of the client: ten calls take what one call of plain jobs does.
CALL_JOBS: Final = 100
_ROUNDS: Final = 3
#: What a worker of the mix has, and what a tenth of the jobs asks for.
LABEL: Final = ("region", "eu")
_PRIORITIES: Final = (0, 2, 5, 7, 10)
_TENANT_WEIGHTS: Final = (1.0, 2.0, 4.0)
_QUEUE_WEIGHTS: Final = (0.5, 1.0, 3.0)
#: Of what runs at once in every second queue, and of each limit key.
_CONCURRENCY: Final = 64
_KEY_CONCURRENCY: Final = 8
_RATIO: Final = 0.75


class QueueOfMix(NamedTuple):
    """One queue, and how it is run."""

    tenant: str
    name: str
    settings: Mapping[str, Any]


def tenant_weights() -> dict[str, float]:
    """Tenants of the mix and their weights."""
    draw = Random(1)
    return {f"t{number}": draw.choice(_TENANT_WEIGHTS) for number in range(TENANTS)}


def queues() -> list[QueueOfMix]:
    """Queues of the mix."""
    draw = Random(2)
    found = []
    for number in range(TENANTS * QUEUES):
        settings = {
            "weight": draw.choice(_QUEUE_WEIGHTS),
            "concurrency": _CONCURRENCY if number % 2 else 0,
            "key_concurrency": _KEY_CONCURRENCY,
        }
        found.append(QueueOfMix(f"t{number // QUEUES}", f"q{number % QUEUES}", settings))
    return found


def call_options(draw: Random) -> dict[str, Any]:
    """How the jobs of one call are to be run."""
    options: dict[str, Any] = {
        "tenant": f"t{draw.randrange(TENANTS)}",
        "queue": f"q{draw.randrange(QUEUES)}",
        "priority": draw.choice(_PRIORITIES),
    }
    if draw.random() < 0.1:
        key, value = LABEL
        options["requires"] = {key: [value, "us"]}
    return options


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The same number of jobs of both kinds, one after the other."""

    plain: Throughput
    mixed: Throughput

    @property
    def ratio(self) -> float:
        """The mix's jobs a second beside those of the plain ones."""
        return self.mixed.jobs_per_s / self.plain.jobs_per_s


def measure(jobs: int) -> list[Line]:
    """Runs ``jobs`` jobs in each round, half of them plain ones.

    A round is long beside the window of the client: what is measured is not how it begins and ends.
    Each has a cluster of its own, so that none runs beside the purge of what the last one left.
    """
    runs = [_round(jobs // 2) for _ in range(_ROUNDS)]
    rounds, broken = [each for each, _ in runs], sum(count for _, count in runs)
    plain = _mean([each.plain for each in rounds])
    mixed = _mean([each.mixed for each in rounds])
    ratios = sorted(each.ratio for each in rounds)
    return [
        Line(what="plain, jobs/s", value=f"{plain.jobs_per_s:,.0f}"),
        Line(what="plain, CPU/job: client + master + worker", value=plain.split()),
        Line(what="the mix, jobs/s", value=f"{mixed.jobs_per_s:,.0f}"),
        Line(what="the mix, CPU/job: client + master + worker", value=mixed.split()),
        at_least(
            "the mix / plain, jobs/s", mixed.jobs_per_s / plain.jobs_per_s, _RATIO, "", digits=2
        ),
        Line(what="of single rounds", value=f"{ratios[0]:.2f} to {ratios[-1]:.2f}"),
        Line(
            what="S1, S3, checksums: broken",
            value=str(broken),
            target="0",
            met=not broken,
            breaks=True,
        ),
    ]


def _round(jobs: int) -> tuple[Round, int]:
    """So many jobs of either kind, on a new cluster; and how many promises were broken."""
    with (
        workplace() as folder,
        fresh_store("sqlite", folder) as store,
        ProcessGroup(folder) as group,
    ):
        master = group.tenure("master", "master", "--store", store, "--listen", "127.0.0.1:0")
        address = master.expect("serving")["address"]
        master.expect("leader")
        own = ("--slots", str(SLOTS), "--label", "=".join(LABEL))
        worker = group.tenure("worker", "worker", "benchmarks.jobs", "--master", address, *own)
        worker.expect("registered")
        client = group.start(
            "client", "benchmarks.mix_client", "--master", address, "--jobs", str(jobs)
        )
        plain = sample(client, master, worker, kind="plain")
        mixed = sample(client, master, worker, kind="mixed")
        broken = client.expect("checked", timeout_s=END_S)["count"]
        return Round(plain=plain, mixed=mixed), broken


def _mean(runs: Sequence[Throughput]) -> Throughput:
    """Of runs of equally many jobs, as if they were one."""
    count = len(runs)
    return Throughput(
        jobs_per_s=count / sum(1 / run.jobs_per_s for run in runs),
        client_us=sum(run.client_us for run in runs) / count,
        master_us=sum(run.master_us for run in runs) / count,
        worker_us=sum(run.worker_us for run in runs) / count,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=80_000)
    print_lines("Jobs of all kinds beside plain ones", measure(parser.parse_args().jobs))
