"""Fencing tokens and leases: who may still change what."""

from typing import NamedTuple

import msgspec


class Token(NamedTuple):
    """The fencing token of a term, ordered: a later leader's is always greater.

    Attributes:
        epoch: The cluster's epoch, raised by a restore.
        revision: The create revision of the leader's key (etcd) or the open epoch (SQLite).
    """

    epoch: int
    revision: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.revision}"


#: Lower than every token that a store gives.
NO_TOKEN = Token(0, 0)


class Lease(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """One lease of one job, ordered by (token, seq).

    As many are kept as there are jobs: out of the garbage collector's sight.

    Attributes:
        token: The token of the term that granted it.
        seq: Rises with each grant of the term.
        run: 0, then one more for each requeue of the job.
    """

    token: Token
    seq: int
    run: int

    @property
    def fence(self) -> str:
        """Fixed-width hex text (48 characters) whose text order is the leases' order."""
        epoch, revision = self.token
        return f"{epoch:08x}{revision:016x}{self.seq:016x}{self.run:08x}"


def parse_fence(text: str) -> Lease:
    """The lease that a fence text names. Raises ValueError for anything else."""
    if len(text) != 48:
        raise ValueError(f"expected a fence of 48 hex digits, got {text!r}")
    token = Token(int(text[:8], 16), int(text[8:24], 16))
    return Lease(token, int(text[24:40], 16), int(text[40:], 16))
