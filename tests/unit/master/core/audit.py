"""Audits: everything a partition derives, derived a second time in the plainest way."""

from collections import Counter
from typing import Any

import msgspec

from tenure.master.core import slack
from tenure.master.core.breaker import Breaker
from tenure.master.core.dependency import Dependencies
from tenure.master.core.fair import Level
from tenure.master.core.gate import Limiter, Queue
from tenure.master.core.partition import Partition
from tenure.master.core.ready import Board, Fronts, Lane, order_key
from tenure.master.core.record import JobRecord
from tenure.master.core.segment import Segment
from tenure.master.core.session import UNSENT, Holder
from tenure.master.core.skill import Skill
from tenure.master.core.state import State, footprint
from tenure.master.core.transition import TERMINAL
from tenure.master.core.workflows import Workflows
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
    _audit_gates(state)
    _audit_skills(state)
    _audit_timers(state)
    _audit_timetable(state)
    _audit_finished(state)
    _audit_leases(state)
    _audit_dependencies(state)


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
    tallies: Counter[tuple[str, str, str, JobState]] = Counter()
    for record in state.jobs.values():
        policy = record.policy
        total[record.state] += 1
        tallies[policy.tenant, policy.queue, policy.name, record.state] += 1
    assert state.lanes.counts == [total[s] for s in range(len(state.lanes.counts))]
    seen = 0
    for (tenant, name), queue in state.lanes.queues.items():
        assert any(queue.counts) or queue.settings.lasting
        assert (queue.tenant.name, queue.name) == (tenant, name)
        for tally in queue.tallies.values():
            for job_state in JobState:
                assert tally.counts[job_state] == tallies[(*tally[:3], job_state)]
                seen += tally.counts[job_state]
        for job_state in JobState:
            of_state = [tally.counts[job_state] for tally in queue.tallies.values()]
            assert queue.counts[job_state] == sum(of_state)
    assert seen == len(state.jobs)
    kept = sum(footprint(record) for record in state.jobs.values())
    kept += sum(record.footprint for record in state.timetable.records.values())
    assert state.stored_bytes == kept


def _audit_ready(state: State) -> None:
    ready = []
    for lane in state.lanes.lanes():
        ready += _audit_lane(state, lane)
    pending = [r for r in state.jobs.values() if r.state is JobState.PENDING]
    assert sorted(r.ordinal for r in ready) == [r.ordinal for r in pending]


def _audit_gates(state: State) -> None:
    """Each gate is open exactly if nothing closes it, and knows all that is under it."""
    lanes = state.lanes
    running = [r for r in state.jobs.values() if r.state is JobState.RUNNING]
    waits = {limiter for _, limiter in lanes.refills.things()}
    for (tenant, name), queue in lanes.queues.items():
        assert queue.settings == state.settings.queue(tenant, name)
        assert queue.tenant.settings == state.settings.tenant(tenant)
        assert queue.tenant.is_open is not queue.tenant.settings.paused
        own = [r for r in running if (r.policy.tenant, r.policy.queue) == (tenant, name)]
        full = bool(queue.concurrency) and len(own) >= queue.concurrency
        assert queue.is_open is not (queue.settings.paused or full or queue.is_dry)
        ready_of = Counter[int]()
        for lane in queue.lanes.values():
            ready_of[lane.priority] += lane.ready
        assert queue.ready_of == [ready_of[p] for p in range(len(queue.ready_of))]
        running_of = Counter(r.priority for r in own)
        assert queue.running_of == [running_of[p] for p in range(len(queue.running_of))]
        shares = [share for skill in lanes.skills() if (share := skill.known_share(queue))]
        assert queue.givers == sum(bool(share.board.giving) for share in shares)
        paused = queue.settings.paused or queue.tenant.settings.paused
        assert bool(queue.pulse._waits_from_ms) is (queue.givers > 0 and not paused)
        waiting = [job for lane in queue.lanes.values() for job in lane.jobs()]
        assert all(job.seq >= queue.ready_seq for job in waiting)
        assert (queue in lanes.reserving) is bool(queue.settings.reserved)
        common = [job for lane in queue.lanes.values() if lane.key is None for job in lane.jobs()]
        keyed_jobs = {job.job_id: job.limit_key for job in common if job.limit_key}
        assert queue.common == len(keyed_jobs) <= slack.COMMON_MAX
        known = [(job.job_id, key.key) for key in queue.limit_keys.values() for job in key.waiting]
        assert dict(known) == keyed_jobs
        for key in queue.limit_keys.values():
            assert key.under or key.waiting or key.jobs or not key.is_idle(lanes.now_ms)
            assert not key.waiting or (slack.has_slack(key) and not slack.holds_up(key))
            keyed = {r.job_id for r in own if r.limit_key == key.key}
            assert set(key.jobs) == keyed
            full = bool(key.concurrency) and len(keyed) >= key.concurrency
            breaker = key.breaker
            blown = breaker is not None and breaker.probes == 0
            assert key.is_open is not (full or key.is_dry or blown)
            assert key.next_ms() is None or key in waits
            assert (key in queue.tripped) is (breaker is not None and breaker.probes is not None)
        assert set(queue.tripped) <= set(queue.limit_keys.values())
        assert not queue.is_dry or queue in waits
    for job_type in lanes._job_types.values():
        assert job_type.settings == state.settings.job_type(job_type.tenant, job_type.name)
        assert job_type.is_open is not (job_type.settings.paused or job_type.breaker.probes == 0)
        assert job_type.next_ms() is None or job_type in waits
    put_off: dict[tuple[str, str], list[str]] = {}
    for record in state.jobs.values():
        if record.state is JobState.RETRYING and record.over_budget:
            name = record.policy.tenant, record.policy.name
            put_off.setdefault(name, []).append(record.job_id)
    assert state.postponed.all() == {name: sorted(jobs) for name, jobs in put_off.items()}
    for lane in lanes.lanes():
        assert lane.key is None or lane in lane.key.under
        assert lane.is_open is (lane.key is None or lane.key.is_open)


def _audit_skills(state: State) -> None:
    skills = state.lanes.skills()
    free: dict[Queue, list[Lane]] = {}
    for lane in _free_lanes(state):
        free.setdefault(lane.queue, []).append(lane)
    for skill in skills:
        members = [s for s in state.sessions.values() if s.skill is skill]
        assert list(skill.members.values()) == members
        assert members
        active = []
        for share in skill.shares():
            servable = {lane for lane in free.get(share.queue, ()) if _hangs_in(lane, skill)}
            assert set(_active(share.board)) == servable
            _audit_board(share.board)
            assert share.active is (bool(share.board.giving) and share.queue.is_open)
            assert not share.active or share.listed
            if share.active and share.tenant.active:
                active.append(share)
        _audit_level(skill.level)
        tenants = {share.tenant for share in active}
        assert set(skill.level.flows()) == tenants
        for tenant in tenants:
            _audit_level(tenant.level)
    shares = {share.queue for skill in skills for share in skill.shares()}
    assert shares <= set(state.lanes.queues.values())
    for session in state.sessions.values():
        assert set(session.bound) <= set(state.lanes.queues.values())
        for board in session.bound.values():
            _audit_board(board)
            for lane in _active(board):
                assert lane.sticky is not None
                assert lane.sticky.incarnation == session.incarnation


def _free_lanes(state: State) -> list[Lane]:
    """Lanes with something ready that is neither held up nor bound to one worker."""
    free = []
    for lane in state.lanes.lanes():
        bound = lane.sticky is not None and lane.sticky.incarnation
        if bound and any(
            s.skill.serves_lane(lane)
            for s in state.sessions.values()
            if s.incarnation == bound and s.holder.session is s
        ):
            bound_heaps = [place.board.share for place in lane.places]
            assert bound_heaps == [None]
        elif lane.ready and lane.is_open:
            free.append(lane)
    return free


def _hangs_in(lane: Lane, skill: Skill) -> bool:
    if lane.sticky is not None and lane.sticky.incarnation and not lane.places:
        return False  # Its worker's stream is away.
    return skill.serves_lane(lane)


def _active(board: Board) -> list[Lane]:
    """Its lanes that have something to give and are open, of closed job types, too."""
    return [lane for fronts in board._fronts.values() for lane in fronts.active]


def _audit_board(board: Board) -> None:
    for job_type, fronts in board._fronts.items():
        assert fronts.board is board
        assert fronts.job_type is job_type
        assert fronts in job_type.under
        assert fronts.gives is (bool(fronts.active) and job_type.is_open)
        assert (fronts in board.giving) is fronts.gives
        assert all(lane.job_type is job_type for lane in fronts.active)
        _audit_fronts(fronts)


def _audit_fronts(fronts: Fronts) -> None:
    heap = fronts.heap
    for index, entry in enumerate(heap):
        assert not index or heap[(index - 1) // 2][:4] < entry[:4]
    current = {(*lane.front, lane) for lane in fronts.active if lane.front}
    assert current <= {(key, ordinal, seq, lane) for key, ordinal, seq, _, lane in heap}
    assert fronts.backlog == sum(lane.ready for lane in fronts.active)
    assert not heap or fronts.is_current(heap[0])


def _audit_level(level: Level[Any]) -> None:
    heap = level.heap
    for index, (tag, tie, flow) in enumerate(heap):
        assert not index or heap[(index - 1) // 2][:2] < (tag, tie)
        assert tag <= flow.tag
        assert flow.listed
    assert len({flow for *_, flow in heap}) == len(heap)
    assert not heap or (heap[0][2].active and heap[0][0] == heap[0][2].tag)


def _audit_lane(state: State, lane: Lane) -> list[JobRecord]:
    ready = []
    for index, (key, ordinal, seq, segment) in enumerate(lane.heap):
        if index:
            assert lane.heap[(index - 1) // 2][:3] <= (key, ordinal, seq)
        for record in segment.left():
            assert record.state is JobState.PENDING
            assert state.lanes.of(record) is lane
            step = state.config.aging_step_ms
            assert key == order_key(record.priority, record.ready_ms, step)
            assert ordinal <= record.ordinal
            ready.append(record)
    behind = (0, 0)
    for segment in lane.row:
        assert behind < (segment.at_ms, segment.records[0].ordinal)
        behind = (segment.at_ms, segment.records[-1].ordinal)
        for record in segment.left():
            assert record.state is JobState.PENDING
            assert state.lanes.of(record) is lane
            step = state.config.aging_step_ms
            assert segment.at_ms == order_key(record.priority, record.ready_ms, step)
            ready.append(record)
    assert lane.ready == len(ready)
    firsts = [entry[:3] for entry in lane.heap[:1]]
    firsts += [(s.at_ms, s.records[s.next].ordinal, s.seq) for s in list(lane.row)[:1]]
    assert lane.front == min(firsts, default=None)
    if lane.heap:
        _, ordinal, seq, segment = lane.heap[0]
        head = segment.records[segment.next]
        assert (head.ordinal, head.seq) == (ordinal, seq)
    segments = lane.segments()
    assert lane.entries == sum(len(segment.records) for segment in segments)
    assert lane.gone == sum(len(s.records) - s.next for s in segments) - lane.ready
    assert all(s.ordinal == s.records[s.next].ordinal for s in segments)
    return ready


def _audit_timers(state: State) -> None:
    looks: dict[str, int] = {}
    for due, record in state.timers.things():
        looks[record.job_id] = min(due, looks.get(record.job_id, due))
    for record in state.jobs.values():
        due_ms = state.due_ms(record)
        assert due_ms is None or looks[record.job_id] <= due_ms


def _audit_timetable(state: State) -> None:
    timetable = state.timetable
    armed = {record.key for _, record in timetable.timers.things()}
    waiting = {}
    for key, record in timetable.records.items():
        assert key == record.key
        assert record.seq < state.next_seq
        # It may be looked at later than it is due: then its job could not be submitted.
        assert timetable.due_ms(record) is None or key in armed
        if record.cursor.buffered_ms or record.cursor.open_elsewhere:
            waiting[record.cursor.last_job_id] = record
    assert timetable.waiting == waiting


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
        for job_id in shelf.parked:
            assert state.jobs[job_id].state in states
            assert state.dependencies.pins(job_id)
            seen.append(state.jobs[job_id].ordinal)
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
            _audit_deliveries(holder)
    running = [r.ordinal for r in state.jobs.values() if r.state is JobState.RUNNING]
    assert sorted(held) == running


def _audit_deliveries(holder: Holder) -> None:
    session = holder.session
    assert session is not None
    numbers = [delivery.number for delivery in session.unaccepted]
    assert numbers == sorted(set(numbers))
    assert not numbers or 0 < numbers[0] <= numbers[-1] <= session.assignment
    assert all(delivery.number == UNSENT for delivery in session.unsent.values())
    for holding in holder.leases.values():
        number = holding.delivery.number
        assert number <= session.assignment or holding.delivery in session.unsent.values()


def _audit_dependencies(state: State) -> None:
    """What is derived is what a replay would derive."""
    live = state.dependencies
    workflows = Workflows()
    workflows.records = state.workflows.records
    again = Dependencies(state.id_partition, workflows, state.batches)
    again.foreign, again.registered = live.foreign, live.registered
    for _ in again.rebuild(state.jobs):
        pass
    assert state.workflows.members == workflows.members
    due = {record.workflow_id for _, record in state.workflows.timers.things()}
    assert due >= state.workflows.records.keys()
    assert live.children == again.children
    assert live.waiting == again.waiting
    assert live.ripe.keys() == again.ripe.keys()
    assert live.deferred.keys() == again.deferred.keys()
    assert live.revivals == again.revivals
    assert live.unsettled == again.unsettled
    for target, letters in again.unsent.items():
        assert letters.keys() <= live.unsent[target].keys()
    for letters in live.unsent.values():
        assert letters
    for child in live.waiting:
        record = state.jobs[child]
        assert record.state is JobState.BLOCKED
        for parent in record.parents:
            known = parent in state.jobs or parent in state.workflows.records
            assert not live.is_local(parent) or known or record.run


def holdings(partition: Partition) -> tuple[object, ...]:
    """Who holds what as a term begins, and whom its window waits for."""
    state = state_of(partition)
    holders = {name: [*map(str, holder.leases)] for name, holder in state.holders.items()}
    return holders, state.known, state.holder_timers.things()


def dump(state: State) -> list[object]:
    """All that a state holds, derived and volatile things too, as plain values to compare."""
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
        (
            (s.session_id, s.assignment, s.declared, s.draining),
            _ENCODE([list(s.unaccepted), list(s.unsent.items())]),
        )
        for s in state.sessions.values()
    ]
    scalars = (
        (state.next_seq, state.next_ordinal, state.stamp_ms, state.token, state.stored_bytes),
        (state.serving, state.window_ends_ms, state.lease_seq, state.live),
    )
    return [
        _ENCODE(list(state.jobs.values())),
        _ENCODE(list(state.timetable.records.values())),
        [(due, serial, record.key) for due, serial, record in state.timetable.timers._heap],
        list(state.timetable.waiting),
        *_dump_lanes(state),
        state.lanes.counts[:],
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
        _dump_dependencies(state),
    ]


def _dump_dependencies(state: State) -> list[object]:
    live = state.dependencies
    return [
        _ENCODE([live.foreign, live.registered]),
        _ENCODE([list(state.outbox.lines()), state.inbox.rows()]),
        [(parent, list(children)) for parent, children in live.children.items()],
        dict(live.waiting),
        list(live.ripe),
        [list(live.deferred), sorted(live.revivals)],
        list(live.unsettled),
        [(target, list(letters)) for target, letters in live.unsent.items()],
        [list(shelf.parked) for shelf in (state.finished._done, state.finished._dead)],
    ]


def _dump_lanes(state: State) -> list[object]:
    """What is ready, and what holds it up."""
    lanes = [
        (
            (lane.queue.label, lane.label, lane.ready, lane.entries, lane.is_open),
            [_plain(entry) for entry in lane.heap],
            [(s.at_ms, s.seq, s.next, [r.job_id for r in s.records]) for s in lane.row],
        )
        for lane in state.lanes.lanes()
    ]
    queues = [
        (
            (queue.label, queue.counts[:], queue.is_open, queue.is_dry, _bucket(queue)),
            [
                (key.key, list(key.jobs), key.is_open, _bucket(key), _breaker(key.breaker))
                for key in keys
            ],
        )
        for queue in state.lanes.queues.values()
        for keys in [queue.limit_keys.values()]
    ]
    skills = [
        (
            list(skill.members),
            [(tag, flow.tag, flow.tenant.name) for tag, _, flow in skill.level.heap],
            [
                (share.tag, share.debt, share.active, [f.heap[:] for f in share.board.giving])
                for share in skill.shares()
            ],
        )
        for skill in state.lanes.skills()
    ]
    types = [
        (job_type.label, _breaker(job_type.breaker), job_type.next_ms())
        for job_type in state.lanes._job_types.values()
    ]
    return [lanes, queues, skills, types, list(state.lanes.crowded)]


def gates(state: State) -> list[object]:
    """What holds jobs up, and whom their sticky keys are bound to; in the same order for all."""
    queues = [
        (
            (queue.label, queue.is_open, queue.is_dry, _bucket(queue)),
            (queue.running_of[:], queue.mean_run_ms, queue.pulse.rates(state.stamp_ms)),
            sorted(
                (key.key, sorted(key.jobs), _bucket(key))
                for key in queue.limit_keys.values()
                if key.jobs
            ),
        )
        for queue in state.lanes.queues.values()
    ]
    # Which lanes the jobs of a limit key stand in depends on what was before (see ``core.slack``).
    ready = [
        (lane.queue.label, lane.name, record.ordinal, lane.is_open)
        for lane in state.lanes.lanes()
        for record in lane.jobs()
    ]
    bound = [
        (sticky.place, sticky.key, sticky.incarnation) for sticky in state.lanes.bindings.bound()
    ]
    return [sorted(queues, key=lambda row: row[0][0]), sorted(ready), sorted(bound)]


def _bucket(limiter: Limiter) -> object:
    bucket = limiter.bucket
    return None if bucket is None else (bucket._level, bucket._at_ms, bucket.rate)


def _breaker(breaker: Breaker | None) -> object:
    if breaker is None:
        return None
    return breaker.state, breaker.probes, breaker.open_until_ms, list(breaker._probing)


def _plain(entry: tuple[int, int, int, Segment]) -> tuple[object, ...]:
    key, ordinal, seq, segment = entry
    return (key, ordinal, seq, segment.next, [record.job_id for record in segment.records])
