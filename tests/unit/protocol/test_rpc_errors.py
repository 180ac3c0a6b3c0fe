"""What failed gRPC calls mean to those who made them."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from tenure.protocol.errors import (
    STATUS_DETAILS_METADATA,
    Rejected,
    TenureError,
    Unavailable,
    error_from_rpc,
    status_of,
)
from tenure.protocol.refusal import Reason


def failed(code: grpc.StatusCode, text: str, rich: TenureError | None = None) -> TenureError:
    """What a call that failed so comes to."""
    trailing = grpc.aio.Metadata()
    if rich is not None:
        trailing.add(STATUS_DETAILS_METADATA, status_of(rich).SerializeToString())
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, text)
    return error_from_rpc(error, address="127.0.0.1:7400")


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    ],
)
def test_status_without_details_is_a_broken_connection(code: grpc.StatusCode) -> None:
    """A master that dies amid a call says nothing: the call may be made again, elsewhere too."""
    error = failed(code, "Internal error from Core")

    assert isinstance(error, Unavailable)
    assert error.reason is Reason.UNREACHABLE
    assert "127.0.0.1:7400" in str(error)


def test_details_win_over_the_code() -> None:
    """What the master itself said is what the caller gets, whatever code carried it."""
    said = TenureError("it broke", reason=Reason.INTERNAL)
    refused = Rejected("expected less", reason=Reason.PAYLOAD_TOO_LARGE)

    assert failed(grpc.StatusCode.INTERNAL, "", said).reason is Reason.INTERNAL
    assert not failed(grpc.StatusCode.INTERNAL, "", said).retryable
    assert failed(grpc.StatusCode.UNAVAILABLE, "", refused).reason is Reason.PAYLOAD_TOO_LARGE
