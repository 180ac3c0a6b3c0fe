"""Terms: the adoption window, who wins a job, suspects, and the end in order."""

import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import LeaseRow
from tenure.master.core.config import PartitionConfig
from tenure.master.core.effect import Announce, SendCancels, SendRevokes
from tenure.master.core.event import LeasesAdopted, StandingHolder, StandingLease, TermClosed
from tenure.master.core.record import Policy
from tenure.master.core.term import LATELY_MS
from tenure.protocol.fence import Lease, Token
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState, Verdict
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import CONFIG, Rig, held, of_type, report_row, verdicts_of

WINDOW_MS = 3_000
ONCE = Policy(name="job", at_most_once=True)
LEASE_MS = CONFIG.lease_ttl_ms + CONFIG.lease_margin_ms


@pytest.fixture
def rig() -> Rig:
    """A partition with one session."""
    rig = Rig()
    rig.open_session(1)
    return rig


def announced(effects: tuple[object, ...]) -> dict[str, dict[str, int]]:
    """What was announced, by event."""
    return {e.event: e.counts for e in effects if isinstance(e, Announce)}


def test_declared_leases_are_adopted(rig: Rig) -> None:
    """Running jobs survive a failover under their leases; nothing restarts."""
    ids = rig.submit(3)
    rows = rig.grant(1, 3)
    leases = [rig.record(job_id).lease for job_id in ids]
    rig.crash()
    rig.open_session(2, "w1", declare=[held(row) for row in rows])
    effects = rig.close_window().effects
    assert announced(effects)["adopted"] == {"leases": 3}
    assert not of_type(effects, SendRevokes)
    assert [rig.record(job_id).lease for job_id in ids] == leases
    assert all(rig.report(row, session_id=2) is Verdict.ACCEPTED for row in rows)


def test_nothing_is_granted_and_nothing_expires_in_the_window(rig: Rig) -> None:
    """While leases are re-declared there are no grants, expiries or timers."""
    rig.submit(2)
    rig.grant_one()
    rig.crash()
    rig.open_session(2)
    assert not rig.grant(2)
    assert rig.partition.next_timer_ms() is None
    rig.now_ms += 10 * LEASE_MS
    assert not rig.fire().events
    rig.close_window()
    assert rig.partition.counts()[JobState.RUNNING] == 1


def test_uncommitted_first_grant_is_adopted(rig: Rig) -> None:
    """A grant whose event died with its leader is adopted from the worker's word."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.crash(lose=1)
    assert rig.state(job_id) is JobState.PENDING
    rig.open_session(2, "w1", declare=[held(row, running_ms=500)])
    decision = rig.close_window()
    (event,) = [e for e in decision.events if isinstance(e, LeasesAdopted)]
    assert [adopted.lease for adopted in event.rows] == [row.lease]
    record = rig.record(job_id)
    assert (record.state, record.lease, record.attempt) == (JobState.RUNNING, row.lease, 1)
    assert (record.incarnation, record.worker) == ("w1", "worker-w1")
    holding = rig.partition.holding_of(job_id)
    assert holding is not None
    assert holding.started_ms == rig.now_ms - 500
    assert not rig.grant(2)


def test_unclaimed_leases_are_suspect_for_one_ttl(rig: Rig) -> None:
    """A granted job that nobody claims is withheld for one lease TTL, then lost."""
    (job_id,) = rig.submit(1)
    rig.grant_one()
    rig.crash()
    rig.open_session(2, "w2")
    rig.now_ms += WINDOW_MS
    assert announced(rig.close_window().effects)["suspect"] == {"leases": 1}
    rig.pass_time(LEASE_MS - 1)
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.record(job_id).outcome is AttemptOutcome.LOST


def test_suspect_is_claimed_late(rig: Rig) -> None:
    """A worker that comes back after the window, before the TTL, keeps its leases."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.crash()
    rig.now_ms += WINDOW_MS
    rig.close_window()
    rig.pass_time(10_000)
    rig.open_session(2, "w1", declare=[held(row)])
    rig.pass_time(LEASE_MS - 1)
    assert rig.state(job_id) is JobState.RUNNING
    assert rig.report(row, session_id=2) is Verdict.ACCEPTED


def test_worker_back_without_its_lease_gives_it_back(rig: Rig) -> None:
    """A worker that is back and lacks a journaled lease never got it: no charge."""
    (job_id,) = rig.submit(1)
    rig.grant_one()
    rig.crash()
    rig.open_session(2, "w1")
    rig.close_window()
    record = rig.record(job_id)
    assert (record.state, record.undelivered, record.losses_charged) == (JobState.PENDING, 1, 0)


def _claims_of(rig: Rig, low: int, high: int) -> tuple[LeaseRow, LeaseRow]:
    """Two leases of one job that the journal knows nothing of."""
    (job_id,) = rig.submit(1)
    token = rig.token
    rig.crash()
    return LeaseRow(job_id, Lease(token, low, 0)), LeaseRow(job_id, Lease(token, high, 0))


@pytest.mark.parametrize("low_first", [True, False])
def test_highest_claim_wins(rig: Rig, low_first: bool) -> None:
    """Of several claims the highest lease is adopted, in whatever order; losers are revoked."""
    low, high = _claims_of(rig, 5, 9)
    claims = [(2, "a", low), (3, "b", high)]
    for session_id, incarnation, row in claims if low_first else reversed(claims):
        rig.open_session(session_id, incarnation, declare=[held(row)])
    effects = rig.close_window().effects
    assert rig.record(low.job_id).lease == high.lease
    assert rig.record(low.job_id).incarnation == "b"
    (revoke,) = of_type(effects, SendRevokes)
    assert (revoke.session_id, revoke.rows) == (2, [tuple(low)])


def test_closed_lease_is_never_adopted(rig: Rig) -> None:
    """A claim that is not above the last closed lease is revoked."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.give_back(row)
    rig.crash()
    rig.open_session(2, "w1", declare=[held(row)])
    (revoke,) = of_type(rig.close_window().effects, SendRevokes)
    assert revoke.rows == [tuple(row)]
    assert rig.state(job_id) is JobState.PENDING


def test_claim_of_a_job_that_ended_is_revoked(rig: Rig) -> None:
    """A job that ended otherwise meanwhile is not run on."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.crash(lose=1)
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    rig.open_session(2, "w1", declare=[held(row)])
    (revoke,) = of_type(rig.close_window().effects, SendRevokes)
    assert revoke.rows == [tuple(row)]
    assert rig.state(job_id) is JobState.CANCELLED


def test_unknown_job_in_a_claim_is_revoked(rig: Rig) -> None:
    """A claim of a job that nobody knows is told so."""
    rig.crash()
    row = LeaseRow(rig.mint(), Lease(Token(1, 1), 1, 0))
    rig.open_session(2, "w1", declare=[held(row)])
    (revoke,) = of_type(rig.close_window().effects, SendRevokes)
    assert revoke.rows == [tuple(row)]


def test_only_the_owner_upholds_a_journaled_lease(rig: Rig) -> None:
    """Two incarnations that claim the same lease: the one that the journal names has it."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.crash()
    rig.open_session(2, "thief", declare=[held(row)])
    rig.open_session(3, "w1", declare=[held(row)])
    (revoke,) = of_type(rig.close_window().effects, SendRevokes)
    assert revoke.session_id == 2
    assert rig.record(job_id).incarnation == "w1"


def test_reports_are_kept_for_the_end_of_the_window(rig: Rig) -> None:
    """A report in the window is answered at its end, once, however often it was sent."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.crash(lose=1)
    rig.open_session(2, "w1", declare=[held(row)])
    assert rig.report(row, session_id=2) is None
    assert rig.report(row, session_id=2) is None
    assert rig.state(job_id) is JobState.PENDING
    decision = rig.close_window()
    assert [v for *_, v in verdicts_of(decision.effects)] == [Verdict.ACCEPTED]
    assert not of_type(decision.effects, SendRevokes)
    record = rig.record(job_id)
    assert (record.state, record.lease) == (JobState.COMPLETED, row.lease)


def test_kept_report_loses_to_a_higher_claim(rig: Rig) -> None:
    """A report under an older lease than a claim is superseded; the claim runs on."""
    low, high = _claims_of(rig, 5, 9)
    rig.open_session(2, "a")
    rig.open_session(3, "b", declare=[held(high)])
    rig.report(low, session_id=2)
    effects = rig.close_window().effects
    assert verdicts_of(effects) == [(*low, Verdict.SUPERSEDED)]
    assert rig.record(high.job_id).lease == high.lease


def test_kept_report_wins_over_a_lower_claim(rig: Rig) -> None:
    """A report under a higher lease than a claim settles the job; the claimer is revoked."""
    low, high = _claims_of(rig, 5, 9)
    rig.open_session(2, "a", declare=[held(low)])
    rig.open_session(3, "b")
    rig.report(high, session_id=3)
    effects = rig.close_window().effects
    assert verdicts_of(effects) == [(*high, Verdict.ACCEPTED)]
    (revoke,) = of_type(effects, SendRevokes)
    assert (revoke.session_id, revoke.rows) == (2, [tuple(low)])
    assert rig.state(low.job_id) is JobState.COMPLETED


def test_two_kept_reports_of_one_job(rig: Rig) -> None:
    """The report under the higher lease is taken, the other is a duplicate."""
    low, high = _claims_of(rig, 5, 9)
    rig.open_session(2, "a")
    rows = [report_row(low, result=b"low"), report_row(high, result=b"high")]
    rig.do(commands.ReportAttempts(session_id=2, rows=rows, jitter=[0.5]))
    effects = rig.close_window().effects
    assert {row[1].seq: row[2] for row in verdicts_of(effects)} == {
        9: Verdict.ACCEPTED,
        5: Verdict.DUPLICATE,
    }
    assert rig.record(low.job_id).result == b"high"


def test_higher_claim_after_the_window_wins(rig: Rig) -> None:
    """Afterwards a claim above the lease that is held still wins; the holder is revoked."""
    low, high = _claims_of(rig, 5, 9)
    rig.open_session(2, "a", declare=[held(low)])
    rig.close_window()
    decision = rig.open_session(3, "b", declare=[held(high)])
    (revoke,) = of_type(decision.effects, SendRevokes)
    assert (revoke.session_id, revoke.rows) == (2, [tuple(low)])
    assert rig.record(low.job_id).lease == high.lease


def test_lower_claim_after_the_window_loses(rig: Rig) -> None:
    """A claim below the job's newest lease is revoked."""
    low, high = _claims_of(rig, 5, 9)
    rig.open_session(2, "b", declare=[held(high)])
    rig.close_window()
    decision = rig.open_session(3, "a", declare=[held(low)])
    (revoke,) = of_type(decision.effects, SendRevokes)
    assert (revoke.session_id, revoke.rows) == (3, [tuple(low)])
    assert rig.record(low.job_id).lease == high.lease


def test_job_granted_anew_beats_a_late_claim(rig: Rig) -> None:
    """A job granted again after the window has a higher lease than any of older terms."""
    (job_id,) = rig.submit(1)
    old = rig.grant_one()
    rig.crash(lose=1)
    rig.now_ms += WINDOW_MS
    rig.close_window()
    rig.open_session(2, "w2")
    new = rig.grant_one(2)
    assert new.lease > old.lease
    decision = rig.open_session(3, "w1", declare=[held(old)])
    assert of_type(decision.effects, SendRevokes)[0].rows == [tuple(old)]
    assert rig.record(job_id).lease == new.lease


def test_claims_survive_the_stream_in_the_window(rig: Rig) -> None:
    """A claim counts although its stream broke before the window's end."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.crash(lose=1)
    rig.open_session(2, "w1", declare=[held(row)])
    rig.do(commands.CloseSession(session_id=2))
    rig.close_window()
    assert rig.record(job_id).lease == row.lease
    assert rig.state(job_id) is JobState.RUNNING


def test_heartbeat_in_the_window_is_a_claim(rig: Rig) -> None:
    """A heartbeat in the window is acknowledged and replaces the declaration."""
    rig.submit(2)
    first, second = rig.grant(1, 2)
    rig.crash(lose=1)
    rig.open_session(2, "w1", declare=[held(first)])
    rig.renew(2, 0, held(first), held(second))
    rig.close_window()
    assert rig.partition.counts() == {JobState.RUNNING: 2}


def test_window_closes_early_when_all_are_back(rig: Rig) -> None:
    """The window is due at its end, or when every incarnation with a lease has declared."""
    rig.open_session(2)
    rig.submit(2)
    rows = {session_id: rig.grant_one(session_id) for session_id in (1, 2)}
    rig.crash()
    assert rig.partition.window_open
    assert not rig.partition.window_due(rig.now_ms)
    rig.open_session(3, "w1", declare=[held(rows[1])])
    rig.open_session(4, "new")
    assert not rig.partition.window_due(rig.now_ms)
    rig.open_session(5, "w2", declare=[held(rows[2])])
    assert rig.partition.window_due(rig.now_ms)
    rig.close_window()
    assert not rig.partition.window_open
    assert not rig.partition.window_due(rig.now_ms)


def test_window_waits_for_workers_whose_grants_may_be_unjournaled(rig: Rig) -> None:
    """A worker that finished something lately may hold first grants that died with the leader."""
    rig.open_session(2, "w2")
    rig.submit(2)
    (first,) = rig.grant(1)
    (second,) = rig.grant(2)
    rig.report(second, session_id=2)
    (third_id,) = rig.submit(1)
    (third,) = rig.grant(2)
    rig.crash(lose=1)
    rig.open_session(3, "w1", declare=[held(first)])
    assert not rig.partition.window_due(rig.now_ms)
    rig.open_session(4, "w2", declare=[held(third)])
    assert rig.partition.window_due(rig.now_ms)
    assert announced(rig.close_window().effects)["adopted"] == {"leases": 2}
    assert rig.record(third_id).lease == third.lease


def test_window_ends_by_time(rig: Rig) -> None:
    """Without all of them it lasts its time; without any lease too: grants may be unjournaled."""
    rig.crash(window_ms=WINDOW_MS)
    assert not rig.partition.window_due(rig.now_ms + WINDOW_MS - 1)
    assert rig.partition.window_due(rig.now_ms + WINDOW_MS)


def test_cancel_requested_is_sent_again_after_a_failover(rig: Rig) -> None:
    """A worker whose job should stop hears it from the new leader."""
    (job_id,) = rig.submit(1)
    row = rig.grant_one()
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    rig.crash()
    rig.open_session(2, "w1", declare=[held(row)])
    (cancel,) = of_type(rig.close_window().effects, SendCancels)
    assert (cancel.session_id, cancel.rows) == (2, [tuple(row)])


def test_attempt_timeout_goes_on_after_a_failover(rig: Rig) -> None:
    """The timeout counts from the start that the worker tells, not from the adoption."""
    (job_id,) = rig.submit(1, Policy(name="job", timeout_ms=20_000))
    row = rig.grant_one()
    rig.start(row)
    rig.now_ms += 15_000
    rig.crash()
    rig.open_session(2, "w1", declare=[held(row, running_ms=15_000)])
    rig.close_window()
    rig.pass_time(5_000)
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(CONFIG.timeout_grace_ms)
    assert rig.record(job_id).outcome is AttemptOutcome.TIMED_OUT


def test_term_closed_in_order_needs_no_window(rig: Rig) -> None:
    """After TermClosed leases stand with their starts, and grants go on at once."""
    rig.submit(2)
    row = rig.grant_one()
    rig.start(row)
    started = rig.now_ms
    rig.now_ms += 100
    rig.do(commands.CloseTerm())
    assert not rig.grant()
    rig.crash(window_ms=0)
    holding = rig.partition.holding_of(row.job_id)
    assert holding is not None
    assert holding.started_ms == started
    rig.open_session(2, "w2")
    assert rig.grant(2)
    rig.open_session(3, "w1", declare=[held(row)])
    assert rig.report(row, session_id=3) is Verdict.ACCEPTED


def test_standing_leases_expire_like_others(rig: Rig) -> None:
    """After a hand-over a worker that does not come back loses its leases after one TTL."""
    (job_id,) = rig.submit(1)
    rig.grant_one()
    rig.do(commands.CloseTerm())
    rig.crash(window_ms=0)
    rig.pass_time(LEASE_MS - 1)
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.state(job_id) is JobState.RETRYING


def test_token_must_rise(rig: Rig) -> None:
    """A term under a token that is not newer is refused."""
    command = commands.OpenTerm(token=rig.token, incarnation="m", window_ms=0)
    refusal = rig.refused(command)
    assert refusal.reason is Reason.FENCED
    assert refusal.message.startswith("expected to open a term newer than 1.10, but the token is")
    assert refusal.metadata == {"token": "1.10", "newest": "1.10"}


def test_whoever_does_not_lead_sends_clients_on() -> None:
    """After its term a master refuses what only a leader may decide, and says when to ask again."""
    rig = Rig(PartitionConfig(partition=3, partitions=4))
    rig.do(commands.CloseTerm())
    refusal = rig.refused(commands.CancelJobs(job_ids=[]))
    assert refusal.reason is Reason.NOT_LEADER
    assert refusal.message.startswith("expected to change jobs of partition 3, but")
    assert (refusal.metadata, refusal.retry_after_ms) == ({"partition": "3"}, 100)


def test_lease_order_across_terms(rig: Rig) -> None:
    """Leases of a later term are higher than all of earlier ones; seqs start anew."""
    rig.submit(2)
    first = rig.grant_one()
    rig.crash(window_ms=0)
    rig.open_session(2, "w2")
    second = rig.grant_one(2)
    assert (first.lease.seq, second.lease.seq) == (1, 1)
    assert second.lease > first.lease


def test_a_worker_that_has_forgotten_an_at_most_once_job_may_have_run_it() -> None:
    """After an outage longer than a result is offered, nobody knows: the job is not run again."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(ONCE)
    rig.grant_one()
    rig.crash()
    rig.open_session(2, "w1", declare=[])
    rig.close_window()
    record = rig.record(job_id)
    assert (record.state, record.failure_reason) == (JobState.FAILED, FailureReason.LOST)


def test_an_at_most_once_job_handed_back_in_the_window_is_not_run_again_if_it_had_started() -> None:
    """What a worker has declared counts for what it returns before the window's end."""
    rig = Rig()
    rig.open_session(1)
    job_id = rig.submit_one(ONCE)
    row = rig.grant_one()
    rig.crash()
    rig.open_session(2, "w1", declare=[held(row, running_ms=500)])
    rig.do(commands.ReturnLeases(session_id=2, rows=[row]))
    rig.close_window()
    record = rig.record(job_id)
    assert (record.state, record.failure_reason) == (JobState.FAILED, FailureReason.LOST)


def test_who_is_waited_for(rig: Rig) -> None:
    """Whoever got something within the last minute of the journal, and nobody else."""
    rig.open_session(2)
    rig.submit(1)
    rig.report(rig.grant_one())
    rig.now_ms += 1
    rig.submit(1)
    rig.report(rig.grant_one(2), session_id=2)
    rig.now_ms += LATELY_MS
    rig.submit(1)
    rig.crash()
    assert state_of(rig.partition).known == ["w2"]


def test_progress_after_a_hand_over_counts_from_the_start() -> None:
    """A job whose progress the new leader has not heard of yet gets its time from its start."""
    rig = Rig()
    rig.open_session(1)
    (job_id,) = rig.submit(1, Policy(name="job", heartbeat_timeout_ms=10_000))
    rig.start(rig.grant_one())
    rig.now_ms += 4_000
    rig.do(commands.CloseTerm())
    rig.crash(window_ms=0)
    rig.pass_time(6_000 + CONFIG.progress_grace_ms - 1)
    assert rig.state(job_id) is JobState.RUNNING
    rig.pass_time(1)
    assert rig.record(job_id).outcome is AttemptOutcome.TIMED_OUT


def test_a_closed_terms_lease_of_a_job_that_is_gone(rig: Rig) -> None:
    """A replay over a snapshot passes over jobs that were purged since, not over those after."""
    row = LeaseRow(rig.submit_one(), Lease(Token(1, 10), 1, 0))
    rig.grant_one()
    partition = rig.replaying()
    gone = StandingLease(rig.mint(), Lease(Token(1, 10), 2, 0), 5)
    stands = StandingLease(row.job_id, row.lease, 7)
    closed = TermClosed(
        now_ms=rig.now_ms, token=rig.token, holders=[StandingHolder("w1", "w", [gone, stands])]
    )
    partition.replay(closed, partition.next_seq)
    partition.finish_replay()
    holding = partition.holding_of(row.job_id)
    assert holding is not None
    assert holding.started_ms == 7
