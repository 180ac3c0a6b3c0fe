"""What would begin too late: how long a new job would wait, as far as anybody can know.

    wait = jobs that would be granted before it  /  grants a second while jobs waited

Counted are those only that a worker could be given now: ready, of its priority or a more urgent
one, in lanes that nothing holds up and that hang where those look who can run the new one; of a
limit key as many as it has room for, of a job type as many probes as its breaker lets through. What
is parked takes nobody's turn. A new job that its own gate would hold up goes by another pace than
its queue, so nothing is said of it.
"""

from typing import Final

from tenure.master.core.command import SubmitRow, SubmitSetting
from tenure.master.core.gate import JobType, LimitKey, Queue
from tenure.master.core.ready import Lane
from tenure.master.core.slack import holds_up
from tenure.master.core.state import State
from tenure.protocol.refusal import Reason, Refusal

#: In more lanes nobody counts: each submit would take long.
_LANES_MOST: Final = 1_000


class Lateness:
    """What says how long jobs of one setting would wait.

    Args:
        state: The partition's.
        setting: Theirs.
        queue: Theirs.
        ahead: How many jobs would be granted before the first of them.
        rate: How many begin a second.
    """

    __slots__ = ("_ahead", "_queue", "_rate", "_setting", "_state")

    def __init__(
        self, state: State, setting: SubmitSetting, queue: Queue, ahead: int, rate: float
    ) -> None:
        self._state = state
        self._setting = setting
        self._queue = queue
        self._ahead = ahead
        self._rate = rate

    def refusal(self, row: SubmitRow, more: int) -> Refusal | None:
        """Refuses a job that would wait longer than it may; ``more`` come before it, too."""
        ahead = self._ahead + more
        wait_ms = round(ahead * 1_000 / self._rate)
        policy = self._setting.policy
        limit_ms = policy.schedule_timeout_ms
        if wait_ms <= limit_ms or self._is_held_up(row):
            return None
        queue = policy.queue
        return Refusal(
            reason=Reason.WOULD_EXPIRE,
            message=f"expected to submit a job to queue {queue} that begins within its schedule "
            f"timeout of {limit_ms} ms, but {ahead} jobs come before it and "
            f"{self._rate:.3g} a second begin, so it would wait about {wait_ms} ms: try again "
            "later, give it more time, or start more workers",
            metadata={
                "queue": queue,
                "tenant": policy.tenant,
                "ahead": str(ahead),
                "wait_ms": str(wait_ms),
                "limit_ms": str(limit_ms),
            },
            retry_after_ms=max(wait_ms - limit_ms, self._state.config.retry_after_ms),
        )

    def _is_held_up(self, row: SubmitRow) -> bool:
        """Whether a job would wait for its limit key, or for the one worker of its sticky key."""
        if row.sticky_key and self._state.lanes.bindings.is_bound(self._queue, row.sticky_key):
            return True
        key = self._queue.limit_keys.get(row.limit_key)
        if key is None:
            return False
        if key.bucket is not None or (key.breaker is not None and key.breaker.probes is not None):
            return True
        there = len(key.jobs) + len(key.waiting)
        return bool(key.concurrency) and (there >= key.concurrency or holds_up(key))


def lateness_of(state: State, setting: SubmitSetting, now_ms: int) -> Lateness | None:
    """For jobs that are refused rather than late; None: others, or nothing is known to go by."""
    policy = setting.policy
    if not policy.schedule_timeout_ms or max(setting.at_ms - now_ms, setting.delay_ms) > 0:
        return None
    if not state.settings.queue(policy.tenant, policy.queue).refuse_late:
        return None
    queue = state.lanes.queues.get((policy.tenant, policy.queue))
    rate = 0.0 if queue is None else queue.pulse.service_rate(now_ms)
    if queue is None or not rate:
        return None
    job_type = state.lanes.known_job_type(policy.tenant, policy.name)
    probed = job_type is not None and job_type.breaker.probes is not None
    if probed or state.settings.job_type(policy.tenant, policy.name).paused:
        return None
    lanes = _lanes_ahead(state, setting, queue)
    if lanes is None:
        return None
    return Lateness(state, setting, queue, _ready_in(lanes, now_ms), rate)


def _lanes_ahead(state: State, setting: SubmitSetting, queue: Queue) -> list[Lane] | None:
    """Where those find jobs that may come before who can run a setting's; None: in too many."""
    policy = setting.policy
    found: dict[Lane, None] = {}
    for skill in state.lanes.skills():
        if not skill.serves(policy.queue, policy.name, policy.requires):
            continue
        share = skill.known_share(queue)
        for fronts in () if share is None else share.board.giving:
            if len(found) + len(fronts.active) > _LANES_MOST:
                return None
            found.update(dict.fromkeys(fronts.active))
    return [lane for lane in found if lane.priority <= setting.priority]


def _ready_in(lanes: list[Lane], now_ms: int) -> int:
    """How many jobs of these lanes may be granted as things stand."""
    keyed: dict[tuple[JobType, LimitKey], int] = {}
    typed: dict[JobType, int] = {}
    for lane in lanes:
        if lane.key is None:
            typed[lane.job_type] = typed.get(lane.job_type, 0) + lane.ready
        else:
            gates = lane.job_type, lane.key
            keyed[gates] = keyed.get(gates, 0) + lane.ready
    for (job_type, key), jobs in keyed.items():
        typed[job_type] = typed.get(job_type, 0) + min(jobs, key.room(now_ms))
    return sum(
        jobs if job_type.breaker.probes is None else min(jobs, job_type.breaker.probes)
        for job_type, jobs in typed.items()
    )
