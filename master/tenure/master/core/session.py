"""What a term knows about workers: their streams, what they hold, and until when (all volatile).

A *holder* is a worker process, by its incarnation: leases and their deadline belong to it. A
*session* is a stream of it. A newer stream takes over; one that ends leaves the leases where they
are.
"""

from collections import deque
from typing import Final

import msgspec

from tenure.master.core.command import HeldRow
from tenure.master.core.gate import Queue
from tenure.master.core.ready import Board
from tenure.master.core.record import JobRecord
from tenure.master.core.skill import Skill
from tenure.master.core.volatile import SessionOpened
from tenure.protocol.ids import JobId

#: The number of what was not sent yet: behind all that any worker has.
UNSENT: Final = 1 << 62


class Delivery(msgspec.Struct, gc=False, eq=False):
    """An assignment, on its way to its worker or there: all leases that it granted share it."""

    #: 0: an older session's or term's, which no message can still carry. UNSENT: it is on its way
    #: to nobody, as it waits for its commit; it gets its number when it is sent.
    number: int = 0
    #: When it was sent, or its TTL began anew.
    sent_ms: int = 0
    #: When its worker was heard to have it; 0: not in this term.
    accepted_ms: int = 0


class Holding(msgspec.Struct, gc=False, eq=False):
    """An open lease as its holder's messages tell about it; the lease itself is the record's."""

    record: JobRecord
    #: What granted it.
    delivery: Delivery
    #: 0: not started yet.
    started_ms: int = 0
    progress: float = 0.0
    #: When the job last reported progress, or started.
    progress_ms: int = 0
    #: Whether it was asked back.
    asked: bool = False
    #: What it was charged for in a queue that is counted in time.
    charged_ms: int = 0

    @property
    def accepted_ms(self) -> int:
        """When its worker had its grant, at the latest when it started; 0: not known."""
        accepted_ms = self.delivery.accepted_ms
        return min(accepted_ms, self.started_ms) if self.started_ms else accepted_ms


class Holder:
    """A worker process and its leases."""

    __slots__ = (
        "check_ms",
        "claims",
        "deadline_ms",
        "heartbeat_ms",
        "incarnation",
        "leases",
        "session",
        "worker",
    )

    incarnation: str
    worker: str
    #: The newest stream, None if it has ended.
    session: "Session | None"
    #: In the order of their grants.
    leases: dict[JobId, Holding]
    #: Its leases are lost after this; 0: not judged before the window closes.
    deadline_ms: int
    #: When it was last heard of; 0: not in this term.
    heartbeat_ms: int
    #: When its timer looks at it next; 0: it has none.
    check_ms: int
    #: The leases that it declared while the window is open; None: it has not.
    claims: list[HeldRow] | None

    def __init__(self, incarnation: str, worker: str) -> None:
        self.incarnation = incarnation
        self.worker = worker
        self.session = None
        self.leases = {}
        self.deadline_ms = 0
        self.heartbeat_ms = 0
        self.check_ms = 0
        self.claims = None

    def next_check_ms(self, now_ms: int, take_back_ms: int) -> int | None:
        """When a timer should look at its leases next; None: it has none to look at."""
        if not self.leases:
            return None
        due_ms = self.deadline_ms
        if self.session is not None:
            unstarted = any(not holding.started_ms for holding in self.leases.values())
            if unstarted:
                due_ms = min(due_ms, now_ms + take_back_ms)
        return max(due_ms, now_ms + 1)


class Session:
    """A worker's stream to this partition."""

    __slots__ = (
        "assignment",
        "bound",
        "declared",
        "draining",
        "holder",
        "job_names",
        "labels",
        "queues",
        "session_id",
        "skill",
        "slots",
        "unaccepted",
        "unsent",
    )

    #: The last assignment sent.
    assignment: int
    #: Assignments that were sent and have not been accepted, in order.
    unaccepted: deque[Delivery]
    #: Those that wait for their commit, by their first lease.
    unsent: dict[int, Delivery]
    #: Whether it has listed its leases; nothing is granted before.
    declared: bool
    draining: bool
    #: What it has in common with others that run the same; given by ``Lanes.enlist``.
    skill: Skill
    #: Lanes that nobody else gets, by their queues.
    bound: dict[Queue, Board]

    def __init__(self, opened: SessionOpened, holder: Holder) -> None:
        self.session_id = opened.session_id
        self.holder = holder
        self.slots = opened.slots
        self.job_names = opened.job_names
        self.queues = opened.queues
        self.labels = dict(opened.labels)
        self.bound = {}
        self.assignment = 0
        self.unaccepted = deque()
        self.unsent = {}
        self.declared = False
        self.draining = False

    @property
    def incarnation(self) -> str:
        """The worker process that it is of."""
        return self.holder.incarnation

    def has_work(self) -> bool:
        """Whether a ready job waits for nothing but its credit."""
        return bool(self.skill.level.heap) or any(
            board.giving and queue.is_open and queue.tenant.is_open
            for queue, board in self.bound.items()
        )

    def backlog(self) -> int:
        """How many ready jobs wait for nothing but credit of its like."""
        bound = [board.backlog() for board in self.bound.values()]
        return self.skill.backlog() + sum(bound)

    def send(self, delivery: Delivery, number: int, now_ms: int) -> None:
        """An assignment leaves with the next number."""
        delivery.number, delivery.sent_ms = number, now_ms
        self.assignment = number
        self.unaccepted.append(delivery)

    def accept(self, number: int, now_ms: int) -> None:
        """Assignments up to the number have arrived."""
        unaccepted = self.unaccepted
        while unaccepted and unaccepted[0].number <= number:
            unaccepted.popleft().accepted_ms = now_ms

    def may_be_granted(self, now_ms: int, accept_timeout_ms: int) -> bool:
        """Whether it is alive, not deaf, and wants work."""
        if self.draining or not self.declared or self.holder.session is not self:
            return False
        if self.unaccepted and self.unaccepted[0].sent_ms + accept_timeout_ms <= now_ms:
            return False
        return now_ms < self.holder.deadline_ms
