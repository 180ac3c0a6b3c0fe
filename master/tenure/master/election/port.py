"""The election port: one office per partition, won with a token and kept by keepalives.

Adapters: ``election.sqlite``, ``election.etcd`` and the simulated one in ``tenure.testing``.

An adapter runs nothing in the background: the node calls ``renew`` on its own schedule, so that a
wedged event loop stops the keepalives, and judges ``Office.answered_at_ms`` itself (DESIGN rule:
a keepalive counts only if the loop turned and no batch is stuck).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from tenure.protocol.fence import Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Who stands for an office: the value of the office's key.

    Attributes:
        incarnation: UUID of the master process.
        name: The master's name, for people.
        address: Where clients and workers reach it.
    """

    incarnation: str
    name: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """Who holds an office now, as far as the store knows."""

    candidate: Candidate
    token: Token


class Nomination(NamedTuple):
    """An operator's wish: who should lead a partition. Of several, the newest counts."""

    name: str
    wall_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A live master, by its member key.

    Attributes:
        candidate: Who it is.
        version: The release it runs.
        wall_ms: Its wall clock when it last wrote the key.
        workers: How many workers had a session with it then.
        nominations: Whom it was told to hand partitions over to, by partition.
        boot_ms: Its boot clock then; None: its release does not say.
        heard_ms: By incarnation: what other masters' boot clocks showed then, at least.
        following: The partitions that it follows, or is about to, and how many processes of this
            name in a row have died while they followed them.
        caught_up: Those of them that it has replayed: it could lead them at once.
        ending: Whether it was told to end: it leads on only what nobody else has replayed yet.
    """

    candidate: Candidate
    version: str
    wall_ms: int
    workers: int = 0
    nominations: Mapping[int, Nomination] = field(default_factory=dict)
    boot_ms: int | None = None
    heard_ms: Mapping[str, int] = field(default_factory=dict)
    following: Mapping[int, int] = field(default_factory=dict)
    caught_up: Sequence[int] = ()
    ending: bool = False


class Office(Protocol):
    """An office that was won. Dropping it without ``resign`` leaves it until its TTL is over."""

    token: Token
    #: The office's time to live without a keepalive, ms; None: it cannot be lost (SQLite).
    ttl_ms: int | None

    async def renew(self) -> None:
        """Sends one keepalive and waits for its answer (its own deadline inside).

        The caller notes the time before the call; when the call returns, the office was held
        at that time and lives for ``ttl_ms`` from it.

        Raises:
            OfficeLost: The lease is gone.
            StoreUnavailable: No answer.
        """

    async def verify(self) -> None:
        """Linearizable read that the key still has this token's revision.

        Raises:
            OfficeLost: It has not.
            StoreUnavailable: No answer.
        """

    async def resign(self) -> None:
        """Gives the office up so that the next one can win it at once. Idempotent."""


class Election(Protocol):
    """The election of one partition."""

    async def campaign(self) -> Office | None:
        """One try to win the office; None if another holds it.

        A try of unknown outcome is resolved inside by reading the key: mine → won.

        Raises:
            StoreUnavailable: Still unknown; call again.
        """

    async def leader(self) -> Leader | None:
        """Who holds the office now (may be stale by a network delay: a hint)."""

    async def vacancy(self, timeout_ms: int) -> bool:
        """Waits until the office is seen free, at most for the timeout; whether it was seen.

        A hint, never a proof: another may have won it meanwhile.
        """
