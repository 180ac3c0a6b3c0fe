"""Every error that Tenure raises, its gRPC status, and the way over the wire and back.

```
TenureError
├── Rejected      never retry: the request is wrong
├── Fenced        stop: the lease or the office is lost
└── Unavailable   retry: the cluster cannot answer now (retry_after_ms is a hint)
```
The class says what to do, the reason says why. A call's error travels as a gRPC status with exactly
one ``google.rpc.ErrorInfo``; a row's refusal inside a batch as ``tenure.v1.Refusal``.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from tenure.protocol.refusal import Reason, Refusal
from tenure.v1 import common_pb2

DOMAIN: Final = "tenure.dev"
#: Plain trailing metadata for clients that cannot read rich errors.
LEADER_METADATA: Final = "x-tenure-leader"
REASON_METADATA: Final = "x-tenure-reason"
STATUS_DETAILS_METADATA: Final = "grpc-status-details-bin"
#: In a refusal's own metadata: what a leader, which is well itself, has waited for in vain.
WAITED_FOR_METADATA: Final = "waited_for"


class TenureError(Exception):
    """Root of all errors; ``reason`` is from the published list, ``metadata`` has the variables."""

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        reason: Reason = Reason.INTERNAL,
        metadata: Mapping[str, str] | None = None,
        field: str = "",
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.field = field
        self.retry_after_ms = retry_after_ms

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status that carries this error."""
        return _CODES.get(self.reason, grpc.StatusCode.INTERNAL)

    def to_refusal(self) -> Refusal:
        """The same as data."""
        return Refusal(
            reason=self.reason,
            message=self.message,
            metadata=self.metadata,
            field=self.field,
            retry_after_ms=self.retry_after_ms,
        )


class Rejected(TenureError):
    """The request is wrong; sending it again cannot help."""


class Fenced(TenureError):
    """The lease or the office is lost; stop, do not retry."""


class Unavailable(TenureError):
    """The cluster cannot answer now; try again, by ``retry_after_ms`` if set."""

    retryable = True


_S = grpc.StatusCode
_CODES: Final[dict[Reason, grpc.StatusCode]] = {
    Reason.INVALID_ARGUMENT: _S.INVALID_ARGUMENT,
    Reason.PAYLOAD_TOO_LARGE: _S.INVALID_ARGUMENT,
    Reason.BATCH_TOO_LARGE: _S.INVALID_ARGUMENT,
    Reason.WRONG_PARTITION: _S.INVALID_ARGUMENT,
    Reason.NOT_FOUND: _S.NOT_FOUND,
    Reason.UNKNOWN_JOB: _S.NOT_FOUND,
    Reason.UNKNOWN_CODEC: _S.NOT_FOUND,
    Reason.COMMAND_NOT_FOUND: _S.NOT_FOUND,
    Reason.RESULT_EXPIRED: _S.FAILED_PRECONDITION,
    Reason.JOB_ID_CONFLICT: _S.ALREADY_EXISTS,
    Reason.JOB_KEY_CONFLICT: _S.ALREADY_EXISTS,
    Reason.SCHEDULE_EXISTS: _S.ALREADY_EXISTS,
    Reason.UNKNOWN_PARENT: _S.FAILED_PRECONDITION,
    Reason.PARENT_CYCLE: _S.INVALID_ARGUMENT,
    Reason.WORKFLOW_SEALED: _S.FAILED_PRECONDITION,
    Reason.REQUEST_TOO_OLD: _S.FAILED_PRECONDITION,
    Reason.ID_FROM_FUTURE: _S.FAILED_PRECONDITION,
    Reason.WRONG_STATE: _S.FAILED_PRECONDITION,
    Reason.WORKER_AMBIGUOUS: _S.FAILED_PRECONDITION,
    Reason.JOB_FAILED: _S.FAILED_PRECONDITION,
    Reason.JOB_CANCELLED: _S.FAILED_PRECONDITION,
    Reason.APP_NOT_IMPORTABLE: _S.FAILED_PRECONDITION,
    Reason.INSECURE_BIND: _S.FAILED_PRECONDITION,
    Reason.CREDENTIALS_UNUSABLE: _S.FAILED_PRECONDITION,
    Reason.TLS_REQUIRED: _S.FAILED_PRECONDITION,
    Reason.TLS_UNSUPPORTED: _S.FAILED_PRECONDITION,
    Reason.TOKEN_MISSING: _S.UNAUTHENTICATED,
    Reason.TOKEN_INVALID: _S.UNAUTHENTICATED,
    Reason.CLIENT_CERTIFICATE_REFUSED: _S.UNAUTHENTICATED,
    Reason.SERVER_CERTIFICATE_INVALID: _S.UNAUTHENTICATED,
    Reason.STORE_MISMATCH: _S.FAILED_PRECONDITION,
    Reason.STORE_LOCKED: _S.FAILED_PRECONDITION,
    Reason.ADDRESS_IN_USE: _S.FAILED_PRECONDITION,
    Reason.FORMAT_TOO_NEW: _S.FAILED_PRECONDITION,
    Reason.PROTOCOL_TOO_OLD: _S.FAILED_PRECONDITION,
    Reason.QUEUE_FULL: _S.RESOURCE_EXHAUSTED,
    Reason.WOULD_EXPIRE: _S.RESOURCE_EXHAUSTED,
    Reason.MEMORY_FULL: _S.RESOURCE_EXHAUSTED,
    Reason.STORE_FULL: _S.RESOURCE_EXHAUSTED,
    Reason.OUTBOX_FULL: _S.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_WATCHES: _S.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_BACKUPS: _S.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_LOG_READERS: _S.RESOURCE_EXHAUSTED,
    Reason.OUT_OF_ORDER: _S.UNAVAILABLE,
    Reason.NOT_LEADER: _S.UNAVAILABLE,
    Reason.FROZEN: _S.UNAVAILABLE,
    Reason.OUTCOME_UNKNOWN: _S.UNAVAILABLE,
    Reason.UNREACHABLE: _S.UNAVAILABLE,
    Reason.STORE_UNAVAILABLE: _S.UNAVAILABLE,
    Reason.PARTITION_HALTED: _S.UNAVAILABLE,
    Reason.DEADLINE_EXCEEDED: _S.DEADLINE_EXCEEDED,
    Reason.CURSOR_EXPIRED: _S.OUT_OF_RANGE,
    Reason.SUPERSEDED: _S.ABORTED,
    Reason.LEASE_EXPIRED: _S.ABORTED,
    Reason.FENCED: _S.ABORTED,
    Reason.STORE_CORRUPT: _S.DATA_LOSS,
    Reason.STORE_IO: _S.INTERNAL,
    Reason.INTERNAL: _S.INTERNAL,
}
_FENCED: Final = frozenset({Reason.SUPERSEDED, Reason.LEASE_EXPIRED, Reason.FENCED})
_RETRY: Final = frozenset({_S.UNAVAILABLE, _S.RESOURCE_EXHAUSTED, _S.DEADLINE_EXCEEDED})


def error_of(refusal: Refusal) -> TenureError:
    """The error of the class that a refusal's reason belongs to."""
    kind: type[TenureError] = Rejected
    if refusal.reason in _FENCED:
        kind = Fenced
    elif _CODES.get(refusal.reason) in _RETRY:
        kind = Unavailable
    return kind(
        refusal.message,
        reason=refusal.reason,
        metadata=refusal.metadata,
        field=refusal.field,
        retry_after_ms=refusal.retry_after_ms,
    )


def refusal_to_wire(refusal: Refusal) -> common_pb2.Refusal:
    """A row's refusal as a message."""
    wire = common_pb2.Refusal(
        reason=refusal.reason.value,
        message=refusal.message,
        metadata=refusal.metadata,
        field=refusal.field,
    )
    if refusal.retry_after_ms is not None:
        wire.retry_after.FromMilliseconds(refusal.retry_after_ms)
    return wire


def refusal_from_wire(wire: common_pb2.Refusal) -> Refusal:
    """A row's refusal from a message; a reason unknown to this release becomes INTERNAL."""
    after = wire.retry_after.ToMilliseconds() if wire.HasField("retry_after") else None
    return Refusal(
        reason=_reason(wire.reason),
        message=wire.message,
        metadata=dict(wire.metadata),
        field=wire.field,
        retry_after_ms=after,
    )


def status_of(error: TenureError) -> status_pb2.Status:
    """The rich status that carries an error over gRPC."""
    details: list[any_pb2.Any] = [
        _pack(
            error_details_pb2.ErrorInfo(
                reason=error.reason.value, domain=DOMAIN, metadata=error.metadata
            )
        )
    ]
    if error.retry_after_ms is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    code: int = error.code.value[0]
    return status_pb2.Status(code=code, message=error.message, details=details)


def error_from_status(status: status_pb2.Status) -> TenureError:
    """The error that a rich status carries."""
    reason, metadata, field, after = Reason.INTERNAL, {}, "", None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason, metadata = _reason(info.reason), dict(info.metadata)
        elif detail.Unpack(retry):
            after = retry.retry_delay.ToMilliseconds()
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
    return error_of(
        Refusal(
            reason=reason,
            message=status.message,
            metadata=metadata,
            field=field,
            retry_after_ms=after,
        )
    )


def error_from_rpc(error: grpc.RpcError, *, address: str) -> TenureError:
    """What a failed gRPC call means: the error inside, or an Unavailable that names the address."""
    trailing: Iterable[Any] = ()
    if hasattr(error, "trailing_metadata"):
        trailing = error.trailing_metadata() or ()
    for key, value in trailing:
        if key == STATUS_DETAILS_METADATA:
            return error_from_status(status_pb2.Status.FromString(value))
    code = error.code() if hasattr(error, "code") else _S.UNKNOWN
    text = error.details() if hasattr(error, "details") else str(error)
    metadata = {"address": address, "code": str(code)}
    if code is _S.DEADLINE_EXCEEDED:
        return Unavailable(
            f"expected an answer from {address}, but the deadline passed",
            reason=Reason.DEADLINE_EXCEEDED,
            metadata=metadata,
        )
    # A master's own INTERNAL carries a rich status. A bare one is gRPC's: so it calls a write into
    # a connection whose peer has just died.
    if code in (_S.UNAVAILABLE, _S.CANCELLED, _S.UNKNOWN, _S.INTERNAL):
        return Unavailable(
            f"expected to reach {address}, but {text or code}; is a master running there?",
            reason=Reason.UNREACHABLE,
            metadata=metadata,
        )
    return TenureError(
        f"expected an answer from {address}, but it failed with {code}: {text}",
        reason=Reason.INTERNAL,
        metadata=metadata,
    )


def first_of(error: BaseException) -> BaseException:
    """The error itself, or the first one inside a group, however nested."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _pack(message: object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)  # type: ignore[arg-type]
    return packed


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        return Reason.INTERNAL
