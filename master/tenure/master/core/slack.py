"""Slack: a limit key that cannot get full holds up nobody, so its jobs need no lanes of their own.

While of a key no more jobs run and are ready than may run at once, the ready ones stand in the
*common* lanes, where they would be without a key, and a grant costs about what one without a key
costs; ``LimitKey.waiting`` has them. When one more becomes ready, all of them go into lanes under
their key, where its gate holds them up (see ``core.gate``), and others follow them there until none
is left. So no job is moved twice.

In the common lanes of a queue stand at most ``COMMON_MAX`` jobs with a key: a setting may take the
slack of all its keys, and moves them in one step.
"""

from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from tenure.master.core.alike import Kin, Kind
from tenure.master.core.gate import LimitKey, Queue
from tenure.master.core.ready import Lane
from tenure.master.core.record import JobRecord

if TYPE_CHECKING:
    from tenure.master.core.lanes import Lanes

#: Of a queue.
COMMON_MAX: Final = 256
_ORDINAL: Final = attrgetter("ordinal")


class Slack:
    """The limit keys of one partition, and whether their jobs stand in common lanes."""

    __slots__ = ("_lanes",)

    def __init__(self, lanes: "Lanes") -> None:
        self._lanes = lanes

    # Keys.

    def key(self, queue: Queue, name: str) -> LimitKey:
        """A limit key, from its first job on."""
        key = queue.limit_keys.get(name)
        if key is None:
            key = queue.limit_keys[name] = LimitKey(queue, name)
            self._lanes.refills.await_tokens(key, self._lanes.now_ms)
        return key

    def moved(self, queue: Queue, name: str, *, runs: bool) -> LimitKey | None:
        """The key of jobs that have moved; None: nobody needs it now."""
        return self.key(queue, name) if runs else queue.limit_keys.get(name)

    def forget_if_unused(self, key: LimitKey) -> None:
        """Drops a key that has no lane, when forgetting it changes nothing."""
        if not key.under and key.is_idle(self._lanes.now_ms):
            self.drop(key)

    def drop(self, key: LimitKey) -> None:
        """Nothing is under a key any more."""
        key.queue.limit_keys.pop(key.key, None)
        key.queue.tripped.pop(key, None)
        self._lanes.crowded.pop(key, None)

    def count(self, key: LimitKey, records: list[JobRecord], by: int) -> None:
        """More of a key's jobs run (by 1), or fewer (by -1), or others."""
        key.count(records, by)
        if by > 0:
            self.follow(key)

    def follow(self, key: LimitKey) -> None:
        """More of a key's jobs run, or its limits have changed: it may have no slack any more."""
        if key.waiting and not has_slack(key):
            self._end(key)

    # Ready jobs.

    def kind_of(self, record: JobRecord, queue: Queue) -> Kind:
        """What tells the lane of a ready job from others of its policy."""
        kind = record.priority, record.limit_key, record.sticky_key
        key = queue.limit_keys.get(record.limit_key)
        return kind if key is not None and holds_up(key) else _common(kind)

    def place(self, queue: Queue, kin: Kin, at: int) -> dict[Kind, list[JobRecord]]:
        """Which lanes jobs go to that have become ready with this key of the order."""
        if not any(kind[1] for kind in kin.runs):
            return kin.runs
        parts: dict[Kind, list[list[JobRecord]]] = {}
        free = self._find(queue, kin, at)
        for kind, own in kin.runs.items():
            parts.setdefault(_common(kind) if kind[1] in free else kind, []).append(own)
        if len(parts) == 1:
            return dict.fromkeys(parts, kin.records)
        return {
            kind: own[0] if len(own) == 1 else sorted(chain.from_iterable(own), key=_ORDINAL)
            for kind, own in parts.items()
        }

    def _find(self, queue: Queue, kin: Kin, at: int) -> set[str]:
        """The limit keys of jobs that may stand in common lanes; those wait there from now on."""
        keyed: dict[str, list[JobRecord]] = {}
        for kind, own in kin.runs.items():
            if kind[1]:
                keyed.setdefault(kind[1], []).extend(own)
        found = set()
        for name, own in keyed.items():
            key = self.key(queue, name)
            if _may_wait(key, len(own)):
                key.waiting.update(dict.fromkeys(own, at))
                queue.common += len(own)
                found.add(name)
            elif key.waiting:
                self._end(key)
        return found

    def leave(self, queue: Queue, kind: Kind, records: list[JobRecord]) -> Kind:
        """Alike jobs are not ready any more; what tells the lane in which they were.

        All of a key's ready jobs wait in common lanes, or none; so do those that one event moves,
        while it puts the others under their key.
        """
        key = queue.limit_keys.get(kind[1]) if kind[1] else None
        if key is not None and records[0] in key.waiting:
            self._stop(key, records)
            return _common(kind)
        return kind

    def _stop(self, key: LimitKey, records: list[JobRecord]) -> None:
        """Jobs do not wait in common lanes any more."""
        for record in records:
            del key.waiting[record]
        key.queue.common -= len(records)

    def _end(self, key: LimitKey) -> None:
        """Puts a key's jobs into lanes under it."""
        lanes, left = self._lanes, dict[Lane, int]()
        for record, at in list(key.waiting.items()):
            kind = record.priority, record.limit_key, record.sticky_key
            lane = lanes.lane_of(key.queue, record.policy, _common(kind))
            # What the same event has taken out of its lane is about to leave it.
            if lane.take_out(at, record):
                self._stop(key, [record])
                left[lane] = left.get(lane, 0) + 1
                lanes.put(lanes.lane_of(key.queue, record.policy, kind), at, record.seq, [record])
        for lane, jobs in left.items():
            lanes.left(lane, jobs)


def holds_up(key: LimitKey) -> bool:
    """Whether ready jobs of a key stand in lanes under it."""
    under = key.under
    return bool(under) and any(lane.ready for lane in under if isinstance(lane, Lane))


def has_slack(key: LimitKey, more: int = 0) -> bool:
    """Whether nothing can hold up the jobs of a key that wait in common lanes, and some more."""
    if key.bucket is not None or key.breaker is not None or key.cancels:
        return False
    return not key.concurrency or len(key.jobs) + len(key.waiting) + more <= key.concurrency


def _may_wait(key: LimitKey, jobs: int) -> bool:
    if key.queue.common + jobs > COMMON_MAX or not has_slack(key, jobs):
        return False
    return not holds_up(key)


def _common(kind: Kind) -> Kind:
    """What jobs of a kind have in common with those without a limit key."""
    return kind[0], "", kind[2]
