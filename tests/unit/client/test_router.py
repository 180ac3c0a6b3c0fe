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
from tests.unit.client.fake_master import FakeCluster


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
