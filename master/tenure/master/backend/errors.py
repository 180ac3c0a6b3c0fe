"""What a store's operation can come to besides success. Raised by every adapter alike."""

from tenure.protocol.errors import Fenced, TenureError, Unavailable


class OfficeLost(Fenced):
    """A guard refused: another holds the office. Drop all state and step down."""


class StoreUnavailable(Unavailable):
    """The store did not answer; the outcome is unknown. Repeat the same call, or freeze."""


class StoreFull(Unavailable):
    """The store has no space and took nothing. Keep the batch, retry it, refuse new work."""


class StoreIoError(TenureError):
    """The store failed on I/O. Stop acknowledging, exit, recover. Never retry."""


class CorruptJournal(TenureError):
    """A gap, a broken chain or a bad checksum; says which batch. Halt, never skip, never delete."""


class FormatTooNew(TenureError):
    """Written by a newer release: give the office up and do not campaign for this partition."""


class StoreMismatch(TenureError):
    """The store belongs to another cluster, or was made with other settings. Refuse to start."""


class StoreLocked(TenureError):
    """Another process has the store open. Refuse to start."""
