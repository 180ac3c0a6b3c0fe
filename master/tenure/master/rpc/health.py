"""``grpc.health.v1``: each answer is made from the master's state when it is given.

The servicer of grpcio-health-checking keeps answers that somebody sets: between a freeze and the
setting it would say SERVING.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tenure.master.node.health import Health

_Response = health_pb2.HealthCheckResponse

_LOOK_S: Final = 0.25


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Tells probes how a master is.

    Args:
        health: Knows it.
    """

    def __init__(self, health: Health) -> None:
        self._health = health

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """How a name is now; NOT_FOUND: there is no such name."""
        serves = self._health.serves(request.service)
        if serves is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:80]!r}")
        return _response(serves)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """How a name is now, and whenever that changes."""
        last: bool | None = None
        first = True
        while True:
            serves = self._health.serves(request.service)
            if first or serves is not last:
                yield _response(serves)
            first, last = False, serves
            await asyncio.sleep(_LOOK_S)


def _response(serves: bool | None) -> health_pb2.HealthCheckResponse:
    if serves is None:
        return _Response(status=_Response.SERVICE_UNKNOWN)
    return _Response(status=_Response.SERVING if serves else _Response.NOT_SERVING)
