"""WorkerService: a worker's envelopes become commands of the terms they speak to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, cast

from tenure.master.core.command import (
    AcceptAssignment,
    CheckpointRow,
    DeclareLeases,
    HeldRow,
    LeaseRow,
    RenewLeases,
    ReportAttempts,
    ReportRow,
    ReturnLeases,
    SaveCheckpoints,
    StartLeases,
)
from tenure.master.core.state import fault_bytes
from tenure.master.node.hub import WorkerHub
from tenure.master.node.link import WorkerLink, lease_of
from tenure.master.node.log_taps import LogTaps
from tenure.master.node.port import Rng
from tenure.master.node.term import Term
from tenure.master.node.translate import fault_from_wire, invalid, log_from_wire
from tenure.protocol import limits
from tenure.protocol.errors import Rejected
from tenure.protocol.fence import Token
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.v1 import worker_pb2

_OUTCOMES: Final = {outcome.value: outcome for outcome in AttemptOutcome}
_COMPLETED: Final = AttemptOutcome.COMPLETED
_LOST: Final = AttemptOutcome.LOST
_SPAN_MS_MAX: Final = limits.TIMEOUT_MS_MAX
#: Reports of one command; a command's event must fit into one batch.
_REPORT_ROWS_MAX: Final = 512
_REPORT_BYTES_MAX: Final = 256 * 1024


class WorkerApi:
    """The lease stream's service, without gRPC.

    Args:
        hub: The streams of this master.
        rng: Draws jitter for retries.
        welcome: Builds the first message to a worker.
        boot_ms: The boot clock.
    """

    def __init__(
        self,
        *,
        hub: WorkerHub,
        rng: Rng,
        welcome: Callable[[], worker_pb2.Welcome],
        boot_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        #: Who reads what running jobs say.
        self.taps = LogTaps(hub)
        self._hub = hub
        self._rng = rng
        self._welcome = welcome
        self._boot_ms = boot_ms

    async def session(
        self,
        requests: AsyncIterator[worker_pb2.SessionRequest],
        send: Callable[[worker_pb2.SessionResponse], Awaitable[None]],
    ) -> None:
        """Serves one stream until either side ends it.

        Raises:
            Rejected: The first message is no Hello that this release understands.
        """
        first = await anext(requests, None)
        if first is None:
            return
        hello = _checked(first)
        await send(worker_pb2.SessionResponse(welcome=self._welcome()))
        link = self._hub.connect(hello, self._boot_ms())
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(link, first, requests))
                await link.write(send)
                reader.cancel()
        finally:
            self._hub.disconnect(link)

    async def _read(
        self,
        link: WorkerLink,
        first: worker_pb2.SessionRequest,
        requests: AsyncIterator[worker_pb2.SessionRequest],
    ) -> None:
        self._take(link, first)
        async for request in requests:
            self._take(link, request)
            if request.HasField("goodbye"):
                break
        link.close()

    def _take(self, link: WorkerLink, request: worker_pb2.SessionRequest) -> None:
        if request.HasField("vitals"):
            self._hub.take_vitals(link, request.vitals, self._boot_ms())
        for update in request.updates:
            term = self._hub.terms.get(update.partition)
            if term is None or update.token.epoch != term.token.epoch:
                continue
            if update.token.revision == term.token.revision:
                self._update(link, term, update)
        if request.HasField("credit"):
            self._hub.take_credit(link, request.credit)

    def _update(self, link: WorkerLink, term: Term, update: worker_pb2.PartitionUpdate) -> None:
        session_id, token = link.session_id, term.token
        if update.HasField("declare"):
            rows = [_held(held, token) for held in update.declare.leases]
            term.post(DeclareLeases(session_id=session_id, rows=rows))
        if update.accepted_assignment:
            term.post(AcceptAssignment(session_id=session_id, number=update.accepted_assignment))
        if update.started:
            started = [LeaseRow(JobId(r.job_id), lease_of(r, token)) for r in update.started]
            term.post(StartLeases(session_id=session_id, rows=started))
        if update.checkpoints:
            self._save(link, term, update)
        if update.returned:
            returned = [LeaseRow(JobId(r.job_id), lease_of(r, token)) for r in update.returned]
            term.post(ReturnLeases(session_id=session_id, rows=returned))
        if update.logs:
            self.taps.take(term, update)
        if update.reports:
            self._report(link, term, update)
        if update.HasField("heartbeat"):
            self._heartbeat(link, term, update.heartbeat)

    def _heartbeat(self, link: WorkerLink, term: Term, beat: worker_pb2.Heartbeat) -> None:
        if not term.judging:
            link.instruction(term.number, term.token).hold.number = beat.number
            return
        term.post(
            RenewLeases(
                session_id=link.session_id,
                number=beat.number,
                last_assignment=beat.last_assignment,
                rows=[_held(held, term.token) for held in beat.held.leases],
            )
        )

    def _save(self, link: WorkerLink, term: Term, update: worker_pb2.PartitionUpdate) -> None:
        rows = [
            CheckpointRow(
                JobId(saved.lease.job_id),
                lease_of(saved.lease, term.token),
                saved.number,
                saved.data,
            )
            for saved in update.checkpoints
        ]
        size = sum([len(row.data) for row in rows])
        term.post(SaveCheckpoints(session_id=link.session_id, rows=rows), size=size)

    def _report(self, link: WorkerLink, term: Term, update: worker_pb2.PartitionUpdate) -> None:
        token = term.token
        rows: list[ReportRow] = []
        size = 0
        for report in update.reports:
            ref, result = report.lease, report.result
            outcome = _OUTCOMES.get(report.outcome, _LOST)
            row_size = len(result) + 64
            log = report.log
            if log:
                log = log_from_wire(log)
                row_size += len(log)
            fault = None
            if outcome is not _COMPLETED and report.HasField("error"):
                fault = fault_from_wire(report.error)
                row_size += fault_bytes(fault)
            if rows and (size + row_size > _REPORT_BYTES_MAX or len(rows) >= _REPORT_ROWS_MAX):
                self._post_reports(link, term, rows, size)
                rows, size = [], 0
            size += row_size
            rows.append(
                ReportRow(
                    cast(JobId, ref.job_id),
                    lease_of(ref, token),
                    outcome,
                    result,
                    report.content_type,
                    fault,
                    _span_ms(report.run_ms),
                    log,
                )
            )
        self._post_reports(link, term, rows, size)

    def _post_reports(self, link: WorkerLink, term: Term, rows: list[ReportRow], size: int) -> None:
        draw = self._rng.random
        jitter = [draw() if row.fault is not None else 0.0 for row in rows]
        command = ReportAttempts(session_id=link.session_id, rows=rows, jitter=jitter)
        term.post(command, size=size)


def _percentage(told: float) -> float:
    """How far a job has come, brought to 0 to 100: NaN would pass for progress whenever told."""
    if 0.0 <= told <= 100.0:
        return told
    return 100.0 if told > 100.0 else 0.0


def _held(held: worker_pb2.HeldLease, token: Token) -> HeldRow:
    return HeldRow(
        JobId(held.lease.job_id),
        lease_of(held.lease, token),
        held.started,
        _span_ms(held.running_ms),
        _percentage(held.progress),
    )


def _span_ms(told_ms: int) -> int:
    """A span that a worker told, brought to one that makes sense: records carry times from it."""
    return told_ms if 0 <= told_ms <= _SPAN_MS_MAX else max(0, min(told_ms, _SPAN_MS_MAX))


def _checked(first: worker_pb2.SessionRequest) -> worker_pb2.Hello:
    hello = first.hello
    if not first.HasField("hello") or not hello.incarnation:
        raise invalid("hello", "the first message of a session must introduce the worker")
    if hello.protocol < limits.PROTOCOL_REVISION:
        raise Rejected(
            f"expected a worker that speaks protocol {limits.PROTOCOL_REVISION}, but "
            f"{hello.name or hello.incarnation} speaks {hello.protocol}; upgrade it",
            reason=Reason.PROTOCOL_TOO_OLD,
            metadata={"protocol": str(hello.protocol)},
        )
    return hello
