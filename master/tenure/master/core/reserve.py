"""Reserves: slots that are kept free for a queue's urgent jobs.

A queue with a reserve is due ``ceil(share * slots)`` of the slots of those who serve it; what of
that its jobs do not occupy is *unmet*. Others may take while more is free than is unmet. Its own
jobs of the priorities that the reserve is for may take what is unmet, too.
"""

from collections.abc import Iterable
from math import ceil

from tenure.master.core.gate import MANY, Queue
from tenure.master.core.session import Session
from tenure.master.core.skill import Skill


class Reserves:
    """What is kept free, in one decision.

    Args:
        queues: Those that have a reserve.
        sessions: All who may serve them.
        takers: (session, credit) of those who take now.
    """

    __slots__ = ("_free", "_served", "_unmet")

    def __init__(
        self,
        queues: Iterable[Queue],
        sessions: Iterable[Session],
        takers: list[tuple[Session, int]],
    ) -> None:
        self._unmet: dict[Queue, int] = {}
        self._free: dict[Queue, int] = {}
        #: Which of the queues those with a skill serve.
        self._served: dict[Skill, list[Queue]] = {}
        for queue in queues:
            self._unmet[queue] = 0
            self._free[queue] = 0
        if not self._unmet:
            return
        slots = dict.fromkeys(self._unmet, 0)
        for session in sessions:
            if not session.draining and session.holder.session is session:
                for queue in self._queues_of(session.skill):
                    slots[queue] += session.slots
        for queue, total in slots.items():
            due = ceil(queue.settings.reserved * total)
            running = sum(queue.running_of[: queue.settings.reserved_priority + 1])
            self._unmet[queue] = max(due - running, 0)
        for session, credit in takers:
            free = max(session.slots - len(session.holder.leases), 0)
            for queue in self._queues_of(session.skill):
                self._free[queue] += min(credit, free)

    def __bool__(self) -> bool:
        return bool(self._unmet)

    def _queues_of(self, skill: Skill) -> list[Queue]:
        served = self._served.get(skill)
        if served is None:
            served = self._served[skill] = [queue for queue in self._unmet if _serves(skill, queue)]
        return served

    def spare(self, skill: Skill) -> int:
        """How many jobs of any queue those with a skill may take."""
        if not self._unmet:
            return MANY
        served = self._queues_of(skill)
        if not served:
            return MANY
        free = min([self._free[queue] for queue in served])
        return free - sum([self._unmet[queue] for queue in served])

    def room(self, skill: Skill, queue: Queue, priority: int) -> int:
        """How many jobs of a queue and priority those with a skill may take."""
        spare = self.spare(skill)
        if self._may_use(skill, queue, priority):
            spare += self._unmet[queue]
        return max(spare, 0)

    def _may_use(self, skill: Skill, queue: Queue, priority: int) -> bool:
        if queue not in self._unmet or priority > queue.settings.reserved_priority:
            return False
        return queue in self._queues_of(skill)

    def unmet(self, skill: Skill) -> list[tuple[Queue, int]]:
        """Of the queues that those with a skill serve: those that are due more, and how many."""
        return [(q, self._unmet[q]) for q in self._queues_of(skill) if self._unmet[q]]

    def take(self, skill: Skill, queue: Queue, priority: int, jobs: int) -> None:
        """Those with a skill have taken jobs."""
        if not self._unmet:
            return
        for other in self._queues_of(skill):
            self._free[other] -= jobs
        if self._may_use(skill, queue, priority):
            self._unmet[queue] = max(self._unmet[queue] - jobs, 0)


def _serves(skill: Skill, queue: Queue) -> bool:
    """Whether those with a skill run jobs of a queue, as far as it is known what it has."""
    if queue.tallies:
        return any(skill.serves(queue.name, name) for name in queue.tallies)
    return not skill.queues or queue.name in skill.queues
