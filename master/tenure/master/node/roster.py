"""Who leads what, as this master knows it: its own terms, and hints about the others'."""

import statistics
from collections.abc import Mapping
from typing import Final

from tenure.master.election.port import Candidate, Leader, Member, Nomination
from tenure.master.node.peer_clock import PeerClock
from tenure.master.node.port import Clock
from tenure.master.node.share import share_out, weight
from tenure.master.node.term import Term
from tenure.protocol.errors import LEADER_METADATA, Rejected, TenureError, Unavailable
from tenure.protocol.refusal import Reason

#: What a wall clock may be off, as far as can be proved, before anybody is told.
WALL_OFF_MS_MAX: Final = 5_000
#: All masters renew their keys within this.
_RENEWED_MS: Final = 3_500


class Roster:
    """The cluster's offices and members.

    Args:
        cluster_id: From the bootstrap record.
        partitions: How many there are.
        me: This master.
        clock: For the cluster's time when no term is at hand.
    """

    def __init__(self, *, cluster_id: str, partitions: int, me: Candidate, clock: Clock) -> None:
        self.cluster_id = cluster_id
        self.partitions = partitions
        self.me = me
        self._clock = clock
        #: Terms that serve here, by partition.
        self.terms: dict[int, Term] = {}
        #: Leaders elsewhere, by partition; a hint.
        self.leaders: dict[int, Leader] = {}
        self.members: list[Member] = []
        #: The other members' clocks, by incarnation.
        self._peers: dict[str, PeerClock] = {}
        self._registered = False
        #: Since when the members' walls may be believed (boot clock); None: not yet.
        self._walls_since_ms: int | None = 0
        #: Partitions that nobody may lead, and why.
        self.halted: dict[int, str] = {}

    def term(self, partition: int) -> Term:
        """The term of a partition that this master leads.

        Raises:
            Unavailable: NOT_LEADER with a hint, or PARTITION_HALTED.
            Rejected: There is no such partition.
        """
        term = self.terms.get(partition)
        if term is not None and term.open and not term.closing:
            return term
        raise self.not_leader(partition)

    def not_leader(self, partition: int) -> TenureError:
        """Why this master does not answer for a partition, and who might."""
        if not 0 <= partition < self.partitions:
            return Rejected(
                f"expected a partition below {self.partitions}, got {partition}",
                reason=Reason.WRONG_PARTITION,
                metadata={"partition": str(partition), "partitions": str(self.partitions)},
                field="partition",
            )
        if partition in self.halted:
            return Unavailable(
                f"expected to serve partition {partition}, but it is halted: "
                f"{self.halted[partition]}; nobody leads it until an operator has decided, see "
                "`tenure cluster status`",
                reason=Reason.PARTITION_HALTED,
                metadata={"partition": str(partition)},
                retry_after_ms=5_000,
            )
        metadata = {"partition": str(partition), "now_ms": str(self.now_ms())}
        hint = self.leaders.get(partition)
        if hint is not None and hint.candidate != self.me:
            metadata[LEADER_METADATA] = hint.candidate.address
        return Unavailable(
            f"expected to serve partition {partition}, but {self.me.name} does not lead it; "
            f"ask {metadata.get(LEADER_METADATA, 'another master')}",
            reason=Reason.NOT_LEADER,
            metadata=metadata,
            retry_after_ms=100,
        )

    def now_ms(self) -> int:
        """The cluster's clock: a term's, or the wall where no term is led."""
        return max((term.clock.now_ms() for term in self.terms.values()), default=None) or (
            self._clock.wall_ms()
        )

    def meet(self, members: list[Member]) -> None:
        """Takes the list of the live masters."""
        self.members = members
        boot_ms, known, me = self._clock.boot_ms(), self._peers, self.me.incarnation
        self._peers = {}
        for member in members:
            name = member.candidate.incarnation
            if name != me:
                peer = self._peers[name] = known.get(name) or PeerClock(me, boot_ms)
                peer.read(member, boot_ms)

    def heard_ms(self) -> dict[str, int]:
        """By incarnation: what the other masters' boot clocks show by now, at least."""
        boot_ms = self._clock.boot_ms()
        shown = {name: peer.boot_ms(boot_ms) for name, peer in self._peers.items()}
        return {name: ms for name, ms in shown.items() if ms is not None}

    def silent_ms(self) -> int:
        """How long nothing was heard of the other master that has been silent for longest."""
        boot_ms = self._clock.boot_ms()
        return max((peer.silent_ms(boot_ms) for peer in self._peers.values()), default=0)

    def registered(self, *, done: bool) -> None:
        """This master's own key was written, or could not be.

        A full store keeps members' keys as they were: who starts then reads walls of any age. So
        nobody begins a term by them before the store takes keys again, and all live ones are new.
        """
        first, self._registered = not self._registered, self._registered or done
        if not done and first:
            self._walls_since_ms = None
        elif done and self._walls_since_ms is None:
            self._walls_since_ms = self._clock.boot_ms() + _RENEWED_MS

    def knows_walls(self) -> bool:
        """Whether a term's clock may begin by what the members say.

        Not while this wall is far ahead of one that may still answer: either it is wrong, or that
        key is very old.
        """
        since_ms, boot_ms = self._walls_since_ms, self._clock.boot_ms()
        if since_ms is None or boot_ms < since_ms:
            return False
        wall_ms = self._clock.wall_ms()
        return not any(peer.doubts(wall_ms, boot_ms) for peer in self._peers.values())

    def walls_ms(self) -> list[int]:
        """The wall clocks of the live masters; this one's counts alone only when it is alone.

        Of another one's, what is nearest to this one's of all that it may show: so the median is
        somewhere between the clocks that live masters have, however slow the store.
        """
        wall_ms, boot_ms = self._clock.wall_ms(), self._clock.boot_ms()
        return [*(peer.nearest_ms(wall_ms, boot_ms) for peer in self._peers.values()), wall_ms]

    def workers_elsewhere(self) -> bool:
        """Whether any other master has workers connected."""
        me = self.me.incarnation
        return any(m.workers and m.candidate.incarnation != me for m in self.members)

    def wall_off_ms(self) -> int:
        """How far this master's wall clock is ahead of the others'; 0: it is the only one.

        Of two nobody can tell who is wrong; of more, the one that is far from the median. A wall
        counts once it has changed under our eyes: until then nobody knows how old it is, and a full
        store keeps it as it was.
        """
        mine = self._clock.wall_ms()
        others = list(self._seen_ms(mine).values())
        if not others:
            return 0
        return mine - int(others[0] if len(others) == 1 else statistics.median([*others, mine]))

    def _seen_ms(self, wall_ms: int) -> dict[str, int]:
        """The walls of other masters that have changed under our eyes, by incarnation."""
        boot_ms = self._clock.boot_ms()
        return {
            incarnation: peer.nearest_ms(wall_ms, boot_ms)
            for incarnation, peer in self._peers.items()
            if peer.readings >= 2
        }

    def addresses(self) -> list[str]:
        """Where the live masters are, this one first."""
        found = [self.me.address]
        found += [m.candidate.address for m in self.members if m.candidate.address not in found]
        return found

    def rank(self, partition: int) -> int:
        """This master's place among those who may lead a vacant partition; 0 goes first."""
        return self.heirs(partition).index(self.me.name)

    def heirs(self, partition: int) -> list[str]:
        """The live masters, in the order in which they may lead a vacant partition.

        As in ``order``, but whoever could lead it at once goes before others that would have to
        recover first. An operator's word counts for more.
        """
        wish, right = self.nominations().get(partition), self._right()
        wished = "" if wish is None else wish.name
        ready = {name for name in right if self.is_ready(name, partition)}
        names = self.order(partition)
        return sorted(names, key=lambda name: (name != wished, name not in ready))

    def yields(self, partition: int) -> bool:
        """Whether this master would have to recover a partition that its first heir need not."""
        first = self.heirs(partition)[0]
        return self.is_ready(first, partition) and not self.is_ready(self.me.name, partition)

    def is_ready(self, name: str, partition: int) -> bool:
        """Whether a master has replayed a partition that it does not lead, as it has said.

        What a process that has ended had replayed is of no use: while its key stands beside its
        successor's, both must say so.
        """
        said = [m.caught_up for m in self.members if m.candidate.name == name]
        return bool(said) and all(partition in caught_up for caught_up in said)

    def is_ending(self, candidate: Candidate) -> bool:
        """Whether a master has said that it is to end, and leads on what nobody else has replayed.

        It is nobody's heir or successor meanwhile.
        """
        return any(m.ending and m.candidate == candidate for m in self.members)

    def order(self, partition: int) -> list[str]:
        """The live masters by how much they should lead a partition, the first one most."""
        return self._order(partition, self.shares()[partition])

    def successors(self, leaders: Mapping[int, str]) -> dict[int, str]:
        """Who should lead each of these partitions next, were its leader gone; names all around.

        A leader that has no live master beside it has no successor.
        """
        shares = self.shares()
        found: dict[int, str] = {}
        for partition, leader in leaders.items():
            rivals = [n for n in self._order(partition, shares[partition]) if n != leader]
            if rivals:
                found[partition] = rivals[0]
        return found

    def _order(self, partition: int, first: str) -> list[str]:
        names = sorted(self._names(), key=lambda name: weight(partition, name), reverse=True)
        return sorted(names, key=lambda name: name != first)

    def shares(self) -> list[str]:
        """Which live master should lead each partition: a fair share each, but for nominations."""
        shares = share_out(self.partitions, sorted(set(self._right())))
        names = set(self._names())
        for number, wish in self.nominations().items():
            if wish.name in names and number < self.partitions:
                shares[number] = wish.name
        return shares

    def _right(self) -> list[str]:
        """Masters that should lead something."""
        # While workers ask others only, a master that none reaches should lead nothing.
        staying = [m for m in self.members if not m.ending]
        reached = [m.candidate.name for m in staying if m.workers] or self._names()
        astray = self._astray()
        return [name for name in reached if name not in astray] or reached

    def _astray(self) -> set[str]:
        """Masters whose wall clocks are far from what most have; of two, none."""
        mine = self._clock.wall_ms()
        seen = {self.me.incarnation: mine, **self._seen_ms(mine)}
        walls_ms = {
            member.candidate.name: seen[member.candidate.incarnation]
            for member in self.members
            if member.candidate.incarnation in seen
        }
        if len(walls_ms) < 3:
            return set()
        median_ms = statistics.median(walls_ms.values())
        return {name for name, ms in walls_ms.items() if abs(ms - median_ms) > WALL_OFF_MS_MAX}

    def nominations(self) -> dict[int, Nomination]:
        """By partition: what an operator last said about who should lead it."""
        newest: dict[int, Nomination] = {}
        for member in self.members:
            for number, wish in member.nominations.items():
                known = newest.get(number)
                if known is None or wish.wall_ms > known.wall_ms:
                    newest[number] = wish
        return newest

    def leader_name(self, partition: int) -> str | None:
        """Who leads a partition, as far as is known; None: nobody, or not in full."""
        term = self.terms.get(partition)
        if term is not None:
            settled = term.open and not term.closing and not term.partition.window_open
            return self.me.name if settled else None
        leader = self.leaders.get(partition)
        return None if leader is None else leader.candidate.name

    def _names(self) -> list[str]:
        staying = {member.candidate.name for member in self.members if not member.ending}
        return sorted(staying | {self.me.name})
