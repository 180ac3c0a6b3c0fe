"""What explanations say, word by word: people act on it."""

from dataclasses import replace

import pytest

from tenure.master.core.command import (
    CancelJobs,
    CloseSession,
    DrainSession,
    MarkSession,
    OpenWorkflow,
    SubmitRow,
)
from tenure.master.core.explain import Blocker, Halt
from tenure.master.core.record import LabelSelector, Policy
from tenure.master.core.settings import (
    BreakerSettings,
    JobTypeSettings,
    KeyOverride,
    QueueSettings,
    RateLimit,
)
from tenure.protocol.vocabulary import BlockerKind, BreakerOverride, JobState, ParentFailure
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import CONFIG, Rig
from tests.unit.master.core.test_explain import QUEUE, SCENES, TYPE, K, explain

WORDS: dict[BlockerKind, tuple[str, str, int]] = {
    K.NOT_DUE: ("it is not due yet", "its time has come", 5_000),
    K.PARENTS: ("1 of its 1 parents have not ended", "they end", 0),
    K.TENANT_PAUSED: (
        "tenant default is paused",
        "tenure queues resume --tenant default",
        0,
    ),
    K.QUEUE_PAUSED: ("queue default is paused", "tenure queues resume default", 0),
    K.JOB_TYPE_PAUSED: ("jobs of name job are paused", "tenure queues resume --job job", 0),
    K.QUEUE_CONCURRENCY: (
        "queue default runs 1 of at most 1 jobs",
        "one of them ends",
        0,
    ),
    K.KEY_CONCURRENCY: (
        "limit key k of queue default runs 1 of at most 1 jobs",
        "one of them ends",
        0,
    ),
    K.QUEUE_RATE: ("queue default begins at most 1 jobs in 1 s", "its next token", 1_000),
    K.KEY_RATE: (
        "limit key k of queue default begins at most 1 jobs in 1 s",
        "its next token",
        1_000,
    ),
    K.CIRCUIT_BREAKER: (
        "the breaker of job is open: too many have failed",
        "it lets probes through",
        1_000,
    ),
    K.KEY_CIRCUIT_BREAKER: (
        "the breaker of limit key k of queue default is open: too many have failed",
        "it lets probes through",
        1_000,
    ),
    K.RETRY_BUDGET: (
        (
            "attempt 1 has failed and its backoff is over, but the retries of job had used up "
            "their budget of 0.5 of its grants"
        ),
        "its place among them has come",
        60_000,
    ),
    K.NO_WORKER: (
        "none of 1 workers runs jobs job of queue default",
        "a worker starts that serves it",
        0,
    ),
    K.NO_LABELS: (
        "none of the 1 workers that serve it has the labels gpu=a100",
        "a worker starts that has them",
        0,
    ),
    K.STICKY_WORKER_BUSY: (
        "sticky key s is bound to a worker (worker-1) that has no free slot",
        "a job of that worker ends, or the worker is gone",
        0,
    ),
    K.NO_CREDIT: (
        "all slots of those who serve it are taken, or they are silent (workers: 1, slots: 10)",
        "one of their jobs ends, or a worker starts",
        0,
    ),
    K.QUARANTINE: (
        "the workers that serve it are in quarantine (worker-1)",
        "an operator: tenure workers release worker-1",
        0,
    ),
    K.RESERVED: (
        "the slots that are free are reserved for others (urgent)",
        "more slots become free",
        0,
    ),
    K.ORDER: (
        "others come before it: of its own queue by their order, of other queues by their shares",
        "they are granted",
        0,
    ),
}


@pytest.mark.parametrize("kind", WORDS)
def test_what_is_said_of_each_thing_that_keeps_a_job(kind: BlockerKind) -> None:
    """What it is, what would free it, and when that is, if it comes by itself."""
    rig = Rig()
    job_id, credits, _, _ = SCENES[kind](rig)
    (blocker,) = explain(rig, job_id, credits).blockers
    text, freed_by, after_ms = WORDS[kind]
    assert (blocker.text, blocker.freed_by) == (text, freed_by)
    assert blocker.until_ms == (rig.now_ms + after_ms if after_ms else 0)
    assert blocker.by_hand is (kind is K.QUARANTINE)
    assert blocker.each_ms == (1_000.0 if kind in (K.QUEUE_RATE, K.KEY_RATE) else 0.0)


def test_a_retry_says_which_attempt_has_failed() -> None:
    """And that its backoff is awaited."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one()
    rig.fail(rig.grant_one())
    found = explain(rig, job_id, [])
    (blocker,) = found.blockers
    assert blocker == Blocker(
        K.NOT_DUE,
        "attempt 1 has failed, and the next one is not due yet",
        "its backoff is over",
        rig.record(job_id).ready_ms,
    )
    assert found.state is JobState.RETRYING
    assert found.estimate_ms == rig.record(job_id).ready_ms - rig.now_ms
    assert found.basis == "when it is due; who waits then is not known"
    rig.now_ms += 3_600_000
    assert explain(rig, job_id, []).estimate_ms == 0


def test_what_nobody_knows_the_end_of_comes_first() -> None:
    """Then what lasts longest; and while it lasts there is no estimate."""
    rig = Rig()
    rig.configure(TYPE, JobTypeSettings(paused=True))
    rate, key_rate = RateLimit(2, 5_000, 1), RateLimit(1, 8_000, 1)
    rig.configure(QUEUE, QueueSettings(rate=rate, key_rate=key_rate))
    job_id = rig.submit_one(limit_key="k")
    found = explain(rig, job_id, [])
    assert [blocker.kind for blocker in found.blockers] == [
        K.JOB_TYPE_PAUSED,
        K.NO_WORKER,
        K.KEY_RATE,
        K.QUEUE_RATE,
    ]
    assert [blocker.each_ms for blocker in found.blockers] == [0.0, 0.0, 8_000.0, 2_500.0]
    assert found.blockers[3].text == "queue default begins at most 2 jobs in 5 s"
    assert (found.estimate_ms, found.basis) == (None, "nobody knows when what keeps it ends")
    late = rig.submit_one(delay_ms=9_000)
    found = explain(rig, late, [])
    assert found.blockers[-1].kind is K.NOT_DUE
    assert (found.estimate_ms, found.basis) == (None, "nobody knows when what keeps it ends")


def test_a_job_whose_turn_it_is_says_so() -> None:
    """Nothing keeps it."""
    rig = Rig()
    rig.open_session(1)
    found = explain(rig, rig.submit_one(), [(1, 1)])
    assert (found.blockers, found.estimate_ms, found.basis) == ([], 0, "it is its turn")


def test_a_leader_that_grants_nothing_says_why() -> None:
    """In its window until that ends; then what the node says."""
    rig = Rig(window_ms=3_000)
    rig.open_session(1)
    job_id = rig.submit_one()
    halt = Halt("the store is full", "space", 77)
    (blocker,) = explain(rig, job_id, [], halt=halt).blockers
    assert blocker == Blocker(
        K.LEADER,
        "the leader has just taken office, and workers tell it what they run",
        "all have told, or the time for it is over",
        rig.now_ms + 3_000,
    )
    rig.close_window()
    found = explain(rig, job_id, [(1, 1)], halt=halt)
    assert found.blockers == [Blocker(K.LEADER, *halt)]


def test_workers_that_are_drained_are_named() -> None:
    """Those that would serve it; the first five of them, and what would bring one back."""
    rig = Rig()
    for session_id in range(1, 8):
        rig.open_session(session_id)
        rig.do(DrainSession(session_id=session_id))
    rig.open_session(8, names=("other",))
    rig.do(DrainSession(session_id=8))
    (blocker,) = explain(rig, rig.submit_one(), []).blockers
    names = "worker-1, worker-2, worker-3, worker-4, worker-5"
    assert blocker.kind is K.NO_WORKER
    assert blocker.text == (
        f"none of 8 workers runs jobs job of queue default, but 7 that are drained ({names})"
    )
    assert blocker.freed_by == (
        "a worker starts that serves it, or `tenure workers undrain worker-1`"
    )


def test_labels_that_nobody_has_are_named() -> None:
    """With all values that would do; of those that serve it only."""
    rig = Rig()
    rig.open_session(1, labels={"gpu": "h100"})
    rig.open_session(2, labels={"region": "eu"})
    rig.open_session(3, names=("other",), labels={"gpu": "h100", "region": "eu"})
    requires = (LabelSelector("gpu"), LabelSelector("region", ("eu", "us")))
    (blocker,) = explain(rig, rig.submit_one(Policy(name="job", requires=requires)), []).blockers
    assert blocker.text == ("none of the 2 workers that serve it has the labels gpu, region=eu|us")


def test_a_member_says_whether_its_workflow_is_sealed() -> None:
    """That is no parent of the client's; those are counted for themselves."""
    rig = Rig()
    flow = rig.mint()
    rig.do(OpenWorkflow(workflow_id=flow, name="w", tenant="t", seal_within_ms=60_000))
    first, second = rig.mint(), rig.mint()
    rows = [
        SubmitRow(first, 0, b"", "", parents=(flow,), workflow_id=flow),
        SubmitRow(second, 0, b"", "", parents=(flow, first), workflow_id=flow),
    ]
    assert not rig.submit_rows(rows).refusals
    rig.open_session(1)
    unsealed = Blocker(K.PARENTS, f"its workflow {flow} has not been sealed", "it is sealed")
    waits = Blocker(K.PARENTS, "1 of its 1 parents have not ended", "they end")
    found = explain(rig, first, [])
    assert (found.blockers, found.open_parents) == ([unsealed], [])
    found = explain(rig, second, [])
    assert (found.blockers, found.open_parents) == ([unsealed, waits], [first])
    assert (found.estimate_ms, found.basis) == (None, "")


@pytest.mark.parametrize(
    ("known", "text", "freed_by", "by_hand"),
    [
        (True, "is half open, and its probes run", "they succeed", False),
        (
            False,
            "was opened by hand",
            "an operator: tenure queues set --job job --breaker-override none",
            True,
        ),
    ],
)
def test_a_breaker_says_how_it_is_closed(
    known: bool, text: str, freed_by: str, by_hand: bool
) -> None:
    """By its probes, or by who opened it."""
    rig = Rig()
    rig.open_session(1)
    if known:
        tuned = BreakerSettings(volume_min=1, open_for_ms=1_000, probes=1)
        rig.configure(TYPE, JobTypeSettings(breaker=tuned))
        rig.submit(1)
        rig.fail(rig.grant_one())
        rig.pass_time(1_000)
        rig.submit(1)
        rig.grant_one()
    else:
        rig.configure(TYPE, JobTypeSettings(breaker_override=BreakerOverride.OPEN))
    (blocker,) = explain(rig, rig.submit_one(), [(1, 1)]).blockers
    assert blocker == Blocker(
        K.CIRCUIT_BREAKER, f"the breaker of job {text}", freed_by, by_hand=by_hand
    )


def test_workers_in_quarantine_are_named() -> None:
    """The first five by their names; the one whose try comes first says when."""
    rig = Rig()
    # Who gets work beside them: the last ones of all would be given it, too.
    rig.open_session(8)
    for session_id in (7, 6, 5, 4, 3, 2, 1):
        rig.open_session(session_id, labels={"gpu": "a100"})
        mark = MarkSession(
            session_id=session_id, reason="its disk", by_hand=False, for_ms=session_id * 1_000
        )
        rig.do(mark)
    policy = Policy(name="job", requires=(LabelSelector("gpu"),))
    (blocker,) = explain(rig, rig.submit_one(policy), []).blockers
    assert blocker.text == (
        "the workers that serve it are in quarantine (worker-1, worker-2, worker-3, worker-4, "
        "worker-5)"
    )
    assert blocker.freed_by == (
        "one of them is tried with one job, or an operator: tenure workers release worker-1"
    )
    marks = state_of(rig.partition).health.marks
    assert blocker.until_ms == min(mark.probe_ms for mark in marks.values())
    assert not blocker.by_hand


def test_what_is_ahead_is_counted_a_part_at_a_time() -> None:
    """However much is looked at in one go, it comes to the same."""
    rig = Rig(audited=False)
    rig.open_session(1)
    rig.submit(3, priority=4)
    first = rig.submit(300)
    rig.now_ms += 10
    rig.submit(200)
    for looks in (1, 7, 1_000):
        counts = [explain(rig, job_id, [], looks=looks).ahead for job_id in first[:3]]
        assert counts == [3, 4, 5]
        assert explain(rig, first[-1], [], looks=looks).ahead == 302


@pytest.mark.parametrize(("looks_max", "segments"), [(1, 1), (2, 1), (4, 2), (6, 3), (7, 4)])
def test_so_much_is_looked_at_at_once(looks_max: int, segments: int) -> None:
    """A look for each part of the queue and one for each job there, until there are as many."""
    rig = Rig()
    ids = [rig.submit_one() for _ in range(12)]
    explaining = rig.partition.explain(ids[-1], [], rig.now_ms, None)
    assert explaining is not None
    takes = 0
    while not explaining.done:
        explaining.take(looks_max)
        takes += 1
    # The last one finds that there is no more.
    assert takes == 12 // segments + 1
    assert explaining.result().ahead == 11


def test_nobody_is_ahead_of_a_job_that_is_not_due() -> None:
    """Though jobs of its queue are ready; nothing has to be looked at to say so."""
    rig = Rig()
    rig.submit(3)
    explaining = rig.partition.explain(rig.submit_one(delay_ms=1), [], rig.now_ms, None)
    assert explaining is not None
    assert explaining.done
    explaining.take(9)
    assert explaining.result().ahead == 0


def test_a_job_that_has_ended_waits_for_nothing() -> None:
    """Nobody is ahead of it, and nothing keeps it."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one()
    rig.report(rig.grant_one())
    rig.submit(3)
    found = explain(rig, job_id, [])
    assert (found.state, found.ahead, found.blockers) == (JobState.COMPLETED, 0, [])
    assert (found.estimate_ms, found.basis) == (None, "")


def test_tokens_of_a_key_are_for_its_own_jobs() -> None:
    """Those before it take one each; whether others come first is another matter."""
    rig = Rig()
    rig.open_session(1)
    rig.configure(QUEUE, QueueSettings(key_rate=RateLimit(1, 60_000, 1)))
    mine = rig.submit(3, limit_key="k")
    rig.submit(5, priority=9, limit_key="j")
    found = explain(rig, mine[-1], [(1, 1)])
    assert [blocker.kind for blocker in found.blockers] == [K.KEY_RATE]
    assert (found.ahead, found.estimate_ms) == (2, 3 * 60_000)
    assert found.basis == "2 jobs before it, one every 60 s"
    rig.submit(1, priority=0)
    found = explain(rig, mine[-1], [(1, 1)])
    assert (found.ahead, found.estimate_ms) == (3, None)
    assert found.basis == "how fast jobs of its queue begin is not known yet"


def test_who_is_drained_for_other_queues_is_not_named() -> None:
    """It would not run the job if it were brought back."""
    rig = Rig()
    rig.open_session(1, queues=("other",))
    rig.do(DrainSession(session_id=1))
    (blocker,) = explain(rig, rig.submit_one(), []).blockers
    assert blocker.text == "none of 1 workers runs jobs job of queue default"
    rig = Rig()
    rig.open_session(1, queues=("default",))
    rig.do(DrainSession(session_id=1))
    (blocker,) = explain(rig, rig.submit_one(), []).blockers
    assert blocker.text.endswith(", but 1 that are drained (worker-1)")


def test_a_child_whose_parents_have_ended_says_what_it_waits_for() -> None:
    """For who decides on it, or for a parent to be requeued."""
    rig = Rig()
    (parent,) = rig.submit(1)
    for on_failure, text, freed_by in (
        (
            ParentFailure.FAIL,
            "its parents have ended a moment ago",
            "the leader decides what becomes of it",
        ),
        (
            ParentFailure.HOLD,
            "of its 1 parents one has not succeeded, and it is held for that",
            "that one is requeued and succeeds",
        ),
    ):
        child = rig.mint()
        row = SubmitRow(child, 0, b"", "", parents=(parent,))
        rig.submit_rows([row], Policy(name="other", on_parent_failure=on_failure))
        rig.do(CancelJobs(job_ids=[parent]))
        *_, blocker = explain(rig, child, []).blockers
        assert blocker == Blocker(K.PARENTS, text, freed_by)


@pytest.mark.parametrize(("tenant", "whose"), [("default", ""), ("acme", " --tenant acme")])
def test_a_keys_breaker_says_who_has_opened_it(tenant: str, whose: str) -> None:
    """And the command that closes it, with the tenant if that is not the default one."""
    rig = Rig()
    rig.open_session(1)
    tuned, opened = BreakerSettings(), (KeyOverride("k", BreakerOverride.OPEN),)
    settings = QueueSettings(key_breaker=tuned, key_breaker_overrides=opened)
    rig.configure((tenant, "q"), settings)
    job_id = rig.submit_one(Policy(name="job", tenant=tenant, queue="q"), limit_key="k")
    (blocker,) = explain(rig, job_id, [(1, 1)]).blockers
    assert blocker.by_hand
    assert blocker.freed_by == (
        f"an operator: tenure queues set q{whose} --key-breaker-override k=none"
    )


def test_a_sticky_key_of_a_worker_that_is_away_says_so() -> None:
    """Its jobs wait for that one until it is given up; others of the same kind are no help."""
    rig = Rig(replace(CONFIG, lease_ttl_ms=1 << 40))
    for session_id in (1, 2):
        rig.open_session(session_id)
    rig.submit(1, sticky_key="s")
    rig.grant_one(1)
    rig.do(CloseSession(session_id=1))
    found = explain(rig, rig.submit_one(sticky_key="s"), [(2, 5)])
    (blocker,) = found.blockers
    assert blocker.kind is K.STICKY_WORKER_BUSY
    assert blocker.text == "sticky key s is bound to a worker (away) that has no free slot"


def test_a_sticky_key_that_is_bound_to_nobody_is_anybodys() -> None:
    """What keeps its first job is what keeps all others."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(sticky_key="s")
    (blocker,) = explain(rig, job_id, []).blockers
    assert blocker.kind is K.NO_CREDIT
    assert explain(rig, job_id, [(1, 1)]).blockers == []


def test_a_sticky_key_of_a_worker_that_does_not_run_the_job_does_not_bind_it() -> None:
    """It goes to others: theirs is the slot that it waits for."""
    rig = Rig()
    rig.open_session(1, names=("first",))
    rig.open_session(2, names=("second",))
    rig.submit(1, Policy(name="first"), sticky_key="s")
    rig.grant_one(1)
    job_id = rig.submit_one(Policy(name="second"), sticky_key="s")
    (blocker,) = explain(rig, job_id, [(1, 1)]).blockers
    assert blocker.kind is K.NO_CREDIT
    assert explain(rig, job_id, [(1, 1), (2, 1)]).blockers == []


def test_a_reserve_is_not_named_if_others_come_first_all_the_same() -> None:
    """Without it the slot would be another job's."""
    rig = Rig()
    rig.open_session(1)
    rig.submit_one(Policy(name="job", queue="urgent"), delay_ms=1_000)
    rig.configure(("default", "urgent"), QueueSettings(reserved=0.5))
    job_id = rig.submit_one()
    rig.submit_one(priority=0)
    found = explain(rig, job_id, [(1, 1)])
    assert [blocker.kind for blocker in found.blockers] == [K.ORDER]


def test_nobody_is_named_if_no_reserve_is_unmet() -> None:
    """A worker offers more than its slots, and where slots are counted nothing is given beyond."""
    rig = Rig()
    rig.open_session(1, slots=2)
    rig.configure(QUEUE, QueueSettings(reserved=0.5, reserved_priority=9))
    rig.submit(2)
    assert len(rig.grant(1, 2)) == 2
    rig.accept(1, 1)
    (blocker,) = explain(rig, rig.submit_one(), [(1, 1)]).blockers
    assert blocker.kind is K.RESERVED
    assert blocker.text == "the slots that are free are reserved for others"
