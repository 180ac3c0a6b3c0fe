"""The pick by itself: with more lanes and kinds of workers than a worker serves."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from tenure.master.core import command as commands
from tenure.master.core import pick
from tenure.master.core.command import Dispatch, SubmitRow, SubmitSetting
from tenure.master.core.effect import SendAssignment
from tenure.master.core.fair import QUANTUM
from tenure.master.core.ready import order_key
from tenure.master.core.record import JobRecord, LabelSelector, Policy
from tenure.master.core.settings import QueueSettings, SettingsKey, TenantSettings
from tenure.master.core.volatile import TurnsTaken
from tenure.master.core.walk import walk_of
from tenure.protocol.vocabulary import FairBy, JobState
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
        (QueueSettings(concurrency=1), Policy(name="job"), {}, True),
        (QueueSettings(key_concurrency=1), Policy(name="job"), {}, False),
        (QueueSettings(key_concurrency=1), Policy(name="job"), {"limit_key": "k"}, True),
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


def test_jobs_of_one_batch_keep_their_order() -> None:
    """Whichever lanes they are in, and however those stand to each other; each turn counts all."""
    settings = [SubmitSetting(Policy(name=name), 5, 0, 0) for name in "abcde"]
    for seed in range(20):
        rng = random.Random(seed)
        rig = Rig(LASTING, audited=False)
        rig.open_session(1, names=tuple("abcde"), slots=1_000)
        rows = [SubmitRow(rig.mint(), rng.randrange(5), b"", "") for _ in range(40)]
        rig.do(commands.SubmitJobs(settings=settings, rows=rows))
        ids = [row.job_id for row in rows]
        while ids:
            credit = rng.randint(1, 20)
            taken, turns = shares(rig, (1, credit))
            assert taken == {1: min(credit, len(ids))} == {1: sum(turns)}
            assert [row.job_id for row in rig.grant(1, credit)] == ids[:credit]
            del ids[:credit]


def test_who_is_emptier_takes_at_once_until_the_others_are_as_full() -> None:
    """Not job by job: each turn looks at all again."""
    rig = Rig(LASTING)
    rig.open_session(1, slots=8)
    rig.open_session(2, names=("job", "other"), slots=8)
    rig.submit(20)
    rig.grant(1, 4)
    assert shares(rig, (1, 9), (2, 9), grants_max=4) == ({2: 4}, [4])


def test_turns_go_by_what_jobs_of_a_queue_cost() -> None:
    """Also in one decision: who runs three times as long is given a third as many."""
    rig = Rig(LASTING)
    rig.open_session(1, slots=1_000)
    for name, mean_run_ms in (("long", 3_000), ("short", 1_000)):
        rig.configure(("default", name), QueueSettings(fair_by=FairBy.TIME))
        rig.submit(200, Policy(name=name, queue=name))
        state_of(rig.partition).lanes.queues["default", name].mean_run_ms = mean_run_ms
    rig.open_session(2, names=("long", "short"), slots=1_000)
    rows = rig.grant(2, 8 * QUANTUM)
    queues = Counter(rig.record(row.job_id).policy.queue for row in rows)
    assert queues == {"long": 2 * QUANTUM, "short": 6 * QUANTUM}


def test_a_short_turn_counts_for_what_it_was() -> None:
    """Who was given ten jobs in one is not given another before the others have had as many."""
    rig = Rig(LASTING)
    rig.open_session(1, names=("rival",), slots=20)
    rig.open_session(2, slots=20)
    rig.submit(30, Policy(name="rival"))
    rig.grant(1, 10)
    for name in "ab":
        rig.submit(20, Policy(name="job", queue=name))
    decision = rig.decide(
        Dispatch(
            credits=[(1, 20), (2, 20)], committed_seq=rig.partition.next_seq - 1, grants_max=24
        )
    )
    turns = [
        (turn.queue, turn.jobs)
        for event in of_type(decision.events, TurnsTaken)
        for turn in event.turns
        if turn.queue != "default"
    ]
    assert turns[0] == ("a", 10)
    assert len(turns) >= 5
    assert {name for name, _ in turns[1:]} == {"b"}


def test_a_tenant_of_which_nothing_has_committed_is_passed_over() -> None:
    """The next one has its turn, though it has had more."""
    rig = Rig(LASTING)
    rig.open_session(1, slots=100)
    rig.submit(4, Policy(name="job", tenant="t"))
    rig.grant(1, 4)
    (old,) = rig.submit(1, Policy(name="job", tenant="t"))
    committed = rig.partition.next_seq - 1
    rig.submit(1, Policy(name="job", tenant="new"))
    decision = rig.decide(Dispatch(credits=[(1, 9)], committed_seq=committed, grants_max=9))
    assert [row.job_id for row in leases_of(decision.effects)] == [old]


def test_a_limit_holds_over_all_turns_of_a_decision() -> None:
    """What earlier turns have taken of its places is not there for later ones."""
    rig = Rig(LASTING)
    rig.configure(("default", "a"), QueueSettings(concurrency=QUANTUM + 4))
    rig.open_session(1, slots=100)
    rig.submit(50, Policy(name="job", queue="a"))
    rig.submit(50, Policy(name="job", queue="b"))
    rows = rig.grant(1, 100)
    queues = Counter(rig.record(row.job_id).policy.queue for row in rows)
    assert queues == {"a": QUANTUM + 4, "b": 50}


# Jobs of sticky keys.


def bound(rig: Rig, *, queue: str = "default") -> None:
    """Two workers that are alike, with a sticky key that is bound to the second."""
    for session_id in (1, 2):
        rig.open_session(session_id, slots=10)
    rig.submit(1, Policy(name="job", queue=queue), sticky_key="s")
    (row,) = rig.grant(2, 1)
    rig.accept(2, 1)
    rig.report(row, session_id=2)
    # The second is fuller, so it would not be asked first.
    rig.submit(4, Policy(name="job", queue="other"))
    rig.grant(2, 4)


def test_jobs_of_a_bound_key_wait_for_their_worker() -> None:
    """Though another one that is alike is emptier: they get what credit theirs has, in order."""
    rig = Rig(LASTING)
    bound(rig)
    ids = [rig.submit(1, priority=priority, sticky_key="s")[0] for priority in (5, 3, 4)]
    assert shares(rig, (1, 9)) == ({}, [])
    assert shares(rig, (1, 9), (2, 2))[0] == {2: 2}
    assert shares(rig, (1, 9), (2, 9))[0] == {2: 3}
    free = rig.submit_one(priority=9)
    assert shares(rig, (1, 9), (2, 2))[0] == {1: 1, 2: 2}
    rows = leases_of(rig.dispatch((1, 9), (2, 9)).effects)
    assert {row.job_id for row in rows} == {free, *ids}
    own = [row.job_id for row in rows if row.job_id != free]
    assert own == [ids[1], ids[2], ids[0]]


@pytest.mark.parametrize("jobs", [1, 3])
def test_who_gets_the_first_job_of_a_key_gets_the_others(jobs: int) -> None:
    """As many as it has credit for, and not one more."""
    rig = Rig(LASTING)
    rig.open_session(1)
    rig.open_session(2)
    rig.submit(jobs, sticky_key="s")
    assert shares(rig, (1, 1), (2, 9))[0] == {1: 1}
    assert shares(rig, (1, 9), (2, 9))[0] == {1: jobs}


@pytest.mark.parametrize("key", [("default", "default"), ("default",)], ids=["queue", "tenant"])
def test_a_pause_holds_for_jobs_of_bound_keys(key: SettingsKey) -> None:
    """Of a queue, and of its tenant."""
    rig = Rig(LASTING)
    bound(rig)
    rig.submit(1, sticky_key="s")
    pause = QueueSettings(paused=True) if len(key) == 2 else TenantSettings(paused=True)
    rig.configure(key, pause)
    assert shares(rig, (1, 9), (2, 9)) == ({}, [])


# Slots that are kept free.


def reserve(rig: Rig, **parts: float) -> None:
    """These queues have parts of all slots for priorities up to 5."""
    for name, share in parts.items():
        settings = QueueSettings(reserved=share, reserved_priority=5)
        rig.configure(("default", name), settings)


def test_what_is_free_beside_a_reserve_is_taken_to_the_last_slot() -> None:
    """And no more: of the rest each queue's own jobs get what it is due."""
    rig = Rig(LASTING)
    reserve(rig, urgent=0.4)
    rig.open_session(1, slots=10)
    rig.submit(3, Policy(name="job", queue="other"))
    assert shares(rig, (1, 5))[0] == {1: 1}
    rig.submit(9, Policy(name="job", queue="urgent"))
    assert shares(rig, (1, 5))[0] == {1: 5}


@pytest.mark.parametrize("idle", ["empty", "paused", "tenant"])
def test_each_queue_gets_what_is_kept_for_it(idle: str) -> None:
    """One after the other; one that has nothing to give holds up none behind it."""
    rig = Rig(LASTING)
    tenant = "t" if idle == "tenant" else "default"
    rig.configure((tenant, "idle"), QueueSettings(reserved=0.1, paused=idle == "paused"))
    rig.configure(("t",), TenantSettings(paused=True))
    reserve(rig, first=0.2, second=0.3)
    rig.open_session(1, slots=10)
    if idle != "empty":
        rig.submit(1, Policy(name="job", queue="idle", tenant=tenant))
    for name in ("first", "second"):
        rig.submit(9, Policy(name="job", queue=name))
    assert shares(rig, (1, 6)) == ({1: 5}, [2, 3])


def test_what_is_kept_is_for_jobs_of_bound_keys_too() -> None:
    """A queue that has only such gets them to their worker."""
    rig = Rig(LASTING)
    reserve(rig, urgent=0.5)
    bound(rig, queue="urgent")
    rig.submit(2, Policy(name="job", queue="urgent"), sticky_key="s")
    assert shares(rig, (1, 3), (2, 3))[0] == {2: 2}


def test_nobody_else_is_looked_at_when_all_that_is_free_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many lanes wait: only those that the reserves are for."""
    rig = Rig(LASTING)
    reserve(rig, urgent=0.5)
    rig.open_session(1, slots=10)
    for priority in range(9):
        rig.submit(2, Policy(name="job", queue="other"), priority=priority)
    rig.submit(2, Policy(name="job", queue="urgent"))
    seen = []
    monkeypatch.setattr(pick, "walk_of", lambda *args: seen.append(args[0]) or walk_of(*args))
    assert shares(rig, (1, 5))[0] == {1: 2}
    assert [lane.queue.name for lane in seen] == ["urgent"]


# Wishes.


def wished(rig: Rig, *, queue: str = "default", **options: str) -> JobRecord:
    """A job that had better have a worker with a GPU."""
    (job_id,) = rig.submit(
        1,
        Policy(name="job", queue=queue, prefers=(LabelSelector("gpu"),)),
        **options,  # type: ignore[arg-type]
    )
    return rig.record(job_id)


@pytest.mark.parametrize("sticky_key", ["", "s"])
@pytest.mark.parametrize("names", [("other",), ("job", "other")])
def test_a_wish_is_fulfilled_whoever_is_between(sticky_key: str, names: tuple[str, ...]) -> None:
    """Kinds of workers that cannot run the job, or have no credit, are passed over."""
    rig = Rig(LASTING)
    rig.open_session(1)
    rig.open_session(2, names=names)
    rig.open_session(3, labels={"gpu": "new"})
    job = wished(rig, sticky_key=sticky_key)
    rig.submit(1, priority=9)
    for second in (0, 1):
        command = Dispatch(
            credits=[(1, 1), (2, second), (3, 1)],
            committed_seq=rig.partition.next_seq - 1,
            grants_max=1,
        )
        (effect,) = of_type(rig.decide(command).effects, SendAssignment)
        assert effect.session_id == 3
        assert [row.record for row in effect.rows] == [job]


def test_a_wish_takes_nothing_that_is_kept_for_others() -> None:
    """It goes to who fulfils it and has slots to spare, else to anybody; it may use its own."""
    rig = Rig(LASTING)
    reserve(rig, urgent=0.99)
    gpu = {"gpu": "new"}
    rig.open_session(1, queues=("default",), slots=10)
    rig.open_session(2, labels=gpu, slots=10)
    rig.open_session(3, queues=("default",), labels=gpu, slots=10)
    wished(rig)
    assert shares(rig, (1, 1), (2, 1))[0] == {1: 1}
    assert shares(rig, (1, 1), (2, 1), (3, 1))[0] == {3: 1}
    rig = Rig(LASTING)
    reserve(rig, urgent=0.99)
    rig.open_session(1, slots=10)
    rig.open_session(2, labels=gpu, slots=10)
    wished(rig, queue="urgent")
    rig.submit(1, Policy(name="job", queue="urgent"), priority=9)
    assert shares(rig, (1, 1), (2, 1), grants_max=1)[0] == {2: 1}


def test_who_gets_a_wish_of_another_kinds_turn_takes_only_what_it_can_run() -> None:
    """What it was given counts for its own share of the queue."""
    rig = Rig(LASTING)
    rig.open_session(1, names=("job", "only"))
    rig.open_session(2, labels={"gpu": "new"})
    wished(rig)
    only = rig.submit(3, Policy(name="only"))
    command = Dispatch(
        credits=[(1, 2), (2, 9)], committed_seq=rig.partition.next_seq - 1, grants_max=9
    )
    for effect in of_type(rig.decide(command).effects, SendAssignment):
        names = {row.record.policy.name for row in effect.rows}
        assert names == ({"only"} if effect.session_id == 1 else {"job"})
    assert len(only) == 3
    assert shares(rig, (1, 2), (2, 9))[0] == {1: 2, 2: 1}


def test_all_grants_under_a_limit_are_written_before_they_are_sent() -> None:
    """To whomever they go, one by one."""
    rig = Rig(LASTING)
    rig.configure(("default", "default"), QueueSettings(concurrency=9))
    for session_id in (1, 2):
        rig.open_session(session_id)
    rig.submit(4)
    effects = of_type(rig.dispatch((1, 9), (2, 9)).effects, SendAssignment)
    assert [effect.write_ahead for effect in effects] == [True, True]


def test_jobs_that_wait_for_their_key_are_written_before_they_are_sent() -> None:
    """Each of them is counted, also the only one that may run."""
    rig = Rig(LASTING)
    rig.configure(("default", "default"), QueueSettings(key_concurrency=1))
    rig.open_session(1)
    rig.submit(2, limit_key="k")
    (effect,) = of_type(rig.dispatch((1, 9)).effects, SendAssignment)
    assert (len(effect.rows), effect.write_ahead) == (1, True)
