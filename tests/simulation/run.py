"""A run of a simulated cluster under the load of a scenario, judged by the oracles."""

from __future__ import annotations

from tenure.client import AsyncJob, AsyncJobHandle
from tenure.client.client import AsyncClient
from tenure.testing.cluster import SimCluster
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
