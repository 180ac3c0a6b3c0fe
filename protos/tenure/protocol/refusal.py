"""Refusals as data: what the core answers instead of raising, and the published reasons."""

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from enum import StrEnum


class Reason(StrEnum):
    """Why something was refused: the published list, in ``google.rpc.ErrorInfo.reason``."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    BATCH_TOO_LARGE = "BATCH_TOO_LARGE"
    WRONG_PARTITION = "WRONG_PARTITION"
    NOT_FOUND = "NOT_FOUND"
    RESULT_EXPIRED = "RESULT_EXPIRED"
    JOB_ID_CONFLICT = "JOB_ID_CONFLICT"
    JOB_KEY_CONFLICT = "JOB_KEY_CONFLICT"
    SCHEDULE_EXISTS = "SCHEDULE_EXISTS"
    UNKNOWN_PARENT = "UNKNOWN_PARENT"
    PARENT_CYCLE = "PARENT_CYCLE"
    WORKFLOW_SEALED = "WORKFLOW_SEALED"
    REQUEST_TOO_OLD = "REQUEST_TOO_OLD"
    ID_FROM_FUTURE = "ID_FROM_FUTURE"
    WRONG_STATE = "WRONG_STATE"
    WORKER_AMBIGUOUS = "WORKER_AMBIGUOUS"
    QUEUE_FULL = "QUEUE_FULL"
    WOULD_EXPIRE = "WOULD_EXPIRE"
    MEMORY_FULL = "MEMORY_FULL"
    STORE_FULL = "STORE_FULL"
    OUTBOX_FULL = "OUTBOX_FULL"
    OUT_OF_ORDER = "OUT_OF_ORDER"
    TOO_MANY_WATCHES = "TOO_MANY_WATCHES"
    TOO_MANY_BACKUPS = "TOO_MANY_BACKUPS"
    TOO_MANY_LOG_READERS = "TOO_MANY_LOG_READERS"
    NOT_LEADER = "NOT_LEADER"
    FROZEN = "FROZEN"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    PARTITION_HALTED = "PARTITION_HALTED"
    CURSOR_EXPIRED = "CURSOR_EXPIRED"
    JOB_FAILED = "JOB_FAILED"
    JOB_CANCELLED = "JOB_CANCELLED"
    SUPERSEDED = "SUPERSEDED"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    UNREACHABLE = "UNREACHABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STORE_LOCKED = "STORE_LOCKED"
    STORE_MISMATCH = "STORE_MISMATCH"
    STORE_CORRUPT = "STORE_CORRUPT"
    STORE_IO = "STORE_IO"
    FENCED = "FENCED"
    FORMAT_TOO_NEW = "FORMAT_TOO_NEW"
    PROTOCOL_TOO_OLD = "PROTOCOL_TOO_OLD"
    UNKNOWN_JOB = "UNKNOWN_JOB"
    UNKNOWN_CODEC = "UNKNOWN_CODEC"
    COMMAND_NOT_FOUND = "COMMAND_NOT_FOUND"
    APP_NOT_IMPORTABLE = "APP_NOT_IMPORTABLE"
    ADDRESS_IN_USE = "ADDRESS_IN_USE"
    INSECURE_BIND = "INSECURE_BIND"
    TOKEN_MISSING = "TOKEN_MISSING"
    TOKEN_INVALID = "TOKEN_INVALID"
    CLIENT_CERTIFICATE_REFUSED = "CLIENT_CERTIFICATE_REFUSED"
    SERVER_CERTIFICATE_INVALID = "SERVER_CERTIFICATE_INVALID"
    TLS_REQUIRED = "TLS_REQUIRED"
    TLS_UNSUPPORTED = "TLS_UNSUPPORTED"
    CREDENTIALS_UNUSABLE = "CREDENTIALS_UNUSABLE"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refusal: "expected to <verb> <thing>, but <why>", and what to do about it.

    Attributes:
        reason: From the published list.
        message: A readable line.
        metadata: Every variable in the message.
        field: The path of the wrong field, if one is.
        retry_after_ms: When a retry is worth trying, if it is.
    """

    reason: Reason
    message: str
    metadata: dict[str, str] = dataclass_field(default_factory=dict)
    field: str = ""
    retry_after_ms: int | None = None
