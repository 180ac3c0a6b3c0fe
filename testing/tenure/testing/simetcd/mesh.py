"""The links between the members: who reaches whom, and how long that takes."""

from __future__ import annotations

from collections.abc import Sequence

from tenure.testing.call import Link
from tenure.testing.network import SimNetwork
from tenure.testing.simetcd.member import SimEtcdMember


class Mesh:
    """All links between all members.

    Args:
        network: Whose links they are.
        members: All.

    Attributes:
        majority: How many members are one.
    """

    def __init__(self, network: SimNetwork, members: Sequence[SimEtcdMember]) -> None:
        self.majority = len(members) // 2 + 1
        self._network = network
        self._members = members
        self._links: dict[tuple[str, str], Link] = {
            (one.name, other.name): network.link(one.host, other.host)
            for one in members
            for other in members
            if one is not other
        }

    def reaches(self, source: SimEtcdMember, target: SimEtcdMember) -> bool:
        """Whether the link from one to the other is whole."""
        return self._links[source.name, target.name].cut_since_s is None

    def connected(self, one: SimEtcdMember, other: SimEtcdMember) -> bool:
        """Whether the links are whole both ways."""
        return one is other or (self.reaches(one, other) and self.reaches(other, one))

    def peers(self, member: SimEtcdMember) -> list[SimEtcdMember]:
        """Who works and can talk to a member."""
        return [
            other
            for other in self._members
            if other is not member and other.works and self.connected(member, other)
        ]

    def delay_s(self, source: SimEtcdMember, target: SimEtcdMember) -> float:
        """How long the next message takes."""
        return self._network.delay_s(self._links[source.name, target.name])

    def both_ways_s(self, one: SimEtcdMember, other: SimEtcdMember) -> float:
        """How long a question and its answer take."""
        if one is other:
            return 0.0
        return self.delay_s(one, other) + self.delay_s(other, one)

    def round_trip_s(self, leader: SimEtcdMember, peers: Sequence[SimEtcdMember]) -> float:
        """How long the leader waits for the answers of so many that they are a majority."""
        trips = sorted([self.both_ways_s(leader, peer) for peer in peers])
        return trips[self.majority - 2] if trips else 0.0
