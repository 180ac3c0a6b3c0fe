"""``grpc.health.v1``: each answer is made from the master's state when it is given.

The servicer of grpcio-health-checking keeps answers that somebody sets: between a freeze and the
setting it would say SERVING.
"""

import asyncio
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tenure.master.node.health import Health
from tenure.master.rpc.status import abort
from tenure.protocol.errors import Unavailable
from tenure.protocol.refusal import Reason

_Response = health_pb2.HealthCheckResponse

#: Nothing tells that an office can no longer be proved (it is so when nothing happens), so each
#: watch looks for itself.
_LOOK_S: Final = 0.25
#: Anybody may watch, without a token: more would be work for nobody's probes.
WATCHES_MAX: Final = 100
_RETRY_MS: Final = 5_000


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Tells probes how a master is.

    Args:
        health: Knows it.
    """

    def __init__(self, health: Health) -> None:
        self._health = health
        self._watches = 0

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """How a name is now; NOT_FOUND: there is no such name."""
        serves = self._health.serves(request.service)
        if serves is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:80]!r}")
        return _response(serves)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """How a name is now, and whenever that changes; TOO_MANY_WATCHES: enough are open."""
        if self._watches >= WATCHES_MAX:
            await abort(context, _too_many())
        self._watches += 1
        try:
            await self._watch(request.service, context)
        finally:
            self._watches -= 1

    async def _watch(self, name: str, context: Any) -> None:
        told: health_pb2.HealthCheckResponse | None = None
        while True:
            response = _response(self._health.serves(name))
            if response != told:
                await context.write(response)
                told = response
            await asyncio.sleep(_LOOK_S)


def _too_many() -> Unavailable:
    return Unavailable(
        f"expected at most {WATCHES_MAX} open watches of this master's health, but there are as "
        "many; ask with Check, or try again later",
        reason=Reason.TOO_MANY_WATCHES,
        metadata={"limit": str(WATCHES_MAX)},
        retry_after_ms=_RETRY_MS,
    )


def _response(serves: bool | None) -> health_pb2.HealthCheckResponse:
    if serves is None:
        return _Response(status=_Response.SERVICE_UNKNOWN)
    return _Response(status=_Response.SERVING if serves else _Response.NOT_SERVING)
