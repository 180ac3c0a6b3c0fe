"""The cluster's service, by what callers of any make may ask it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tenure.master.election.port import Candidate
from tenure.master.node.cluster import ClusterApi
from tenure.master.node.hub import WorkerHub
from tenure.master.node.roster import Roster
from tenure.protocol.errors import Rejected, Unavailable
from tenure.protocol.refusal import Reason
from tenure.testing.loop import run_virtual
from tenure.v1 import cluster_pb2
from tests.unit.master.node.test_clock import Machine


async def _no_backup() -> AsyncIterator[bytes]:
    yield b""


async def _look() -> None:
    return None


async def _no_hand_over(partition: int, successor: str) -> bool:
    return False


async def _answers(name: str) -> bool:
    return True


def cluster_api() -> ClusterApi:
    """Of a master that leads nothing, in a cluster of two partitions."""
    me = Candidate(incarnation="i", name="m", address="m:1")
    return ClusterApi(
        roster=Roster(cluster_id="c", partitions=2, me=me, clock=Machine()),
        hub=WorkerHub(),
        seats=list,
        version="0",
        store="none",
        space=lambda: None,
        alarms=list,
        backup=_no_backup,
        look=_look,
        hand_over=_no_hand_over,
        answers=_answers,
    )


def test_a_partition_that_there_is_not_is_refused_by_name() -> None:
    """The SDK never asks for one, but others may."""
    request = cluster_pb2.TransferLeaderRequest(partition=2)
    with pytest.raises(Rejected, match="below 2") as refused:
        asyncio.run(cluster_api().transfer_leader(request))
    assert refused.value.reason is Reason.WRONG_PARTITION


def test_a_master_gives_one_backup_at_a_time() -> None:
    """The next one is told when to come again, and gets its own when the first has ended."""

    async def main() -> None:
        api, begun, goes_on = cluster_api(), asyncio.Event(), asyncio.Event()
        taken: list[cluster_pb2.BackupResponse] = []

        async def slow(piece: cluster_pb2.BackupResponse) -> None:
            begun.set()
            await goes_on.wait()

        async def quick(piece: cluster_pb2.BackupResponse) -> None:
            taken.append(piece)

        request = cluster_pb2.BackupRequest()
        async with asyncio.TaskGroup() as group:
            group.create_task(api.backup(request, slow))
            await begun.wait()
            with pytest.raises(Unavailable, match="another one") as refused:
                await api.backup(request, quick)
            assert refused.value.reason is Reason.TOO_MANY_BACKUPS
            assert refused.value.retry_after_ms
            assert not taken
            goes_on.set()
        await api.backup(request, quick)
        assert taken

    run_virtual(main)


def test_a_caller_that_takes_nothing_keeps_nobody_from_a_backup() -> None:
    """Its backup is ended, and the next one may begin."""

    async def main() -> None:
        api = cluster_api()

        async def stuck(piece: cluster_pb2.BackupResponse) -> None:
            await asyncio.Event().wait()

        for _ in range(2):
            with pytest.raises(Unavailable, match="take a piece"):
                await api.backup(cluster_pb2.BackupRequest(), stuck)

    run_virtual(main)
