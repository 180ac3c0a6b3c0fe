"""What a fork does to a client: it leaves the child nothing that works.

gRPC's threads do not exist in a forked child, so a call hangs there or crashes the process, also
through a new client. Calls in such a child are refused instead, with advice.
"""

import os

from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason


class _Process:
    """This process.

    Attributes:
        forks: How many forks lie between it and the one that imported this module.
        used_at: What ``forks`` was when gRPC was first used, here or in an ancestor.
    """

    def __init__(self) -> None:
        self.forks = 0
        self.used_at: int | None = None

    def forked(self) -> None:
        """This is a new child."""
        self.forks += 1


_process = _Process()
os.register_at_fork(after_in_child=_process.forked)


def claim() -> None:
    """gRPC is used from now on; asked again, it still can be.

    Raises:
        Rejected: It was used before this process was forked.
    """
    if _process.used_at is None:
        _process.used_at = _process.forks
    elif _process.used_at != _process.forks:
        raise Rejected(
            "expected a process in which gRPC works, but it was forked from one that had used a "
            "client already, and gRPC does not survive that: start children by spawn "
            "(multiprocessing.get_context('spawn')), or use the first client after the fork",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"pid": str(os.getpid())},
        )
