"""The health service: answers as they are when they are given."""

import asyncio

from grpc_health.v1 import health_pb2

from tenure.master.node.health import Health
from tenure.master.rpc.health import HealthServicer
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tests.unit.master.node.term_rig import leading

Status = health_pb2.HealthCheckResponse


class Context:
    """A call's context, which notes what the call is told."""

    def __init__(self, told: list[int]) -> None:
        self._told = told

    async def write(self, response: health_pb2.HealthCheckResponse) -> None:
        self._told.append(response.status)


def test_a_watch_tells_each_change_once() -> None:
    """What changes is told soon after; what stays is told once."""

    async def main() -> None:
        async with leading() as rig, asyncio.TaskGroup() as tasks:
            servicer = HealthServicer(Health(rig.roster))
            told: list[int] = []

            request = health_pb2.HealthCheckRequest(service="tenure.partition.0")
            watching = tasks.create_task(servicer.Watch(request, Context(told)))
            await SimClock().sleep(3_000)
            assert told == [Status.SERVING]
            rig.office.answers = False
            await SimClock().sleep(6_000)
            assert told == [Status.SERVING, Status.NOT_SERVING]
            rig.office.answers = True
            await SimClock().sleep(2_000)
            assert told == [Status.SERVING, Status.NOT_SERVING, Status.SERVING]
            watching.cancel()

    run_virtual(main)
