"""Which master should lead which partition: the same answer at all masters, as all see the same."""

from collections.abc import Sequence
from hashlib import blake2b


def share_out(partitions: int, names: Sequence[str]) -> list[str]:
    """Which master should lead each partition: rendezvous hashing with a bound on the load.

    Each partition goes to the master that weighs most for it among those with room, so that few
    move when masters come and go. The bound is the average: what is left over goes to as many
    masters, one each, so nobody leads two more than another, and nobody nothing while others lead
    two.

    Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2016).
    """
    least, left_over = divmod(partitions, len(names))
    counts = dict.fromkeys(names, 0)
    shares: list[str] = []
    for number in range(partitions):
        bound = least + (left_over > 0)
        room = (name for name, count in counts.items() if count < bound)
        best = max(room, key=lambda name: weight(number, name))
        left_over -= counts[best] == least
        counts[best] += 1
        shares.append(best)
    return shares


def weight(partition: int, name: str) -> bytes:
    """How much a partition would like a master to lead it."""
    return blake2b(f"{partition}\0{name}".encode(), digest_size=8).digest()
