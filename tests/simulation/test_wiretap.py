"""What masters say of leases is heard as it was said."""

from __future__ import annotations

import asyncio

from tenure.testing.cluster import simulated_cluster
from tenure.testing.process import elapse, run_processes
from tests.oracles.word import Word
from tests.simulation.run import Run
from tests.simulation.wiretap import Wiretap


def test_each_answered_heartbeat_names_what_it_listed() -> None:
    """A job that runs for three heartbeats is in the last two of them; nothing is revoked."""

    async def main() -> tuple[list[Word], str]:
        run = Run()
        async with simulated_cluster(seed=1, jobs=[run.echo], masters=1, workers=1) as cluster:
            wiretap = Wiretap(cluster.network)
            client = cluster.client()
            async with asyncio.timeout(120):
                await cluster.elected()
                handle = await run.submit(client, "long", 12.0)
                if handle is None:
                    raise RuntimeError("expected the job to be taken")
                await run.result(handle)
                await elapse(6)
            return wiretap.words(), handle.id

    words, job = run_processes(main, limit_s=240)
    acks = [word for word in words if word.kind == "ack"]
    listed = [[name for name, _ in word.leases] for word in acks]
    assert listed.count([job]) >= 2
    assert listed[-1] == []
    assert len({lease for word in acks for _, lease in word.leases}) == 1
    assert all(word.heard_ms <= word.at_ms for word in words)
    assert not any(word.kind == "revoke" for word in words)
