"""What operators told this master: who should lead which partition, whatever the balance."""

from tenure.master.election.port import Nomination
from tenure.master.node.port import Clock
from tenure.master.node.roster import Roster


class Wishes:
    """The nominations that were made here, as this master shows them to the others.

    One holds until this master ends, or the one that it names, or until another one is made for its
    partition, here or elsewhere.

    Args:
        roster: Members, and what they were told.
        clock: The machine's clocks.
    """

    def __init__(self, roster: Roster, clock: Clock) -> None:
        self._roster = roster
        self._clock = clock
        #: By partition: the latest that was said here.
        self.made: dict[int, Nomination] = {}
        #: By partition: who had the name that was said, when it was.
        self._meant: dict[int, set[str]] = {}

    def newest(self, partition: int) -> Nomination | None:
        """What was said last of a partition, here or elsewhere."""
        known = self._roster.nominations().get(partition)
        mine = self.made.get(partition)
        return mine if mine and (known is None or mine.wall_ms > known.wall_ms) else known

    def make(self, partition: int, name: str) -> Nomination:
        """From now on a master of this name should lead the partition."""
        said_ms = self._clock.wall_ms()
        for known in self._roster.nominations().values():
            # Another master's clock may be ahead of this one's.
            said_ms = max(said_ms, known.wall_ms + 1)
        wish = Nomination(name, said_ms)
        self._keep(partition, wish)
        return wish

    def take_back(self, partition: int, wish: Nomination, former: Nomination | None) -> bool:
        """Puts what was said before in the place of a wish that came to nothing.

        Returns:
            Whether there was anything to change: another may have been made since.
        """
        if self.made.get(partition) is not wish:
            return False
        if former is None:
            self._forget(partition)
        else:
            self._keep(partition, former)
        return True

    def review(self) -> None:
        """Drops what is over, so that it comes up no more: call it when members have been read."""
        newest = self._roster.nominations()
        for partition, wish in list(self.made.items()):
            now = self._incarnations(wish.name)
            # A master that cannot be seen for a while may be the same when it is seen again.
            ended = now and not now & self._meant[partition]
            later = newest.get(partition)
            if ended or (later is not None and later.wall_ms > wish.wall_ms):
                self._forget(partition)

    def _keep(self, partition: int, wish: Nomination) -> None:
        self.made[partition] = wish
        self._meant[partition] = self._incarnations(wish.name)

    def _forget(self, partition: int) -> None:
        del self.made[partition], self._meant[partition]

    def _incarnations(self, name: str) -> set[str]:
        """All live masters of a name: one that has just ended may still be among them."""
        members = [member.candidate for member in self._roster.members]
        return {member.incarnation for member in members if member.name == name}
