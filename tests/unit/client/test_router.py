"""Whom a router asks when a master does not let it in."""

from __future__ import annotations

from typing import Any

import pytest

from tenure.client.router import GET_TOPOLOGY, Router
from tenure.client.topology import Topology
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.testing.loop import run_virtual
from tenure.v1 import cluster_pb2
from tests.unit.client.fake_master import FakeCluster, unreachable


class Doors(FakeCluster):
    """Masters of which some do not let in.

    Attributes:
        shut: Those.
        asked: Who was called, in order.
    """

    def __init__(self, shut: set[str], reason: Reason = Reason.SERVER_CERTIFICATE_INVALID) -> None:
        super().__init__(masters=("a:1", "b:1", "c:1"))
        self.shut = shut
        self.asked: list[str] = []
        self._reason = reason

    async def unary(self, address: str, *call: Any) -> Any:
        """Refuses at those, answers at others."""
        self.asked.append(address)
        if address in self.shut:
            raise Rejected(f"not at {address}", reason=self._reason)
        return await super().unary(address, *call)


def ask(doors: Doors) -> None:
    """A client's first question, and one that any master answers."""

    async def main() -> None:
        router = Router(doors, Topology(["a:1", "b:1", "c:1"]))
        await router.ready(5.0)
        await router.ask_any(
            GET_TOPOLOGY, cluster_pb2.GetTopologyRequest(), cluster_pb2.GetTopologyResponse, 5.0
        )

    run_virtual(main)


def test_another_master_may_let_in() -> None:
    """One with an expired certificate stops nobody while the others are well."""
    doors = Doors({"a:1", "b:1"})
    ask(doors)

    assert doors.asked == ["a:1", "b:1", "c:1", "c:1"]


def test_all_are_asked_once_before_it_is_believed() -> None:
    """A wrong token is wrong everywhere; nothing is tried twice."""
    doors = Doors({"a:1", "b:1", "c:1"}, Reason.TOKEN_INVALID)
    with pytest.raises(Rejected, match="not at c:1"):
        ask(doors)

    assert doors.asked == ["a:1", "b:1", "c:1"]


def test_another_refusal_is_final() -> None:
    """What is wrong with the request is wrong at every master."""
    doors = Doors({"a:1"}, Reason.INVALID_ARGUMENT)
    with pytest.raises(Rejected, match="not at a:1"):
        ask(doors)

    assert doors.asked == ["a:1"]


def test_masters_that_moved_are_forgotten() -> None:
    """Masters come back under new addresses, again and again: nothing of the old ones is kept."""

    async def main() -> None:
        cluster = FakeCluster(masters=("a:1", "b:1"))
        router = Router(cluster, Topology(["b:1"]))
        await router.ready(5.0)
        for number in range(10):
            cluster.masters = ("b:1", f"a{number}:1")
            cluster.lead(f"a{number}:1")
            router.lost(0, "", unreachable(f"a{number - 1}:1"))
            await router.refresh()
            await cluster.pass_time(100)
        assert router.topology.masters == ["b:1", "a8:1", "a9:1"]
        assert cluster.forgotten == ["a:1", *(f"a{number}:1" for number in range(8))]

    run_virtual(main)


def test_an_unknown_leader_is_asked_for_the_others() -> None:
    """Who follows hints alone would in the end know nobody who lives but the leader."""

    async def main() -> None:
        cluster = FakeCluster(masters=("a:1", "b:1"))
        router = Router(cluster, Topology(["a:1"]))
        await router.ready(5.0)
        cluster.masters = ("a:1", "n:1", "o:1")
        cluster.lead("n:1")
        router.lost(0, "a:1", cluster.not_leader(0))
        assert await router.leader(0) == "n:1"
        assert "o:1" in router.topology.masters
        assert cluster.calls == [("a:1", "GetTopology"), ("n:1", "GetTopology")]

    run_virtual(main)
