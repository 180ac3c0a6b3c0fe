"""The cluster's service, by what callers of any make may ask it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tenure.master.election.port import Candidate
from tenure.master.node.cluster import ClusterApi
from tenure.master.node.hub import WorkerHub
from tenure.master.node.roster import Roster
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.v1 import cluster_pb2
from tests.unit.master.node.test_clock import Machine


async def _no_backup() -> AsyncIterator[bytes]:
    yield b""


async def _no_hand_over(partition: int, successor: str) -> bool:
    return False


def test_a_partition_that_there_is_not_is_refused_by_name() -> None:
    """The SDK never asks for one, but others may."""
    me = Candidate(incarnation="i", name="m", address="m:1")
    api = ClusterApi(
        roster=Roster(cluster_id="c", partitions=2, me=me, clock=Machine()),
        hub=WorkerHub(),
        seats=list,
        version="0",
        store="none",
        space=lambda: None,
        alarms=list,
        backup=_no_backup,
        hand_over=_no_hand_over,
    )
    request = cluster_pb2.TransferLeaderRequest(partition=2)
    with pytest.raises(Rejected, match="below 2") as refused:
        asyncio.run(api.transfer_leader(request))
    assert refused.value.reason is Reason.WRONG_PARTITION
