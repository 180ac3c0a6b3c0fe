"""The planted bugs: each is what a careless programmer would have shipped.

No scenario, plan or oracle knows any of them; ordinary random runs must find all of them
(``make mutants``).
Each function plants one; its docstring is the bug's story.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from itertools import count
from random import Random
from typing import Any, Final

import msgspec

from tenure.master.backend.errors import StoreFull, StoreIoError, StoreUnavailable
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.errors import OutcomeUnknown, Unavailable
from tenure.master.backend.etcd.keyspace import PartitionKeys
from tenure.master.backend.etcd.resolution import failed
from tenure.master.backend.sqlite import SqliteConnection
from tenure.master.core import dispatch, due_ticks, fire, lease, report, term
from tenure.master.core.command import (
    DeclareLeases,
    FireTimers,
    HeldRow,
    RenewLeases,
    TrimOutbox,
)
from tenure.master.core.dependency import OPEN, Dependencies
from tenure.master.core.lanes import Lanes
from tenure.master.core.partition import Partition
from tenure.master.core.record import JobRecord
from tenure.master.core.report import Ruling
from tenure.master.core.state import State
from tenure.master.core.transition import TERMINAL
from tenure.master.election.etcd import EtcdElection, EtcdOffice
from tenure.master.journal import etcd as etcd_journal
from tenure.master.journal.etcd import EtcdJournal
from tenure.master.node.clock import TermClock
from tenure.master.node.courier import Courier
from tenure.master.node.gate import CommitGate
from tenure.master.node.inbox import ignore
from tenure.master.node.keeper import Keeper
from tenure.master.node.term import Term
from tenure.protocol.ids import mint
from tenure.protocol.vocabulary import AttemptOutcome, JobState
from tenure.testing.process import current_process, elapse
from tenure.v1.journal_pb2 import JournalBatch
from tenure.worker.executor.runner import Stage
from tests.mutants.patching import Mutant, Patch

MUTANTS: Final[dict[str, Mutant]] = {}


def mutant(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
    """Registers a bug under its function's name."""
    name = plant.__name__.replace("_", "-")
    MUTANTS[name] = Mutant(name=name, story=" ".join((plant.__doc__ or "").split()), plant=plant)
    return plant


# ---- the store ----------------------------------------------------------------------------------


class _OpenKeys(PartitionKeys):
    """Keys whose mutations carry no guard."""

    def guard(self, token: Any) -> list[Any]:
        return []


def _opened(keys: PartitionKeys) -> _OpenKeys:
    keys = copy(keys)
    keys.__class__ = _OpenKeys
    return keys  # type: ignore[return-value]


@mutant
def no_guard_on_writes(patch: Patch) -> None:
    """The journal's transactions do not compare the office's key: a leader knows that it leads."""

    def init(real: Any, self: Any, client: Any, keys: PartitionKeys, *more: Any) -> None:
        real(self, client, _opened(keys), *more)

    patch.replace(EtcdJournal, "__init__", init)


@mutant
def no_guard_on_truncation(patch: Patch) -> None:
    """What a published snapshot replaces can be deleted by anybody, so the delete has no guard."""

    async def truncate(real: Any, self: Any, token: Any, before: int) -> int:
        twin = copy(self)
        twin._keys = _opened(self._keys)
        deleted: int = await real(twin, token, before)
        return deleted

    patch.replace(EtcdJournal, "truncate", truncate)


class _NearestMember:
    """A client whose reads are answered by whatever member is asked, from what it has."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def range(self, *args: Any, **kwargs: Any) -> Any:
        return await self._client.range(*args, **kwargs, serializable=True)


@mutant
def serializable_recovery_read(patch: Patch) -> None:
    """The journal is read serializably: it is faster, and the office is ours anyway."""

    def init(real: Any, self: Any, client: EtcdClient, *more: Any) -> None:
        real(self, _NearestMember(client), *more)

    patch.replace(EtcdJournal, "__init__", init)


@mutant
def next_batch_without_predecessor(patch: Patch) -> None:
    """An append does not compare that its predecessor is there: it was sent before, after all."""

    def exists(real: Any, key: bytes) -> Any:
        return op.absent(key + b"/any") if b"/batch/" in key else real(key)

    patch.replace(op, "exists", exists)


@mutant
def blind_retry_with_a_new_seq(patch: Patch) -> None:
    """An append without an answer is a failed append: its events go into the next batch."""

    async def resolve(real: Any, call: Any, action: str) -> Any:
        if not action.startswith("append"):
            return await real(call, action)
        try:
            return await call()
        except (Unavailable, OutcomeUnknown) as error:
            raise failed(action, error) from error

    async def append(real: Any, self: Any, flight: Any) -> None:
        while True:
            try:
                await self._journal.append(self._token, flight.batch)
                break
            except StoreFull:
                self.full = True
            except StoreUnavailable:
                old = JournalBatch.FromString(flight.batch.data)
                flight.batch = self.chain.seal(
                    token=self._token,
                    stamp_ms=old.stamp_ms,
                    events=old.events,
                    event_count=old.event_count,
                )
            await self._clock.sleep(100)
        self.full, flight.committed = False, True
        self._release()

    patch.replace(etcd_journal, "resolve", resolve)
    patch.replace(CommitGate, "_append", append)


@mutant
def fsync_error_retried(patch: Patch) -> None:
    """A commit whose fsync failed is committed again: there is no transaction any more, so done."""

    def attempt(real: Any, self: Any, *args: Any) -> Any:
        failure = real(self, *args)
        if isinstance(failure, StoreIoError) and failure.metadata["sqlite"] == "SQLITE_IOERR_FSYNC":
            return None
        return failure

    patch.replace(SqliteConnection, "_attempt", attempt)


# ---- the office ---------------------------------------------------------------------------------


@mutant
def token_reused_after_resign(patch: Patch) -> None:
    """Who resigns lets its session run out; should it campaign before, it finds its own key."""

    async def resign(real: Any, self: Any) -> None:
        self.abandoned = True

    async def campaign(real: Any, self: Any, action: str) -> Any:
        held, office = await self._read(action), self._office
        if (
            held is not None
            and office is not None
            and held.create_revision == office.token.revision
        ):
            office.abandoned = False
            return await self._renewed(office)
        return await real(self, action)

    patch.replace(EtcdOffice, "resign", resign)
    patch.replace(EtcdElection, "_campaign", campaign)


@mutant
def keepalive_in_a_thread(patch: Patch) -> None:
    """Keepalives have a thread of their own, so that a busy loop does not cost the office."""

    async def run(real: Any, self: Any) -> None:
        process = current_process()

        async def beat() -> None:
            while process is None or not process.killed:
                await elapse(self._interval_ms / 1000)
                sent_ms = self._clock.boot_ms()
                try:
                    await self._office.renew()
                except StoreUnavailable:
                    continue
                self._renewed_ms = sent_ms
                self._validity.extend(sent_ms)

        context = contextvars.Context()
        thread = asyncio.get_running_loop().create_task(beat(), context=context)
        try:
            while not thread.done():
                await self._clock.sleep(250)
                self._look_for_gap()
                if self._doubt_from_ms is not None:
                    await self._settle_doubt(self._doubt_from_ms)
                elif self._frozen and self._validity.holds():
                    self._frozen = False
                    if self.kept is not None:
                        self.kept.thaw()
            await thread
        finally:
            thread.cancel()

    patch.replace(Keeper, "run", run)


@mutant
def no_recheck_after_a_pause(patch: Patch) -> None:
    """The office's time is counted while the process runs: a pause goes unnoticed."""

    def look(real: Any, self: Any) -> None:
        now_ms = self._clock.boot_ms()
        gap_ms = now_ms - self._ticked_ms
        if gap_ms > self._gap_ms:
            self._validity.valid_until_ms += gap_ms
        self._ticked_ms = now_ms
        if not self._validity.holds():
            self._freeze()

    patch.replace(Keeper, "_look_for_gap", look)
    patch.replace(Keeper, "may_act", lambda real, self: not self._frozen)
    patch.replace(Keeper, "frozen", lambda real, self: self._frozen)


@mutant
def expiring_before_draining_heartbeats(patch: Patch) -> None:
    """What is due is done first in each turn, then what has arrived meanwhile."""

    def turn(real: Any, self: Any) -> None:
        now_ms = self.clock.now_ms()
        if not self.closing and self._timer_due(now_ms):
            command = FireTimers(rows_max=512, jitter=self._draw(512))
            self._do(command, ignore, now_ms)
        real(self)

    patch.replace(Term, "_turn", turn)


@mutant
def delay_by_local_wall_clock(patch: Patch) -> None:
    """A term's time is the leader's own wall clock."""

    def init(real: Any, self: Any, clock: Any, *, stamp_ms: int, walls_ms: Any) -> None:
        real(self, clock, stamp_ms=0, walls_ms=[clock.wall_ms()])

    patch.replace(TermClock, "__init__", init)
    patch.replace(TermClock, "slew", lambda real, self, walls_ms: 0)


# ---- what leaves the master, and when -----------------------------------------------------------


@mutant
def ack_before_commit(patch: Patch) -> None:
    """A batch counts as committed when it is sent; the store will have it in a moment."""

    async def append(real: Any, self: Any, flight: Any) -> None:
        flight.committed = True
        self._release()
        await real(self, flight)

    patch.replace(CommitGate, "_append", append)


@mutant
def reply_before_its_commit(patch: Patch) -> None:
    """Reads are answered at once: they change nothing."""

    async def readable(real: Any, self: Any, seq: int) -> None:
        self.check_office()

    patch.replace(Term, "readable", readable)


@mutant
def dispatch_before_the_submit_is_committed(patch: Patch) -> None:
    """A job may be granted as soon as it is known: its submit's commit is on its way."""

    def decide(real: Any, state: State, command: Any, now_ms: int) -> Any:
        return real(state, replace(command, committed_seq=state.next_seq), now_ms)

    patch.replace(dispatch, "decide_dispatch", decide)


# ---- the core -----------------------------------------------------------------------------------


def _by_job_alone(state: State, rows: list[HeldRow]) -> list[HeldRow]:
    """A worker's set as if it named jobs, not leases."""
    known = []
    for row in rows:
        record = state.jobs.get(row.job_id)
        if record is not None and record.state is JobState.RUNNING and record.lease is not None:
            row = msgspec.structs.replace(row, lease=record.lease)
        known.append(row)
    return known


@mutant
def old_attempt_renews_the_new_lease(patch: Patch) -> None:
    """A heartbeat's rows are looked up by job: whoever says that it runs a job keeps its lease."""

    def decide(real: Any, state: State, command: RenewLeases | DeclareLeases, now_ms: int) -> Any:
        rows = _by_job_alone(state, command.rows)
        return real(state, replace(command, rows=rows), now_ms)

    patch.replace(lease, "decide_renew", decide)
    patch.replace(lease, "decide_declare", decide)


@mutant
def late_failure_overrides_success(patch: Patch) -> None:
    """Only a success is kept against late reports: a failure is news."""

    def rule(real: Any, record: JobRecord, row: Any) -> Ruling:
        late = record.state in TERMINAL and row.lease.run == record.run
        if late and row.outcome is not AttemptOutcome.COMPLETED:
            return Ruling.TAKE
        return real(record, row)  # type: ignore[no-any-return]

    patch.replace(report, "rule", rule)


@mutant
def duplicated_report_counted_twice(patch: Patch) -> None:
    """A report under a job's newest lease is taken, whether or not it was taken before."""

    def rule(real: Any, record: JobRecord, row: Any) -> Ruling:
        return Ruling.TAKE if row.lease == record.lease else real(record, row)

    patch.replace(report, "rule", rule)


@mutant
def attempts_reset_at_failover(patch: Patch) -> None:
    """Budgets are counted in memory: a new leader begins to count anew."""

    def finish(real: Any, self: Partition) -> Any:
        for record in self._state.jobs.values():
            record.attempts_charged = record.losses_charged = 0
        return real(self)

    patch.replace(Partition, "finish_replay_in_steps", finish)


@mutant
def lost_delivery_not_detected(patch: Patch) -> None:
    """What was sent over a stream has arrived: nobody looks whether a worker has its grants."""

    def compare(real: Any, *args: Any) -> Any:
        return real(*args)._replace(gone=[])

    def look_at_holder(real: Any, self: Any, holder: Any) -> None:
        if holder.deadline_ms <= self._now_ms:
            real(self, holder)

    patch.replace(lease, "compare", compare)
    patch.replace(term, "compare", compare)
    patch.replace(fire._Due, "_look_at_holder", look_at_holder)


@mutant
def checkpoints_lost_at_failover(patch: Patch) -> None:
    """What jobs have saved is in memory: a new leader hears it from their workers."""

    def finish(real: Any, self: Partition) -> Any:
        for record in self._state.jobs.values():
            record.checkpoint = None
        yield from real(self)

    patch.replace(Partition, "finish_replay_in_steps", finish)


@mutant
def late_end_frees_its_slot_again(patch: Patch) -> None:
    """Code that has ended frees its slot, as all code does that ends, also when it was given up."""

    def settle(real: Any, self: Stage, *args: Any) -> bool:
        real(self, *args)
        return True

    patch.replace(Stage, "settle", settle)


# ---- scheduling ---------------------------------------------------------------------------------


@mutant
def cron_id_not_deterministic(patch: Patch) -> None:
    """A tick's job gets a new id like any other job: ids are there to be unique."""
    numbers = count()

    def job_id(real: Any, partition: int, key: Any, tick_ms: int, due_ms: int) -> Any:
        return mint(partition, due_ms, Random(next(numbers)).getrandbits(62))

    patch.replace(due_ticks, "tick_job_id", job_id)


@mutant
def limit_count_lost_at_failover(patch: Patch) -> None:
    """What runs under a limit key is counted as it is granted: a new leader has granted nothing."""
    patch.replace(Lanes, "resume", lambda real, self, record: None)


@mutant
def pause_forgotten_by_a_new_term(patch: Patch) -> None:
    """A term begins with all gates open; who pauses something closes its gate."""

    def begin(real: Any, self: Lanes, now_ms: int) -> None:
        real(self, now_ms)
        for queue in self.queues.values():
            queue.tenant.turn(True)
            queue.turn(True)

    patch.replace(Lanes, "begin_term", begin)


@mutant
def message_forgotten_when_sent(patch: Patch) -> None:
    """What was sent to another partition leaves the outbox: connections are reliable."""

    async def hand_over(real: Any, self: Courier, target: int, rows: Any) -> Any:
        self._term.post(TrimOutbox(target=target, upto=rows[-1].number))
        return await real(self, target, rows)

    patch.replace(Courier, "_hand_over", hand_over)


@mutant
def new_leader_ignores_the_outbox(patch: Patch) -> None:
    """A term sends what it puts into the outbox: what is there as it begins was sent before."""

    def init(real: Any, self: Courier, **given: Any) -> None:
        real(self, **given)
        self._taken.update(self._upto)

    patch.replace(Courier, "__init__", init)


@mutant
def member_does_not_wait_for_the_seal(patch: Patch) -> None:
    """A member waits for its own parents; its workflow is a name for all of them."""

    def is_open(self: Dependencies, record: JobRecord) -> bool:
        workflow = record.workflow_id
        return self.is_local(workflow) and self._workflows.gate(workflow) == OPEN

    def enter(real: Any, self: Dependencies, jobs: Any, record: JobRecord) -> None:
        real(self, jobs, record)
        if record.workflow_id and is_open(self, record):
            self.waiting[record.job_id] -= 1
            self._ripen(jobs, record)

    def states_of(real: Any, self: Dependencies, jobs: Any, record: JobRecord) -> bytes:
        states: bytes = real(self, jobs, record)
        if record.workflow_id and is_open(self, record):
            states = bytes([JobState.COMPLETED, *states[1:]])
        return states

    patch.replace(Dependencies, "enter", enter)
    patch.replace(Dependencies, "states_of", states_of)
    patch.replace(Dependencies, "gate_moved", lambda real, self, jobs, workflow_id: None)
