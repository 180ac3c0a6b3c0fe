"""What explanations say, word by word: people act on it."""

import pytest

from tenure.master.core.command import DrainSession, MarkSession, OpenWorkflow, SubmitRow
from tenure.master.core.explain import Blocker, Halt
from tenure.master.core.record import LabelSelector, Policy
from tenure.master.core.settings import BreakerSettings, JobTypeSettings, QueueSettings, RateLimit
from tenure.protocol.vocabulary import BlockerKind, BreakerOverride, JobState
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig
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
