"""Exit codes, and errors as one readable line on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from tenure.cli import terminal
from tenure.protocol.refusal import Reason

if TYPE_CHECKING:
    from tenure.protocol.errors import TenureError

OK: Final = 0
JOB_FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
UNAVAILABLE: Final = 4
PERMISSION: Final = 5
CONFLICT: Final = 6
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130

_BY_REASON: Final = {
    Reason.INVALID_ARGUMENT: USAGE,
    Reason.PAYLOAD_TOO_LARGE: USAGE,
    Reason.BATCH_TOO_LARGE: USAGE,
    Reason.WRONG_PARTITION: USAGE,
    Reason.PARENT_CYCLE: USAGE,
    Reason.APP_NOT_IMPORTABLE: USAGE,
    Reason.INSECURE_BIND: USAGE,
    Reason.CREDENTIALS_UNUSABLE: USAGE,
    Reason.NOT_FOUND: NOT_FOUND,
    Reason.UNKNOWN_JOB: NOT_FOUND,
    Reason.UNKNOWN_CODEC: NOT_FOUND,
    Reason.COMMAND_NOT_FOUND: NOT_FOUND,
    Reason.RESULT_EXPIRED: NOT_FOUND,
    Reason.UNKNOWN_PARENT: NOT_FOUND,
    Reason.SERVER_CERTIFICATE_INVALID: UNAVAILABLE,
    Reason.TLS_REQUIRED: UNAVAILABLE,
    Reason.TLS_UNSUPPORTED: UNAVAILABLE,
    Reason.TOKEN_MISSING: PERMISSION,
    Reason.TOKEN_INVALID: PERMISSION,
    Reason.CLIENT_CERTIFICATE_REFUSED: PERMISSION,
    Reason.JOB_ID_CONFLICT: CONFLICT,
    Reason.JOB_KEY_CONFLICT: CONFLICT,
    Reason.SCHEDULE_EXISTS: CONFLICT,
    Reason.REQUEST_TOO_OLD: CONFLICT,
    Reason.ID_FROM_FUTURE: CONFLICT,
    Reason.WRONG_STATE: CONFLICT,
    Reason.WORKER_AMBIGUOUS: CONFLICT,
    Reason.WORKFLOW_SEALED: CONFLICT,
    Reason.CURSOR_EXPIRED: CONFLICT,
    Reason.STORE_MISMATCH: CONFLICT,
    Reason.STORE_LOCKED: CONFLICT,
    Reason.ADDRESS_IN_USE: CONFLICT,
    Reason.FORMAT_TOO_NEW: CONFLICT,
    Reason.PROTOCOL_TOO_OLD: CONFLICT,
    Reason.FENCED: CONFLICT,
}


def code_of(error: TenureError) -> int:
    """The exit code that says what kind of trouble an error is."""
    if isinstance(error, TimeoutError):
        return TIMED_OUT
    known = _BY_REASON.get(error.reason)
    if known is not None:
        return known
    return UNAVAILABLE if error.retryable else JOB_FAILED


def code_of_reason(reason: Reason) -> int:
    """The same of a reason that is never worth a retry."""
    return _BY_REASON.get(reason, JOB_FAILED)


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(terminal.harmless(text), file=sys.stderr, flush=True)


def explain(error: TenureError) -> None:
    """An error as one line."""
    say_refused(error.message, error.reason)


def say_refused(message: str, reason: str) -> None:
    """The same, of an error that another process has had."""
    say(f"tenure: {' '.join(message.split())} [{reason}]")


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Says which extra to install when a node's package is missing.

    Raises:
        Rejected: It is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tenure."):
            raise
        # A supervisor has no use for gRPC, which comes with it.
        from tenure.protocol.errors import Rejected

        raise Rejected(
            f"expected the packages that a {name} needs, but {error.name} is not installed; "
            f"run: pip install 'tenure[{name}]'",
            reason=Reason.INVALID_ARGUMENT,
        ) from None
