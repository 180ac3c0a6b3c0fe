"""Who gets what: labels, sticky keys, and slots that are kept free for urgent jobs."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.command import CloseSession, DrainSession, PurgeJobs
from tenure.master.core.fair import QUANTUM
from tenure.master.core.record import LabelSelector, Policy
from tenure.master.core.settings import QueueSettings
from tenure.protocol.vocabulary import AttemptOutcome, JobState
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.fairness import Round
from tests.unit.master.core.rig import Rig

EU = LabelSelector("region", ("eu", "us"))
GPU = LabelSelector("gpu")


def needs(*selectors: LabelSelector) -> Policy:
    """Jobs that ask for labels."""
    return Policy(name="job", requires=selectors)


def wishes(*selectors: LabelSelector) -> Policy:
    """Jobs that had better run where there are labels."""
    return Policy(name="job", prefers=selectors)


def owner(rig: Rig, job_id: str) -> str:
    """The incarnation of the worker that has a job."""
    return state_of(rig.partition).jobs[job_id].incarnation  # type: ignore[index]


# Labels.


def test_required_labels_are_kept_to() -> None:
    """A worker gets a job only if it has each label with one of the values, or with any."""
    rig = Rig()
    both, region, gpu = (rig.submit_one(needs(*s)) for s in ((EU, GPU), (EU,), (GPU,)))
    free = rig.submit_one()
    rig.open_session(1, labels={"region": "asia", "gpu": "no"})
    rig.open_session(2, labels={"region": "us"})
    rig.open_session(3, labels={"region": "eu", "gpu": "h100"})
    rig.open_session(4)
    assert [row.job_id for row in rig.grant(1, 1)] == [gpu]
    assert [row.job_id for row in rig.grant(2, 1)] == [region]
    assert [row.job_id for row in rig.grant(4, 9)] == [free]
    assert [row.job_id for row in rig.grant(3, 9)] == [both]


def test_jobs_that_nobody_can_run_block_nobody() -> None:
    """A selector that no worker matches holds up its own jobs only, until one comes."""
    rig = Rig()
    rig.open_session(1)
    held = rig.submit_one(needs(LabelSelector("moon", ("dark",))), priority=0)
    free = rig.submit_one()
    assert [row.job_id for row in rig.grant(1, 9)] == [free]
    assert not rig.partition.has_ready()
    rig.open_session(2, labels={"moon": "dark"})
    assert [row.job_id for row in rig.grant(2, 9)] == [held]


def test_labels_that_nobody_asks_for_tell_no_workers_apart() -> None:
    """Workers share fairly as one kind however they are labelled, until a job asks for a label."""
    rig = Rig()
    for session_id, region in ((1, "eu"), (2, "us"), (3, "asia")):
        rig.open_session(session_id, labels={"region": region, "host": f"h{session_id}"})
    assert len(state_of(rig.partition).lanes.skills()) == 1
    rig.submit_one(needs(EU))
    assert len(state_of(rig.partition).lanes.skills()) == 3
    assert len(rig.grant(2, 9)) == 1


def test_workers_that_are_told_apart_go_on_where_they_were() -> None:
    """When a job first asks for a label, nobody's share begins anew."""
    rig = Rig()
    rig.open_session(1, slots=100, labels={"region": "eu"})
    rig.open_session(2, slots=100)
    rig.submit(12 * QUANTUM, Policy(name="job", queue="a"))
    rig.grant(1, 5 * QUANTUM)
    rig.submit(QUANTUM, Policy(name="job", queue="b", tenant="t"))
    rig.grant(1, QUANTUM)
    rig.submit(QUANTUM, Policy(name="job", queue="b", tenant="t"))
    rig.submit(QUANTUM, Policy(name="job", queue="a", requires=(EU,)))
    rows = rig.grant(1, 2 * QUANTUM)
    queues = Counter(rig.record(row.job_id).policy.queue for row in rows)
    assert queues == {"a": QUANTUM, "b": QUANTUM}


def test_preferred_labels_decide_among_those_with_credit() -> None:
    """A job goes where most of its wishes are fulfilled, and to anybody rather than wait."""
    rig = Rig()
    rig.open_session(1, labels={"gpu": "h100"})
    rig.open_session(2, labels={"gpu": "h100", "region": "eu"})
    rig.open_session(3)
    ids = rig.submit(4, wishes(EU, GPU))
    rig.dispatch((1, 1), (2, 2), (3, 1))
    owners = Counter(owner(rig, job_id) for job_id in ids)
    assert owners == {"w2": 2, "w1": 1, "w3": 1}
    assert [owner(rig, job_id) for job_id in ids[:3]] == ["w2", "w2", "w1"]


def test_a_wish_overtakes_nothing_that_is_for_the_one_wished_for() -> None:
    """Wishes do not take a worker's credit from jobs before them that only it can run."""
    rig = Rig()
    rig.open_session(1, labels={"gpu": "h100"}, slots=100)
    rig.open_session(2, slots=100)
    rig.submit(8)
    rig.grant(1, 8)
    only = rig.submit_one(needs(GPU))
    wish = rig.submit_one(wishes(GPU))
    rig.dispatch((1, 1), (2, 1))
    assert (owner(rig, only), owner(rig, wish)) == ("w1", "w2")


# Sticky keys.


def sticky_rig() -> tuple[Rig, str]:
    """Two workers, and a sticky key that the first grant has bound to one of them."""
    rig = Rig()
    rig.open_session(1)
    rig.open_session(2)
    (job_id,) = rig.submit(1, sticky_key="s")
    rig.dispatch((1, 1), (2, 1))
    return rig, owner(rig, job_id)


def test_first_grant_binds_and_jobs_wait_for_their_worker() -> None:
    """Jobs of a bound key go to its worker only; others overtake them meanwhile."""
    rig, bound = sticky_rig()
    other = 2 if bound == "w1" else 1
    ids = rig.submit(3, sticky_key="s")
    free = rig.submit_one()
    assert [row.job_id for row in rig.grant(other, 9)] == [free]
    more = rig.submit_one()
    assert rig.partition.backlog_for(other) == 1
    assert rig.partition.backlog_for(3 - other) == 4
    assert [row.job_id for row in rig.grant(3 - other, 9)] == [*ids, more]


def test_one_decision_keeps_a_new_key_together() -> None:
    """Jobs of a key that no grant has bound go to one worker also when granted together."""
    rig = Rig()
    rig.open_session(1)
    rig.open_session(2)
    ids = rig.submit(4, sticky_key="s")
    rig.dispatch((1, 3), (2, 3))
    owners = [owner(rig, j) for j in ids if rig.state(j) is JobState.RUNNING]
    assert len(owners) == 3
    assert len(set(owners)) == 1


def test_bound_jobs_keep_their_place_in_the_queue() -> None:
    """Their worker takes bound jobs and others in one order of keys."""
    rig, bound = sticky_rig()
    session_id = int(bound[1:])
    expected = []
    for index in range(6):
        rig.now_ms += 1
        expected += rig.submit(1, sticky_key="s" if index % 2 else "")
    assert [row.job_id for row in rig.grant(session_id, 9)] == expected


def test_key_is_anybodys_when_its_worker_drains_or_is_gone() -> None:
    """While it lives means: until it drains, or neither stream nor lease is left."""
    for leave in (DrainSession, CloseSession):
        rig, bound = sticky_rig()
        session_id = int(bound[1:])
        (waiting,) = rig.submit(1, sticky_key="s")
        row = next(r for r in state_of(rig.partition).jobs.values() if r.incarnation)
        rig.do(leave(session_id=session_id))
        if leave is CloseSession:
            assert not rig.grant(3 - session_id, 9)
            rig.pass_time(17_000)
            rig.renew(3 - session_id, 9)
            assert row.state is not JobState.RUNNING
        assert waiting in {granted.job_id for granted in rig.grant(3 - session_id, 9)}


def test_binding_follows_the_worker_to_its_new_stream() -> None:
    """A worker that comes back by another stream is the same worker."""
    rig, bound = sticky_rig()
    ids = rig.submit(2, sticky_key="s")
    rig.do(CloseSession(session_id=int(bound[1:])))
    rig.open_session(7, bound)
    assert {row.job_id for row in rig.grant(7, 9)} >= set(ids)


def test_bindings_of_running_jobs_outlive_a_leader() -> None:
    """The successor finds out from the journal where the jobs of a key run."""
    rig, bound = sticky_rig()
    (waiting,) = rig.submit(1, sticky_key="s")
    rig.crash(window_ms=0)
    rig.open_session(8, "stranger")
    assert not rig.grant(8, 9)
    rig.open_session(9, bound)
    assert waiting in {row.job_id for row in rig.grant(9, 9)}


def test_a_worker_that_cannot_run_bound_jobs_any_more_does_not_keep_them() -> None:
    """It came back without their name: they go to anybody else, and the plain judge agrees."""
    rig, bound = sticky_rig()
    rig.do(CloseSession(session_id=int(bound[1:])))
    rig.open_session(7, bound, names=("other",))
    ids = rig.submit(2, sticky_key="s")
    other = 2 if bound == "w1" else 1
    judge = Round(state_of(rig.partition), [(other, 9)], rig.partition.next_seq - 1, 9, rig.now_ms)
    rows = rig.grant(other, 9)
    assert {row.job_id for row in rows} >= set(ids)
    judge.judge([(other, rig.record(row.job_id)) for row in rows])


def test_jobs_bound_to_who_cannot_run_them_go_to_workers_that_come_later() -> None:
    """Also to one of another kind than all that were there when their worker lost the name."""
    rig, bound = sticky_rig()
    rig.do(CloseSession(session_id=int(bound[1:])))
    rig.open_session(7, bound, names=("other",))
    ids = rig.submit(2, sticky_key="s")
    rig.open_session(8, "later", names=("job", "third"))
    assert {row.job_id for row in rig.grant(8, 9)} >= set(ids)


def test_a_binding_outlives_the_jobs_of_its_queue() -> None:
    """Also when its last job is purged: the worker keeps what it holds for the key."""
    rig = Rig()
    rig.open_session(1)
    rig.open_session(2)
    done = rig.submit(1, sticky_key="s")
    rig.report(rig.grant_one(1))
    rig.do(PurgeJobs(job_ids=done))
    assert not state_of(rig.partition).lanes.queues
    (following,) = rig.submit(1, sticky_key="s")
    assert not rig.grant(2, 1)
    assert [row.job_id for row in rig.grant(1, 1)] == [following]


# Reserves.


def reserve_rig(share: float, priority: int = 10, slots: int = 10) -> Rig:
    """A queue with a reserve, another one, and a worker for both."""
    rig = Rig()
    rig.configure(("default", "urgent"), QueueSettings(reserved=share, reserved_priority=priority))
    rig.open_session(1, slots=slots)
    return rig


URGENT = Policy(name="job", queue="urgent")


@given(
    share=st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.99]),
    slots=st.integers(1, 12),
    steps=st.lists(
        st.tuples(st.sampled_from(["bulk", "urgent", "low", "finish"]), st.integers(1, 6)),
        max_size=25,
    ),
)
def test_others_never_take_what_is_reserved(
    share: float, slots: int, steps: list[tuple[str, int]]
) -> None:
    """Others run in no more than what the reserve leaves; the reserve's own jobs find it free."""
    rig = reserve_rig(share, priority=4, slots=slots)
    due = -int(-share * slots // 1)
    held = []
    for what, count in steps:
        if what == "finish":
            for row in held[:count]:
                rig.report(row)
            del held[:count]
        else:
            policy = Policy(name="job") if what == "bulk" else URGENT
            rig.submit(count, policy, priority=4 if what == "urgent" else 9)
        held += rig.grant(1, slots - len(held))
        jobs = [rig.record(row.job_id) for row in held]
        urgent = [j for j in jobs if j.policy is not None and _may_use(j.policy, j.priority)]
        assert len(jobs) - len(urgent) <= slots - due or len(urgent) >= due
        waiting = rig.partition.scan().take(1_000, 100_000)
        starved = [
            j for j in waiting if j.state is JobState.PENDING and _may_use(j.policy, j.priority)
        ]
        assert not starved or len(held) == slots or len(urgent) >= due
    audit(rig.partition)


def _may_use(policy: Policy, priority: int) -> bool:
    return policy.queue == "urgent" and priority <= 4


def test_reserve_is_kept_free_while_nobody_uses_it() -> None:
    """Bulk work takes the rest and no more; an urgent job then starts at once."""
    rig = reserve_rig(0.3)
    rig.submit(20, Policy(name="job"))
    assert len(rig.grant(1, 10)) == 7
    urgent = rig.submit(5, URGENT)
    assert [row.job_id for row in rig.grant(1, 3)] == urgent[:3]


def test_what_the_reserve_uses_counts() -> None:
    """Once the reserve's jobs run in it, others have all the rest; both share what is left."""
    rig = reserve_rig(0.3)
    rig.submit(3, URGENT)
    assert len(rig.grant(1, 3)) == 3
    rig.submit(20, Policy(name="job"))
    assert len(rig.grant(1, 7)) == 7


def test_reserve_binds_only_workers_that_serve_the_queue() -> None:
    """Slots of those who could not run its jobs anyway are not kept free."""
    rig = reserve_rig(0.5)
    rig.open_session(2, queues=("default",), slots=10)
    rig.open_session(3, names=("other",), slots=10)
    rig.submit(5, URGENT)
    rig.submit(30, Policy(name="job"))
    rig.submit(30, Policy(name="other"))
    assert len(rig.grant(2, 10)) == 10
    assert len(rig.grant(3, 10)) == 10
    rows = rig.grant(1, 10)
    assert Counter(rig.record(r.job_id).policy.queue for r in rows) == {"urgent": 5, "default": 5}


def test_reserve_is_kept_for_a_queue_without_jobs_and_through_a_failover() -> None:
    """A reserve is there for what has not come yet."""
    rig = reserve_rig(0.5)
    rig.submit(30, Policy(name="job"))
    rig.crash(window_ms=0)
    rig.open_session(2)
    assert len(rig.grant(2, 10)) == 5


def test_jobs_behind_the_band_are_others() -> None:
    """In its own queue, too, only the priorities that it is for use the reserve."""
    rig = reserve_rig(0.4, priority=2)
    rig.submit(20, URGENT, priority=7)
    assert len(rig.grant(1, 10)) == 6
    first = rig.submit(2, URGENT, priority=1)
    rows = rig.grant(1, 4)
    assert [row.job_id for row in rows] == first
    for row in rows:
        rig.report(row, AttemptOutcome.COMPLETED)
    assert not rig.grant(1, 4)
