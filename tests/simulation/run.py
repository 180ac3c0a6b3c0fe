"""A run of a simulated cluster under the load of a scenario, judged by the oracles."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tenure.client import AsyncJob, AsyncJobHandle
from tenure.client.client import AsyncClient
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.process import run_processes
from tests.oracles.court import Evidence, PartitionLog, judge, require
from tests.oracles.verdict import Violation
from tests.simulation.ledger import Desk, Ledger, read_result
from tests.simulation.load import Works


class Run:
    """What scenarios do with jobs that return their argument after a while.

    Attributes:
        ledger: What clients and workers saw.
        echo: The job.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.echo: AsyncJob[..., str] = Works(self.ledger).echo

    async def one(
        self, client: AsyncClient, text: str, hold_s: float, *, failures: int = 0
    ) -> None:
        """Submits one job and waits for its result."""
        handle = await self.submit(client, text, hold_s, failures=failures)
        if handle is not None:
            await self.result(handle)

    async def submit(
        self, client: AsyncClient, text: str, hold_s: float, *, failures: int = 0
    ) -> AsyncJobHandle[str] | None:
        """Submits one job; None if nobody took it, or nobody knows.

        Args:
            client: Who submits.
            text: What the job returns.
            hold_s: How long each attempt takes.
            failures: How many attempts fail first.
        """
        return await Desk(self.ledger, client).submit(self.echo, text, hold_s, failures)

    async def result(self, handle: AsyncJobHandle[str]) -> None:
        """Waits for one result, as long as it takes."""
        await read_result(self.ledger, handle)

    async def cancel(self, client: AsyncClient, handle: AsyncJobHandle[str]) -> None:
        """Asks one job to stop."""
        await Desk(self.ledger, client).cancel(handle.id)

    def judge(self, cluster: SimCluster) -> None:
        """Holds the run to the invariants.

        Raises:
            InvariantBroken: With the first violations.
        """
        violations = [Violation("handler", "", repr(error)) for error in cluster.network.failures]
        require([*violations, *judge(evidence(self.ledger, cluster))])


def play(
    work: Callable[[Run, SimCluster], Awaitable[None]],
    *,
    limit_s: float | None = 86_400.0,
    **options: Any,
) -> None:
    """Plays a scenario on a simulated cluster, and holds it to the invariants.

    Args:
        work: What happens.
        limit_s: How much virtual time it may take.
        **options: Of ``simulated_cluster``.

    Raises:
        InvariantBroken: With the first violations.
    """

    async def main() -> None:
        run = Run()
        async with simulated_cluster(jobs=[run.echo], **options) as cluster:
            await work(run, cluster)
            run.judge(cluster)

    run_processes(main, limit_s=limit_s)


def evidence(ledger: Ledger, cluster: SimCluster) -> Evidence:
    """What is known of a run."""
    return Evidence(
        rows=ledger.rows,
        logs=[
            PartitionLog(
                partition=partition,
                batches=cluster.journal(partition),
                trace=cluster.traces.get(partition, ()),
                hashes={
                    seq: text
                    for (number, seq), text in cluster.state_hashes.items()
                    if number == partition
                },
            )
            for partition in range(cluster.partitions)
        ],
        partitions=cluster.partitions,
    )
