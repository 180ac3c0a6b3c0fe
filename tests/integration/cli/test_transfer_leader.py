"""``tenure cluster transfer-leader`` on masters that run: what it does, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tenure.client import Client, Reason, Rejected
from tenure.testing.etcd import EtcdCluster
from tests.chaos.cluster import Cluster
from tests.integration.commands import Outcome, run

pytestmark = pytest.mark.etcd


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two masters that live and one that has ended, on etcd, with two partitions."""
    with (
        EtcdCluster(1) as etcd,
        Cluster(tmp_path_factory.mktemp("transfer"), etcd.url("/transfer"), partitions=2) as found,
    ):
        ended = found.start_masters(3)[-1]
        ended.terminate()
        assert ended.wait_exit(20) == 0
        yield found


def transfer(cluster: Cluster, *arguments: str) -> Outcome:
    """The command, on this cluster."""
    return run("cluster", "transfer-leader", "--address", cluster.addresses, *arguments)


def leader(cluster: Cluster, partition: int = 1) -> str:
    """Who leads a partition, as soon as anybody who lives does.

    What masters say of it is a hint: for a moment it may still be the one that has ended.
    """

    def named() -> str | None:
        with Client(cluster.addresses) as client:
            leaders = client.cluster.topology().leaders
        names = (one.name for one in leaders if one.partition == partition)
        return next((name for name in names if name != "master-3"), None)

    return cluster.until(named, 20, "a leader")


def test_a_partition_goes_to_who_is_named_and_stays(cluster: Cluster) -> None:
    """Each form of output says who had it and who has it; asking again changes nothing."""
    for form in ("table", "json"):
        home = leader(cluster)
        away = "master-2" if home == "master-1" else "master-1"
        moved = transfer(cluster, "1", away, "--output", form)
        assert moved.code == 0, moved
        if form == "json":
            told = json.loads(moved.stdout)
            assert (told["fromMaster"], told["master"]) == (home, away)
        else:
            assert f"{home} has handed partition 1 over to {away}" in moved.stdout
        cluster.until(lambda away=away: leader(cluster) == away or None, 10, "the new leader")
        again = transfer(cluster, "1", away)
        assert again.code == 0
        assert f"{away} leads partition 1 already" in again.stdout


def test_its_leader_chooses_where_nobody_is_named(cluster: Cluster) -> None:
    """There is only one other that lives: it is that one."""
    home = leader(cluster)
    moved = transfer(cluster, "1", "--output", "name")
    assert moved.code == 0, moved
    assert {home, moved.stdout.strip()} == {"master-1", "master-2"}


@pytest.mark.parametrize("name", ["master-9", "master-3", " "])
def test_a_master_that_does_not_live_is_refused_by_name(cluster: Cluster, name: str) -> None:
    """Whether it was never there or has ended; the line names those that there are."""
    home = leader(cluster)
    refused = transfer(cluster, "1", name)
    assert refused.code == 2, refused
    assert "INVALID_ARGUMENT" in refused.complaint
    assert "master-1" in refused.complaint
    assert "master-2" in refused.complaint
    assert leader(cluster) == home


def test_the_refusal_is_typed(cluster: Cluster) -> None:
    """The SDK raises what the command line shows."""
    with Client(cluster.addresses) as client:
        with pytest.raises(Rejected, match="master-3") as refused:
            client.cluster.transfer_leader(0, "master-3")
        assert refused.value.reason is Reason.INVALID_ARGUMENT
        assert refused.value.field == "master"
        with pytest.raises(Rejected, match="below 2") as refused:
            client.cluster.transfer_leader(2)
        assert refused.value.reason is Reason.WRONG_PARTITION


def test_a_name_that_is_no_text_is_refused(cluster: Cluster) -> None:
    """Bytes of a terminal that are no UTF-8 name nobody."""
    refused = transfer(cluster, "1", os.fsdecode(b"master-\xff"))
    assert refused.code == 2, refused
    assert "INVALID_ARGUMENT" in refused.complaint


@pytest.mark.parametrize("partition", ["2", "-1", "one", "4096", "99999999999999999999"])
def test_a_partition_that_there_is_not_is_refused(cluster: Cluster, partition: str) -> None:
    """A usage error, with what was expected."""
    refused = transfer(cluster, "--", partition)
    assert refused.code == 2, refused
    assert partition in refused.stderr
