"""The store in etcd, over members that answer or do not."""

import asyncio
from random import Random
from typing import cast

import pytest

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.errors import StoreUnavailable
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.errors import Unavailable
from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.master.backend.space import Space
from tenure.master.election.port import Candidate
from tenure.master.etcd_store import EtcdStore, _Record
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual

TIMEOUT_MS = 1_200


class Members:
    """A client of three members.

    Attributes:
        dead: Those that let a call wait until its time is over.
    """

    endpoints = ("e1:1", "e2:1", "e3:1")

    def __init__(self, *dead: str) -> None:
        self.dead = dead

    async def status(self, address: str) -> pb.StatusResponse:
        """What a member says of itself."""
        if address in self.dead:
            await SimClock().sleep(TIMEOUT_MS)
            raise Unavailable(f"{address} does not answer")
        return pb.StatusResponse(db_size=30, db_size_in_use=int(address[1]), db_size_quota=100)


def store(members: Members) -> EtcdStore:
    """A store of theirs."""
    return EtcdStore(
        cast(EtcdClient, members),
        ClusterKeys("/tenure"),
        _Record(cluster_id="c", format=1, partitions=1, etcd_cluster_id="e", epoch=1),
        Candidate(incarnation="i", name="m", address="m:1"),
        3,
        None,
        Random(1),
    )


@pytest.mark.parametrize("dead", [(), ("e1:1",), ("e1:1", "e2:1")])
def test_dead_members_hold_a_masters_start_up_once(dead: tuple[str, ...]) -> None:
    """All are asked together: however many are dead, it waits for one call's time at most."""

    async def main() -> None:
        space = await store(Members(*dead)).space()
        assert space == Space(used_bytes=3, file_bytes=30, quota_bytes=100)
        assert asyncio.get_running_loop().time() * 1_000 <= TIMEOUT_MS + 1

    run_virtual(main)


def test_the_space_of_an_etcd_that_is_gone_is_unknown() -> None:
    """One that nobody answers for is no empty one."""

    async def main() -> None:
        with pytest.raises(StoreUnavailable, match="how full"):
            await store(Members(*Members.endpoints)).space()

    run_virtual(main)
