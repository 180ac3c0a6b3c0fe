"""When a job may begin: what estimates are computed from, and when there are none."""

import pytest

from tenure.master.core.command import MarkSession
from tenure.master.core.record import Policy, RetryPolicy
from tenure.master.core.settings import (
    BreakerSettings,
    JobTypeSettings,
    QueueSettings,
    RateLimit,
)
from tenure.protocol.vocabulary import Backoff, BlockerKind
from tests.unit.master.core.rig import Rig
from tests.unit.master.core.test_explain import GPU, QUEUE, SCENES, K, explain, kinds


def test_what_ends_by_itself_says_when() -> None:
    """Times: of a delay, of a token, of an open breaker, of a place in the retry budget."""
    for kind, after_ms in (
        (K.NOT_DUE, 5_000),
        (K.QUEUE_RATE, 1_000),
        (K.CIRCUIT_BREAKER, 1_000),
        (K.KEY_CIRCUIT_BREAKER, 1_000),
        (K.RETRY_BUDGET, 60_000),
    ):
        rig = Rig()
        job_id, credits, _, _ = SCENES[kind](rig)
        found = explain(rig, job_id, credits)
        assert [b.until_ms - rig.now_ms for b in found.blockers] == [after_ms]
        assert found.estimate_ms == after_ms
        assert found.basis


@pytest.mark.parametrize(
    "kind", [K.PARENTS, K.TENANT_PAUSED, K.QUEUE_PAUSED, K.JOB_TYPE_PAUSED, K.NO_WORKER]
)
def test_what_nobody_knows_the_end_of_has_no_estimate(kind: BlockerKind) -> None:
    """No number is better than a wrong one."""
    rig = Rig()
    job_id, credits, _, _ = SCENES[kind](rig)
    assert explain(rig, job_id, credits).estimate_ms is None


def test_the_estimate_is_what_is_ahead_by_what_was_granted() -> None:
    """Ten a second while jobs waited, and forty before it: four seconds and its own tenth."""
    rig = Rig(audited=False)
    rig.open_session(1, slots=1_000)
    ids = rig.submit(91)
    for _ in range(50):
        rig.pass_time(100)
        rig.grant_one()
    rig.accept(1, 1_000)
    found = explain(rig, ids[-1], [], looks=1)
    assert (found.ahead, kinds(found)) == (40, [K.NO_CREDIT])
    assert found.estimate_ms == 4_100
    assert "40 jobs before it, and 10 a second" in found.basis


def test_what_ends_by_itself_is_no_estimate_while_others_come_first() -> None:
    """When the breaker lets some through is known, but not how fast they go."""
    rig = Rig()
    first, credits, _, _ = SCENES[K.CIRCUIT_BREAKER](rig)
    assert explain(rig, first, credits).estimate_ms == 1_000
    found = explain(rig, rig.submit_one(), credits)
    assert (kinds(found), found.ahead, found.estimate_ms) == ([K.CIRCUIT_BREAKER], 1, None)
    assert "not known yet" in found.basis
    leaderless = Rig(window_ms=3_000)
    leaderless.open_session(1)
    jobs = leaderless.submit(1_000)
    assert explain(leaderless, jobs[0], [(1, 1)]).estimate_ms == 3_000
    assert explain(leaderless, jobs[-1], [(1, 1)]).estimate_ms is None


def flow(rig: Rig) -> None:
    """Ten jobs a second begin."""
    for _ in range(50):
        rig.submit(1)
        rig.pass_time(100)
        rig.grant_one()
        rig.accept(1, 1_000)


@pytest.mark.parametrize("known", [True, False])
def test_who_waits_for_tokens_waits_for_one_each(known: bool) -> None:
    """One a minute: those before it, a minute each, however fast others go. Of a key's rate only
    jobs of the key count, of the queue's all.
    """
    minutely = RateLimit(1, 60_000, 1)
    rig = Rig(audited=False)
    rig.open_session(1, slots=1_000)
    rig.configure(QUEUE, QueueSettings(key_rate=minutely))
    rig.submit(10, priority=9, limit_key="k")
    jobs = rig.submit(490, limit_key="k")
    rig.submit(20, priority=1, limit_key="k")
    if known:
        flow(rig)
    found = explain(rig, jobs[-1], [(1, 1)])
    (blocker,) = found.blockers
    assert (blocker.kind, found.ahead) == (K.KEY_RATE, 489)
    assert found.estimate_ms == blocker.until_ms - rig.now_ms + 509 * 60_000
    assert found.basis == "509 jobs before it, one every 60 s"
    rig.configure(QUEUE, QueueSettings(rate=minutely))
    rig.submit(30)
    found = explain(rig, jobs[-1], [(1, 1)])
    (blocker,) = found.blockers
    assert (blocker.kind, found.ahead) == (K.QUEUE_RATE, 509)
    assert found.estimate_ms == 60_000 + 509 * 60_000


def test_behind_its_own_gate_the_pace_of_its_queue_says_nothing() -> None:
    """Neither of a full key nor of a worker that is bound to a sticky key is known how fast it
    goes, nor of probes that run; the queue's other jobs are not held up by them.
    """
    rig = Rig(audited=False)
    rig.configure(QUEUE, QueueSettings(key_concurrency=1))
    rig.open_session(2, names=("bound",))
    rig.submit(1, Policy(name="bound"), sticky_key="s")
    rig.grant_one(2)
    bound = rig.submit(50, Policy(name="bound"), sticky_key="s")
    rig.open_session(1, slots=1_000)
    keyed = rig.submit(51, limit_key="k")
    rig.grant_one(1)
    tuned = BreakerSettings(volume_min=1, open_for_ms=1_000, probes=1)
    rig.configure(("default", "probed"), JobTypeSettings(breaker=tuned))
    flow(rig)
    for job_id, kind in ((keyed[-1], K.KEY_CONCURRENCY), (bound[-1], K.STICKY_WORKER_BUSY)):
        found = explain(rig, job_id, [(1, 1)])
        assert (kinds(found), found.estimate_ms) == ([kind], None)
    rig.open_session(3, names=("probed",))
    quick = Policy(name="probed", retry=RetryPolicy(backoff=Backoff.NONE))
    rig.submit(1, quick)
    rig.fail(rig.grant_one(3), session_id=3)
    rig.pass_time(1_000)
    rig.grant_one(3)
    found = explain(rig, rig.submit_one(quick), [(3, 1)])
    assert (kinds(found), found.estimate_ms) == ([K.CIRCUIT_BREAKER], None)


def test_what_should_have_ended_is_expected_at_once() -> None:
    """A time that is over is no time to wait, and none to have waited."""
    rig = Rig(window_ms=3_000)
    rig.open_session(1)
    job_id = rig.submit_one()
    rig.now_ms += 5_000
    found = explain(rig, job_id, [(1, 1)])
    assert kinds(found) == [K.LEADER]
    assert (found.estimate_ms, found.basis) == (0, "what keeps it ends then")


def test_who_is_next_waits_for_the_next_token_only() -> None:
    """Those behind wait for one more each, whatever limit key they have, or none."""
    rig = Rig()
    rig.open_session(1)
    rig.configure(QUEUE, QueueSettings(rate=RateLimit(1, 1_000, 1)))
    jobs = rig.submit(4)
    found = [explain(rig, job_id, [(1, 1)]) for job_id in (jobs[0], jobs[3])]
    assert [kinds(each) for each in found] == [[K.QUEUE_RATE]] * 2
    assert [(each.estimate_ms, each.basis) for each in found] == [
        (1_000, "what keeps it ends then"),
        (4_000, "3 jobs before it, one every 1 s"),
    ]


def test_tokens_count_for_those_before_it_and_the_pace_for_itself() -> None:
    """Slots are scarcer than tokens, one every five seconds: what lasts longest says when."""
    rig = Rig(audited=False)
    rig.open_session(1, slots=1_000)
    rig.configure(QUEUE, QueueSettings(rate=RateLimit(1, 1_000, 1)))
    jobs = rig.submit(14)
    for _ in range(10):
        rig.pass_time(5_000)
        rig.renew(1, 1_000)
        row = rig.grant_one()
        rig.accept(1, 1_000)
        rig.report(row)
    found = explain(rig, jobs[-1], [])
    assert (kinds(found), found.ahead) == ([K.QUEUE_RATE, K.NO_CREDIT], 3)
    assert found.estimate_ms == 5_000
    assert found.basis == "0 jobs before it, and 0.2 a second have begun while jobs waited"


def test_those_that_are_held_up_themselves_take_no_time() -> None:
    """Jobs of another key that has no tokens come before nobody, though their place is before."""
    rig = Rig()
    rig.open_session(1)
    rig.configure(QUEUE, QueueSettings(key_rate=RateLimit(1, 60_000, 1)))
    mine = rig.submit(3, limit_key="k")
    rig.submit(5, priority=0, limit_key="j")
    found = explain(rig, mine[-1], [(1, 1)])
    assert (kinds(found), found.ahead) == ([K.KEY_RATE], 2)
    assert (found.estimate_ms, found.basis) == (180_000, "2 jobs before it, one every 60 s")


def test_behind_a_worker_in_quarantine_only_the_first_one_knows_when() -> None:
    """It is tried with one job, and what then is not known, however fast others of its queue go."""
    rig = Rig(audited=False)
    rig.open_session(1, slots=1_000)
    rig.open_session(2, labels={"gpu": "a100"})
    rig.do(MarkSession(session_id=2, reason="its disk", by_hand=False, for_ms=20_000))
    flow(rig)
    first, second = rig.submit(2, Policy(name="job", requires=(GPU,)))
    unknown = "how fast those begin that wait for the same is not known"
    found = explain(rig, first, [(1, 1), (2, 1)])
    assert (kinds(found), found.ahead) == ([K.QUARANTINE], 0)
    assert (found.estimate_ms, found.basis) == (35_000, "what keeps it ends then")
    found = explain(rig, second, [(1, 1), (2, 1)])
    assert (kinds(found), found.ahead) == ([K.QUARANTINE], 1)
    assert (found.estimate_ms, found.basis) == (None, unknown)
    rig.now_ms += 35_000
    rig.renew(2, 0)
    rig.grant_one(2)
    found = explain(rig, second, [(1, 1), (2, 1)])
    assert (kinds(found), found.ahead) == ([K.QUARANTINE], 0)
    assert (found.estimate_ms, found.basis) == (None, unknown)
