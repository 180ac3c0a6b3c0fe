"""Audits: everything a partition derives, derived a second time in the plainest way."""

from collections import Counter

import msgspec

from tenure.master.core.partition import Partition
from tenure.master.core.ready import Lane, order_key
from tenure.master.core.record import JobRecord
from tenure.master.core.segment import Segment
from tenure.master.core.state import State, footprint
from tenure.master.core.transition import TERMINAL
from tenure.protocol.vocabulary import JobState

_ENCODE = msgspec.msgpack.Encoder().encode


def state_of(partition: Partition) -> State:
    """A partition's inside, for tests that look there."""
    return partition._state


def audit(partition: Partition) -> None:
    """Checks that every derived thing is what the records say."""
    state = state_of(partition)
    _audit_records(state)
    _audit_counts(state)
    _audit_ready(state)
    _audit_skills(state)
    _audit_timers(state)
    _audit_finished(state)
    _audit_leases(state)


def _audit_records(state: State) -> None:
    ordinals = [record.ordinal for record in state.jobs.values()]
    assert ordinals == sorted(ordinals)
    assert not ordinals or ordinals[-1] < state.next_ordinal
    for job_id, record in state.jobs.items():
        assert record.job_id == job_id
        assert record.seq < state.next_seq
        assert len(record.history) <= 20
        if record.state is JobState.RUNNING:
            assert record.lease is not None
            assert record.fault is None
            assert not record.result
        if record.state is JobState.FAILED:
            assert record.failure_reason is not None


def _audit_counts(state: State) -> None:
    total: Counter[JobState] = Counter()
    lanes: Counter[tuple[str, str, str, JobState]] = Counter()
    for record in state.jobs.values():
        policy = record.policy
        total[record.state] += 1
        lanes[policy.tenant, policy.queue, policy.name, record.state] += 1
    assert state.lanes.counts == [total[s] for s in range(len(state.lanes.counts))]
    seen = 0
    for (tenant, queue), names in state.lanes.queues.items():
        assert names
        for name, lane in names.items():
            assert any(lane.counts)
            for job_state in JobState:
                assert lane.counts[job_state] == lanes[tenant, queue, name, job_state]
                seen += lane.counts[job_state]
    assert seen == len(state.jobs)
    assert state.stored_bytes == sum(footprint(record) for record in state.jobs.values())


def _audit_ready(state: State) -> None:
    ready = []
    for names in state.lanes.queues.values():
        for lane in names.values():
            ready += _audit_lane(state, lane)
    pending = [r for r in state.jobs.values() if r.state is JobState.PENDING]
    assert sorted(r.ordinal for r in ready) == [r.ordinal for r in pending]


def _audit_skills(state: State) -> None:
    skills = list(state.lanes._skills.values())
    users = Counter(session.skill for session in state.sessions.values())
    assert {skill: skill.sessions for skill in skills} == users
    lanes = [lane for names in state.lanes.queues.values() for lane in names.values()]
    for lane in lanes:
        able = [skill for skill in skills if skill.serves(lane.queue, lane.name)]
        assert sorted(map(skills.index, lane.skills)) == sorted(map(skills.index, able))
    for skill in skills:
        active = {
            (lane.tenant, lane.queue, lane.name): lane
            for lane in lanes
            if lane.counts[JobState.PENDING] and skill.serves(lane.queue, lane.name)
        }
        assert skill.active == active
        fronts = skill.fronts
        for index, entry in enumerate(fronts):
            assert not index or fronts[(index - 1) // 2][:4] < entry[:4]
        current = {(*lane.front, lane) for lane in active.values() if lane.front}
        assert current <= {(key, ordinal, seq, lane) for key, ordinal, seq, _, lane in fronts}
        assert not fronts or fronts[0][:3] == fronts[0][4].front


def _audit_lane(state: State, lane: Lane) -> list[JobRecord]:
    ready = []
    for index, (key, ordinal, seq, segment) in enumerate(lane.heap):
        if index:
            assert lane.heap[(index - 1) // 2][:3] <= (key, ordinal, seq)
        for record in segment.left():
            policy = record.policy
            assert record.state is JobState.PENDING
            assert (policy.tenant, policy.queue, policy.name) == (
                lane.tenant,
                lane.queue,
                lane.name,
            )
            step = state.config.aging_step_ms
            assert key == order_key(record.priority, record.ready_ms, step)
            assert ordinal <= record.ordinal
            ready.append(record)
    assert lane.front == (lane.heap[0][:3] if lane.heap else None)
    if lane.heap:
        _, ordinal, seq, segment = lane.heap[0]
        head = segment.records[segment.next]
        assert (head.ordinal, head.seq) == (ordinal, seq)
    assert lane.entries == sum(len(segment.records) for *_, segment in lane.heap)
    return ready


def _audit_timers(state: State) -> None:
    looks: dict[str, int] = {}
    for due, record in state.timers.things():
        looks[record.job_id] = min(due, looks.get(record.job_id, due))
    for record in state.jobs.values():
        due_ms = state.due_ms(record)
        assert due_ms is None or looks[record.job_id] <= due_ms


def _audit_finished(state: State) -> None:
    done, dead = state.finished._done, state.finished._dead
    seen = []
    for shelf, states in (
        (done, {JobState.COMPLETED, JobState.CANCELLED}),
        (dead, {JobState.FAILED}),
    ):
        segments: list[Segment] = [*shelf._plain, *shelf._own]
        for segment in segments:
            for record in segment.left():
                assert record.state in states
                assert record.ended_ms == segment.at_ms
                seen.append(record.ordinal)
        assert shelf._entries == sum(len(segment.records) for segment in segments)
    ended = [r.ordinal for r in state.jobs.values() if r.state in TERMINAL]
    assert sorted(seen) == ended


def _audit_leases(state: State) -> None:
    held = []
    for incarnation, holder in state.holders.items():
        assert holder.incarnation == incarnation
        assert holder.session is not None or holder.leases or holder.claims is not None
        for job_id, holding in holder.leases.items():
            record = holding.record
            assert state.jobs[job_id] is record
            assert record.state is JobState.RUNNING
            assert record.incarnation == incarnation
            held.append(record.ordinal)
        if holder.leases and state.serving and state.window_ends_ms is None:
            assert holder.deadline_ms
            assert 0 < holder.check_ms <= holder.deadline_ms
            assert (holder.check_ms, holder) in state.holder_timers.things()
        if holder.session is not None:
            assert holder.session.holder is holder
    running = [r.ordinal for r in state.jobs.values() if r.state is JobState.RUNNING]
    assert sorted(held) == running


def holdings(partition: Partition) -> tuple[object, ...]:
    """Who holds what as a term begins, and whom its window waits for."""
    state = state_of(partition)
    holders = {name: [*map(str, holder.leases)] for name, holder in state.holders.items()}
    return holders, state.known, state.holder_timers.things()


def dump(state: State) -> list[object]:
    """All that a state holds, derived and volatile things too, as plain values to compare."""
    lanes = [
        (key, name, lane.counts[:], lane.entries, [_plain(entry) for entry in lane.heap])
        for key, names in state.lanes.queues.items()
        for name, lane in names.items()
    ]
    shelves = [
        [(s.at_ms, s.seq, s.next, [r.job_id for r in s.records]) for s in fifo]
        for shelf in (state.finished._done, state.finished._dead)
        for fifo in (shelf._plain, shelf._own)
    ]
    timers = [(due, serial, record.job_id) for due, serial, record in state.timers._heap]
    checks = [(due, serial, h.incarnation) for due, serial, h in state.holder_timers._heap]
    holders = [
        (
            holder.incarnation,
            holder.worker,
            holder.session.session_id if holder.session else None,
            _ENCODE(list(holder.leases.values())),
            (holder.deadline_ms, holder.heartbeat_ms, holder.check_ms),
            list(holder.claims) if holder.claims is not None else None,
        )
        for holder in state.holders.values()
    ]
    sessions = [
        (s.session_id, s.assignment, list(s.unaccepted), s.declared, s.draining)
        for s in state.sessions.values()
    ]
    scalars = (
        (state.next_seq, state.next_ordinal, state.stamp_ms, state.token, state.stored_bytes),
        (state.serving, state.window_ends_ms, state.lease_seq, state.live),
    )
    return [
        _ENCODE(list(state.jobs.values())),
        lanes,
        state.lanes.counts[:],
        [
            (skill.sessions, list(skill.active), [(*e[:4], e[4].front) for e in skill.fronts])
            for skill in state.lanes._skills.values()
        ],
        shelves,
        timers,
        checks,
        holders,
        sessions,
        scalars,
        list(state.known),
        dict(state.kept),
        dict(state.keys._records),
        list(state.keys._expiries),
        [(prefix, state.tombstones.rows(prefix)) for prefix in state.tombstones.prefixes()],
    ]


def _plain(entry: tuple[int, int, int, Segment]) -> tuple[object, ...]:
    key, ordinal, seq, segment = entry
    return (key, ordinal, seq, segment.next, [record.job_id for record in segment.records])
