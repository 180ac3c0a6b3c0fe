"""What any dispatch must keep to, said in the plainest way; the core's own structures unused.

``Round`` notes what is known before a decision and judges what was granted in it.
"""

from collections import Counter

from tenure.master.core.gate import MANY
from tenure.master.core.health import allowance
from tenure.master.core.record import JobRecord, LabelSelector
from tenure.master.core.session import Session
from tenure.master.core.state import State
from tenure.protocol.vocabulary import JobState


def place_of(record: JobRecord, step_ms: int) -> tuple[int, ...]:
    """A ready job's place in its queue, as docs/explanation/scheduling.md says: the least is next.

    Critical jobs come before all others; the others by when they became ready, and by a step later
    for each priority. Without a step priority is strict. Whoever was submitted first breaks ties.
    """
    priority, ready_ms, ordinal = record.priority, record.ready_ms, record.ordinal
    if not step_ms:
        return priority, ready_ms, ordinal
    return min(priority, 1), ready_ms + priority * step_ms, ordinal


class Round:
    """One decision to grant.

    Args:
        state: The partition's, before the decision.
        credits: (session, credit) of all who take.
        committed_seq: Only jobs last written at or before this may be granted.
        grants_max: At most so many.
        now_ms: The time.
    """

    def __init__(
        self,
        state: State,
        credits: list[tuple[int, int]],
        committed_seq: int,
        grants_max: int,
        now_ms: int,
    ) -> None:
        self._state = state
        self._grants_max = grants_max
        self._credit = {
            session_id: allowance(state, state.sessions[session_id], credit, now_ms)
            for session_id, credit in credits
            if state.sessions[session_id].may_be_granted(now_ms, state.config.accept_timeout_ms)
        }
        self._running = [r for r in state.jobs.values() if r.state is JobState.RUNNING]
        self._now_ms = now_ms
        open_term = state.serving and state.window_ends_ms is None
        self._eligible = [
            record
            for record in state.jobs.values()
            if open_term
            and record.state is JobState.PENDING
            and record.seq <= committed_seq
            and not self._is_paused(record)
        ]
        step_ms = state.config.aging_step_ms
        self._places = {r.job_id: place_of(r, step_ms) for r in self._eligible}
        self._bound = {
            (lane.queue.label, lane.sticky.key): lane.sticky.incarnation
            for lane in state.lanes.lanes()
            if lane.sticky is not None
        }
        self._queue_rooms = {
            (tenant, name): self._queue_room(tenant, name) for tenant, name in state.lanes.queues
        }
        #: Of job types whose breakers are half open.
        self._probe_rooms = {
            (job_type.tenant, job_type.name): job_type.breaker.probes
            for job_type in state.lanes._job_types.values()
            if job_type.breaker.probes is not None
        }
        self._key_rooms = {
            (tenant, name, key): self._key_room(tenant, name, key)
            for (tenant, name), queue in state.lanes.queues.items()
            for key in queue.limit_keys
        }

    def _is_paused(self, record: JobRecord) -> bool:
        policy, settings = record.policy, self._state.settings
        return (
            settings.tenant(policy.tenant).paused
            or settings.queue(policy.tenant, policy.queue).paused
            or not self._state.lanes.job_type(policy.tenant, policy.name).is_open
        )

    def _queue_room(self, tenant: str, name: str) -> int:
        limit = self._state.settings.queue(tenant, name).concurrency
        running = sum((r.policy.tenant, r.policy.queue) == (tenant, name) for r in self._running)
        queue = self._state.lanes.queues[tenant, name]
        tokens = MANY
        if queue.bucket is not None:
            # A bucket that has filled opens its gate by a timer.
            tokens = 0 if queue.is_dry else queue.bucket.room(self._now_ms)
        return max(min(limit - running if limit else MANY, tokens), 0)

    def _key_room(self, tenant: str, name: str, key: str) -> int:
        limit = self._state.settings.queue(tenant, name).key_concurrency
        running = sum(
            (r.policy.tenant, r.policy.queue, r.limit_key) == (tenant, name, key)
            for r in self._running
        )
        limiter = self._state.lanes.queues[tenant, name].limit_keys[key]
        tokens = MANY
        if limiter.bucket is not None:
            tokens = 0 if limiter.is_dry else limiter.bucket.room(self._now_ms)
        probes = None if limiter.breaker is None else limiter.breaker.probes
        if probes is None:
            probes = MANY
        return max(min(limit - running if limit else MANY, tokens, probes), 0)

    def judge(self, picks: list[tuple[int, JobRecord]]) -> None:
        """Judges (session, job) of all grants."""
        granted = {record.job_id for _, record in picks}
        assert len(granted) == len(picks) <= self._grants_max
        assert granted <= self._places.keys()
        taken = Counter(session_id for session_id, _ in picks)
        assert all(count <= self._credit[session_id] for session_id, count in taken.items())
        for _, record in picks:
            policy = record.policy
            self._queue_rooms[policy.tenant, policy.queue] -= 1
            if (policy.tenant, policy.name) in self._probe_rooms:
                self._probe_rooms[policy.tenant, policy.name] -= 1
            if record.limit_key:
                self._key_rooms[policy.tenant, policy.queue, record.limit_key] -= 1
        assert min(self._queue_rooms.values(), default=0) >= 0
        assert min(self._key_rooms.values(), default=0) >= 0
        assert min(self._probe_rooms.values(), default=0) >= 0
        for session_id, record in picks:
            session = self._state.sessions[session_id]
            assert self._serves(session, record)
            self._bind(session, record)
        left = [record for record in self._eligible if record.job_id not in granted]
        self._judge_order(picks, left)
        if len(picks) < self._grants_max and not self._state.lanes.reserving:
            self._judge_use(taken, left)

    def _bind(self, session: Session, record: JobRecord) -> None:
        if record.sticky_key:
            # Whose it was before has been judged: ``_serves``.
            name = (f"{record.policy.tenant}:{record.policy.queue}", record.sticky_key)
            self._bound[name] = session.incarnation

    def _judge_order(self, picks: list[tuple[int, JobRecord]], left: list[JobRecord]) -> None:
        """No job that was left comes before one that its taker got of the same queue."""
        for session_id, record in picks:
            session = self._state.sessions[session_id]
            place = self._places[record.job_id]
            for other in left:
                if (
                    (other.policy.tenant, other.policy.queue)
                    == (record.policy.tenant, record.policy.queue)
                    and self._places[other.job_id] < place
                    and self._serves(session, other)
                    and not self._state.lanes.reserving
                ):
                    assert not self._has_lane_room(other)

    def _judge_use(self, taken: Counter[int], left: list[JobRecord]) -> None:
        """Nobody with credit was left idle while there was something to do."""
        for session_id, credit in self._credit.items():
            session = self._state.sessions[session_id]
            if taken[session_id] < credit:
                for record in left:
                    queue = (record.policy.tenant, record.policy.queue)
                    free = self._queue_rooms[queue] > 0 and self._has_lane_room(record)
                    assert not (free and self._serves(session, record)), record

    def _has_lane_room(self, record: JobRecord) -> bool:
        policy = record.policy
        if self._probe_rooms.get((policy.tenant, policy.name), 1) <= 0:
            return False
        if not record.limit_key:
            return True
        return self._key_rooms[policy.tenant, policy.queue, record.limit_key] > 0

    def _serves(self, session: Session, record: JobRecord) -> bool:
        policy = record.policy
        if policy.name not in session.job_names:
            return False
        if session.queues and policy.queue not in session.queues:
            return False
        if not all(_has_label(session, selector) for selector in policy.requires):
            return False
        owner = self._bound.get((f"{policy.tenant}:{policy.queue}", record.sticky_key), "")
        if not record.sticky_key or owner in ("", session.incarnation):
            return True
        # It waits for its worker, unless that one cannot run it at all.
        holder = self._state.holders.get(owner)
        stream = None if holder is None else holder.session
        return stream is not None and not self._can_run(stream, record)

    def _can_run(self, session: Session, record: JobRecord) -> bool:
        policy = record.policy
        return (
            policy.name in session.job_names
            and (not session.queues or policy.queue in session.queues)
            and all(_has_label(session, selector) for selector in policy.requires)
        )


def _has_label(session: Session, selector: LabelSelector) -> bool:
    value = session.labels.get(selector.key)
    return value is not None and (not selector.values or value in selector.values)
