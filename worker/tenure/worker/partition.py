"""One partition as this worker sees it: its office, the leases held of it, what is still to say.

A partition outlives the streams over which it is served: leases and unacked reports stay here and
go to whoever opens the partition next. Nothing under a token lower than the highest seen counts.
"""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from tenure.protocol.fence import NO_TOKEN, Lease, Token
from tenure.protocol.limits import DEFAULT_CONTENT_TYPE
from tenure.protocol.token_wire import token_of
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.v1 import common_pb2, worker_pb2
from tenure.worker.held import AttemptResult, Fault, HeldJob, Terms
from tenure.worker.log_taps import LogTaps
from tenure.worker.returns import Returns
from tenure.worker.saving import Saving, take_acks
from tenure.worker.workload import Workload

if TYPE_CHECKING:
    from tenure.worker.session import Session

#: The worker's deadline is this much earlier than a lease TTL after its heartbeat.
SAFETY_MS: Final = 1_000
#: How long after its deadline the result of a lost lease is still offered.
DELIVERY_MS: Final = 120_000
#: Bounds of one envelope; an outcome larger than that travels alone.
REPORTS_MAX: Final = 512
REPORT_BYTES_MAX: Final = 256 * 1024
#: Looked up once, not for each job.
_RELEASED: Final = AttemptOutcome.RELEASED
#: Heartbeats whose answers are still awaited; older ones renew nothing worth having.
UNANSWERED_MAX: Final = 8


class Beat(NamedTuple):
    """A heartbeat on its way: when it was sent, and what it said."""

    sent_ms: int
    last_assignment: int
    jobs: list[HeldJob]
    returns: int


class Partition:
    """The leases held of one partition.

    Attributes:
        number: Which partition.
        token: The highest token seen.
        session: The stream over which it is open, if it is.
        held: Every lease from its grant until its report's verdict, by ``term_key(token) + seq``.
        backlog: The leader's last hint: ready jobs that this worker could run; less what it has
            granted since.
        backlog_told: The hint as it was told.
    """

    def __init__(self, number: int, workload: Workload) -> None:
        self.number = number
        self.token = NO_TOKEN
        self.session: Session | None = None
        self.held: dict[int, HeldJob] = {}
        self.backlog = self.backlog_told = 0
        self._workload = workload
        self._term_key = term_key(NO_TOKEN)
        self._declare_due = False
        self._heartbeat_due = False
        #: The highest assignment received in this opening, and the last without a gap before it.
        self._last_assignment = 0
        self._accepted = 0
        self._accepted_sent = 0
        self._accept_due = False
        self._beat_number = 0
        self._beats: dict[int, Beat] = {}
        self._started: list[HeldJob] = []
        self._returns = Returns()
        self._reports: deque[HeldJob] = deque()
        self._saving = Saving()
        self._taps = LogTaps()

    # The office.

    def open(self, token: Token, session: "Session") -> bool:
        """The stream's master leads. False: under an old token, so nothing happens."""
        if token < self.token:
            return False
        if token != self.token or self.session is not session:
            self._last_assignment = self._accepted = self._accepted_sent = 0
            self._beats.clear()
        self.token = token
        self._term_key = term_key(token)
        self.session = session
        self.backlog = self.backlog_told = 0
        self._declare_due = self._heartbeat_due = True
        self._taps.clear()
        # The declaration says which leases have started.
        self._started.clear()
        self._reports = deque(job for job in self.held.values() if job.result is not None)
        for job in self._reports:
            job.reported_ms = None
        self._returns.reopened()
        self._saving.reopened([*self.held.values(), *self._returns.unsaid()])
        return True

    def close(self, token: Token, session: "Session") -> bool:
        """The stream's master leads no longer. False: it has not led in this office."""
        if self.session is not session or token != self.token:
            return False
        self.session = None
        return True

    def is_open(self, token: Token, session: "Session") -> bool:
        """Whether what the stream says under this token counts."""
        return self.session is session and token == self.token

    # What the master says.

    def assign(self, assignment: worker_pb2.Assignment, anchor_ms: int) -> None:
        """Takes grants.

        Args:
            assignment: The grants.
            anchor_ms: A time before which none of them can have been granted.
        """
        if assignment.number <= self._last_assignment:
            return
        if assignment.number == self._accepted + 1:
            self._accepted = assignment.number
        self._last_assignment = assignment.number
        workload = self._workload
        expires_ms = anchor_ms + self.lease_ttl_ms - SAFETY_MS
        terms = [_terms(options) for options in assignment.options]
        refuse = workload.refusing
        token, number, held, runs = self.token, self.number, self.held, workload.runs
        before, term = len(runs), self._term_key
        for grant in assignment.grants:
            seq = grant.seq
            # No sound master grants without options, or one lease twice: nobody shall fall over it.
            if refuse or grant.options >= len(terms):
                self._returns.refuse(grant.job_id, Lease(token, seq, grant.run))
                continue
            if term + seq in held:
                continue
            job = HeldJob(
                job_id=grant.job_id,
                partition=number,
                token=token,
                seq=seq,
                run=grant.run,
                terms=terms[grant.options],
                payload=grant.payload,
                attempt=grant.attempt,
                deadline_ms=grant.deadline_ms,
                expires_ms=expires_ms,
                resume=grant.checkpoint,
            )
            held[term + seq] = job
            runs.append(job)
        workload.granted(len(runs) - before)
        workload.watch(expires_ms)

    def judge(self, verdicts: Iterable[worker_pb2.ReportVerdict]) -> None:
        """Frees the leases whose reports have been judged, however they were."""
        held, key_of = self.held, self._key
        for verdict in verdicts:
            ref = verdict.lease
            job = held.get(key := key_of(ref))
            if job is not None and job.result is not None and job.job_id == ref.job_id:
                del held[key]
                job.freed = True
                if job.saved is not None:
                    self._saving.forget(job)

    def checkpoints_safe(self, acks: Iterable[worker_pb2.CheckpointAck]) -> None:
        """What jobs have saved, up to these numbers, is durable."""
        take_acks(acks, self._find)

    def revoke(self, revokes: Iterable[worker_pb2.Revoke]) -> None:
        """Gives leases back (Started wins), or learns that they are lost."""
        for revoke in revokes:
            job = self._find(revoke.lease)
            if job is None:
                # Never arrived, or given back before: either way it is not here.
                self._returns.refuse(revoke.lease.job_id, self._lease(revoke.lease))
            elif job.withdraw():
                self.give_back(job)
            elif job.result is not None:
                continue
            elif revoke.unless_started:
                self._started.append(job)
            else:
                job.revoked = True
                self._workload.leases.append(job)
                self._kill_if_once(job)

    def cancel(self, refs: Iterable[worker_pb2.LeaseRef]) -> None:
        """Stops jobs; unstarted ones end at once."""
        for ref in refs:
            job = self._find(ref)
            if job is None or job.result is not None:
                continue
            if job.withdraw():
                job.finish(AttemptResult(AttemptOutcome.CANCELLED), 0)
                self._workload.free(job)
                self._reports.append(job)
            else:
                self._workload.stops.append((job, AttemptOutcome.CANCELLED))

    def want_logs(self, wishes: Iterable[worker_pb2.LogWish]) -> None:
        """Somebody reads what jobs say, or does so no more."""
        for wish in wishes:
            self._taps.wish(self._key(wish.lease), self._find(wish.lease), wish)

    def heartbeat_answered(self, number: int, now_ms: int) -> int | None:
        """Renews what the heartbeat listed. Returns when it was sent, if it is known."""
        beat = self._take_beat(number)
        if beat is None:
            return None
        # The master has compared the set with what it granted: no gap is left before this.
        self._accepted = max(self._accepted, beat.last_assignment)
        # It reads one after the other, so it has read before what was handed back.
        self._returns.heard(beat.returns)
        expires_ms = beat.sent_ms + self.lease_ttl_ms - SAFETY_MS
        for job in beat.jobs:
            if expires_ms <= job.expires_ms:
                continue
            job.expires_ms = expires_ms
            if now_ms < expires_ms and not job.lost_seen and job.stop is None:
                job.lapsed = False
            if job.claimed and job.result is None:
                self._workload.leases.append(job)
        self._workload.watch(expires_ms)
        return beat.sent_ms

    def heartbeat_held(self, number: int) -> None:
        """The leader cannot judge now: an answer, but it renews nothing."""
        self._take_beat(number)

    @property
    def oldest_unanswered_ms(self) -> int | None:
        """When the oldest heartbeat without an answer was sent."""
        return next((beat.sent_ms for beat in self._beats.values()), None)

    # What the executors say.

    def started(self, job: HeldJob) -> None:
        """A job has begun."""
        self._started.append(job)

    def saved(self, job: HeldJob) -> None:
        """A job has saved something: it goes with the next envelope, if the last is long ago."""
        self._saving.add(job)

    def ended(self, job: HeldJob) -> None:
        """An attempt has its result: report it, or hand it back if it was interrupted for that.

        One that was interrupted and has said something is reported, too: so that is kept.
        """
        if job.saved is not None:
            self._saving.ended(job)
        if job.result is not None and job.result.outcome is _RELEASED and job.log is None:
            self._give_back(job)
        elif not job.freed:
            self._reports.append(job)
            self._workload.watch(job.expires_ms)

    def give_back(self, job: HeldJob) -> None:
        """Returns a job that is not going to run here (any more)."""
        if self._give_back(job):
            self._workload.free(job)

    def forsake(self, job: HeldJob) -> None:
        """Returns a job whose code goes on: it has its slot until the executors say otherwise."""
        self._give_back(job)

    def _give_back(self, job: HeldJob) -> bool:
        if job.freed:
            return False
        self._free(job)
        self._returns.add(job)
        return True

    def _free(self, job: HeldJob) -> None:
        del self.held[term_key(job.token) + job.seq]
        job.freed = True

    # Time.

    def heartbeat(self) -> None:
        """A heartbeat is due."""
        self._heartbeat_due = True

    def tick(self, now_ms: int) -> None:
        """An acceptance that has found nothing to travel with goes alone now.

        The master waits for it for seconds, and the reports of small jobs come in milliseconds.
        """
        self._taps.tick(now_ms)
        self._accept_due = self._accepted != self._accepted_sent
        self._saving.tick(now_ms)

    def scan(self, now_ms: int) -> None:
        """Fences this worker off leases past their deadlines, and says when to look again."""
        for job in list(self.held.values()):
            if now_ms < job.expires_ms:
                self._workload.watch(job.expires_ms)
            elif job.result is not None and now_ms >= job.expires_ms + DELIVERY_MS:
                self._free(job)
                self._saving.forget(job)
            elif not job.lapsed:
                self._lapse(job)
            if job.lapsed and job.result is not None:
                self._workload.watch(job.expires_ms + DELIVERY_MS)

    def _lapse(self, job: HeldJob) -> None:
        job.lapsed = True
        if job.result is not None:
            return
        if job.withdraw():
            self.give_back(job)
        else:
            self._kill_if_once(job)

    def _kill_if_once(self, job: HeldJob) -> None:
        if job.terms.at_most_once:
            self._workload.stops.append((job, AttemptOutcome.LOST))

    @property
    def unheard(self) -> int:
        """Leases that are handed back, and no master is known to have heard it."""
        return len(self._returns)

    @property
    def lease_ttl_ms(self) -> int:
        """As the open stream's master has it."""
        return self.session.lease_ttl_ms if self.session else 0

    # What the worker says.

    @property
    def silent(self) -> bool:
        """Whether there is nothing to say."""
        return not (
            self._reports
            or self._started
            or self._returns.due
            or self._heartbeat_due
            or self._declare_due
            or self._accept_due
            or self._saving.due
            or self._taps.due
        )

    def fill(self, update: worker_pb2.PartitionUpdate, now_ms: int) -> int:
        """Writes what is to say, as much as fits, into the message; about how large reports are."""
        update.partition = self.number
        token = update.token
        token.epoch, token.revision = self.token
        if self._declare_due:
            self._declare_due = False
            # It is read before what is handed back: until then those leases are held, too.
            known = [*self.held.values(), *self._returns.unsaid()]
            update.declare.leases.extend(self._held_rows(known, now_ms))
        if self._heartbeat_due:
            self._resend_reports(now_ms)
        self._accept_due = False
        if self._accepted != self._accepted_sent:
            self._accepted_sent = self._accepted
            update.accepted_assignment = self._accepted
        if self._started:
            # Whoever has ended by now says so with its report.
            running = [job for job in self._started if job.result is None]
            update.started.extend([self._ref(job.job_id, job.lease) for job in running])
            self._started.clear()
        size = self._saving.fill(update, now_ms, REPORT_BYTES_MAX, self._ref) if self._saving else 0
        # What a job has saved goes before its end, if there is no room for all in a later message.
        is_full = bool(self._saving) and self._saving.any_ended
        if self._returns.due and not is_full:
            self._returns.fill(update, self._ref)
            # A worker that is to end waits until this has arrived, so it asks at once.
            self._heartbeat_due = self._heartbeat_due or self._workload.stopping
        if self._heartbeat_due:
            self._heartbeat_due = False
            self._fill_heartbeat(update.heartbeat, now_ms)
        if is_full:
            return size
        if len(self._taps):
            size += self._taps.fill(update.logs.add, self._refer, now_ms)
        return size + self._fill_reports(update, now_ms) if self._reports else size

    def _fill_heartbeat(self, heartbeat: worker_pb2.Heartbeat, now_ms: int) -> None:
        """Writes a heartbeat, which is read after all else that the message says."""
        self._beat_number += 1
        heartbeat.number = self._beat_number
        heartbeat.last_assignment = self._last_assignment
        held = list(self.held.values())
        heartbeat.held.leases.extend(self._held_rows([*held, *self._returns.unsaid()], now_ms))
        beat = Beat(now_ms, self._last_assignment, held, self._returns.mark)
        self._beats[self._beat_number] = beat
        if len(self._beats) > UNANSWERED_MAX:
            del self._beats[next(iter(self._beats))]

    def _resend_reports(self, now_ms: int) -> None:
        """Offers reports again that should have had their verdicts long ago.

        Whatever was lost on the way heals by this. A repeat changes nothing at the master.
        """
        interval_ms = self.session.heartbeat_interval_ms if self.session else 0
        patience_ms = 3 * interval_ms
        for job in self.held.values():
            if job.saved is not None:
                self._saving.offer_again(job, now_ms - interval_ms // 2)
            if job.reported_ms is not None and now_ms - job.reported_ms >= patience_ms:
                job.reported_ms = None
                self._reports.append(job)

    def _held_rows(self, jobs: Iterable[HeldJob], now_ms: int) -> list[worker_pb2.HeldLease]:
        rows = []
        for job in jobs:
            row = worker_pb2.HeldLease(
                lease=self._ref(job.job_id, job.lease), progress=job.progress
            )
            if job.started_ms is not None:
                row.started = True
                row.running_ms = max(0, now_ms - job.started_ms)
            rows.append(row)
        return rows

    def _fill_reports(self, update: worker_pb2.PartitionUpdate, now_ms: int) -> int:
        """Writes reports in place: a message built apart and copied costs three times as much."""
        reports, own_token = self._reports, self.token
        add = update.reports.add
        count = size = 0
        while reports and count < REPORTS_MAX and size < REPORT_BYTES_MAX:
            job = reports.popleft()
            result = job.result
            if result is None or job.freed:
                continue
            job.reported_ms = now_ms
            row = add()
            row.outcome = result.outcome  # type: ignore[assignment]
            row.result = result.result
            # A result is encoded as its job's arguments are.
            if result.result and (content_type := job.terms.content_type) != DEFAULT_CONTENT_TYPE:
                row.content_type = content_type
            # Setting what is zero anyway costs as much as setting what is not.
            if run_ms := job.run_ms:
                row.run_ms = run_ms
            ref = row.lease
            ref.job_id = job.job_id
            ref.seq = job.seq
            if job.run:
                ref.run = job.run
            if job.token != own_token:
                ref.token.epoch, ref.token.revision = job.token
            count += 1
            size += len(result.result) + 64
            if job.log is not None:
                row.log = job.log.seal()
                size += len(row.log)
            # What an interrupted attempt ended with is not its fault.
            if result.fault is not None and result.outcome is not _RELEASED:
                _write_fault(row.error, result.fault)
                size += len(result.fault.message) + len(result.fault.traceback)
        return size

    def _refer(self, ref: worker_pb2.LeaseRef, job: HeldJob) -> None:
        ref.CopyFrom(self._ref(job.job_id, job.lease))

    def _ref(self, job_id: str, lease: Lease) -> worker_pb2.LeaseRef:
        ref = worker_pb2.LeaseRef(job_id=job_id, seq=lease.seq, run=lease.run)
        if lease.token != self.token:
            ref.token.epoch, ref.token.revision = lease.token
        return ref

    def _lease(self, ref: worker_pb2.LeaseRef) -> Lease:
        return Lease(self._token_of(ref), ref.seq, ref.run)

    def _find(self, ref: worker_pb2.LeaseRef) -> HeldJob | None:
        job = self.held.get(self._key(ref))
        return job if job is not None and job.job_id == ref.job_id else None

    def _key(self, ref: worker_pb2.LeaseRef) -> int:
        term = term_key(self._token_of(ref)) if ref.HasField("token") else self._term_key
        return term + ref.seq

    def _token_of(self, ref: worker_pb2.LeaseRef) -> Token:
        if ref.HasField("token"):
            return token_of(ref.token)
        return self.token

    def _take_beat(self, number: int) -> Beat | None:
        """The heartbeat of this number; it and all before it are answered now."""
        found = self._beats.get(number)
        if found is None:
            return None
        for earlier in [known for known in self._beats if known <= number]:
            del self._beats[earlier]
        return found


def term_key(token: Token) -> int:
    """What the keys of a term's leases begin at: a key is this plus the lease's ``seq``.

    One number is hashed and compared faster than a tuple, and leases are looked up all the time.
    """
    return (token.epoch << 64 | token.revision) << 64


def _terms(options: common_pb2.JobOptions) -> Terms:
    timeout_ms = options.timeout.ToMilliseconds() if options.HasField("timeout") else 0
    return Terms(
        name=options.name,
        timeout_ms=timeout_ms,
        at_most_once=options.at_most_once,
        content_type=options.content_type,
        non_retryable=frozenset(options.retry.non_retryable),
    )


def _write_fault(error: common_pb2.JobError, fault: Fault) -> None:
    error.type = fault.type
    error.message = fault.message
    error.traceback = fault.traceback
    error.category = fault.category  # type: ignore[assignment]
    if fault.retry_after_ms is not None:
        error.retry_after.FromMilliseconds(fault.retry_after_ms)
