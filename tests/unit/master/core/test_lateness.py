"""Jobs that would begin too late: refused by what comes before them, and by nothing else."""

from dataclasses import replace
from typing import Final

import pytest

from tenure.master.core.command import SubmitRow
from tenure.master.core.record import LabelSelector, Policy
from tenure.master.core.settings import BreakerSettings, JobTypeSettings, QueueSettings
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
