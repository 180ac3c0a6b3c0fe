"""Which master should lead which partition: the same answer at all masters, as all see the same."""

from collections.abc import Sequence
from hashlib import blake2b


def share_out(partitions: int, names: Sequence[str]) -> list[str]:
    """Which master should lead each partition: rendezvous hashing with a bound on the load.

    Each partition goes to the master that weighs most for it among those with room, so that nobody
    leads more than one above the average, and few partitions move when masters come and go.

    Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2016).
    """
    room = dict.fromkeys(names, -(-partitions // len(names)))
    shares: list[str] = []
    for number in range(partitions):
        best = max((name for name in room if room[name]), key=lambda name: weight(number, name))
        room[best] -= 1
        shares.append(best)
    return shares


def weight(partition: int, name: str) -> bytes:
    """How much a partition would like a master to lead it."""
    return blake2b(f"{partition}\0{name}".encode(), digest_size=8).digest()
