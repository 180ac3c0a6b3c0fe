"""Skills: what a kind of worker can run, and the shares of tenants and queues in what it takes.

```
 Skill ── Level ── TenantShare ── Level ── QueueShare ── Board ── Fronts ── Lane
           heap of tenants          heap of queues                 heap of lanes of a job type,
           by their tags            by their tags                  by the order key
```
Each has those only that have something to give now: ready, open, and within the skill.
Sessions that run the same jobs share one, so what they take together is shared fairly.
"""

from collections.abc import Mapping
from typing import Protocol

from tenure.master.core.fair import Flow, Level
from tenure.master.core.gate import Queue, Tenant
from tenure.master.core.ready import Board, Lane
from tenure.master.core.record import LabelSelector


def satisfies(labels: Mapping[str, str], selector: LabelSelector) -> bool:
    """Whether labels have what is asked: the key, with one of the values if any is named."""
    value = labels.get(selector.key)
    return value is not None and (not selector.values or value in selector.values)


class TenantShare(Flow):
    """A tenant's share in what those with a skill take."""

    __slots__ = ("_givers", "level", "queues", "skill", "tenant")

    level: "Level[QueueShare]"
    queues: "dict[Queue, QueueShare]"

    def __init__(self, skill: "Skill", tenant: Tenant) -> None:
        super().__init__()
        self.skill = skill
        self.tenant = tenant
        self.level = Level()
        self.queues = {}
        #: How many of its queues have something to give.
        self._givers = 0

    @property
    def weight(self) -> float:
        return self.tenant.settings.weight

    def turn(self, share: "QueueShare", active: bool) -> None:
        """One of its queues has something to give, or has not any more."""
        self.level.turn(share, active)
        self._givers += 1 if active else -1
        self.refresh()

    def refresh(self) -> None:
        """Takes part if it has something to give and is open."""
        active = self._givers > 0 and self.tenant.is_open
        if active is not self.active:
            self.skill.level.turn(self, active)


class QueueShare(Flow):
    """A queue's share in what those with a skill take of its tenant."""

    __slots__ = ("board", "queue", "tenant")

    #: Its lanes that all with the skill can run.
    board: Board

    def __init__(self, tenant: TenantShare, queue: Queue) -> None:
        super().__init__()
        self.tenant = tenant
        self.queue = queue
        self.board = Board(self)

    @property
    def weight(self) -> float:
        return self.queue.settings.weight

    def refresh(self) -> None:
        """Takes part if it has something to give and is open."""
        active = self.queue.is_open and bool(self.board.giving)
        if active is not self.active:
            self.tenant.turn(self, active)


class Member(Protocol):
    """A session, as far as lanes know one."""

    @property
    def session_id(self) -> int:
        """Which one it is."""

    @property
    def incarnation(self) -> str:
        """The worker process that it is of."""

    @property
    def job_names(self) -> frozenset[str]:
        """The jobs that it runs."""

    @property
    def queues(self) -> frozenset[str]:
        """The queues that it serves; empty: all."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Its worker's labels."""

    #: Set when it is enlisted.
    skill: "Skill"
    #: Lanes that nobody else gets, by their queues.
    bound: dict[Queue, Board]


class Skill:
    """Some job names, queues and labels, and what is ready of them."""

    __slots__ = ("_tenants", "job_names", "labels", "level", "members", "queues")

    level: Level[TenantShare]
    #: The sessions that have it.
    members: dict[int, Member]

    def __init__(
        self, job_names: frozenset[str], queues: frozenset[str], labels: Mapping[str, str]
    ) -> None:
        self.job_names = job_names
        self.queues = queues
        self.labels = labels
        self.level = Level()
        self.members = {}
        self._tenants: dict[Tenant, TenantShare] = {}

    def serves(self, queue: str, name: str, requires: tuple[LabelSelector, ...] = ()) -> bool:
        """Whether it runs jobs of this name from this queue; no queues are all queues."""
        if name not in self.job_names or (self.queues and queue not in self.queues):
            return False
        return all(satisfies(self.labels, selector) for selector in requires)

    def serves_lane(self, lane: Lane) -> bool:
        """Whether it runs a lane's jobs."""
        return self.serves(lane.queue.name, lane.name, lane.requires)

    def fitness(self, prefers: tuple[LabelSelector, ...]) -> int:
        """How many of the wishes it fulfils."""
        return sum(satisfies(self.labels, selector) for selector in prefers)

    def share_of(self, queue: Queue) -> QueueShare:
        """A queue's share."""
        tenant = self._tenants.get(queue.tenant)
        if tenant is None:
            tenant = self._tenants[queue.tenant] = TenantShare(self, queue.tenant)
            queue.tenant.under[tenant] = None
        share = tenant.queues.get(queue)
        if share is None:
            share = tenant.queues[queue] = QueueShare(tenant, queue)
            queue.under[share] = None
        return share

    def known_share(self, queue: Queue) -> QueueShare | None:
        """A queue's share, if it ever had something for those with the skill."""
        tenant = self._tenants.get(queue.tenant)
        return None if tenant is None else tenant.queues.get(queue)

    def shares(self) -> list[QueueShare]:
        """All of its queues' shares."""
        return [share for tenant in self._tenants.values() for share in tenant.queues.values()]

    def charge(self, queue: Queue, jobs: int) -> None:
        """Those with the skill have taken jobs of a queue."""
        share = self.share_of(queue)
        self.level.charge(share.tenant, jobs)
        share.tenant.level.charge(share, jobs, queue.cost)

    def owe(self, queue: Queue, cost: float) -> None:
        """What a queue was charged with was too little, or too much if below zero."""
        share = self.share_of(queue)
        share.debt += cost / share.weight

    def inherit(self, other: "Skill") -> None:
        """Begins where another stands: its queues go on as they were."""
        self.level.virtual = other.level.virtual
        for tenant, theirs in other._tenants.items():
            for queue, share in theirs.queues.items():
                own = self.share_of(queue)
                own.tag, own.debt = share.tag, share.debt
            mine = self._tenants[tenant]
            mine.tag = theirs.tag
            mine.level.virtual = theirs.level.virtual
            mine.level.settle()
        self.level.settle()

    def forget(self, queue: Queue) -> None:
        """A queue has no job any more."""
        for member in self.members.values():
            bound = member.bound.pop(queue, None)
            if bound is not None:
                bound.end()
        tenant = self._tenants.get(queue.tenant)
        if tenant is None or queue not in tenant.queues:
            return
        tenant.queues.pop(queue).board.end()
        if not tenant.queues:
            del self._tenants[queue.tenant]
            del queue.tenant.under[tenant]

    def end(self) -> None:
        """Nobody has it any more."""
        for tenant in self._tenants.values():
            del tenant.tenant.under[tenant]
            for share in tenant.queues.values():
                del share.queue.under[share]
                share.board.end()

    def backlog(self) -> int:
        """How many jobs wait for nothing but those who have it."""
        return sum(
            share.board.backlog() for tenant in self.level.flows() for share in tenant.level.flows()
        )
