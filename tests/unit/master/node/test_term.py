"""The owner loop: what leaves a term, in which order, and what becomes of those who wait."""

import asyncio
import random
from collections import Counter

import pytest

from tenure.master.backend.errors import CorruptJournal, StoreFull
from tenure.master.core.command import (
    CancelJobs,
    Command,
    PurgeJobs,
    RequeueJobs,
    SubmitJobs,
    SubmitRow,
    SubmitSetting,
)
from tenure.master.core.event import Event, JobsReadied, JobsSubmitted
from tenure.master.core.record import JobRecord
from tenure.master.node.jobs import JobApi
from tenure.master.node.term import TIMER_ROWS
from tenure.protocol.errors import TenureError, Unavailable
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.v1 import common_pb2, jobs_pb2, worker_pb2
from tests.unit.master.node.fakes import settle
from tests.unit.master.node.term_rig import JOB, ONCE, granted, leading, numbers, outcome

PENDING = common_pb2.JOB_STATE_PENDING
CANCELLED = common_pb2.JOB_STATE_CANCELLED


def test_assignments_reach_a_worker_in_the_order_of_their_numbers() -> None:
    """A first grant passes one that waits for its commit, which gets the next number when it goes.

    A worker drops numbers that come late, and takes a gap for something that was lost.
    """

    async def main() -> None:
        async with leading() as rig:
            (once,), (job,) = rig.submit(ONCE), rig.submit()
            await rig.commit()
            link = rig.connect(credit=1)
            await settle()
            assert granted(rig.heard(link)) == []
            rig.hub.take_credit(link, worker_pb2.CreditLimit(number=2, limit=2))
            await settle()
            early = rig.heard(link)
            assert (numbers(early), granted(early)) == ([1], [job])
            await rig.commit()
            await rig.commit()
            late = rig.heard(link)
            assert (numbers(late), granted(late)) == ([2], [once])

    run_virtual(main)


def test_grants_that_wait_for_their_commit_are_spent_credit() -> None:
    """However often the loop turns before a commit, a worker gets no more than it asked for."""

    async def main() -> None:
        async with leading() as rig:
            rig.submit(ONCE, 20)
            await rig.commit()
            link = rig.connect(credit=5)
            for _ in range(5):
                await settle()
                rig.term.nudge()
            await rig.commit()
            await rig.commit()
            assert len(granted(rig.heard(link))) == 5

    run_virtual(main)


def test_credit_of_grants_that_were_never_sent_comes_back() -> None:
    """A term that ends before its grants have committed leaves the stream's credit as it was."""

    async def main() -> None:
        async with leading() as rig:
            rig.submit(ONCE, 20)
            await rig.commit()
            link = rig.connect(credit=5)
            await settle()
            rig.abandon()
            assert granted(rig.heard(link)) == []
            assert link.credit == 5

    run_virtual(main)


def test_a_read_that_waits_for_a_commit_ends_with_the_term() -> None:
    """Who reads what has not committed is told when the leader steps down."""

    async def main() -> None:
        async with leading() as rig:
            api = JobApi(roster=rig.roster, rng=random.Random(1))
            (job_id,) = rig.submit()
            await settle()
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(
                    outcome(api.get_job(jobs_pb2.GetJobRequest(job_id=job_id)))
                )
                await settle()
                assert not reader.done()
                rig.abandon()
                await settle()
                assert reader.done()
            assert isinstance(reader.result(), TenureError)

    run_virtual(main)


def test_a_read_that_waits_for_a_commit_ends_when_the_office_cannot_be_proved() -> None:
    """A reader at a leader that is cut from its store is sent to look for another."""

    async def main() -> None:
        async with leading() as rig:
            api = JobApi(roster=rig.roster, rng=random.Random(1))
            (job_id,) = rig.submit()
            await settle()
            rig.office.answers = False
            error = await outcome(api.get_job(jobs_pb2.GetJobRequest(job_id=job_id)), 20)
            assert isinstance(error, TenureError)
            assert error.reason is Reason.FROZEN

    run_virtual(main)


def test_nobody_waits_at_a_term_that_has_ended() -> None:
    """A call that comes a moment too late is told so."""

    async def main() -> None:
        async with leading() as rig:
            rig.abandon()
            error = await outcome(rig.term.ask(rig.submission([rig.mint()])))
            assert isinstance(error, TenureError)
            assert error.reason is Reason.NOT_LEADER

    run_virtual(main)


def test_a_read_shows_only_what_has_committed() -> None:
    """What is applied between a commit and the reader's next step is not shown by the read."""

    async def main() -> None:
        async with leading() as rig:
            api = JobApi(roster=rig.roster, rng=random.Random(1))
            (job_id,) = rig.submit()
            await settle()
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(api.get_job(jobs_pb2.GetJobRequest(job_id=job_id)))
                await settle()
                cancel = CancelJobs(job_ids=[job_id])
                rig.gate.hold(
                    rig.partition.next_seq - 1,
                    lambda: rig.term._do(cancel, lambda _: None, rig.term.clock.now_ms()),
                )
                await rig.journal.commit(2)
                assert not reader.done() or reader.result().job.state == PENDING
                rig._committed = 2
                await rig.commit()
            assert reader.result().job.state in (PENDING, CANCELLED)

    run_virtual(main)


def test_heartbeats_are_acknowledged_while_a_batch_is_on_its_way() -> None:
    """Leases do not lapse because a store is slow or full: no heartbeat is journaled."""

    async def main() -> None:
        async with leading() as rig:
            link = rig.connect()
            await rig.commit()
            rig.submit()
            await settle()
            rig.heard(link)
            rig.say(link, heartbeat=worker_pb2.Heartbeat(number=1))
            await settle()
            assert [part.heartbeat_ack.number for part in rig.heard(link)] == [1]

    run_virtual(main)


def test_streams_are_known_however_much_waits() -> None:
    """A worker that dials a frozen leader whose inbox is full is introduced all the same."""

    async def main() -> None:
        async with leading() as rig:
            refused: list[object] = []
            for _ in range(10_001):
                rig.term.post(rig.submission([]), refused.append)
            assert len(refused) == 1
            rig.connect()
            for _ in range(40):
                await rig.commit()
            assert [session.worker for session in rig.partition.sessions()] == ["w"]

    run_virtual(main)


def test_a_full_store_leaves_nobody_waiting() -> None:
    """No space: who has a command under way is told that its outcome is unknown."""

    async def main() -> None:
        async with leading() as rig:
            rig.journal.errors = [StoreFull("full")] * 1_000
            held = rig.submission([rig.mint()])
            # Sent again it is not refused either: it may commit yet.
            for _ in range(2):
                error = await outcome(rig.term.ask(held))
                assert isinstance(error, TenureError)
                assert error.reason is Reason.OUTCOME_UNKNOWN
            # New work is refused before it is applied, also what had been posted already.
            seq = rig.partition.next_seq
            error = await outcome(rig.term.ask(rig.submission([rig.mint()])))
            assert isinstance(error, TenureError)
            assert error.reason is Reason.STORE_FULL
            assert rig.partition.next_seq == seq

    run_virtual(main)


def test_a_leader_cut_from_a_full_store_sends_clients_on() -> None:
    """Another may lead by now, whose store has space: STORE_FULL would keep clients here."""

    async def main() -> None:
        async with leading() as rig:
            rig.journal.errors = [StoreFull("full")] * 1_000
            rig.submit()
            await settle()
            assert rig.term.no_space(rig.submission([rig.mint()])).reason is Reason.STORE_FULL
            rig.office.answers = False
            await SimClock().sleep(6_000)
            assert rig.term.no_space(rig.submission([rig.mint()])).reason is Reason.FROZEN

    run_virtual(main)


def test_a_full_store_gets_no_more_grants() -> None:
    """Nothing is granted that could not be journaled for nobody knows how long."""

    async def main() -> None:
        async with leading() as rig:
            jobs = rig.submit(count=3)
            await rig.commit()
            rig.journal.errors = [StoreFull("full")] * 5
            rig.submit()
            await settle()
            link = rig.connect()
            await settle()
            assert granted(rig.heard(link)) == []
            await SimClock().sleep(3_000)
            rig._committed = 2
            rig.journal.batches = rig.journal.batches[:3]
            await rig.commit()
            await rig.commit()
            assert granted(rig.heard(link))[:3] == jobs

    run_virtual(main)


def test_a_turn_takes_so_many_rows_and_no_more() -> None:
    """A crowd of large batches does not keep heartbeats and keepalives from the loop."""

    async def main() -> None:
        async with leading() as rig:
            for _ in range(20):
                rig.submit(count=1_000)
            rig.term._turn()
            assert 0 < rig.partition.stats().jobs <= 8_000
            await rig.commit()
            for _ in range(20):
                await rig.commit()
            assert rig.partition.stats().jobs == 20_000

    run_virtual(main)


def test_a_command_that_cannot_be_decided_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug in deciding is answered, and the partition goes on; else it would end all masters."""

    async def main() -> None:
        async with leading() as rig:
            decide = rig.partition.decide

            def broken(command: Command, now_ms: int) -> object:
                if isinstance(command, CancelJobs):
                    raise ZeroDivisionError
                return decide(command, now_ms)

            monkeypatch.setattr(type(rig.partition), "decide", staticmethod(broken))
            error = await outcome(rig.term.ask(CancelJobs(job_ids=[rig.mint()])))
            assert isinstance(error, TenureError)
            assert error.reason is Reason.INTERNAL
            rig.submit()
            await rig.commit()
            assert rig.partition.stats().jobs == 1

    run_virtual(main)


def test_a_term_older_than_its_journal_is_not_opened() -> None:
    """A store that was set back halts the partition; nobody serves under a stale token."""

    async def main() -> None:
        async with leading() as rig:
            with pytest.raises(CorruptJournal) as caught:
                await rig.term.begin("again", window=False)
            assert caught.value.reason is Reason.STORE_MISMATCH

    run_virtual(main)


def test_a_frozen_leader_answers_commands_at_once() -> None:
    """Who asks for a change at a leader that cannot prove its office looks for another one."""

    async def main() -> None:
        async with leading() as rig:
            rig.office.answers = False
            await SimClock().sleep(6_000)
            seq = rig.partition.next_seq
            (job_id,) = rig.submit()
            for command in (rig.submission([rig.mint()]), CancelJobs(job_ids=[job_id])):
                error = await outcome(rig.term.ask(command), 0.1)
                assert isinstance(error, Unavailable)
                assert error.reason is Reason.FROZEN
                assert error.retry_after_ms == 500
            assert rig.partition.next_seq == seq
            # What nobody waits for, as workers' messages, is kept for the thaw.
            rig.office.answers = True
            await SimClock().sleep(2_000)
            await rig.commit()
            assert rig.partition.stats().jobs == 1

    run_virtual(main)


def test_a_leader_that_freezes_leaves_nobody_waiting() -> None:
    """What was applied has an unknown outcome, and commits later; what was not will not be."""

    async def main() -> None:
        async with leading() as rig, asyncio.TaskGroup() as tasks:
            rig.office.answers = False
            applied = tasks.create_task(outcome(rig.term.ask(rig.submission([rig.mint()])), 60))
            await settle()
            rig.keeper.may_act = lambda: False  # type: ignore[method-assign]
            waiting = tasks.create_task(outcome(rig.term.ask(rig.submission([rig.mint()])), 60))
            await settle()
            assert not applied.done()
            assert not waiting.done()
            await SimClock().sleep(6_000)
            assert isinstance(applied.result(), TenureError)
            assert applied.result().reason is Reason.OUTCOME_UNKNOWN
            assert isinstance(waiting.result(), TenureError)
            assert waiting.result().reason is Reason.FROZEN
            del rig.keeper.may_act
            rig.office.answers = True
            await rig.commit()
            await SimClock().sleep(2_000)
            await rig.commit()
            assert rig.partition.stats().jobs == 1

    run_virtual(main)


@pytest.mark.parametrize("change", [CancelJobs, RequeueJobs, PurgeJobs])
def test_a_change_held_by_a_full_store_is_not_refused(
    change: type[CancelJobs | RequeueJobs | PurgeJobs],
) -> None:
    """Sent again while its first copy waits for space, its outcome is unknown, as it was said."""

    async def main() -> None:
        async with leading() as rig:
            job_id, other = rig.submit(count=2)
            if change is not CancelJobs:
                rig.term.post(CancelJobs(job_ids=[job_id, other]))
            await rig.commit()
            rig.journal.errors = [StoreFull("full")] * 1_000
            for _ in range(3):
                error = await outcome(rig.term.ask(change(job_ids=[job_id])))
                assert isinstance(error, TenureError)
                assert error.reason is Reason.OUTCOME_UNKNOWN
            # A change that waits nowhere is new work.
            error = await outcome(rig.term.ask(change(job_ids=[other])))
            assert isinstance(error, TenureError)
            assert error.reason is Reason.STORE_FULL

    run_virtual(main)


def test_a_crowd_of_delayed_jobs_leaves_others_their_turns() -> None:
    """However many are due at once: after some of them everything else on the loop goes on."""

    async def main() -> None:
        async with leading() as rig:
            setting = SubmitSetting(JOB, 5, 1_000, 0)
            for _ in range(4):
                rows = [SubmitRow(rig.mint(), 0, b"", "") for _ in range(500)]
                rig.term.post(SubmitJobs(settings=[setting], rows=rows))
            await rig.commit()
            loop, apply = asyncio.get_running_loop(), rig.partition.apply
            turns, sizes, seen = 0, list[int](), list[int]()

            def turn() -> None:
                nonlocal turns
                turns += 1
                if sum(sizes) < 2_000:
                    loop.call_soon(turn)

            def watched(event: Event) -> None:
                if isinstance(event, JobsReadied):
                    sizes.append(len(event.job_ids))
                    seen.append(turns)
                    loop.call_soon(turn)
                apply(event)

            rig.partition.apply = watched  # type: ignore[method-assign]
            await SimClock().sleep(1_001)
            assert sum(sizes) == 2_000
            assert max(sizes) == TIMER_ROWS
            assert len(set(seen)) == len(seen)

    run_virtual(main)


def test_a_crowd_of_submits_leaves_others_their_turns() -> None:
    """However many wait in the inbox: after some hundreds of rows everything else goes on."""

    async def main() -> None:
        async with leading() as rig:
            loop, apply = asyncio.get_running_loop(), rig.partition.apply
            turns, sizes = 0, Counter[int]()

            def turn() -> None:
                nonlocal turns
                turns += 1
                if sizes.total() < 4_000:
                    loop.call_soon(turn)

            def watched(event: Event) -> None:
                if isinstance(event, JobsSubmitted):
                    sizes[turns] += len(event.rows)
                apply(event)

            rig.partition.apply = watched  # type: ignore[method-assign]
            loop.call_soon(turn)
            for _ in range(40):
                rig.submit(count=100)
            await rig.commit()
            assert sizes.total() == 4_000
            assert max(sizes.values()) == 600

    run_virtual(main)


def test_a_clock_that_is_slowed_down_makes_no_timer_late() -> None:
    """By the loop it fires early then, when nothing is due yet: it is set again at once."""

    async def main() -> None:
        async with leading() as rig:
            clock = rig.term.clock
            clock.slew([clock.now_ms() - 1_000])
            job_id = rig.mint()
            setting = SubmitSetting(JOB, 5, 1_000, 0)
            rig.term.post(SubmitJobs(settings=[setting], rows=[SubmitRow(job_id, 0, b"", "")]))
            due_ms = clock.now_ms() + 1_000
            await rig.commit()
            while clock.now_ms() < due_ms + 2:
                await SimClock().sleep(1)
            record = rig.partition.get(job_id)
            assert isinstance(record, JobRecord)
            assert record.state is JobState.PENDING

    run_virtual(main)


def test_a_window_is_as_long_as_the_leader_is_awake_in_it() -> None:
    """Who wakes behind its end still hears the workers that it slept through, before it grants."""

    async def main() -> None:
        async with leading(window=True) as rig:
            await rig.clock.sleep(100)
            rig.clock.boot_offset_ms += 2_900
            await rig.clock.sleep(2_000)
            assert rig.office.verifications == 1
            assert rig.partition.window_open
            await rig.clock.sleep(1_000)
            assert not rig.partition.window_open

    run_virtual(main)


def test_a_window_begins_when_workers_may_declare() -> None:
    """They are told of the term when its first event has committed, however long that takes."""

    async def main() -> None:
        async with leading(window=True, commit_ms=2_600) as rig:
            await rig.clock.sleep(2_400)
            assert rig.partition.window_open
            await rig.clock.sleep(200)
            assert not rig.partition.window_open

    run_virtual(main)
