"""Sticky keys: jobs of a queue with the same one go to one worker process, while it lives.

The first grant binds a key to an incarnation. From then on its jobs wait for that worker; they go
to anybody again when the worker drains or is forgotten. A binding outlives the jobs of its queue:
the next ones under that key find their worker. Bindings are a term's own, but those of running jobs
are found again after a replay.
"""

from tenure.master.core.gate import Queue
from tenure.master.core.ready import Lane


class StickyKey:
    """A sticky key of a queue. It lives while it has a lane or is bound."""

    __slots__ = ("incarnation", "key", "lanes", "place")

    #: The tenant and the name of its queue.
    place: tuple[str, str]
    #: Whom it is bound to; empty: to nobody.
    incarnation: str
    lanes: dict[Lane, None]

    def __init__(self, place: tuple[str, str], key: str) -> None:
        self.place = place
        self.key = key
        self.incarnation = ""
        self.lanes = {}


class Bindings:
    """All sticky keys of a partition."""

    __slots__ = ("_bound", "_bound_max", "_by_incarnation", "_keys")

    def __init__(self, bound_max: int) -> None:
        """Makes it empty; of more than ``bound_max`` bound keys the oldest are let go."""
        #: By place and key; no queue is kept by them.
        self._keys: dict[tuple[tuple[str, str], str], StickyKey] = {}
        #: Oldest grant first.
        self._bound: dict[StickyKey, None] = {}
        self._by_incarnation: dict[str, dict[StickyKey, None]] = {}
        self._bound_max = bound_max

    def get(self, queue: Queue, key: str) -> StickyKey:
        """A queue's sticky key."""
        place = (queue.tenant.name, queue.name)
        sticky = self._keys.get((place, key))
        if sticky is None:
            sticky = self._keys[place, key] = StickyKey(place, key)
        return sticky

    def is_bound(self, queue: Queue, key: str) -> bool:
        """Whether a queue's sticky key is bound to a worker."""
        sticky = self._keys.get(((queue.tenant.name, queue.name), key))
        return sticky is not None and bool(sticky.incarnation)

    def bind(self, sticky: StickyKey, incarnation: str) -> list[StickyKey]:
        """Notes whom a key's job was granted to; gives the keys whose holder has changed."""
        self._bound.pop(sticky, None)
        self._bound[sticky] = None
        changed = []
        if sticky.incarnation != incarnation:
            self._release(sticky)
            sticky.incarnation = incarnation
            self._by_incarnation.setdefault(incarnation, {})[sticky] = None
            changed.append(sticky)
        if len(self._bound) > self._bound_max:
            oldest = next(iter(self._bound))
            self.unbind(oldest)
            changed.append(oldest)
        return changed

    def unbind(self, sticky: StickyKey) -> None:
        """A key is anybody's again."""
        del self._bound[sticky]
        self._release(sticky)
        self.forget_if_idle(sticky)

    def bound(self) -> list[StickyKey]:
        """All keys that are bound."""
        return list(self._bound)

    def of(self, incarnation: str) -> list[StickyKey]:
        """The keys that are bound to a worker process."""
        return list(self._by_incarnation.get(incarnation, ()))

    def forget_if_idle(self, sticky: StickyKey) -> None:
        """Drops a key that has no lane and no holder."""
        if not sticky.lanes and not sticky.incarnation:
            del self._keys[sticky.place, sticky.key]

    def _release(self, sticky: StickyKey) -> None:
        bound = self._by_incarnation.get(sticky.incarnation)
        if bound is not None:
            del bound[sticky]
            if not bound:
                del self._by_incarnation[sticky.incarnation]
        sticky.incarnation = ""
