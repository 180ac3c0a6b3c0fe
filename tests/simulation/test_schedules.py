"""Schedules of the shipped master and client, over links that do what links do."""

from __future__ import annotations

import pytest

from tenure.client import cron
from tenure.protocol.errors import Rejected
from tenure.testing.cluster import simulated_cluster
from tenure.testing.process import elapse, run_processes
from tenure.v1 import schedules_pb2
from tests.simulation.ledger import Ledger
from tests.simulation.load import Works


@pytest.mark.fault(35)
@pytest.mark.parametrize("partitions", [1, 4])
def test_row_35_a_trigger_arrives_twice(partitions: int) -> None:
    """Each trigger is one job, wherever its queue lives, though each call comes twice."""

    async def main() -> None:
        echo = Works(Ledger()).echo
        async with simulated_cluster(seed=5, jobs=[echo], partitions=partitions) as cluster:
            client = cluster.client()
            for number in range(4):
                queue = echo.options(queue=f"queue-{number}")
                await client.schedules.put(f"s{number}", cron("@yearly"), queue, f"text {number}")
            for address in cluster.addresses:
                cluster.network.link("c1", address).repeat = 1.0
            handles = [await client.schedules.trigger(f"s{number}") for number in range(4)]
            for number, handle in enumerate(handles):
                assert await handle.result() == f"text {number}"
            # The second of two calls comes up to ten seconds later.
            await elapse(15)
            listed = [found.job_id async for found in client.list(name=echo.name)]
            assert sorted(listed) == sorted(handle.id for handle in handles)

    run_processes(main)


def test_who_triggers_may_ask_for_the_job_at_once() -> None:
    """A trigger is answered when the job is there, however far its partition is from that of the
    schedule; if that partition has no leader, it waits for one.
    """

    async def main() -> None:
        echo = Works(Ledger()).echo
        async with simulated_cluster(seed=6, jobs=[echo], masters=3, partitions=3) as cluster:
            client = cluster.client()
            for number in range(6):
                queue = echo.options(queue=f"queue-{number}")
                await client.schedules.put(f"s{number}", cron("@yearly"), queue, f"text {number}")
            for one in cluster.addresses:
                for other in cluster.addresses:
                    cluster.network.link(one, other).delay_ms = (500.0, 600.0)
            for number in range(6):
                handle = await client.schedules.trigger(f"s{number}")
                assert await handle.result() == f"text {number}"
            leader = cluster.leader(1)
            assert leader is not None
            leader.kill()
            for number in range(6):
                handle = await client.schedules.trigger(f"s{number}")
                assert await handle.result() == f"text {number}"

    run_processes(main)


def test_a_trigger_without_an_id_gets_one() -> None:
    """Each such call is a job; what is no id is refused."""

    async def main() -> None:
        echo = Works(Ledger()).echo
        async with simulated_cluster(seed=6, jobs=[echo], masters=1) as cluster:
            await cluster.client().schedules.put("s", cron("@yearly"), echo, "text")
            transport = cluster.network.transport("curl")

            async def trigger(job_id: str) -> str:
                answer = await transport.unary(
                    cluster.addresses[0],
                    "/tenure.v1.ScheduleService/TriggerSchedule",
                    schedules_pb2.TriggerScheduleRequest(name="s", job_id=job_id),
                    schedules_pb2.TriggerScheduleResponse,
                    5.0,
                )
                return answer.job_id

            minted = {await trigger("") for _ in range(3)}
            assert len(minted) == 3
            named = minted.pop()
            assert await trigger(named) == named
            with pytest.raises(Rejected) as refused:
                await trigger("mine")
            assert refused.value.field == "job_id"
            await transport.close()

    run_processes(main)
