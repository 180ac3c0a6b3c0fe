"""How a call ends in a refusal."""

from typing import Any

from grpc_status import rpc_status

from tenure.protocol.errors import LEADER_METADATA, REASON_METADATA, TenureError, status_of


async def abort(context: Any, error: TenureError) -> None:
    """Ends a call with one ErrorInfo; reason and leader are in plain trailing metadata, too."""
    status = rpc_status.to_status(status_of(error))
    metadata = (*status.trailing_metadata, (REASON_METADATA, error.reason.value))
    leader = error.metadata.get(LEADER_METADATA)
    if leader:
        metadata = (*metadata, (LEADER_METADATA, leader))
    await context.abort(status.code, status.details, metadata)
