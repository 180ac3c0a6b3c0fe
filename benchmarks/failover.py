"""How long a cluster is without a leader, and how long without a grant, when its leader goes.

Two masters on one etcd member, a worker, and a backlog that never ends. Times run from the signal
to the moment the line of the other master was read; with SIGTERM from the line that says that the
leader has handed over: until another is ready, it leads on and grants.
"""

from __future__ import annotations

import signal
import time
from typing import Final

import uvloop

from benchmarks.jobs import nap
from benchmarks.process import TERM_GRACE_S, Process, ProcessGroup, workplace
from benchmarks.store import fresh_store
from benchmarks.table import Line, at_most
from tenure.client import AsyncClient

_NAP_S: Final = 0.1
_SLOTS: Final = 8
_BACKLOG: Final = 20_000
_LEADER_S: Final = 15.0
_GRANT_S: Final = 18.0
_HANDOVER_S: Final = 1.5
_WAIT_S: Final = 60.0


def measure(kills: int, hand_overs: int) -> list[Line]:
    """Kills the leader this often with kill -9, then ends it this often with SIGTERM."""
    with workplace() as folder, fresh_store("etcd", folder) as store, ProcessGroup(folder) as group:
        pair = _Pair(group, store)
        worker = group.tenure(
            "worker", "worker", "benchmarks.jobs", *pair.flags(), "--slots", str(_SLOTS)
        )
        for master in (pair.leader, pair.follower):
            worker.expect("registered", master=master.name)
        uvloop.run(_fill(pair.addresses()))
        pair.leader.expect("first_grant")
        killed = [pair.replace(signal.SIGKILL, worker) for _ in range(kills)]
        ended = [pair.replace(signal.SIGTERM, worker) for _ in range(hand_overs)]
    return [
        at_most(
            f"kill -9 → new leader, worst of {kills}", max(row[0] for row in killed), _LEADER_S, "s"
        ),
        at_most(
            f"kill -9 → first grant, worst of {kills}", max(row[1] for row in killed), _GRANT_S, "s"
        ),
        at_most(
            f"TERM, handed over → first grant, worst of {hand_overs}",
            max(row[1] for row in ended),
            _HANDOVER_S,
            "s",
            digits=2,
        ),
    ]


class _Pair:
    """A leader and one that waits to be it."""

    def __init__(self, group: ProcessGroup, store: str) -> None:
        self._group = group
        self._store = store
        self._count = 0
        self.leader = self._master()
        self.leader.expect("leader")
        self.follower = self._master()

    def addresses(self) -> str:
        """Both, for a client."""
        return ",".join(master.history[0]["address"] for master in (self.leader, self.follower))

    def flags(self) -> tuple[str, str]:
        """Both, for a worker."""
        return ("--master", self.addresses())

    def replace(self, how: signal.Signals, worker: Process) -> tuple[float, float]:
        """Ends the leader; seconds without one, and to the next grant. Starts a new follower.

        The new follower has the old leader's address, so that the worker dials it again; the next
        leader may go when the worker is back with both.
        """
        address = self.leader.history[0]["address"]
        gone = time.monotonic()
        self.leader.send(how)
        if how is signal.SIGTERM:
            gone = self.leader.expect("follower", timeout_s=_WAIT_S)["received_s"]
        elected = self.follower.expect("leader", timeout_s=_WAIT_S)["received_s"] - gone
        granted = self.follower.expect("first_grant", timeout_s=_WAIT_S)["received_s"] - gone
        self.leader.stop(TERM_GRACE_S)
        self.leader, self.follower = self.follower, self._master(address)
        worker.expect("registered", master=self.follower.name)
        return elected, granted

    def _master(self, listen: str = "127.0.0.1:0") -> Process:
        self._count += 1
        name = f"master-{self._count}"
        master = self._group.tenure(
            name, "master", "--store", self._store, "--listen", listen, "--name", name
        )
        master.expect("serving")
        return master


async def _fill(addresses: str) -> None:
    async with AsyncClient(addresses, timeout=60) as client:
        await client.map(nap, [_NAP_S] * _BACKLOG)
