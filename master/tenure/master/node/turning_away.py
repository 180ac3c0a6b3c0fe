"""What a term tells those that it does not answer."""

from tenure.master.backend.errors import CorruptJournal
from tenure.protocol.errors import TenureError, Unavailable
from tenure.protocol.refusal import Reason


def busy(partition: int) -> TenureError:
    """Its inbox is full."""
    return Unavailable(
        f"expected partition {partition} to take the call, but too many wait for it; try again",
        reason=Reason.FROZEN,
        metadata={"partition": str(partition)},
        retry_after_ms=500,
    )


def stale_token(partition: int, refused: TenureError) -> TenureError:
    """A term older than the journal was won: ends the office and halts the partition."""
    return CorruptJournal(
        f"{refused.message}; partition {partition}'s store was set back to an older state than "
        "its journal: restore both from one backup",
        reason=Reason.STORE_MISMATCH,
        metadata={"partition": str(partition)},
    )


def frozen(partition: int) -> TenureError:
    """The office cannot be proved now."""
    return Unavailable(
        f"expected partition {partition} to answer, but its leader cannot prove its office now; "
        "try again",
        reason=Reason.FROZEN,
        metadata={"partition": str(partition)},
        retry_after_ms=500,
    )
