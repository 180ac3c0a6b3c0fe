"""What probes are told: whether the process lives, is ready for calls, and serves a partition."""

import re
from typing import Final

from tenure.master.node.roster import Roster

#: The event loop turns. Nothing that ends in order flips these: a restart would help nobody.
_ALIVE: Final = frozenset({"", "liveness"})
#: Anybody may ask: no more digits are read than a partition has.
_PARTITION: Final = re.compile(r"tenure\.partition\.(0|[1-9][0-9]{0,3})")


class Health:
    """Answers for the names of the health service.

    Args:
        roster: Knows the terms that are led here.
    """

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        #: Whether the store has answered when it was asked last.
        self.store_answers = False
        #: Whether this master hands over what it leads, to end.
        self.stopping = False

    def serves(self, name: str) -> bool | None:
        """Whether a name is SERVING; None: there is no such name."""
        if name in _ALIVE:
            return True
        if name == "readiness":
            return self.store_answers and not self.stopping
        found = _PARTITION.fullmatch(name)
        if found is None or int(found[1]) >= self._roster.partitions:
            return None
        term = self._roster.terms.get(int(found[1]))
        return term is not None and term.judging
