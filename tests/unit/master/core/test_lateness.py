"""Jobs that would begin too late: refused by what comes before them, and by nothing else."""

from dataclasses import replace
from typing import Final

import pytest

from tenure.master.core.command import SubmitJobs, SubmitRow, SubmitSetting
from tenure.master.core.effect import SubmitReply
from tenure.master.core.record import LabelSelector, Policy
from tenure.master.core.settings import (
    BreakerSettings,
    JobTypeSettings,
    QueueSettings,
    RateLimit,
)
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState
from tests.unit.master.core.rig import CONFIG, JOB, Rig

PATIENT: Final = Policy(name="job", schedule_timeout_ms=1_000)
PARKED_SETTINGS: Final = QueueSettings(refuse_late=True, key_concurrency=1)
#: Nobody has to tell that it lives.
LONG: Final = replace(CONFIG, lease_ttl_ms=1 << 40, accept_timeout_ms=1 << 40)


def backlog(rig: Rig) -> None:
    """Thirty jobs wait, and ten a second have begun."""
    rig.open_session(1, slots=1_000)
    backlog_of(rig)


def backlog_of(rig: Rig) -> None:
    """So it is where a worker is there already."""
    rig.submit(70, JOB)
    for _ in range(40):
        rig.pass_time(100)
        rig.grant_one()
    assert rig.partition.counts()[JobState.PENDING] == 30


def test_a_job_that_would_be_late_is_refused() -> None:
    """With ``refuse_late``: by those ahead, of the same batch too, and how many begin a second."""
    rig = Rig(audited=False)
    patient = Policy(name="job", schedule_timeout_ms=3_000)
    rig.configure(("default", "default"), QueueSettings(refuse_late=True))
    backlog(rig)
    rows = [SubmitRow(rig.mint(), 0, b"", "") for _ in range(3)]
    reply = rig.submit_rows(rows, patient)
    assert [index for index, _ in reply.refusals] == [1, 2]
    refusal = reply.refusals[0][1]
    assert refusal.reason is Reason.WOULD_EXPIRE
    known = {"ahead": "31", "wait_ms": "3100", "limit_ms": "3000"}
    assert refusal.metadata == {"queue": "default", "tenant": "default", **known}
    assert refusal.retry_after_ms == 1_000
    assert not rig.submit_rows(rows[:1], patient).refusals


@pytest.mark.parametrize(
    ("setting", "options"),
    [
        (QueueSettings(), {}),
        (QueueSettings(refuse_late=True), {"priority": 0}),
        (QueueSettings(refuse_late=True), {"delay_ms": 10_000}),
    ],
)
def test_what_may_be_in_time_is_accepted(setting: QueueSettings, options: dict[str, int]) -> None:
    """Where late jobs are taken, where nobody comes before it, and where it is due later."""
    rig = Rig(audited=False)
    rig.configure(("default", "default"), setting)
    backlog(rig)
    rig.submit(1, Policy(name="job", schedule_timeout_ms=1), **options)  # type: ignore[arg-type]


def test_nothing_known_refuses_nobody() -> None:
    """A queue of which no job has begun lately says nothing; nor does a pause between bursts."""
    rig = Rig(audited=False)
    patient = Policy(name="job", schedule_timeout_ms=1_000)
    rig.configure(("default", "default"), QueueSettings(refuse_late=True))
    rig.submit(1_000, patient)
    rig = Rig(audited=False)
    rig.configure(("default", "default"), QueueSettings(refuse_late=True))
    rig.open_session(1, slots=1_000)
    for _ in range(5):
        rig.submit(10, patient)
        rig.pass_time(10)
        for row in rig.grant(1, 10):
            rig.report(row)
        rig.renew(1, 1_000)
        rig.pass_time(5_000)
    rig.submit(500, patient)


def park(rig: Rig, how: str) -> None:
    """Two thousand jobs wait for something that is not a free worker."""
    options: dict[str, str] = {}
    policy = Policy(name="second")
    match how:
        case "key":
            options = {"limit_key": "acme"}
        case "type":
            rig.configure(("default", "second"), JobTypeSettings(paused=True))
        case "breaker":
            tuned = BreakerSettings(volume_min=1, open_for_ms=1_000, probes=1)
            rig.configure(("default", "second"), JobTypeSettings(breaker=tuned))
            rig.submit(1, policy)
            rig.fail(rig.grant_one())
            rig.pass_time(1_000)
        case "labels":
            policy = Policy(name="second", requires=(LabelSelector("gpu"),))
        case "name":
            policy = Policy(name="nobodys")
        case "worker":
            rig.open_session(2, names=("second",))
            options = {"sticky_key": "s"}
    rig.submit(2_000, policy, **options)  # type: ignore[arg-type]
    if how in ("key", "breaker"):
        rig.grant_one()
    elif how == "worker":
        rig.grant_one(2)


@pytest.mark.parametrize("how", ["key", "type", "breaker", "labels", "name", "worker"])
def test_what_is_parked_makes_nobody_late(how: str) -> None:
    """Jobs behind a full key, a pause, a breaker, or for workers that are not there or full, come
    before nobody; and their time says nothing of how fast others begin.
    """
    rig = Rig(LONG, audited=False)
    rig.configure(("default", "default"), PARKED_SETTINGS)
    rig.open_session(1, names=("job", "second"), slots=5_000)
    park(rig, how)
    for _ in range(150):
        rig.submit(1)
        rig.pass_time(10)
        (row,) = rig.grant(1, 1)
        assert rig.record(row.job_id).policy.name == "job"
        rig.pass_time(90)
    ids = rig.submit(90, PATIENT)
    reply = rig.submit_rows([SubmitRow(rig.mint(), 0, b"", "") for _ in range(30)], PATIENT)
    first = reply.refusals[0][0]
    assert 11 <= first <= 13
    assert {row.job_id for row in rig.grant(1, 90 + first)} == {*ids, *reply.job_ids[:first]}


def test_what_waits_behind_its_own_gate_is_not_predicted() -> None:
    """A key that is full, or a job type that is held, goes by another pace than the queue. Of a key
    with room for one, one comes before others.
    """
    rig = Rig(LONG, audited=False)
    rig.configure(("default", "default"), PARKED_SETTINGS)
    rig.open_session(1, names=("job", "second"), slots=5_000)
    rig.submit(200, limit_key="acme")
    (first,) = rig.grant(1, 9)
    for _ in range(20):
        rig.submit(1)
        rig.pass_time(100)
        rig.grant_one()
    rig.submit(20, PATIENT, limit_key="acme")
    rig.report(first)
    row = SubmitRow(rig.mint(), 0, b"", "")
    slow = Policy(name="job", schedule_timeout_ms=50)
    ((_, refusal),) = rig.submit_rows([row], slow).refusals
    assert refusal.metadata["ahead"] == "1"
    rig.configure(("default", "second"), JobTypeSettings(paused=True))
    rig.submit(5, Policy(name="second", schedule_timeout_ms=1))


def test_an_hours_pause_is_no_hours_wait() -> None:
    """After it jobs are predicted by how fast they go, not by how long they were paused."""
    rig = Rig(LONG, audited=False)
    rig.configure(("default", "default"), QueueSettings(refuse_late=True, paused=True))
    rig.submit(200)
    rig.pass_time(3_600_000)
    rig.open_session(1, slots=1_000)
    rig.pass_time(5_000)
    rig.configure(("default", "default"), QueueSettings(refuse_late=True))
    for _ in range(200):
        rig.pass_time(10)
        rig.grant_one()
    rig.submit(100, PATIENT)


def test_too_many_lanes_are_not_counted() -> None:
    """With a thousand sticky keys before it a job is refused, with more it is taken uncounted."""
    rig = Rig(audited=False)
    rig.configure(("default", "default"), QueueSettings(refuse_late=True))
    backlog(rig)
    for number in range(999):
        rig.submit(1, sticky_key=f"key-{number}")
    rows = [SubmitRow(rig.mint(), 0, b"", "")]
    assert rig.submit_rows(rows, PATIENT).refusals
    rig.submit(1, sticky_key="one more")
    assert not rig.submit_rows(rows, PATIENT).refusals


# To the job, and to the millisecond.


def late(rig: Rig, policy: Policy = PATIENT, **options: int) -> dict[str, str]:
    """What a job that is refused is told; empty: it may come, and does not."""
    setting = SubmitSetting(policy, 5, 0, 0)._replace(**options)
    row = SubmitRow(rig.mint(), 0, b"", "")
    reply = rig.decide(SubmitJobs(settings=[setting], rows=[row])).reply
    assert isinstance(reply, SubmitReply)
    return reply.refusals[0][1].metadata if reply.refusals else {}


def refusing(rig: Rig) -> None:
    """Refuses late jobs of the default queue, which has a backlog of thirty, ten a second."""
    rig.configure(("default", "default"), QueueSettings(refuse_late=True))
    backlog(rig)


def test_who_is_refused_is_told_by_what() -> None:
    """And to try again when it would be in time, or when it is worth while."""
    rig = Rig(audited=False)
    refusing(rig)
    for limit_ms, retry_ms in ((1, 2_999), (2_000, 1_000), (2_999, 1_000)):
        policy = Policy(name="job", schedule_timeout_ms=limit_ms)
        reply = rig.submit_rows([SubmitRow(rig.mint(), 0, b"", "")], policy)
        ((_, refusal),) = reply.refusals
        assert refusal.message == (
            "expected to submit a job to queue default that begins within its schedule timeout of "
            f"{limit_ms} ms, but 30 jobs come before it and 10 a second begin, so it would wait "
            "about 3000 ms: try again later, give it more time, or start more workers"
        )
        assert refusal.retry_after_ms == retry_ms


def test_only_who_is_to_begin_now_may_be_late() -> None:
    """A time that has passed is now; a millisecond from now is not."""
    rig = Rig(audited=False)
    refusing(rig)
    assert late(rig, at_ms=rig.now_ms - 5)
    assert late(rig, at_ms=rig.now_ms)
    assert not late(rig, at_ms=rig.now_ms + 1)
    assert not late(rig, delay_ms=1)
    assert not late(rig, Policy(name="job"))
    assert not late(rig, Policy(name="job", queue="other", schedule_timeout_ms=1))


def test_those_of_its_priority_and_more_urgent_ones_come_before_it() -> None:
    """Others do not, however many they are."""
    rig = Rig(audited=False)
    refusing(rig)
    rig.submit(7, JOB, priority=4)
    rig.submit(100, JOB, priority=6)
    for priority, ahead in ((3, None), (4, None), (5, "37"), (6, "137")):
        assert late(rig, priority=priority).get("ahead") == ahead
    hasty = Policy(name="job", schedule_timeout_ms=699)
    assert late(rig, hasty, priority=4)["ahead"] == "7"


def test_a_job_type_lets_as_many_before_it_as_it_has_probes() -> None:
    """And its own next job goes by another pace, as one of a paused type does."""
    rig = Rig(LONG, audited=False)
    refusing(rig)
    rig.open_session(2, names=("second",))
    tuned = BreakerSettings(volume_min=1, open_for_ms=1_000, probes=2)
    rig.configure(("default", "second"), JobTypeSettings(breaker=tuned))
    rig.submit(9, Policy(name="second"))
    rig.fail(rig.grant_one(2), session_id=2)
    rig.pass_time(1_000)
    # Nobody who runs the new job runs these.
    assert late(rig)["ahead"] == "30"
    rig.open_session(3, names=("job", "second"))
    assert late(rig)["ahead"] == "32"
    assert not late(rig, Policy(name="second", schedule_timeout_ms=1))
    rig.configure(("default", "job"), JobTypeSettings(paused=True))
    assert not late(rig)


def test_keys_let_as_many_before_it_as_they_have_room() -> None:
    """Each for itself; a job of one that is full, or that goes at its own pace, is not refused."""
    rig = Rig(LONG, audited=False)
    rig.configure(("default", "default"), QueueSettings(refuse_late=True, key_concurrency=3))
    backlog(rig)
    for key, jobs in (("a", 5), ("b", 2)):
        rig.submit(jobs, JOB, limit_key=key)
    assert late(rig)["ahead"] == "35"

    def refused(key: str) -> bool:
        row = SubmitRow(rig.mint(), 0, b"", "", key)
        command = SubmitJobs(settings=[SubmitSetting(PATIENT, 5, 0, 0)], rows=[row])
        reply = rig.decide(command).reply
        assert isinstance(reply, SubmitReply)
        return bool(reply.refusals)

    assert [refused(key) for key in ("", "new", "b", "a")] == [True, True, True, False]
    rig.submit(1, JOB, limit_key="b")
    assert not refused("b")
    rate = RateLimit(100, 1_000, 100)
    rig.configure(("default", "default"), QueueSettings(refuse_late=True, key_rate=rate))
    assert [refused(key) for key in ("", "new", "b")] == [True, True, False]


def test_a_job_for_a_worker_of_its_own_is_not_predicted() -> None:
    """A sticky key that is bound goes by the pace of its worker; others by that of all."""
    rig = Rig(LONG, audited=False)
    rig.configure(("default", "default"), QueueSettings(refuse_late=True))
    rig.open_session(1, slots=1_000)
    rig.submit(1, JOB, sticky_key="s")
    rig.grant_one()
    backlog_of(rig)

    def refused(sticky_key: str) -> bool:
        row = SubmitRow(rig.mint(), 0, b"", "", "", sticky_key)
        command = SubmitJobs(settings=[SubmitSetting(PATIENT, 5, 0, 0)], rows=[row])
        reply = rig.decide(command).reply
        assert isinstance(reply, SubmitReply)
        return bool(reply.refusals)

    assert [refused(key) for key in ("", "t", "s")] == [True, True, False]
