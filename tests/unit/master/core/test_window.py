"""The end of the window: what was claimed and reported in it, judged together.

And windows of what happened lately (``core.window``).
"""

import msgspec
import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import LeaseRow
from tenure.master.core.effect import Announce, SendRevokes, SendVerdicts
from tenure.master.core.record import Policy, RetryPolicy
from tenure.master.core.window import BUCKETS, Window
from tenure.protocol.vocabulary import JobState, Verdict
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig, held, of_type


@pytest.fixture
def rig() -> Rig:
    """A partition with one session."""
    rig = Rig()
    rig.open_session(1)
    return rig


def test_what_the_window_came_to_is_told(rig: Rig) -> None:
    """Whoever watches learns how many leases were adopted, closed and left open."""
    rig.open_session(2)
    rig.open_session(3)
    rig.submit(6)
    (silent,) = rig.grant(1)
    lost, _ = rig.grant(2, 2)
    kept, gone, reported = rig.grant(3, 3)
    rig.crash()
    rig.open_session(4, "w2", declare=[])
    rig.open_session(5, "w3", declare=[held(kept), held(reported)])
    rig.report(reported, session_id=5)
    announced = of_type(rig.close_window().effects, Announce)
    told = {effect.event: effect.counts for effect in announced}
    assert told["window_closed"] == {"adopted": 1, "closed": 3, "suspect": 1, "reports": 1}
    assert told["adopted"] == {"leases": 1}
    assert told["suspect"] == {"leases": 1}
    states = [rig.state(row.job_id) for row in (silent, lost, kept, gone, reported)]
    assert states == [
        JobState.RUNNING,
        JobState.PENDING,
        JobState.RUNNING,
        JobState.PENDING,
        JobState.COMPLETED,
    ]


def test_a_higher_claim_is_not_undone_by_the_journals_holder(rig: Rig) -> None:
    """The worker that the journal names is back without the job: another one's later lease wins."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    later = LeaseRow(job_id, msgspec.structs.replace(row.lease, seq=row.lease.seq + 1))
    rig.crash()
    rig.open_session(2, "w1", declare=[])
    rig.open_session(3, "w3", declare=[held(later)])
    rig.close_window()
    record = rig.record(job_id)
    assert (record.state, record.lease, record.incarnation) == (
        JobState.RUNNING,
        later.lease,
        "w3",
    )
    assert (record.undelivered, record.losses_charged, record.attempt) == (0, 0, 2)
    assert rig.report(later, session_id=3) is Verdict.ACCEPTED


@pytest.mark.parametrize("thief_first", [True, False])
def test_a_stolen_claim_takes_nothing_with_it(rig: Rig, thief_first: bool) -> None:
    """Of equal claims the journal's holder's stands in any order, and others of both are judged."""
    rig.submit(2)
    row, own = rig.grant_one(), rig.grant_one()
    rig.crash(lose=1)
    stolen = LeaseRow(row.job_id, row.lease)
    rig.open_session(2, "w1", declare=[held(row)])
    rig.open_session(3, "thief", declare=[held(stolen), held(own)])
    holders = state_of(rig.partition).holders
    if thief_first:
        holders["w1"] = holders.pop("w1")
    effects = rig.close_window().effects
    assert rig.record(row.job_id).incarnation == "w1"
    assert rig.record(own.job_id).incarnation == "thief"
    (revoke,) = of_type(effects, SendRevokes)
    assert (revoke.session_id, revoke.rows) == (3, [tuple(row)])


@pytest.mark.parametrize("lost", [0, 1])
def test_what_is_handed_back_in_the_window_is_not_adopted(rig: Rig, lost: int) -> None:
    """Nobody has it any more, whether or not its grant was journaled: it is charged to nothing."""
    rig.submit(2)
    other, row = rig.grant_one(), rig.grant_one()
    rig.crash(lose=lost)
    rig.open_session(2, "w1", declare=[held(row), held(other)])
    rig.give_back(row, session_id=2)
    effects = rig.close_window().effects
    record = rig.record(row.job_id)
    assert (record.state, record.losses_charged, record.undelivered) == (JobState.PENDING, 0, 0)
    assert not of_type(effects, SendRevokes)
    assert rig.state(other.job_id) is JobState.RUNNING


def test_who_reported_in_the_window_is_remembered(rig: Rig) -> None:
    """A kept report counts as its worker's, and is answered on its stream while there is one."""
    rig.submit(3)
    answered, closed, unknown = rig.grant(1, 3)
    rig.crash(lose=1)
    rig.open_session(2, "w2")
    rig.open_session(3, "w3")
    rig.report(answered, session_id=2)
    rig.report(closed, session_id=3)
    rig.report(unknown, session_id=99)
    rig.do(commands.CloseSession(session_id=3))
    (verdicts,) = of_type(rig.close_window().effects, SendVerdicts)
    assert verdicts.session_id == 2
    assert [row[2] for row in verdicts.rows] == [Verdict.ACCEPTED]
    who = [rig.record(row.job_id) for row in (answered, closed, unknown)]
    assert [record.state for record in who] == [JobState.COMPLETED] * 3
    assert [(record.incarnation, record.worker) for record in who] == [
        ("w2", "worker-w2"),
        ("w3", "worker-w3"),
        ("", ""),
    ]


def test_the_loser_against_a_kept_report_is_told(rig: Rig) -> None:
    """A report under a later lease ends the journal's lease: its holder hears that, and why."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    later = LeaseRow(job_id, msgspec.structs.replace(row.lease, seq=row.lease.seq + 1))
    rig.crash()
    rig.open_session(2, "w1", declare=[])
    rig.open_session(3, "w3")
    rig.report(later, session_id=3)
    revokes = of_type(rig.close_window().effects, SendRevokes)
    assert [(r.session_id, r.rows, r.reason) for r in revokes] == [(2, [tuple(row)], "superseded")]


def test_failures_in_the_window_are_spread_by_the_closes_draws(rig: Rig) -> None:
    """Retries of kept failures wait by the numbers that closed the window."""
    policy = Policy(name="job", retry=RetryPolicy(base_ms=1_000))
    (job_id,) = rig.submit(1, policy)
    row = rig.grant_one()
    rig.crash()
    rig.open_session(2, "w1", declare=[held(row)])
    rig.fail(row, session_id=2)
    rig.do(commands.CloseWindow(jitter=[0.25]))
    assert rig.record(job_id).ready_ms == rig.now_ms + 250


def test_a_claimed_lease_is_not_given_back_in_the_same_breath(rig: Rig) -> None:
    """Whoever claims it may run it still: it ends when its own worker is heard of next."""
    rig.submit(1)
    row = rig.grant_one()
    rig.crash()
    rig.open_session(2, "w1", declare=[])
    rig.open_session(3, "thief", declare=[held(row)])
    (revoke,) = of_type(rig.close_window().effects, SendRevokes)
    assert revoke.session_id == 3
    assert rig.state(row.job_id) is JobState.RUNNING
    rig.renew(2, 0)
    assert rig.state(row.job_id) is JobState.PENDING


# What happened lately.


@pytest.mark.parametrize(
    ("span_ms", "bucket_ms"), [(1, 1), (BUCKETS, 1), (BUCKETS + 1, 2), (60_000, 5_000)]
)
def test_a_span_is_kept_in_twelve_parts(span_ms: int, bucket_ms: int) -> None:
    """Of whole milliseconds, so that all of it is known; of one at least."""
    assert Window(span_ms, 1).bucket_ms == bucket_ms


def test_a_window_forgets_a_part_at_a_time() -> None:
    """A part is known as long as it is one of the newest twelve; who comes after it begins anew."""
    window = Window(24, 2)
    assert window.sums(100) == [0, 0]
    window.bucket(101)[1] += 5
    window.bucket(102)[1] += 6
    window.bucket(102)[2] += 7
    assert window.bucket(103) == [51, 6, 7]
    assert window.sums(123) == [11, 7]
    assert window.sums(124) == [6, 7]
    assert window.bucket(124) == [62, 0, 0]
    window.bucket(125)[2] += 1
    assert window.sums(125) == [6, 8]
    assert window.sums(126) == [0, 1]
