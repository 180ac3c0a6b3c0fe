"""How large the pieces are in which a term writes its log."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSizes:
    """Sizes of batches and snapshots.

    Attributes:
        batch_bytes: A batch is sealed at this size even while others are in flight (etcd likes
            batches of at most 64 KiB).
        log_bytes_min: A shorter log than this is not replaced by a snapshot.
        slice_rows: Records in one slice of a snapshot: they are copied in one turn of the loop.
    """

    batch_bytes: int = 48 * 1024
    log_bytes_min: int = 16 * 1024 * 1024
    slice_rows: int = 256


LOG_SIZES: Final = LogSizes()
