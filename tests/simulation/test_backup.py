"""Backups of a cluster some of whose masters have just died."""

from tenure.testing.cluster import simulated_cluster
from tenure.testing.process import elapse, run_processes
from tests.simulation.run import Run


def test_a_backup_comes_from_a_master_that_lives() -> None:
    """The keys of members outlive them by seconds: who does not answer is passed over."""

    async def main() -> None:
        run = Run()
        async with simulated_cluster(seed=3, jobs=[run.echo]) as cluster:
            leader = await cluster.elected(0)
            await elapse(5)
            client = cluster.client()
            for master in cluster.masters.values():
                if master.name != leader.name:
                    master.kill()
            assert len((await client.cluster.topology()).masters) == 3
            pieces = [piece async for piece in client.cluster.backup()]
            assert b"".join(pieces).startswith(b"tenure backup 1")

    run_processes(main)
