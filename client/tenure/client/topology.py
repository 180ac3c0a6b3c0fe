"""Who leads which partition, what the cluster's clock says, whom to ask next. Sans-IO.

Times come in as seconds of the event loop's clock (it never jumps, so the cluster's clock is kept
as an offset to it and no wall clock is read).
"""

import re
from collections.abc import Sequence
from typing import Final, Protocol

from tenure.client.addresses import Addresses
from tenure.client.errors import invalid
from tenure.protocol.errors import LEADER_METADATA, Rejected, TenureError
from tenure.protocol.fence import NO_TOKEN, Token
from tenure.protocol.ids import home_partition, partition_of
from tenure.protocol.refusal import Reason
from tenure.protocol.token_wire import token_of
from tenure.v1 import cluster_pb2

#: ErrorInfo metadata of NOT_LEADER: the leader's address, if the refusing master knows it.
LEADER_HINT: Final = LEADER_METADATA
#: ErrorInfo metadata of REQUEST_TOO_OLD and ID_FROM_FUTURE: the leader's clock.
CLUSTER_TIME: Final = "now_ms"

BACKOFF_BASE_S: Final = 0.05
BACKOFF_FACTOR: Final = 1.25
BACKOFF_CAP_S: Final = 2.0

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/,\[\]]+):([0-9]{1,5})")


class Rng(Protocol):
    """Randomness (``random.Random`` fits)."""

    def random(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """k random bits."""
        ...


def parse_addresses(text: str) -> list[str]:
    """``HOST:PORT``, one or several, comma-separated.

    Raises:
        Rejected: The text is something else.
    """
    addresses = [part.strip() for part in text.split(",") if part.strip()]
    for address in addresses:
        match = _ADDRESS.fullmatch(address)
        if match is None or not 0 < int(match[2]) < 65_536:
            raise invalid("address", f"HOST:PORT, one or several, comma-separated, got {text!r}")
    if not addresses:
        raise invalid("address", "HOST:PORT, got nothing")
    return addresses


def fresh_rng() -> Rng:
    """Randomness of one's own, seeded by the system."""
    import random

    return random.Random()


def backoff_s(failures: int, rng: Rng) -> float:
    """How long to wait after so many failures in a row: exponential, with full jitter.

    The first failure costs no wait: most often the leader has only moved. Later waits grow slowly:
    a hand-over is a matter of a second, and who doubled his wait would sleep for another one.
    """
    if failures <= 1:
        return 0.0
    # This power is beyond the cap already; a larger one would overflow after days of failures.
    ceiling = min(BACKOFF_CAP_S, BACKOFF_BASE_S * BACKOFF_FACTOR ** min(failures - 1, 20))
    return rng.random() * ceiling


class Topology:
    """What a client knows of the cluster.

    Attributes:
        partitions: How many there are; 0 until a master has said it.
        dated: A leader is known that no answer has named: there may be more new masters, and the
            next answer is wanted before that leader is all that is left of those known.
    """

    def __init__(self, seeds: Sequence[str], rng: Rng | None = None) -> None:
        self._masters = Addresses(seeds)
        self._leaders: dict[int, str] = {}
        self._tokens: dict[int, Token] = {}
        self._homes: dict[tuple[str, str], int] = {}
        self._rng: Rng = rng or fresh_rng()
        self._next = 0
        self._clock_offset_s: float | None = None
        self.partitions = 0
        self.dated = False

    def learned(
        self, answer: cluster_pb2.GetTopologyResponse, at_s: float, address: str = ""
    ) -> list[str]:
        """Takes a master's view. A leader under an older token than one known is no news.

        Args:
            answer: What it said.
            at_s: When that was.
            address: Where it answered.

        Returns:
            Addresses that are forgotten: no master has named them for a while.
        """
        if answer.partition_count != self.partitions:
            self._homes.clear()
            self.partitions = answer.partition_count
        for leader in answer.leaders:
            token = token_of(leader.token)
            if token >= self._tokens.get(leader.partition, NO_TOKEN):
                self._tokens[leader.partition] = token
                self._leaders[leader.partition] = leader.address
        self.dated = False
        self.clock_seen(answer.now_ms, at_s)
        asked = self.next_master()
        alive = [*answer.masters, *self._leaders.values(), *([address] if address else [])]
        forgotten = self._masters.named(alive, at_s)
        if forgotten:
            # The same one as before is asked next, or, if it was forgotten, any one.
            masters = self.masters
            self._next = masters.index(asked) if asked in self._masters else 0
        return forgotten

    def home(self, tenant: str, queue: str) -> int:
        """The partition in which a queue lives. ``partitions`` must be known."""
        key = (tenant, queue)
        home = self._homes.get(key)
        if home is None:
            home = self._homes[key] = home_partition(tenant, queue, self.partitions)
        return home

    def home_of_id(self, job_id: str) -> int:
        """The partition that a job id names. ``partitions`` must be known.

        Raises:
            Rejected: No such partition, so the id comes from another cluster.
        """
        home = partition_of(job_id)
        if home >= self.partitions:
            raise Rejected(
                f"expected a job of this cluster, but {job_id} names partition {home} and there "
                f"are {self.partitions}; check the id and the cluster",
                reason=Reason.WRONG_PARTITION,
                metadata={
                    "job_id": job_id,
                    "partition": str(home),
                    "partitions": str(self.partitions),
                },
                field="job_id",
            )
        return home

    def leader(self, partition: int) -> str | None:
        """The address of the partition's leader, if known."""
        return self._leaders.get(partition)

    def failed(self, partition: int, address: str, error: TenureError) -> None:
        """Takes what a failed call to a partition's supposed leader says about the cluster."""
        if error.reason is Reason.NOT_LEADER:
            hint = error.metadata.get(LEADER_HINT, "")
            if hint and hint != address:
                self._leaders[partition] = hint
                if hint not in self._masters:
                    self._masters.add(hint)
                    self._next, self.dated = len(self._masters) - 1, True
            elif self._leaders.get(partition) == address:
                del self._leaders[partition]
                self._ask_another(address)
        elif error.reason in (Reason.UNREACHABLE, Reason.DEADLINE_EXCEEDED, Reason.FROZEN):
            # A frozen leader may have a successor that it does not know of.
            self.lost(address)

    def lost(self, address: str) -> None:
        """Nobody answers there: forget that it leads, and ask another master next."""
        led = [p for p, known in self._leaders.items() if known == address]
        for partition in led:
            del self._leaders[partition]
        if led or self.next_master() == address:
            self._ask_another(address)

    def asked_in_vain(self, address: str) -> None:
        """The master asked last knows no leader: ask another one next.

        One that is cut from the store answers as well as others, and never learns of a new leader.
        """
        if self.next_master() == address:
            self._ask_another(address)

    def _ask_another(self, than: str) -> None:
        """Moves on: whoever was asked last has named nobody, or one who does not lead."""
        self._next += 1
        if self.next_master() == than:
            self._next += 1

    def next_master(self) -> str:
        """Whom to ask for the topology: the same one until that leads nowhere."""
        masters = list(self._masters)
        return masters[self._next % len(masters)]

    @property
    def masters(self) -> list[str]:
        """All addresses known, those given by the user first."""
        return list(self._masters)

    def clock_seen(self, cluster_ms: int, at_s: float) -> None:
        """The cluster's clock showed this when the answer was read."""
        if cluster_ms > 0:
            self._clock_offset_s = cluster_ms / 1000 - at_s

    def cluster_ms(self, at_s: float) -> int:
        """The cluster's clock; ids are minted by it. 0 until a master has told it."""
        if self._clock_offset_s is None:
            return 0
        return int((self._clock_offset_s + at_s) * 1000)

    def backoff_s(self, failures: int) -> float:
        """How long to wait after so many failures in a row."""
        return backoff_s(failures, self._rng)
