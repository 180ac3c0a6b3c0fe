"""A partition under everything at once: all commands, several workers, deaths, a lossy wire.

The machine is the world around it: workers with their own idea of what they hold, a journal of
which the uncommitted tail may be lost, effects that wait for what they rest on. Each step is
audited; the end is a replay that must give the same state, also from a fuzzy snapshot.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition
from hypothesis.stateful import run_state_machine_as_test as run_machine

from tenure.master.core import command as commands
from tenure.master.core.command import CheckpointRow, LeaseRow, SubmitRow, SubmitSetting
from tenure.master.core.effect import Decision, SendAssignment
from tenure.master.core.query import Filter
from tenure.master.core.record import JobFault, JobRecord, Policy
from tenure.master.core.settings import AnySettings, QueueSettings, SettingsKey
from tenure.master.core.state import State
from tenure.master.core.tombstone import Tombstone
from tenure.master.core.transition import OPEN
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId, mint
from tenure.protocol.vocabulary import AttemptOutcome, JobState, LimitStrategy
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.fairness import Round
from tests.unit.master.core.heirs import Heirs
from tests.unit.master.core.rig import START_MS, held, report_row
from tests.unit.master.core.world import (
    BACK,
    CONFIG,
    INCARNATIONS,
    JOB_KEYS,
    KEYED,
    LABELS,
    NAMES,
    OUTCOMES,
    POLICIES,
    SEEN,
    SETTINGS,
    Worker,
    said,
    step,
    unseen,
)

_DEAD = frozenset({JobState.FAILED, JobState.CANCELLED})


class PartitionMachine(Heirs):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.open_term(0)
        for incarnation in INCARNATIONS:
            self._connect(self.workers[incarnation], NAMES[2])
        for policy in POLICIES:
            self.submit(2, policy, 5, 0, "", ("", ""))

    @step(
        count=st.integers(1, 6),
        policy=st.sampled_from(POLICIES),
        priority=st.sampled_from([0, 1, 5, 10]),
        delay_ms=st.sampled_from([0, 0, 0, 1_500]),
        key=st.sampled_from(["", "", "k1", "k2"]),
        own=st.sampled_from(JOB_KEYS),
    )
    def submit(
        self,
        count: int,
        policy: Policy,
        priority: int,
        delay_ms: int,
        key: str,
        own: tuple[str, str],
    ) -> None:
        """A client submits new jobs."""
        rows = []
        for index in range(count):
            self.minted += 1
            job_id = mint(CONFIG.partition, self.now_ms, self.minted * 0x9E3779B97F4A7C15)
            self.ids.append(job_id)
            taken = key if index == 0 else ""
            rows.append(SubmitRow(job_id, 0, b"payload" * index, taken, *own))
        self.send(SubmitSetting(policy, priority, delay_ms, 0), rows)

    @precondition(lambda self: self.ids)
    @step(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        """A client sends a submit again (with other content than the first, mostly)."""
        job_id = data.draw(st.sampled_from(self.ids))
        self.send(SubmitSetting(POLICIES[0], 5, 0, 0), [SubmitRow(job_id, 0, b"", "")])

    @step(
        incarnation=st.sampled_from(INCARNATIONS),
        names=st.sampled_from(NAMES),
        bulk_only=st.booleans(),
        labels=st.sampled_from(LABELS),
    )
    def connect(
        self,
        incarnation: str,
        names: frozenset[str],
        bulk_only: bool,
        labels: dict[str, str],
    ) -> None:
        """A worker opens a stream, its first or another one, and declares what it holds."""
        queues = frozenset({"bulk"}) if bulk_only and "b" in names else frozenset[str]()
        self._connect(self.workers[incarnation], names, queues, labels)

    def _connect(
        self,
        worker: Worker,
        names: frozenset[str],
        queues: frozenset[str] = frozenset(),
        labels: Mapping[str, str] = MappingProxyType({"gpu": "a100"}),
    ) -> None:
        if worker.session_id:
            self.do(commands.CloseSession(session_id=worker.session_id))
        self.sessions += 1
        worker.session_id, worker.last_assignment = self.sessions, 0
        self.do(
            commands.OpenSession(
                session_id=worker.session_id,
                incarnation=worker.incarnation,
                worker=worker.incarnation,
                job_names=names,
                queues=queues,
                slots=4,
                labels=tuple(labels.items()),
            )
        )
        rows = [held(row, started=started) for row, started in worker.held.items()]
        self.do(commands.DeclareLeases(session_id=worker.session_id, rows=rows))

    @precondition(lambda self: self.calm > 5)
    @step(incarnation=st.sampled_from(INCARNATIONS))
    def disconnect(self, incarnation: str) -> None:
        """A stream ends; the worker lives on."""
        worker = self.workers[incarnation]
        if worker.session_id:
            self.do(commands.CloseSession(session_id=worker.session_id))
            worker.session_id = 0

    @precondition(lambda self: self.holders())
    @step(data=st.data())
    def lose_memory(self, data: st.DataObject) -> None:
        """What a worker got and did not start is lost on the way: it never knew."""
        worker = data.draw(st.sampled_from(self.holders()))
        worker.held = {row: started for row, started in worker.held.items() if started}

    @precondition(lambda self: self.calm > 10)
    @step(incarnation=st.sampled_from(INCARNATIONS), hand=st.sampled_from([None, False, True]))
    def drain(self, incarnation: str, hand: bool | None) -> None:
        """A worker wants nothing more, or is to get nothing."""
        if n := self.workers[incarnation].session_id:
            mark = commands.MarkSession(session_id=n, reason="", by_hand=bool(hand))
            self.do(mark if hand is not None else commands.DrainSession(session_id=n))

    @step(incarnation=st.sampled_from(INCARNATIONS))
    def take_up(self, incarnation: str) -> None:
        """It takes work again, or gets some again."""
        if n := self.workers[incarnation].session_id:
            self.do(commands.UndrainSession(session_id=n))
            self.do(commands.MarkSession(session_id=n, reason=None))

    @step(incarnation=st.sampled_from(INCARNATIONS), outcome=OUTCOMES)
    def work(self, incarnation: str, outcome: AttemptOutcome) -> None:
        """A whole round, as it goes on a good day."""
        self.commit_all()
        self.dispatch(2, 6)
        self.commit_all()
        self.accept(incarnation)
        worker = self.workers[incarnation]
        self._start(worker, 2)
        if worker.session_id and worker.held:
            self._report(worker.session_id, list(worker.held)[:1], outcome)

    @step(credit=st.integers(1, 5), grants_max=st.integers(1, 12), committed=st.booleans())
    def dispatch_all(self, credit: int, grants_max: int, committed: bool) -> None:
        """The node dispatches, with more or less of the journal committed."""
        if committed:
            self.commit_all()
        self.dispatch(credit, grants_max)

    @step(incarnation=st.sampled_from(INCARNATIONS), ms=st.sampled_from([1_000, 5_000]))
    def pile_up(self, incarnation: str, ms: int) -> None:
        """One worker gets all that is ready and does not start it while others idle."""
        self.commit_all()
        self.dispatch(40, 40, only=incarnation)
        self.commit_all()
        self.accept(incarnation)
        self.now_ms += ms
        self.fire(20)

    def dispatch(self, credit: int, grants_max: int, only: str = "") -> None:
        """Grants to all sessions or one; it is judged in the plainest way."""
        credits = [
            (worker.session_id, credit)
            for worker in self.workers.values()
            if worker.session_id and only in ("", worker.incarnation)
        ]
        command = commands.Dispatch(
            credits=credits, committed_seq=self.committed, grants_max=grants_max
        )
        state = state_of(self.partition)
        judge = Round(state, credits, self.committed, grants_max, self.now_ms)
        unawaited = {
            record.job_id
            for record in state.jobs.values()
            if record.lease is None
            and not record.policy.at_most_once
            and not _is_limited(state, record)
        }
        decision = self.do(command)
        assert isinstance(decision, Decision)
        picked = []
        for effect in decision.effects:
            if isinstance(effect, SendAssignment):
                for row in effect.rows:
                    lease = row.record.lease
                    assert lease is not None
                    assert lease.token == self.token
                    assert all(lease > other.lease for other in self.leases[-20:])
                    picked.append((effect.session_id, row.record))
                    assert effect.write_ahead == (row.record.job_id not in unawaited)
        for effect in decision.effects:
            if isinstance(effect, SendAssignment):
                for row in effect.rows:
                    lease = Lease(self.token, row.lease_seq, row.record.run)
                    self.leases.append(LeaseRow(row.record.job_id, lease))
        judge.judge(picked)

    @step(incarnation=st.sampled_from(INCARNATIONS))
    def accept(self, incarnation: str) -> None:
        """A worker accepts what has arrived."""
        worker = self.workers[incarnation]
        if worker.session_id:
            self.do(
                commands.AcceptAssignment(
                    session_id=worker.session_id, number=worker.last_assignment
                )
            )

    @precondition(lambda self: self.holders())
    @step(data=st.data(), count=st.integers(1, 4))
    def start(self, data: st.DataObject, count: int) -> None:
        """A worker starts jobs."""
        self._start(data.draw(st.sampled_from(self.holders())), count)

    def _start(self, worker: Worker, count: int) -> None:
        rows = [row for row, started in worker.held.items() if not started][:count]
        for row in rows:
            worker.held[row] = True
        if worker.session_id and rows:
            self.do(commands.StartLeases(session_id=worker.session_id, rows=rows))

    @precondition(lambda self: self.holders())
    @step(data=st.data(), count=st.integers(1, 4), outcome=OUTCOMES)
    def report(self, data: st.DataObject, count: int, outcome: AttemptOutcome) -> None:
        """A worker reports jobs that it holds, one twice, until it has their verdicts."""
        worker = data.draw(st.sampled_from(self.holders()))
        rows = list(worker.held)[:count]
        self._report(worker.session_id, [*rows, rows[0]], outcome)

    @precondition(lambda self: self.leases)
    @step(data=st.data(), closed=st.booleans(), outcome=OUTCOMES)
    def report_late(self, data: st.DataObject, closed: bool, outcome: AttemptOutcome) -> None:
        """Somebody reports any lease there ever was, or one that its open job has lost."""
        lost = self.closed_leases() if closed else []
        row = data.draw(st.sampled_from(lost or self.leases))
        self._report(self.sessions or 1, [row], outcome)

    def _report(self, session_id: int, rows: list[LeaseRow], outcome: AttemptOutcome) -> None:
        fault = None if outcome is AttemptOutcome.COMPLETED else JobFault("app.Error", "x" * 50)
        reports = [report_row(row, outcome, fault=fault, log=said(row)) for row in rows]
        command = commands.ReportAttempts(session_id=session_id, rows=reports, jitter=[0.3])
        self.do(command)

    @precondition(lambda self: self.holders())
    @step(data=st.data(), count=st.integers(1, 3))
    def give_back(self, data: st.DataObject, count: int) -> None:
        """A worker hands jobs back, started ones too."""
        worker = data.draw(st.sampled_from(self.holders()))
        rows = list(worker.held)[:count]
        for row in rows:
            del worker.held[row]
        self.do(commands.ReturnLeases(session_id=worker.session_id, rows=rows))

    @precondition(lambda self: self.leases)
    @step(data=st.data(), ours=st.booleans(), state=st.sampled_from([b"a", b"b", b"c" * 40]))
    def save(self, data: st.DataObject, ours: bool, state: bytes) -> None:
        """A job saves something, perhaps under a lease that was lost long ago."""
        held_now = [row for worker in self.holders() for row in worker.held]
        row = data.draw(st.sampled_from(held_now if ours and held_now else self.leases))
        number = self.numbers[row] = self.numbers.get(row, 0) + 1
        rows = [CheckpointRow(row.job_id, row.lease, number, state)]
        self.do(commands.SaveCheckpoints(session_id=self.sessions or 1, rows=rows))

    @step(progress=st.sampled_from([0.0, 0.5]), silent=st.sampled_from(INCARNATIONS))
    def heartbeat(self, progress: float, silent: str) -> None:
        """All workers but one tell all that they hold."""
        for worker in self.workers.values():
            if worker.session_id and worker.incarnation != silent:
                rows = [held(row, started=s, progress=progress) for row, s in worker.held.items()]
                self.do(
                    commands.RenewLeases(
                        session_id=worker.session_id,
                        number=1,
                        last_assignment=worker.last_assignment,
                        rows=rows,
                    )
                )

    @step(changed=st.sampled_from(SETTINGS))
    def configure(self, changed: tuple[SettingsKey, AnySettings]) -> None:
        """Somebody changes how a queue, a tenant or a job type is run."""
        self.do(commands.UpdateSettings(key=changed[0], settings=changed[1]))

    @step(
        strategy=st.sampled_from(LimitStrategy),
        count=st.integers(1, 4),
        delay_ms=st.sampled_from([0, 1_500]),
    )
    def crowd(self, strategy: LimitStrategy, count: int, delay_ms: int) -> None:
        """Jobs of one limit key come, more than may run at once."""
        limits = QueueSettings(key_concurrency=1, key_strategy=strategy)
        self.do(commands.UpdateSettings(key=("default", "keyed"), settings=limits))
        self.submit(count, KEYED, 5, delay_ms, "", ("l1", ""))

    @precondition(lambda self: self.ids)
    @step(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Somebody cancels jobs."""
        ids = data.draw(st.lists(st.sampled_from(self.ids), min_size=1, max_size=3))
        self.do(commands.CancelJobs(job_ids=ids, reason="because"))

    @precondition(lambda self: self.ids)
    @step(
        data=st.data(),
        priority=st.sampled_from([None, 0, 5, 9]),
        delay_ms=st.sampled_from([None, 0, 2_000]),
    )
    def boost(self, data: st.DataObject, priority: int | None, delay_ms: int | None) -> None:
        """Somebody gives jobs another place."""
        ids = data.draw(st.lists(st.sampled_from(self.ids), min_size=1, max_size=3))
        self.do(commands.BoostJobs(job_ids=ids, priority=priority, delay_ms=delay_ms))

    @precondition(lambda self: self.ids)
    @step(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        """Somebody requeues jobs, dead ones mostly, some with another payload."""
        dead = self.partition.scan(Filter(_DEAD)).take(5, 1_000)
        ids = [record.job_id for record in dead] or self.ids
        job_id = data.draw(st.sampled_from(ids))
        payload = data.draw(st.sampled_from([None, b"edited"]))
        self.do(commands.RequeueJobs(job_ids=[job_id], payload=payload))

    @precondition(lambda self: self.ids)
    @step(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        """Somebody purges a job."""
        self.do(commands.PurgeJobs(job_ids=[data.draw(st.sampled_from(self.ids))]))

    @step(ms=st.sampled_from([300, 1_100, 2_500, 6_000, 17_000, 65_000, 400_000]))
    def pass_time(self, ms: int) -> None:
        """Time passes; timers fire late."""
        self.now_ms += ms

    @precondition(lambda self: (self.partition.next_timer_ms() or 1 << 60) <= self.now_ms)
    @step(rows_max=st.integers(1, 20))
    def fire(self, rows_max: int) -> None:
        """The node fires timers; it stops when nothing is due."""
        for _ in range(100):
            due = self.partition.next_timer_ms()
            if due is None or due > self.now_ms:
                return
            self.do(commands.FireTimers(rows_max=rows_max, jitter=[0.1, 0.9]))
        raise AssertionError("timers are due for ever")

    @precondition(lambda self: self.committed < len(self.journal))
    @step()
    def commit(self) -> None:
        """The store commits all that waits; a standby reads on."""
        self.commit_all()
        self.follow()

    @precondition(lambda self: self.committed < len(self.journal))
    @step()
    def commit_some(self) -> None:
        """The store commits the next event."""
        self.committed = min(self.committed + 1, len(self.journal))
        self.deliver()

    @precondition(lambda self: self.calm > 6)
    @step(
        keep=st.sampled_from([0, 0, 1, 3]),
        window_ms=st.sampled_from([2_500, 2_500, 0]),
        back=BACK,
        early=st.booleans(),
        grants=st.integers(0, 6),
    )
    def crash(
        self, keep: int, window_ms: int, back: tuple[str, ...], early: bool, grants: int
    ) -> None:
        """The master dies; some of what had not committed is lost, and a successor replays."""
        if grants:
            self.commit_all()
            self.dispatch(2, grants)
        del self.journal[self.committed + keep :]
        self._succeed(window_ms)
        for incarnation in back:
            self._connect(self.workers[incarnation], NAMES[2])
        if early:
            self.now_ms += window_ms
            self.close_window(0)

    @precondition(lambda self: self.calm > 12)
    @step(back=BACK)
    def hand_over(self, back: tuple[str, ...]) -> None:
        """The master goes in order; its successor needs no window."""
        self.do(commands.CloseTerm())
        self.commit_all()
        self._succeed(0)
        for incarnation in back:
            self._connect(self.workers[incarnation], NAMES[2])

    def _succeed(self, window_ms: int) -> None:
        self.calm = 0
        self.committed = len(self.journal)
        self.outbox, self.submits = [], []
        self.unsettled.clear()
        self.cursor = None
        self.take_over(window_ms)
        for worker in self.workers.values():
            worker.session_id = 0

    @precondition(lambda self: self.partition.window_open)
    @step(ms=st.sampled_from([0, 3_000]))
    def close_window(self, ms: int) -> None:
        """The window ends when it is due."""
        self.now_ms += ms
        if self.partition.window_due(self.now_ms):
            self.do(commands.CloseWindow(jitter=[0.5]))
            assert not self.partition.window_open

    @precondition(lambda self: self.calm > 8)
    @step(frozen=st.booleans())
    def stall(self, frozen: bool) -> None:
        """The process slept; or the office was in doubt, and is kept."""
        self.calm = 0
        self.now_ms += 3_000
        command = commands.RestartLeases() if frozen else commands.PushDeadlines(gap_ms=3_000)
        self.do(command)

    @step(rows_max=st.integers(1, 8), slices=st.integers(1, 5))
    def snapshot(self, rows_max: int, slices: int) -> None:
        """The node writes some more slices of a snapshot, or begins one."""
        if self.cursor is None:
            self.cursor = self.partition.snapshot()
            self.slices = []
            self.snapshot_from = len(self.journal)
            return
        for _ in range(slices):
            part = self.cursor.next_slice(rows_max)
            if part is None:
                SEEN["snapshot compared"] += 1
                self.cursor = None
                self.compare(self.recovered())
                return
            self.slices.append(msgspec.msgpack.decode(msgspec.msgpack.encode(part)))

    # What must hold.

    @invariant()
    def time_since_the_last_disturbance(self) -> None:
        """Counts steps; disturbances reset it."""
        self.calm += 1

    @invariant()
    def budgets_hold(self) -> None:
        """No job is charged more than its budgets allow."""
        for record in state_of(self.partition).jobs.values():
            retry = record.policy.retry
            assert record.attempts_charged <= retry.max_attempts
            assert record.losses_charged <= retry.max_lost + 1
            assert record.undelivered <= CONFIG.max_undelivered
            SEEN[record.state.name] += 1
            if record.failure_reason is not None:
                SEEN[record.failure_reason.name] += 1

    @invariant()
    def acknowledged_jobs_are_known(self) -> None:
        """S1: what was acknowledged is a job or a tombstone, for as long as one must stand."""
        for job_id in self.acked:
            known = self.partition.get(JobId(job_id))
            if known is None:
                del self.acked[job_id]
                assert self.now_ms > START_MS + 300_000
                return

    @invariant()
    def committed_results_stay(self) -> None:
        """S3: a committed result never changes."""
        for record in state_of(self.partition).jobs.values():
            if record.state is JobState.COMPLETED and record.seq <= self.committed:
                first = self.results.setdefault(record.job_id, record.result)
                assert record.result == first
        for job_id in self.results:
            known = self.partition.get(job_id)
            if isinstance(known, JobRecord | Tombstone):
                assert known.state is JobState.COMPLETED

    @invariant()
    def safe_checkpoints_stay(self) -> None:
        """S21: what was said to be safe is there until its run ends, or what came after it."""
        for job_id, (lease, number) in self.safe.items():
            record = self.partition.get(job_id)
            if isinstance(record, JobRecord) and record.state in OPEN and record.run == lease.run:
                saved = record.checkpoint
                assert saved is not None
                assert (saved.lease, saved.number) >= (lease, number)

    def teardown(self) -> None:
        """Replays give the same; and once all is well again every job comes to an end."""
        self.compare(self.replayed(self.journal))
        self.heal()

    def heal(self) -> None:
        """L1: with every worker there and the store well, no job stays open for long."""
        self.healing = True
        self.heal_schedules()
        self.heal_batches()
        for key, chosen in SETTINGS:
            self.do(commands.UpdateSettings(key=key, settings=type(chosen)()))
        for worker in self.workers.values():
            self._connect(worker, NAMES[2])
        for turn in range(40):
            self.commit_all()
            self.heal_kin(cancel=turn > 20)
            # In the end for those too whose retries were put off, each a minute behind the other.
            self.now_ms += 4_000 if turn < 20 else 120_000
            if self.partition.window_due(self.now_ms):
                self.do(commands.CloseWindow(jitter=[0.5]))
            self.heartbeat(0.5, "")
            while (self.partition.next_timer_ms() or 1 << 60) <= self.now_ms:
                self.do(commands.FireTimers(rows_max=100, jitter=[0.5]))
            self.commit_all()
            self.dispatch(5, 20)
            self.commit_all()
            for worker in self.workers.values():
                self.accept(worker.incarnation)
                if worker.held:
                    self._report(worker.session_id, list(worker.held), AttemptOutcome.COMPLETED)
            self.commit_all()
            if not OPEN & self.partition.counts().keys():
                break
        left = [r for r in state_of(self.partition).jobs.values() if r.state in OPEN]
        assert not left
        audit(self.partition)


def _is_limited(state: State, record: JobRecord) -> bool:
    """Whether so many of a job's queue or key may run that its grant is written ahead."""
    settings = state.settings.queue(record.policy.tenant, record.policy.queue)
    return bool(settings.concurrency or (record.limit_key and settings.key_concurrency))


#: So many runs of the machine at most.
_RUNS_MAX: Final = 10


# With the time limit of a property: an example takes a tenth of a second.
@pytest.mark.hypothesis
def test_machine() -> None:
    """S9: many examples of 60 steps; every rule, command, event, verdict and state occurs.

    Which examples there are depends on what else is imported: Hypothesis takes numbers from there.
    Some things occur in one of hundreds only, so there are more until all has occurred.
    """
    SEEN.clear()
    for number in range(_RUNS_MAX):
        run_machine(
            # Its name is the seed.
            type(f"PartitionMachine{number}", (PartitionMachine,), {}),
            settings=settings(
                stateful_step_count=60, derandomize=True, suppress_health_check=list(HealthCheck)
            ),
        )
        if not unseen():
            break
    assert " ".join(sorted(unseen())) == ""
