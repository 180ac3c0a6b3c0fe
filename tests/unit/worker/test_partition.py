"""Leases of one partition: grants, take-backs, deadlines, reports until their verdicts."""

from typing import Any

import pytest

from tenure.protocol.fence import Token
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory
from tenure.v1 import common_pb2, worker_pb2
from tenure.worker.attempt_log import AttemptLog
from tenure.worker.held import AttemptResult, Fault
from tenure.worker.partition import DELIVERY_MS, SAFETY_MS
from tests.unit.worker.masters import job_id
from tests.unit.worker.rig import HEARTBEAT_MS, TTL_MS, Rig

NEWER = Token(1, 101)
OUTLIVES_MS = TTL_MS - SAFETY_MS


class TestAssignments:
    """What arrives, and what is said about it."""

    def test_acceptance_is_cumulative(self) -> None:
        """One number says that all assignments up to it have arrived."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        rig.grant(session, 2)
        rig.wait(1)
        assert rig.hear(session).accepted == 2
        rig.wait(1)
        assert rig.hear(session).requests == []

    def test_acceptance_travels_with_what_is_said_anyway(self) -> None:
        """It costs no envelope of its own unless the clock ticks before there is another one."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        assert rig.hear(session).requests == []
        rig.run_all()
        (said,) = rig.hear(session).updates
        assert (said.accepted_assignment, len(said.reports)) == (1, 1)
        rig.wait(1)
        assert rig.hear(session).accepted == 0

    def test_nothing_is_accepted_twice_over_an_opening(self) -> None:
        """An acceptance that was due to a leader of before is not due to the next one."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        rig.wait(1)
        rig.open(session, token=NEWER)
        assert rig.hear(session).accepted == 0

    def test_repeated_assignment_runs_nothing(self) -> None:
        """The same assignment again is no second grant."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        rig.grant(session, 1, assignment=1)
        assert len(rig.queued) == 1

    def test_gap_is_not_accepted_before_a_heartbeat_has_healed_it(self) -> None:
        """After a lost assignment the master must compare sets before it may forget about it."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        rig.grant(session, 3, assignment=3)
        rig.wait(1)
        assert rig.hear(session).accepted == 1
        rig.wait(HEARTBEAT_MS * 2)
        (beat,) = rig.hear(session).heartbeats
        assert beat.last_assignment == 3
        rig.ack(session, beat)
        rig.wait(1)
        assert rig.hear(session).accepted == 3

    def test_numbers_start_anew_with_each_opening(self) -> None:
        """Assignment 1 of a new leader is not taken for a repetition."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        other = rig.leading("m2", token=NEWER)
        rig.grant(other, 2, token=NEWER)
        assert [job.job_id for job in rig.queued] == [job_id(1), job_id(2)]
        rig.wait(1)
        assert rig.hear(other).accepted == 1

    def test_terms_come_from_the_shared_options(self) -> None:
        """A grant's options say what the executor has to obey."""
        rig = Rig()
        session = rig.leading()
        options: dict[str, Any] = {"at_most_once": True, "timeout": {"seconds": 2}}
        rig.grant(session, 1, **options)
        (job,) = rig.queued
        assert job.terms.name == "double"
        assert job.terms.timeout_ms == 2_000
        assert job.terms.at_most_once


class TestStarts:
    """Started, Returned and Revoke."""

    def test_started_is_said_while_the_job_runs(self) -> None:
        """The master learns that the timeout runs."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        rig.begin()
        assert rig.hear(session).started == [job_id(1)]

    def test_started_is_left_out_when_the_report_says_it(self) -> None:
        """A job that has ended by the next envelope costs one row, not two."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        rig.run_all()
        said = rig.hear(session)
        assert said.started == []
        assert len(said.reports) == 1

    def test_unstarted_job_is_returned(self) -> None:
        """A take-back of a waiting job gives it back, and it never runs."""
        rig = Rig()
        session = rig.leading()
        (ref,) = rig.grant(session, 1)
        rig.revoke(session, ref, unless_started=True)
        assert rig.hear(session).returned == [job_id(1)]
        assert rig.begin() == []
        assert rig.arbiter.held == 0

    def test_started_wins_over_a_take_back(self) -> None:
        """A running job answers Started again, and goes on."""
        rig = Rig()
        session = rig.leading()
        (ref,) = rig.grant(session, 1)
        (job,) = rig.begin()
        rig.hear(session)
        rig.revoke(session, ref, unless_started=True)
        said = rig.hear(session)
        assert (said.started, said.returned) == ([job_id(1)], [])
        assert not job.is_lost(rig.now_ms)

    def test_unknown_lease_is_returned(self) -> None:
        """What never arrived is not here: the master may grant it again."""
        rig = Rig()
        session = rig.leading()
        ref = worker_pb2.LeaseRef(job_id=job_id(9), seq=9)
        rig.revoke(session, ref, unless_started=True)
        assert rig.hear(session).returned == [job_id(9)]

    def test_final_revoke_reaches_the_job_and_no_ack_revives_it(self) -> None:
        """A lease that the master has given away is lost for good."""
        rig = Rig()
        session = rig.leading()
        (ref,) = rig.grant(session, 1)
        (job,) = rig.begin()
        rig.wait(HEARTBEAT_MS * 2)
        (beat,) = rig.hear(session).heartbeats[-1:]
        rig.revoke(session, ref, unless_started=False)
        rig.ack(session, beat)
        assert job in rig.leases
        assert job.is_lost(rig.now_ms)
        assert rig.stops == []

    def test_final_revoke_kills_at_most_once_jobs(self) -> None:
        """Only jobs that must never run twice are killed."""
        rig = Rig()
        session = rig.leading()
        (ref,) = rig.grant(session, 1, at_most_once=True)
        (job,) = rig.begin()
        rig.revoke(session, ref, unless_started=False)
        assert rig.stops == [(job, AttemptOutcome.LOST)]

    @pytest.mark.parametrize("started", [True, False])
    def test_cancel(self, started: bool) -> None:
        """A running job is asked to stop; a waiting one is reported CANCELLED at once."""
        rig = Rig()
        session = rig.leading()
        (ref,) = rig.grant(session, 1)
        if started:
            (job,) = rig.begin()
        rig.instruct(session, cancels=[ref])
        reports = rig.hear(session).reports
        if started:
            assert rig.stops == [(job, AttemptOutcome.CANCELLED)]
            assert reports == []
        else:
            assert [report.outcome for report in reports] == [7]
            assert rig.begin() == []


class TestDeadlines:
    """When the worker stops trusting its leases."""

    def test_ack_counts_from_when_its_heartbeat_was_sent(self) -> None:
        """An ack moves deadlines to its own heartbeat's send time + TTL - 1 s, however late."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        rig.wait(HEARTBEAT_MS * 2)
        sent_ms = rig.now_ms
        (beat,) = rig.hear(session).heartbeats
        rig.wait(3_000)
        rig.ack(session, beat)
        assert job.expires_ms == sent_ms + OUTLIVES_MS

    def test_ack_renews_only_what_its_heartbeat_listed(self) -> None:
        """A job granted after the heartbeat was sent is not renewed by its ack."""
        rig = Rig()
        session = rig.leading()
        rig.wait(HEARTBEAT_MS * 2)
        (beat,) = rig.hear(session).heartbeats
        rig.grant(session, 1)
        (job,) = rig.queued
        before_ms = job.expires_ms
        rig.ack(session, beat)
        assert job.expires_ms == before_ms

    def test_late_ack_of_an_older_beat_moves_nothing_back(self) -> None:
        """Deadlines only rise."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        beats = []
        for _ in range(2):
            rig.wait(HEARTBEAT_MS * 2)
            beats.extend(rig.hear(session).heartbeats)
        rig.ack(session, beats[1])
        expires_ms = job.expires_ms
        rig.ack(session, beats[0])
        assert job.expires_ms == expires_ms

    def test_fresh_grant_counts_from_proven_time(self) -> None:
        """However long a grant was on its way, its deadline rests on what the master answered."""
        rig = Rig()
        session = rig.leading()
        rig.wait(HEARTBEAT_MS * 2)
        sent_ms = rig.now_ms
        (beat,) = rig.hear(session).heartbeats
        rig.ack(session, beat)
        rig.wait(4_000)
        rig.grant(session, 1)
        assert rig.queued[0].expires_ms == sent_ms + OUTLIVES_MS

    def test_hold_moves_no_deadline(self) -> None:
        """A leader that cannot judge renews nothing."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        expires_ms = job.expires_ms
        rig.wait(HEARTBEAT_MS * 2)
        (beat,) = rig.hear(session).heartbeats
        rig.instruct(session, hold=worker_pb2.Hold(number=beat.number))
        rig.ack(session, beat)
        assert job.expires_ms == expires_ms

    def test_lapsed_lease_is_lost_to_its_job(self) -> None:
        """Past the deadline the job's next checkpoint raises; it is not killed."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        rig.wait(job.expires_ms - rig.now_ms - 1)
        assert not job.is_lost(rig.now_ms)
        rig.wait(1)
        assert job.is_lost(rig.now_ms)
        assert rig.stops == []

    def test_lapsed_at_most_once_job_is_killed(self) -> None:
        """What must never run twice is stopped before anyone else may have it."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1, at_most_once=True)
        (job,) = rig.begin()
        rig.wait(OUTLIVES_MS)
        assert rig.stops == [(job, AttemptOutcome.LOST)]

    @pytest.mark.parametrize("seen", [True, False])
    def test_ack_revives_what_has_not_seen_its_loss(self, seen: bool) -> None:
        """A lapsed lease comes back with the next ack that lists it, unless its job knows."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        rig.wait(OUTLIVES_MS)
        assert job.lapsed
        if seen:
            job.is_lost(rig.now_ms)
        beat = rig.hear(session).heartbeats[-1]
        rig.ack(session, beat)
        assert job.lapsed is seen
        assert job.is_lost(rig.now_ms) is seen
        assert job in rig.leases

    def test_ack_from_long_ago_revives_nothing(self) -> None:
        """After a long pause a buffered ack proves nothing about now."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        rig.wait(HEARTBEAT_MS * 2)
        (beat,) = rig.hear(session).heartbeats
        rig.wait(TTL_MS * 4)
        rig.ack(session, beat)
        assert job.lapsed

    def test_unstarted_job_that_lapses_is_given_back(self) -> None:
        """Nothing begins under a lease that is past its deadline."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        rig.wait(OUTLIVES_MS)
        assert rig.begin() == []
        assert rig.hear(session).returned == [job_id(1)]

    def test_result_of_a_lost_lease_is_offered_for_two_minutes(self) -> None:
        """The master's table judges late results; after 120 s they are dropped."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        rig.arbiter.stream_closed(session)
        rig.wait(OUTLIVES_MS)
        rig.end(job)
        rig.wait(DELIVERY_MS - 1)
        other = rig.leading("m2", token=NEWER)
        assert rig.arbiter.held == 1
        rig.arbiter.stream_closed(other)
        rig.wait(1)
        assert rig.arbiter.held == 0


class TestReports:
    """A lease is held until its report has a verdict."""

    @pytest.mark.parametrize("verdict", [1, 2, 3, 4, 5])
    def test_every_verdict_frees_the_lease(self, verdict: Any) -> None:
        """Accepted or not, the master has judged: nothing is left to say."""
        rig = Rig()
        session = rig.leading()
        (ref,) = rig.grant(session, 1)
        rig.run_all()
        (report,) = rig.hear(session).reports
        assert report.lease.job_id == job_id(1)
        assert rig.arbiter.held == 1
        rig.judge(session, ref, verdict=verdict)
        assert rig.arbiter.held == 0

    def test_ended_job_stays_in_the_set_until_judged(self) -> None:
        """Heartbeats list it, so that the master does not take it for lost."""
        rig = Rig()
        session = rig.leading()
        (ref,) = rig.grant(session, 1)
        rig.run_all()
        rig.wait(HEARTBEAT_MS * 2)
        (beat,) = rig.hear(session).heartbeats
        assert [row.lease.job_id for row in beat.held.leases] == [job_id(1)]
        rig.judge(session, ref)
        rig.wait(HEARTBEAT_MS * 2)
        (beat,) = rig.hear(session).heartbeats
        assert not beat.held.leases

    def test_report_goes_to_whoever_opens_the_partition(self) -> None:
        """Without a verdict a report is sent again, to the same master or the next."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        rig.run_all()
        assert len(rig.hear(session).reports) == 1
        rig.arbiter.stream_closed(session)
        again = rig.connect("m1")
        rig.open(again)
        assert len(rig.hear(again).reports) == 1
        other = rig.connect("m2")
        rig.open(other, token=NEWER)
        (report,) = rig.hear(other).reports
        assert report.lease.seq == 1

    @pytest.mark.parametrize(
        ("content_type", "said"),
        [("", ""), ("application/msgpack", ""), ("a/b;version=2", "a/b;version=2")],
    )
    def test_report_says_how_its_result_is_encoded(self, content_type: str, said: str) -> None:
        """As the arguments were; the default goes unsaid."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1, content_type=content_type)
        rig.run_all()
        (report,) = rig.hear(session).reports
        assert report.content_type == said

    def test_report_without_a_verdict_is_repeated_in_the_end(self) -> None:
        """A report that got lost heals after a few heartbeats, on the same stream."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        rig.run_all()
        assert len(rig.hear(session).reports) == 1
        reports = 0
        for _ in range(4):
            rig.wait(int(HEARTBEAT_MS * 1.1))
            said = rig.hear(session)
            rig.ack(session, said.heartbeats[0])
            reports += len(said.reports)
        assert reports == 1

    def test_result_of_a_revoked_lease_is_still_offered(self) -> None:
        """The table decides what a late result is worth."""
        rig = Rig()
        session = rig.leading()
        (ref,) = rig.grant(session, 1)
        (job,) = rig.begin()
        rig.revoke(session, ref, unless_started=False)
        rig.end(job)
        assert len(rig.hear(session).reports) == 1

    def test_interrupted_job_is_returned_not_reported(self) -> None:
        """A job that was stopped to be handed back is charged to nothing."""
        rig = Rig()
        session = rig.leading()
        rig.grant(session, 1)
        (job,) = rig.begin()
        rig.end(job, AttemptResult(AttemptOutcome.RELEASED))
        said = rig.hear(session)
        assert (said.returned, said.reports) == ([job_id(1)], [])
        assert rig.arbiter.held == 0

    def test_interrupted_job_that_has_said_something_is_reported(self) -> None:
        """Its words are kept with the attempt; how its code met the interruption is no error."""
        rig = Rig()
        session = rig.leading()
        (ref,) = rig.grant(session, 1)
        (job,) = rig.begin()
        job.log = AttemptLog()
        job.log.record(1, 20, "on my way")
        fault = Fault("CancelledError", "", "", ErrorCategory.TRANSIENT)
        rig.end(job, AttemptResult(AttemptOutcome.RELEASED, fault=fault))
        said = rig.hear(session)
        assert said.returned == []
        (report,) = said.reports
        assert report.outcome == AttemptOutcome.RELEASED
        assert not report.HasField("error")
        assert [line.text for line in common_pb2.JobLog.FromString(report.log).lines] == [
            "on my way"
        ]
        assert rig.arbiter.held == 1
        rig.judge(session, ref)
        assert rig.arbiter.held == 0

    def test_partitions_are_apart(self) -> None:
        """Two partitions of one master have their own sets, numbers and verdicts."""
        rig = Rig()
        session = rig.leading()
        rig.open(session, partition=1)
        rig.hear(session)
        (first,) = rig.grant(session, 1)
        (second,) = rig.grant(session, 2, partition=1)
        rig.run_all()
        said = rig.hear(session)
        assert [report.lease.job_id for report in said.of(0).reports] == [job_id(1)]
        assert [report.lease.job_id for report in said.of(1).reports] == [job_id(2, 1)]
        rig.judge(session, second, partition=0)
        assert rig.arbiter.held == 2
        rig.judge(session, first, partition=0)
        assert rig.arbiter.held == 1
