"""The sans-IO half of routing: leaders, hints, clocks, addresses, backoff."""

import random
from collections.abc import Callable

import pytest

from tenure.client import Reason, Rejected, Unavailable
from tenure.client.topology import BACKOFF_CAP_S, Topology, backoff_s, parse_addresses
from tenure.protocol.errors import LEADER_METADATA
from tenure.protocol.ids import home_partition
from tenure.v1 import cluster_pb2, common_pb2


def answer(
    leaders: dict[int, tuple[int, str]], *, partitions: int = 2, now_ms: int = 1_000
) -> cluster_pb2.GetTopologyResponse:
    """A master's view; leaders are given as (revision, address)."""
    return cluster_pb2.GetTopologyResponse(
        partition_count=partitions,
        leaders=[
            cluster_pb2.PartitionLeader(
                partition=partition,
                token=common_pb2.Token(epoch=1, revision=revision),
                address=address,
            )
            for partition, (revision, address) in leaders.items()
        ],
        masters=["m1:1", "m2:1"],
        now_ms=now_ms,
    )


def unavailable(reason: Reason, **metadata: str) -> Unavailable:
    """An error of a call."""
    return Unavailable("no", reason=reason, metadata=metadata)


def test_an_older_view_changes_nothing() -> None:
    """A leader under a lower token than one known before is a straggler's view."""
    topology = Topology(["s:1"])
    topology.learned(answer({0: (7, "new:1")}), 0)
    topology.learned(answer({0: (5, "old:1"), 1: (6, "other:1")}), 0)
    assert topology.leader(0) == "new:1"
    assert topology.leader(1) == "other:1"


def test_hints_and_losses_move_leaders() -> None:
    """NOT_LEADER follows its hint or forgets; an address nobody answers at leads nothing."""
    topology = Topology(["s:1"])
    topology.learned(answer({0: (7, "a:1"), 1: (8, "a:1")}), 0)
    topology.failed(0, "a:1", unavailable(Reason.NOT_LEADER, **{LEADER_METADATA: "b:1"}))
    assert topology.leader(0) == "b:1"
    assert "b:1" in topology.masters
    topology.failed(0, "b:1", unavailable(Reason.NOT_LEADER))
    assert topology.leader(0) is None
    topology.failed(1, "a:1", unavailable(Reason.UNREACHABLE))
    assert topology.leader(1) is None


def test_a_frozen_leader_is_asked_last() -> None:
    """A leader that cannot prove its office may have a successor: another master is asked next."""
    topology = Topology(["a:1", "b:1"])
    topology.learned(answer({0: (7, "a:1")}), 0)
    assert topology.next_master() == "a:1"
    topology.failed(0, "a:1", unavailable(Reason.FROZEN))
    assert topology.leader(0) is None
    assert topology.next_master() == "b:1"


@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.NOT_LEADER])
def test_who_named_a_wrong_leader_is_not_asked_again_at_once(reason: Reason) -> None:
    """A master that is behind the times names the old leader for ever; the next one is asked."""
    topology = Topology(["behind:1", "old:1", "good:1"])
    topology.learned(answer({0: (7, "old:1")}), 0)
    topology.failed(0, "old:1", unavailable(reason))
    assert topology.next_master() == "good:1"


def test_an_error_about_an_old_leader_leaves_the_new_one() -> None:
    """A late NOT_LEADER of a leader replaced meanwhile does not forget its successor."""
    topology = Topology(["s:1"])
    topology.learned(answer({0: (8, "b:1")}), 0)
    topology.failed(0, "a:1", unavailable(Reason.NOT_LEADER))
    assert topology.leader(0) == "b:1"


@pytest.mark.parametrize("told", [Topology.lost, Topology.asked_in_vain])
def test_masters_are_asked_in_turn(told: Callable[[Topology, str], None]) -> None:
    """Whether a master answered or not, another one is asked after it; all come round."""
    topology = Topology(["s:1"])
    topology.learned(answer({}), 0)
    assert topology.next_master() == topology.next_master() == "s:1"
    asked = []
    for _ in range(4):
        asked.append(topology.next_master())
        told(topology, asked[-1])
    assert asked == ["s:1", "m1:1", "m2:1", "s:1"]


def test_the_same_master_is_asked_next_when_others_are_forgotten() -> None:
    """Forgetting moves nobody's turn; the forgotten one's goes to another."""
    topology = Topology(["s:1"])
    topology.learned(answer({}), 0)
    topology.lost("s:1")
    topology.lost("m1:1")
    assert topology.next_master() == "m2:1"
    only_m2 = answer({})
    only_m2.masters[:] = ["m2:1"]
    assert topology.learned(only_m2, 100, "m2:1") == []
    assert topology.learned(only_m2, 200, "m2:1") == ["m1:1"]
    assert topology.next_master() == "m2:1"
    assert topology.learned(answer({}), 300, "s:1") == []
    only_m1 = answer({})
    only_m1.masters[:] = ["m1:1"]
    topology.learned(only_m1, 400, "s:1")
    assert topology.learned(only_m1, 500, "s:1") == ["m2:1"]
    assert topology.next_master() == "s:1"


def test_who_leads_or_answers_is_not_forgotten() -> None:
    """A leader, and a master by an address that only its user knows, count as named."""
    topology = Topology(["s:1"])
    topology.learned(answer({0: (7, "lead:1")}), 0, "lead:1")
    topology.failed(1, "m1:1", unavailable(Reason.NOT_LEADER, **{LEADER_METADATA: "hint:1"}))
    for at_s in (100, 200, 300):
        assert topology.learned(answer({}), at_s, "m1:1") == []
    assert {"lead:1", "hint:1"} <= set(topology.masters)


def test_the_clusters_clock_is_kept_as_an_offset() -> None:
    """Between answers the cluster's clock runs with the loop's; a newer answer corrects it."""
    topology = Topology(["s:1"])
    assert topology.cluster_ms(5.0) == 0
    topology.learned(answer({}, now_ms=1_000_000), 5.0)
    assert topology.cluster_ms(7.5) == 1_002_500
    topology.clock_seen(2_000_000, 8.0)
    assert topology.cluster_ms(8.0) == 2_000_000


def test_homes_follow_the_published_hash() -> None:
    """A queue's home is the contract's, and ids of other clusters are refused."""
    topology = Topology(["s:1"])
    topology.learned(answer({}, partitions=4), 0)
    for queue in ("a", "b", "mail"):
        assert topology.home("default", queue) == home_partition("default", queue, 4)
    with pytest.raises(Rejected):
        topology.home_of_id("00000000-0000-7009-8000-000000000000")


@pytest.mark.fault(32)
def test_backoff_grows_with_full_jitter_up_to_the_cap() -> None:
    """The first failure costs nothing; later ones draw from a growing range that is capped."""
    rng = random.Random(1)
    assert backoff_s(1, rng) == 0
    for failures, ceiling in (
        (2, 0.0625),
        (5, 0.122),
        (9, 0.298),
        (20, BACKOFF_CAP_S),
        (10**6, 2.0),
    ):
        drawn = [backoff_s(failures, rng) for _ in range(500)]
        assert 0 <= min(drawn) < ceiling * 0.1
        assert ceiling * 0.9 < max(drawn) <= ceiling


def test_a_leader_that_comes_after_a_second_is_found_within_half_a_second() -> None:
    """Who asks on while a partition is handed over has not fallen asleep when it is led again."""
    rng = random.Random(2)
    late_s = []
    for _ in range(500):
        now_s, failures = 0.0, 0
        while now_s < 1.3:
            failures += 1
            now_s += backoff_s(failures, rng) + 0.005
        late_s.append(now_s - 1.3)
    assert sum(late_s) / len(late_s) < 0.3
    assert sorted(late_s)[-5] < 0.8


def test_addresses_may_be_several() -> None:
    """Addresses are separated by commas; IPv6 goes in brackets."""
    assert parse_addresses("a:1, b:2,[::1]:3") == ["a:1", "b:2", "[::1]:3"]
