"""A store: the elections and journals of a cluster's partitions behind one URL.

``sqlite:///path`` is one node's; ``etcd://host:port,host:port,host:port[/prefix]`` is a cluster's.
"""

from typing import Protocol

from tenure.master.election.port import Candidate, Election, Member
from tenure.master.journal.port import Journal


class Store(Protocol):
    """What a master opens at start. Created by ``open_store(url, …)``; closed once at the end."""

    #: From the bootstrap record.
    cluster_id: str
    partitions: int

    def election(self, partition: int) -> Election:
        """The election of a partition, for the candidate the store was opened with."""

    def journal(self, partition: int) -> Journal:
        """The journal of a partition."""

    async def register(self, candidate: Candidate, version: str, wall_ms: int) -> None:
        """Writes or renews this master's member key (call at about a third of its TTL)."""

    async def members(self) -> list[Member]:
        """All live masters, this one included."""

    async def close(self) -> None:
        """Gives up what is open; offices not resigned stay until their TTL. Idempotent."""
