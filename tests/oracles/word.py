"""What a master and a worker say of leases, as seen at the master's end of their stream."""

from __future__ import annotations

from typing import NamedTuple


class Word(NamedTuple):
    """One thing that was said.

    Attributes:
        at_ms: When it left, or was read.
        master: Who said it, or was told.
        call: Which stream; each has a number of its own.
        partition: Of which partition.
        token: Under which token: the first 24 digits of the term's fences.
        kind: ``ack`` or ``hold`` (both answer a heartbeat), ``revoke`` (of a lease for good), or
            ``saved`` (a checkpoint is safe); of the worker's words ``lost`` (a report says LOST).
        leases: (job, lease's fence text): what the heartbeat listed, or what is revoked.
        heard_ms: When the heartbeat was read that is answered.
        number: Of the checkpoint.
    """

    at_ms: float
    master: str
    call: int
    partition: int
    token: str
    kind: str
    leases: tuple[tuple[str, str], ...]
    heard_ms: float = 0.0
    number: int = 0
