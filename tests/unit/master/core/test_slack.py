"""Slack: jobs of limit keys that cannot get full are ordered as jobs without a key."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.command import BoostJobs, CancelJobs, LeaseRow, SubmitRow
from tenure.master.core.effect import SendAssignment
from tenure.master.core.gate import LimitKey, Queue
from tenure.master.core.record import Policy
from tenure.master.core.settings import BreakerSettings, QueueSettings, RateLimit
from tenure.master.core.slack import COMMON_MAX
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import JobState, LimitStrategy
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.rig import Rig, held, of_type

MAIL = ("default", "mail")
JOB = Policy(name="job", queue="mail")


def limited(**fields: object) -> Rig:
    """A partition with a queue of these settings, and a worker."""
    rig = Rig()
    rig.configure(MAIL, QueueSettings(**fields))  # type: ignore[arg-type]
    rig.open_session(1, slots=1_000)
    return rig


def queue_of(rig: Rig) -> Queue:
    """The queue."""
    return state_of(rig.partition).lanes.queues[MAIL]


def keys_of(rig: Rig) -> dict[str, LimitKey]:
    """Its limit keys."""
    return queue_of(rig).limit_keys


def submit(rig: Rig, *names: str) -> list[JobId]:
    """Submits jobs with these limit keys, "" for none, in one command."""
    rows = [SubmitRow(rig.mint(), 0, b"", "", name) for name in names]
    rig.submit_rows(rows, JOB)
    return [JobId(row.job_id) for row in rows]


def lanes_of(rig: Rig) -> dict[str, int]:
    """How many jobs are ready under which limit key; "": in lanes without one."""
    ready: dict[str, int] = {}
    for lane in queue_of(rig).lanes.values():
        name = "" if lane.key is None else lane.key.key
        ready[name] = ready.get(name, 0) + lane.ready
    return {name: jobs for name, jobs in ready.items() if jobs}


def test_keys_with_slack_have_no_lanes() -> None:
    """Their jobs stand among the others, in order, and are granted in one go with them."""
    rig = limited(key_concurrency=2)
    ids = submit(rig, "", "a", "", "b", "a", "")
    assert lanes_of(rig) == {"": 6}
    effects = of_type(rig.dispatch((1, 5)).effects, SendAssignment)
    granted = sorted((row.record.ordinal, row.record.job_id) for e in effects for row in e.rows)
    assert [job_id for _, job_id in granted] == ids[:5]


def test_grants_under_a_limit_are_written_ahead_wherever_their_jobs_stand() -> None:
    """As many as may run of a key run also after a failover, so their grants commit first."""
    rig = limited(key_concurrency=2)
    submit(rig, "", "a", "")
    effects = of_type(rig.dispatch((1, 9)).effects, SendAssignment)
    assert [(e.write_ahead, len(e.rows)) for e in effects] == [(False, 2), (True, 1)]


def test_a_key_without_any_limit_costs_no_wait() -> None:
    """It holds up nothing, so nothing need be written ahead."""
    rig = limited()
    submit(rig, "a", "a", "b")
    (effect,) = of_type(rig.dispatch((1, 9)).effects, SendAssignment)
    assert (effect.write_ahead, len(effect.rows)) == (False, 3)


def test_one_more_than_may_run_puts_all_under_their_key() -> None:
    """Those that were among others leave no gap there; when none is left, slack is back."""
    rig = limited(key_concurrency=2)
    ids = submit(rig, "", "a", "", "a", "")
    more = submit(rig, "a", "")
    assert lanes_of(rig) == {"": 4, "a": 3}
    granted = rig.grant(1, 9)
    assert [row.job_id for row in granted] == [ids[0], ids[2], ids[4], more[1], ids[1], ids[3]]
    assert lanes_of(rig) == {"a": 1}
    for row in granted:
        rig.report(row)
    (last,) = rig.grant(1, 9)
    assert last.job_id == more[0]
    submit(rig, "a")
    assert lanes_of(rig) == {"": 1}


def test_jobs_that_run_take_slack() -> None:
    """So does one that a worker proves to run though it had failed, as far as the journal knows."""
    rig = limited(key_concurrency=2)
    (failed,) = submit(rig, "a")
    row = rig.grant_one()
    rig.fail(row)
    submit(rig, "a", "a")
    assert lanes_of(rig) == {"": 2}
    newer = LeaseRow(failed, msgspec.structs.replace(row.lease, seq=row.lease.seq + 100))
    rig.open_session(2, "w2", declare=[held(newer)])
    assert rig.state(failed) is JobState.RUNNING
    assert lanes_of(rig) == {"a": 2}


def test_priorities_and_sticky_keys_keep_their_lanes() -> None:
    """Only what a limit key alone would have parted stands together; a boost moves it along."""
    rig = limited(key_concurrency=3)
    low = rig.submit_one(JOB, limit_key="a", priority=9)
    rig.submit_one(JOB, limit_key="a", priority=1)
    rig.submit_one(JOB, limit_key="a", sticky_key="s")
    assert lanes_of(rig) == {"": 3}
    rig.do(BoostJobs(job_ids=[low], priority=0))
    assert lanes_of(rig) == {"": 3}
    assert rig.grant_one().job_id == low
    rig.submit_one(JOB, limit_key="a", priority=9)
    assert lanes_of(rig) == {"a": 3}


@pytest.mark.parametrize(
    "tighter",
    [
        {"key_concurrency": 1},
        {"key_concurrency": 3, "key_rate": RateLimit(1, 1_000, 1)},
        {"key_concurrency": 3, "key_breaker": BreakerSettings(volume_min=2)},
        {"key_concurrency": 3, "key_strategy": LimitStrategy.CANCEL_NEWEST},
    ],
)
def test_a_setting_may_take_slack(tighter: dict[str, object]) -> None:
    """Whatever could now hold up a key's jobs finds them under it."""
    rig = limited(key_concurrency=3)
    submit(rig, "a", "", "a", "b")
    rig.configure(MAIL, QueueSettings(**tighter))  # type: ignore[arg-type]
    assert lanes_of(rig)["a"] == 2
    audit(rig.partition)


def test_a_setting_moves_so_many_jobs_at_most() -> None:
    """However many keys wait, and however much slack they have: the others are where they stay."""
    rig = limited(key_concurrency=100)
    for first in range(0, 2 * COMMON_MAX, 64):
        submit(rig, *[f"k{number % 200}" for number in range(first, first + 64)])
    assert 0 < lanes_of(rig)[""] <= COMMON_MAX
    rig.configure(MAIL, QueueSettings(key_concurrency=1))
    assert sum(lanes_of(rig).values()) == 2 * COMMON_MAX
    assert len(rig.grant(1, 1_000)) == 200


def test_common_lanes_take_so_many_jobs_and_no_more() -> None:
    """The next one of another key stands under it, though that has slack."""
    rig = limited(key_concurrency=2 * COMMON_MAX)
    submit(rig, *["a"] * COMMON_MAX)
    submit(rig, "b")
    assert lanes_of(rig) == {"": COMMON_MAX, "b": 1}


def test_idle_keys_are_forgotten() -> None:
    """A key is known while a job of it is ready or runs, and nothing else hangs on it."""
    rig = limited(key_concurrency=2)
    submit(rig, "a", "b")
    rows = rig.grant(1, 2)
    assert set(keys_of(rig)) == {"a", "b"}
    rig.report(rows[0])
    assert set(keys_of(rig)) == {rig.record(rows[1].job_id).limit_key}
    (job_id,) = submit(rig, "c")
    rig.do(CancelJobs(job_ids=[job_id]))
    assert len(keys_of(rig)) == 1


@given(
    steps=st.lists(
        st.one_of(
            st.lists(st.sampled_from(["", "", "a", "a", "b"]), min_size=1, max_size=6),
            st.integers(1, 4),
            st.sampled_from(["end", "crash"]),
        ),
        max_size=25,
    ),
    most=st.integers(1, 4),
)
def test_order_is_that_of_one_heap(steps: list[list[str] | int | str], most: int) -> None:
    """Each grant is the first job, by submission, whose key has room; also after a failover."""
    rig = limited(key_concurrency=most)
    waiting: list[tuple[JobId, str]] = []
    running: list[tuple[LeaseRow, str]] = []
    for step in steps:
        if isinstance(step, list):
            waiting += zip(submit(rig, *step), step, strict=True)
        elif isinstance(step, int):
            for row in [row for _ in range(step) for row in rig.grant(1, 1)]:
                names = [name for _, name in running]
                allowed = [w for w in waiting if not w[1] or names.count(w[1]) < most]
                assert allowed[0][0] == row.job_id
                waiting.remove(allowed[0])
                running.append((row, allowed[0][1]))
        elif step == "end" and running:
            row, _ = running.pop(0)
            rig.report(row)
        elif step == "crash":
            rig.crash(window_ms=0)
            rig.open_session(1, "w1", slots=1_000, declare=[held(row) for row, _ in running])


@pytest.mark.parametrize("name", ["a", ""])
def test_a_key_is_known_from_what_is_proved_to_run(name: str) -> None:
    """Also if nothing else of it is there; a job without a key makes none."""
    rig = limited(key_concurrency=1)
    (failed,) = submit(rig, name)
    row = rig.grant_one()
    rig.fail(row)
    newer = LeaseRow(failed, msgspec.structs.replace(row.lease, seq=row.lease.seq + 100))
    rig.open_session(2, "w2", declare=[held(newer)])
    assert rig.state(failed) is JobState.RUNNING
    assert list(keys_of(rig)) == [name] * bool(name)
    submit(rig, "a")
    assert len(rig.grant(1, 9)) == (0 if name else 1)


def test_no_key_is_made_for_a_job_that_is_not_to_run() -> None:
    """A key with a rate would be kept until its bucket is full, for nothing."""
    rig = limited()
    (job_id,) = submit(rig, "a")
    rig.fail(rig.grant_one())
    rig.configure(MAIL, QueueSettings(key_rate=RateLimit(1, 1_000, 9)))
    rig.do(CancelJobs(job_ids=[job_id]))
    assert keys_of(rig) == {}


def test_a_key_is_known_until_its_bucket_is_full() -> None:
    """Forgotten earlier, it would give its tokens a second time."""
    for idle_ms, known in ((0, ["a"]), (9_000, [])):
        rig = limited()
        (failed,) = submit(rig, "a")
        row = rig.grant_one()
        rig.fail(row)
        rig.configure(MAIL, QueueSettings(key_rate=RateLimit(1, 1_000, 9)))
        newer = LeaseRow(failed, msgspec.structs.replace(row.lease, seq=row.lease.seq + 100))
        rig.now_ms += idle_ms
        rig.open_session(2, "w2", declare=[held(newer)])
        rig.report(newer, session_id=2)
        assert list(keys_of(rig)) == known


def test_slack_that_gets_less_is_slack() -> None:
    """Jobs stay where they are while all of them may run."""
    rig = limited(key_concurrency=3)
    submit(rig, "a", "a")
    rig.configure(MAIL, QueueSettings(key_concurrency=2))
    assert lanes_of(rig) == {"": 2}


def test_nothing_is_left_of_a_key_that_is_dropped() -> None:
    """Whatever had noted it."""
    rig = limited(key_concurrency=1)
    submit(rig, "a")
    lanes, queue = state_of(rig.partition).lanes, queue_of(rig)
    key = queue.limit_keys["a"]
    queue.tripped[key] = lanes.crowded[key] = None
    lanes._slack.drop(key)
    assert (queue.limit_keys, queue.tripped, lanes.crowded) == ({}, {}, {})
