"""The pick by itself: with more lanes and kinds of workers than a worker serves."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import Dispatch
from tenure.master.core.effect import SendAssignment
from tenure.master.core.fair import QUANTUM
from tenure.master.core.ready import order_key
from tenure.master.core.record import JobRecord, LabelSelector, Policy
from tenure.master.core.settings import QueueSettings
from tenure.master.core.volatile import TurnsTaken
from tenure.protocol.vocabulary import JobState
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.rig import CONFIG, Rig, leases_of, of_type

#: Leases that outlive every pause of these tests.
LASTING = replace(CONFIG, lease_ttl_ms=1 << 40, accept_timeout_ms=1 << 40)
NAMES = [f"n{number}" for number in range(24)]
#: What each session serves: lanes that only one of them sees, and lanes that several do.
SERVED = {1: frozenset(NAMES[::2]), 2: frozenset(NAMES[1:]), 3: frozenset(["n0"])}


def place(record: JobRecord) -> tuple[int, int]:
    """A job's place in its queue."""
    key = order_key(record.priority, record.ready_ms, CONFIG.aging_step_ms)
    return key, record.ordinal


def waiting(rig: Rig, session_id: int) -> list[JobRecord]:
    """What a session could run, in order."""
    jobs = state_of(rig.partition).jobs.values()
    pending = [record for record in jobs if record.state is JobState.PENDING]
    own = [record for record in pending if record.policy.name in SERVED[session_id]]
    return sorted(own, key=place)


@pytest.fixture(params=range(5))
def rig(request: pytest.FixtureRequest) -> Rig:
    """Many lanes of many segments, with equal keys, jobs that came late, and jobs that left."""
    rng = random.Random(request.param)
    rig = Rig(LASTING, audited=False)
    for session_id, names in SERVED.items():
        rig.open_session(session_id, names=tuple(sorted(names)), slots=1_000)
    for _ in range(120):
        # A step of aging is worth a priority, so jobs of different ones have equal keys.
        rig.now_ms += rng.choice((0, 0, CONFIG.aging_step_ms))
        policy = Policy(name=rng.choice(NAMES))
        ids = rig.submit(rng.randint(1, 4), policy, priority=rng.randint(0, 4))
        if rng.random() < 0.3:
            rig.do(commands.CancelJobs(job_ids=rng.sample(ids, 1)))
    return rig


def test_every_job_is_picked_once_and_in_order(rig: Rig) -> None:
    """Each session gets exactly the first jobs of those that it can run, whoever took before."""
    rng = random.Random(7)
    while any(waiting(rig, session_id) for session_id in SERVED):
        session_id, credit = rng.choice(list(SERVED)), rng.randint(1, 40)
        expected = [record.job_id for record in waiting(rig, session_id)[:credit]]
        assert [row.job_id for row in rig.grant(session_id, credit)] == expected
    audit(rig.partition)


def test_a_decision_changes_nothing(rig: Rig) -> None:
    """Asked again, it says the same; so what a decision has taken is kept beside the state."""
    credits = [(session_id, 60) for session_id in SERVED]
    command = Dispatch(
        credits=credits, committed_seq=rig.partition.next_seq - 1, grants_max=1_000_000
    )
    first = rig.decide(command)
    audit(rig.partition)
    assert first.events == rig.decide(command).events
    assert len({job_id for event in first.events for job_id in getattr(event, "job_ids", ())}) > 100


# Who takes how much.


def shares(
    rig: Rig, *credits: tuple[int, int], grants_max: int = 1_000_000
) -> tuple[dict[int, int], list[int]]:
    """How many jobs each session would get, and how many each turn had."""
    command = Dispatch(
        credits=list(credits), committed_seq=rig.partition.next_seq - 1, grants_max=grants_max
    )
    decision = rig.decide(command)
    taken: Counter[int] = Counter()
    for effect in of_type(decision.effects, SendAssignment):
        taken[effect.session_id] += len(effect.rows)
    turns = [turn.jobs for event in of_type(decision.events, TurnsTaken) for turn in event.turns]
    return dict(taken), turns


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize(
    ("jobs", "expected"),
    [(1, {1: 1}), (2, {1: 1, 2: 1}), (3, {1: 1, 2: 2}), (4, {1: 2, 2: 2}), (12, {1: 4, 2: 8})],
)
def test_the_emptiest_takes_and_of_equals_the_first(
    alike: bool, jobs: int, expected: dict[int, int]
) -> None:
    """By the share of its slots that is taken; whether or not they run the same."""
    rig = Rig(LASTING)
    rig.open_session(1, slots=8)
    rig.open_session(2, names=("job",) if alike else ("job", "other"), slots=16)
    rig.submit(jobs)
    assert shares(rig, (1, 99), (2, 99))[0] == expected


@pytest.mark.parametrize("alike", [True, False])
def test_what_a_worker_has_counts(alike: bool) -> None:
    """Who has most gets nothing until the others are as full; credit is a bound."""
    rig = Rig(LASTING)
    rig.open_session(1, slots=8)
    rig.open_session(2, names=("job",) if alike else ("job", "other"), slots=8)
    rig.submit(20)
    rig.grant(1, 4)
    assert shares(rig, (1, 9), (2, 9), grants_max=3)[0] == {2: 3}
    assert shares(rig, (1, 9), (2, 9), grants_max=6)[0] == {1: 1, 2: 5}
    assert shares(rig, (1, 9), (2, 2), grants_max=9)[0] == {1: 7, 2: 2}
    assert shares(rig, (1, 0), (2, 3))[0] == {2: 3}
    assert shares(rig, (1, 2), (2, 3))[0] == {1: 2, 2: 3}


def test_three_kinds_of_workers_fill_up_together() -> None:
    """However many each has slots for."""
    rig = Rig(LASTING)
    for session_id, slots in ((1, 4), (2, 8), (3, 16)):
        names = ("job", *["other", "third"][: session_id - 1])
        rig.open_session(session_id, names=names, slots=slots)
    rig.submit(28)
    for times in (1, 2, 4):
        taken, _ = shares(rig, (1, 99), (2, 99), (3, 99), grants_max=7 * times)
        assert taken == {1: times, 2: 2 * times, 3: 4 * times}


def test_a_turn_is_a_quantum_while_others_wait() -> None:
    """And all that there is when they do not."""
    rig = Rig(LASTING)
    rig.open_session(1, slots=100)
    rig.submit(3 * QUANTUM, Policy(name="job", queue="a"))
    assert shares(rig, (1, 100)) == ({1: 48}, [48])
    rig.submit(QUANTUM + 1, Policy(name="job", queue="b"))
    assert shares(rig, (1, 100)) == ({1: 65}, [16, 16, 16, 1, 16])
    assert shares(rig, (1, 20)) == ({1: 20}, [16, 4])


def test_only_what_has_committed_is_granted() -> None:
    """A queue of which nothing has is passed over; of another one those are granted that have."""
    rig = Rig(LASTING)
    rig.open_session(1, slots=100)
    old = rig.submit(2, Policy(name="job", queue="a"))
    committed = rig.partition.next_seq - 1
    rig.submit(2, Policy(name="job", queue="a"), priority=0)
    rig.submit(2, Policy(name="job", queue="b"))
    decision = rig.decide(Dispatch(credits=[(1, 9)], committed_seq=committed, grants_max=9))
    assert [row.job_id for row in leases_of(decision.effects)] == old
    nothing = Dispatch(credits=[(1, 9)], committed_seq=committed - 1, grants_max=9)
    assert rig.decide(nothing).effects == ()


@pytest.mark.parametrize(
    ("settings", "policy", "options", "ahead"),
    [
        (QueueSettings(), Policy(name="job"), {}, False),
        (QueueSettings(), Policy(name="job"), {"limit_key": "k"}, False),
        (QueueSettings(), Policy(name="job", at_most_once=True), {}, True),
        (QueueSettings(concurrency=9), Policy(name="job"), {}, True),
        (QueueSettings(key_concurrency=9), Policy(name="job"), {}, False),
        (QueueSettings(key_concurrency=9), Policy(name="job"), {"limit_key": "k"}, True),
    ],
)
def test_what_must_be_written_before_it_is_sent(
    settings: QueueSettings, policy: Policy, options: dict[str, str], ahead: bool
) -> None:
    """Whatever is counted, and what may run once at most; and each grant but the first."""
    rig = Rig(LASTING)
    rig.configure(("default", "default"), settings)
    rig.open_session(1)
    rig.submit(1, policy, **options)  # type: ignore[arg-type]
    (effect,) = of_type(rig.dispatch((1, 9)).effects, SendAssignment)
    assert effect.write_ahead is ahead
    rig.give_back(*leases_of([effect]))
    if not policy.at_most_once:
        (effect,) = of_type(rig.dispatch((1, 9)).effects, SendAssignment)
        assert effect.write_ahead


def test_a_wish_goes_to_who_fulfils_most_of_it() -> None:
    """Of those the emptiest, of those the first; to somebody else when none has credit."""
    rig = Rig(LASTING)
    gpu, eu = LabelSelector("gpu"), LabelSelector("region", ("eu",))
    rig.open_session(1, slots=8)
    rig.open_session(2, slots=8, labels={"gpu": "old"})
    rig.open_session(3, slots=8, labels={"gpu": "new"})
    rig.open_session(4, slots=8, labels={"gpu": "new", "region": "eu"})
    rig.submit(1, Policy(name="job", prefers=(gpu, eu)))
    for credits, taker in (
        ([(1, 1), (2, 1), (3, 1), (4, 1)], 4),
        ([(1, 1), (2, 1), (3, 1)], 2),
        ([(1, 1), (3, 1)], 3),
        ([(1, 1)], 1),
    ):
        assert shares(rig, *credits)[0] == {taker: 1}
    rig.submit(1, Policy(name="job", requires=(LabelSelector("gpu", ("old",)),)), priority=0)
    rig.dispatch((2, 1))
    assert shares(rig, (1, 1), (2, 1), (3, 1))[0] == {3: 1}
