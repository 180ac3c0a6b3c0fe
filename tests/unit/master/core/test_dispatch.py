"""Dispatch: the exact order, who gets what, what is written ahead."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core import command as commands
from tenure.master.core.command import LeaseRow
from tenure.master.core.effect import Decision, SendAssignment
from tenure.master.core.event import JobsGranted
from tenure.master.core.fair import QUANTUM
from tenure.master.core.ready import order_key
from tenure.master.core.record import JobRecord, LabelSelector, Policy, RetryPolicy
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, Backoff, Jitter, JobState
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.fairness import place_of
from tests.unit.master.core.rig import CONFIG, JOB, Rig, held, leases_of, of_type

STEP = CONFIG.aging_step_ms


def drain_order(rig: Rig, session_id: int = 1, batch: int = 1) -> list[JobId]:
    """Grants and completes all that is ready; the order of the grants."""
    order = []
    while rows := rig.grant(session_id, batch):
        order += [row.job_id for row in rows]
        for row in rows:
            rig.report(row, session_id=session_id)
    return order


@given(
    jobs=st.lists(
        st.tuples(st.integers(0, 10), st.sampled_from([0, 0, 1, 60_000, 299_999, 900_000])),
        max_size=30,
    ),
    step=st.sampled_from([0, 1_000, STEP]),
    batch=st.integers(1, 7),
)
def test_grants_come_in_exact_key_order(jobs: list[tuple[int, int]], step: int, batch: int) -> None:
    """Whatever the priorities and times, grants follow (key, ordinal) exactly."""
    rig = Rig(replace(CONFIG, aging_step_ms=step), audited=False)
    for priority, pause_ms in jobs:
        rig.now_ms += pause_ms
        rig.submit(1, priority=priority)
    rig.open_session(1)
    listed = rig.partition.scan().take(100, 1_000)
    expected = sorted(listed, key=lambda record: place_of(record, step))
    assert drain_order(rig, batch=batch) == [record.job_id for record in expected]


def test_a_silent_worker_is_looked_at_by_its_deadline() -> None:
    """A grant that comes shortly before the end of its holder's patience waits no longer for it."""
    rig = Rig()
    rig.open_session(1)
    rig.now_ms += CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms - 100
    rig.submit(1)
    rig.grant_one()
    assert rig.partition.next_timer_ms() == rig.now_ms + 100
    audit(rig.partition)


@given(
    first=st.integers(0, 10),
    second=st.integers(0, 10),
    later_ms=st.integers(0, 12 * STEP),
)
def test_overtaking_is_bounded(first: int, second: int, later_ms: int) -> None:
    """A later job overtakes only within Δpriority × step; priority 0 is never overtaken."""
    earlier, later = order_key(first, 1_000, STEP), order_key(second, 1_000 + later_ms, STEP)
    if first == 0:
        assert earlier <= later
    elif second == 0:
        assert later < earlier
    elif later < earlier:
        assert later_ms < (first - second) * STEP
    else:
        assert later_ms >= (first - second) * STEP


@given(priorities=st.lists(st.integers(0, 10), min_size=2, max_size=2), later_ms=st.integers(0))
def test_without_aging_priority_is_strict(priorities: list[int], later_ms: int) -> None:
    """With a step of 0 the order is (priority, ready_at)."""
    first, second = priorities
    later_ms = min(later_ms, 1 << 48)
    keys = order_key(first, 1_000, 0), order_key(second, 1_000 + later_ms, 0)
    assert (keys[0] <= keys[1]) == ((first, 0) <= (second, later_ms))


@given(delays=st.lists(st.integers(0, 5_000), min_size=1, max_size=12))
def test_delayed_jobs_start_when_they_are_due(delays: list[int]) -> None:
    """S12: who looks when the partition says finds each job ready, to the millisecond."""
    rig = Rig(audited=False)
    rig.open_session(1)
    begin = rig.now_ms
    due = {rig.submit_one(delay_ms=delay_ms): begin + delay_ms for delay_ms in delays}
    started: dict[JobId, int] = {}
    while len(started) < len(due):
        for job_id in [row.job_id for row in rig.grant(1, 100)]:
            started[job_id] = rig.now_ms
        rig.accept(1, 1_000)
        upcoming = rig.partition.next_timer_ms()
        if upcoming is None:
            break
        rig.now_ms = max(rig.now_ms, upcoming)
        rig.fire()
    assert started == due


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["delay", "at", "boost", "fail", "grant", "grant", "fail over"]),
            st.integers(0, 5_000),
            st.sampled_from([0, 1, 700, 4_999]),
            st.booleans(),
        ),
        min_size=10,
        max_size=30,
    )
)
def test_delayed_jobs_never_start_early(steps: list[tuple[str, int, int, bool]]) -> None:
    """S12: a job with a delay, a time, a backoff or a new delay is granted at its time or later.

    Whether timers fire when they should or late, and whoever leads by then.
    """
    backoff = RetryPolicy(backoff=Backoff.FIXED, base_ms=2_000, jitter=Jitter.NONE, max_attempts=99)
    policy = Policy(name="job", retry=backoff)
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40), audited=False)
    rig.open_session(1, slots=1_000)
    due_ms: dict[JobId, int] = {}
    held_rows: list[LeaseRow] = []
    for what, number, pause_ms, fires in steps:
        rig.now_ms += pause_ms
        if fires:
            rig.pass_time(0)
            late = [j for j, at_ms in due_ms.items() if at_ms <= rig.now_ms]
            assert not {rig.state(j) for j in late} & {JobState.SCHEDULED, JobState.RETRYING}
        match what:
            case "delay":
                due_ms[rig.submit_one(policy, delay_ms=number)] = rig.now_ms + number
            case "at":
                at_ms = rig.now_ms + number - 2_500
                due_ms[rig.submit_one(policy, at_ms=at_ms)] = max(at_ms, rig.now_ms)
            case "boost":
                waiting = [j for j in due_ms if rig.state(j) is JobState.SCHEDULED][:1]
                rig.do(commands.BoostJobs(job_ids=waiting, delay_ms=number))
                due_ms |= dict.fromkeys(waiting, rig.now_ms + number)
            case "fail" if held_rows:
                row = held_rows.pop()
                rig.fail(row)
                due_ms[row.job_id] = rig.now_ms + 2_000
            case "fail over":
                rig.crash(window_ms=0)
                rig.open_session(1, f"w{len(rig.journal)}", slots=1_000)
                held_rows = []
            case "grant":
                rows = rig.grant(1, 1 + number % 3)
                assert all(due_ms[row.job_id] <= rig.now_ms for row in rows)
                held_rows += rows
                rig.accept(1, 1_000_000)


def test_fifo_within_a_batch_and_across() -> None:
    """Jobs of one priority are granted in the order of their submission."""
    rig = Rig()
    rig.open_session(1)
    ids = rig.submit(5)
    rig.now_ms += 1
    ids += rig.submit(5)
    assert drain_order(rig, batch=3) == ids


def test_returned_job_keeps_its_place() -> None:
    """A job handed back is the next to be granted; a retry goes behind what waited."""
    rig = Rig()
    rig.open_session(1)
    first, second, third = rig.submit(3)
    rig.give_back(rig.grant_one())
    row = rig.grant_one()
    assert row.job_id == first
    rig.now_ms += 10
    rig.fail(row, draw=0.0)
    rig.pass_time(1)
    assert drain_order(rig) == [second, third, first]


@pytest.mark.parametrize("priority", [0, 5])
def test_who_is_handed_back_after_a_failover_has_its_old_place(priority: int) -> None:
    """Of a batch some run, others' grants are lost with the leader: the order is the batch's."""
    rig = Rig()
    rig.open_session(1)
    rig.open_session(2)
    ids = rig.submit(6, priority=priority)
    first = leases_of(rig.dispatch((1, 3), (2, 3)).effects)[:3]
    assert [row.job_id for row in first] == ids[::2]
    rig.crash(lose=1)
    rig.open_session(1, declare=[held(row, started=False) for row in first])
    rig.close_window()
    rig.give_back(*first)
    for expected in (ids[:3], ids[3:]):
        assert {row.job_id for row in rig.grant(1, 3)} == set(expected)


def test_order_holds_across_the_lanes_of_a_queue() -> None:
    """Names, limit keys and wishes share one order, as far as the session serves them."""
    rig = Rig()
    policies = [
        Policy(name="job"),
        Policy(name="other"),
        Policy(name="job", prefers=(LabelSelector("gpu"),)),
        Policy(name="job", requires=(LabelSelector("region", ("eu", "us")),)),
    ]
    ids = [
        rig.submit_one(policies[index % 4], limit_key="k" if index % 3 else "")
        for index in range(24)
    ]
    rig.open_session(1, names=("job", "other"), labels={"region": "eu"})
    assert drain_order(rig, batch=5) == ids


def test_queues_and_tenants_take_turns() -> None:
    """Between queues and tenants there is no common order: each gets its share, in turns."""
    rig = Rig()
    policies = [
        Policy(name="job"),
        Policy(name="job", queue="bulk"),
        Policy(name="job", tenant="t"),
    ]
    ids = [rig.submit(5 * QUANTUM, policy) for policy in policies]
    rig.open_session(1)
    granted = {row.job_id for row in rig.grant(1, 2 * 4 * QUANTUM)}
    assert [len(granted.intersection(own)) for own in ids] == [
        2 * QUANTUM,
        2 * QUANTUM,
        4 * QUANTUM,
    ]


def test_turns_go_on_in_the_next_decision() -> None:
    """A queue that has given stands behind the others; with nothing given there was no turn."""
    rig = Rig()
    for queue in ("a", "b"):
        rig.submit(2 * QUANTUM, Policy(name="job", queue=queue))
    rig.open_session(1)
    turns = [{rig.record(row.job_id).policy.queue for row in rig.grant(1, QUANTUM)} for _ in "abab"]
    assert turns == [{"a"}, {"b"}, {"a"}, {"b"}]
    assert rig.dispatch((1, 1)).events == ()


def test_one_batch_over_several_lanes_keeps_order() -> None:
    """Jobs of one submit that lie in several lanes are granted in their order."""
    rig = Rig()
    rig.open_session(1, names=("a", "b"))
    policies = [commands.SubmitSetting(Policy(name=name), 5, 0, 0) for name in ("a", "b")]
    rows = [commands.SubmitRow(rig.mint(), index % 2, b"", "") for index in range(9)]
    rig.do(commands.SubmitJobs(settings=policies, rows=rows))
    assert drain_order(rig, batch=4) == [row.job_id for row in rows]


def test_sessions_get_only_what_they_serve() -> None:
    """A session gets jobs of its names and queues, and what it cannot run blocks nobody."""
    rig = Rig()
    rig.submit(2, Policy(name="foreign"))
    wanted = rig.submit_one()
    bulk = rig.submit_one(Policy(name="job", queue="bulk"))
    rig.open_session(1, queues=("default",))
    rig.open_session(2, queues=("bulk",))
    assert drain_order(rig, 1) == [wanted]
    assert rig.partition.backlog_for(2) == 1
    assert drain_order(rig, 2) == [bulk]
    assert not rig.partition.has_ready()
    assert rig.partition.backlog_for(1) == 0
    rig.open_session(3, names=("foreign",))
    assert rig.partition.has_ready()


def test_emptiest_session_first() -> None:
    """Jobs are spread over sessions by how full each is; credit is never exceeded."""
    rig = Rig()
    rig.open_session(1, slots=4)
    rig.open_session(2, slots=2)
    rig.submit(9)
    decision = rig.dispatch((2, 5), (1, 2))
    shares = {e.session_id: len(e.rows) for e in of_type(decision.effects, SendAssignment)}
    assert shares == {1: 2, 2: 5}
    rig.submit(6)
    decision = rig.dispatch((1, 9), (2, 9))
    shares = {e.session_id: len(e.rows) for e in of_type(decision.effects, SendAssignment)}
    assert shares[1] > shares.get(2, 0)


def test_grants_max() -> None:
    """One decision makes no more grants than it was allowed."""
    rig = Rig()
    rig.open_session(1)
    rig.submit(9)
    command = commands.Dispatch(
        credits=[(1, 9)], committed_seq=rig.partition.next_seq - 1, grants_max=4
    )
    assert len(leases_of(rig.do(command).effects)) == 4


def test_only_committed_jobs_are_granted() -> None:
    """A job is eligible when its record has committed; uncommitted ones block nobody."""
    rig = Rig()
    rig.open_session(1)
    (old,) = rig.submit(1)
    committed = rig.partition.next_seq - 1
    (new,) = rig.submit(1, priority=0)
    assert [
        row.job_id for row in leases_of(rig.dispatch((1, 9), committed_seq=committed).effects)
    ] == [old]
    assert rig.grant_one().job_id == new


def _taken_back(rig: Rig) -> None:
    rig.give_back(rig.grant_one())


def _failed(rig: Rig) -> None:
    rig.fail(rig.grant_one(), draw=0.0)
    rig.pass_time(1)


def _expired(rig: Rig) -> None:
    rig.grant_one()
    rig.pass_time(20_000)
    rig.renew(1, 99)


def _requeued(rig: Rig) -> None:
    row = rig.grant_one()
    rig.report(row, AttemptOutcome.FAILED_PERMANENT)
    rig.do(commands.RequeueJobs(job_ids=[row.job_id]))


@pytest.mark.parametrize("before", [_taken_back, _failed, _expired, _requeued])
def test_later_grants_are_written_ahead(before: Callable[[Rig], None]) -> None:
    """A job granted before is granted again only after its grant's event has committed.

    Its assignment gets its number when it is sent: first grants pass it.
    """
    rig = Rig()
    rig.open_session(1)
    rig.submit(2)
    before(rig)
    decision = rig.dispatch((1, 9))
    kinds = [(e.write_ahead, len(e.rows)) for e in of_type(decision.effects, SendAssignment)]
    assert kinds == [(False, 1), (True, 1)]
    numbers = [effect.number for effect in of_type(decision.effects, SendAssignment)]
    assert numbers == [numbers[0], 0]
    assert state_of(rig.partition).sessions[1].assignment == numbers[0] + 1


def test_at_most_once_is_written_ahead() -> None:
    """An at_most_once job's first grant waits for its event."""
    rig = Rig()
    rig.open_session(1)
    rig.submit(1, Policy(name="job", at_most_once=True))
    (effect,) = of_type(rig.dispatch((1, 1)).effects, SendAssignment)
    assert effect.write_ahead


def test_lease_seqs_rise_and_name_the_effect() -> None:
    """Each grant has the next lease seq; event, record and effect agree."""
    rig = Rig()
    rig.open_session(1)
    rig.submit(3, Policy(name="job", deadline_ms=60_000))
    decision = rig.dispatch((1, 2))
    (event,) = [e for e in decision.events if isinstance(e, JobsGranted)]
    (effect,) = of_type(decision.effects, SendAssignment)
    assert [row.lease_seq for row in effect.rows] == [1, 2]
    assert event.first_lease_seq == 1
    for row in effect.rows:
        assert row.record.lease is not None
        assert row.record.lease.seq == row.lease_seq
        assert (row.attempt, row.deadline_ms) == (1, rig.now_ms + 60_000)
    assert rig.grant_one().lease.seq == 3


def test_no_grant_without_declaration() -> None:
    """A session that has not said what it holds gets nothing."""
    rig = Rig()
    rig.submit(1)
    rig.do(
        commands.OpenSession(
            session_id=1,
            incarnation="w",
            worker="w",
            job_names=frozenset({"job"}),
            queues=frozenset(),
            slots=1,
        )
    )
    assert not rig.grant()
    rig.do(commands.DeclareLeases(session_id=1, rows=[]))
    assert rig.grant()


def test_draining_and_closed_sessions_get_nothing() -> None:
    """After DrainSession or CloseSession nothing more is granted."""
    rig = Rig()
    rig.submit(2)
    rig.open_session(1)
    rig.open_session(2)
    rig.do(commands.DrainSession(session_id=1))
    rig.do(commands.CloseSession(session_id=2))
    assert not leases_of(rig.dispatch((1, 5), (2, 5), (3, 5)).effects)


def test_silent_session_gets_nothing() -> None:
    """A session past its lease deadline gets nothing until it is heard of again."""
    rig = Rig()
    rig.open_session(1)
    rig.submit(1)
    rig.now_ms += CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms
    assert not rig.grant()
    rig.renew(1, 0)
    assert rig.grant()


def test_deaf_session_gets_nothing() -> None:
    """A session that does not answer a grant in time gets no more until it does."""
    rig = Rig()
    rig.open_session(1)
    rig.submit(3)
    rig.grant_one()
    rig.now_ms += CONFIG.accept_timeout_ms - 1
    row = rig.grant_one()
    rig.now_ms += 1
    assert not rig.grant()
    rig.accept(1, 1)
    assert rig.grant()
    assert rig.state(row.job_id) is JobState.RUNNING


def test_newer_stream_takes_over() -> None:
    """Of two streams of one incarnation only the newer is granted to."""
    rig = Rig()
    rig.submit(2, JOB)
    rig.open_session(1, "w")
    row = rig.grant_one(1)
    rig.open_session(2, "w", declare=[held(row)])
    assert [
        e.session_id for e in of_type(rig.dispatch((1, 1), (2, 1)).effects, SendAssignment)
    ] == [2]


def test_cancelled_jobs_in_the_middle_are_never_granted() -> None:
    """Cancels leave the order of the rest as it was, also when most are cancelled."""
    rig = Rig()
    rig.open_session(1)
    ids = rig.submit(3_000)
    kept = ids[::50]
    rig.do(commands.CancelJobs(job_ids=[j for i, j in enumerate(ids) if i % 50]))
    assert drain_order(rig, batch=7) == kept


def test_who_cannot_be_granted_to_is_passed_over() -> None:
    """Sessions without credit, unknown or draining ones take nothing from those after them."""
    rig = Rig()
    for session_id in (2, 3, 5):
        rig.open_session(session_id)
    rig.do(commands.DrainSession(session_id=3))
    rig.submit(2)
    decision = rig.dispatch((5, 1), (1, 1), (2, 0), (3, 1))
    assert [e.session_id for e in of_type(decision.effects, SendAssignment)] == [5]
    assert len(leases_of(decision.effects)) == 1


def test_a_grant_says_who_got_it_and_is_the_newest_attempt() -> None:
    """The event names the worker's process, name, stream and assignment; so does the record."""
    rig = Rig()
    rig.open_session(1)
    rig.open_session(7, "inc")
    job_id = rig.submit_one()
    row = rig.grant_one()
    rig.start(row)
    rig.now_ms += 5
    rig.fail(row, draw=0.0)
    rig.pass_time(5)
    decision = rig.dispatch((7, 1))
    (event,) = [e for e in decision.events if isinstance(e, JobsGranted)]
    assert (event.incarnation, event.worker, event.session_id) == ("inc", "worker-inc", 7)
    assert (event.assignment, event.attempts, event.now_ms) == (0, [2], rig.now_ms)
    record = rig.record(job_id)
    assert (record.incarnation, record.worker, record.attempt) == ("inc", "worker-inc", 2)
    assert (record.granted_ms, record.started_ms, record.ended_ms) == (rig.now_ms, 0, 0)
    assert (record.outcome, record.fault) == (None, None)
    assert [attempt.number for attempt in record.history] == [1]


def test_a_replayed_grant_passes_over_jobs_that_are_gone() -> None:
    """Leases keep their seqs though a job before them was purged since the snapshot."""
    rig = Rig()
    job_id = rig.submit_one()
    partition = rig.replaying()
    granted = JobsGranted(
        now_ms=rig.now_ms,
        token=rig.token,
        incarnation="w1",
        worker="worker-1",
        session_id=1,
        assignment=1,
        first_lease_seq=5,
        job_ids=[rig.mint(), job_id],
        attempts=[1, 1],
    )
    partition.replay(granted, partition.next_seq)
    partition.finish_replay()
    holding = partition.holding_of(job_id)
    assert holding is not None
    assert holding.record.lease == Lease(rig.token, 6, 0)


def shares_of(decision: Decision, ids: list[JobId]) -> dict[int, list[int]]:
    """Which jobs each session got, by their places."""
    return {
        effect.session_id: [ids.index(row.record.job_id) for row in effect.rows]
        for effect in of_type(decision.effects, SendAssignment)
    }


@pytest.mark.parametrize("second", [("job",), ("job", "other")])
def test_each_job_goes_to_the_emptiest(second: tuple[str, ...]) -> None:
    """Fullness is what a worker holds by its slots, after each grant, whatever else it serves."""
    rig = Rig()
    rig.open_session(1, slots=10)
    rig.open_session(2, slots=4, names=second)
    rig.submit(6)
    assert len(rig.grant(1, 5)) == 5
    assert len(rig.grant(2, 1)) == 1
    ids = rig.submit(6)
    assert shares_of(rig.dispatch((1, 9), (2, 9)), ids) == {1: [1, 3, 4], 2: [0, 2, 5]}


def test_a_worker_of_one_slot_is_full_with_one_job() -> None:
    """A worker with a grant more than it can run is the last to get another."""
    rig = Rig()
    rig.open_session(1, slots=1)
    rig.open_session(2, slots=10)
    rig.submit(7)
    rig.grant(1, 1)
    rig.grant(2, 6)
    ids = rig.submit(1)
    assert shares_of(rig.dispatch((1, 1), (2, 1)), ids) == {2: [0]}


def test_credit_of_one_kind_is_not_anothers() -> None:
    """Workers of different skills are each given what they have credit for, across lanes."""
    rig = Rig()
    rig.open_session(1, names=("a", "b"))
    rig.open_session(2, names=("c",))
    ids = [rig.submit_one(Policy(name=name)) for name in ("a", "b", "a", "b", "c", "a")]
    decision = rig.dispatch((1, 2), (2, 5))
    assert shares_of(decision, ids) == {1: [0, 1], 2: [4]}
    for effect in of_type(decision.effects, SendAssignment):
        assert not effect.write_ahead
        assert [row.deadline_ms for row in effect.rows] == [0] * len(effect.rows)


def test_a_grant_that_the_snapshot_shows_is_not_made_twice() -> None:
    """A replayed grant that the record has seen adds no attempt to its history."""
    rig = Rig()
    rig.open_session(1)
    rig.submit(1)
    seq = rig.partition.next_seq
    decision = rig.dispatch((1, 1))
    (event,) = [e for e in decision.events if isinstance(e, JobsGranted)]
    partition = rig.replaying()
    partition.replay(event, seq)
    partition.finish_replay()
    record = partition.get(event.job_ids[0])
    assert isinstance(record, JobRecord)
    assert record.history == ()
