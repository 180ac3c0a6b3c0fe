"""Where masters may be found. Sans-IO.

In a cluster whose masters come back under other addresses, the old ones would otherwise be kept,
and dialled, for ever.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Final

#: An address that no master names any more is forgotten after this. One that only restarts is
#: back, and named, earlier.
FORGET_AFTER_S: Final = 60.0


class Addresses:
    """Addresses in the order in which they came to be known; those given first, and for ever.

    Those learnt from masters are forgotten when all that masters said for a while named others.
    As long as no master says anything, nothing is forgotten: any address may be the one that
    answers again.
    """

    def __init__(self, given: Iterable[str]) -> None:
        self._given = frozenset(given := tuple(given))
        #: Each with the time of the first answer that did not name it; None: the last one did.
        self._unnamed_s: dict[str, float | None] = dict.fromkeys(given)

    def __contains__(self, address: str) -> bool:
        return address in self._unnamed_s

    def __iter__(self) -> Iterator[str]:
        return iter(self._unnamed_s)

    def __len__(self) -> int:
        return len(self._unnamed_s)

    def add(self, address: str) -> None:
        """There may be a master there. The next answer says more."""
        self._unnamed_s.setdefault(address)

    def named(self, addresses: Collection[str], at_s: float) -> list[str]:
        """A master has named these, or they answer. Returns the addresses forgotten now."""
        named = set(addresses)
        for address in self._unnamed_s:
            if address in named:
                self._unnamed_s[address] = None
            elif self._unnamed_s[address] is None:
                self._unnamed_s[address] = at_s
        for address in filter(None, addresses):
            self.add(address)
        forgotten = [
            address
            for address, since_s in self._unnamed_s.items()
            if since_s is not None
            and at_s - since_s >= FORGET_AFTER_S
            and address not in self._given
        ]
        for address in forgotten:
            del self._unnamed_s[address]
        return forgotten
