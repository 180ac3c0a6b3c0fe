"""JobService: what clients ask, answered by the term of the partition they ask about."""

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final, cast

from msgspec import structs

from tenure.master.core.command import (
    BoostJobs,
    CancelJobs,
    PurgeJobs,
    RequeueJobs,
    SubmitJobs,
    SubmitRow,
)
from tenure.master.core.effect import JobVerdict, Reply
from tenure.master.core.query import Filter
from tenure.master.core.record import JobRecord
from tenure.master.core.state import fault_bytes
from tenure.master.node.explain import explain
from tenure.master.node.outbox import Outbox
from tenure.master.node.pace import Pace
from tenure.master.node.paging import number_of, page_size, page_token
from tenure.master.node.port import Rng
from tenure.master.node.roster import Roster
from tenure.master.node.selection import select_changes, select_jobs
from tenure.master.node.submitted import numbered, submitted
from tenure.master.node.term import Term
from tenure.master.node.translate import (
    SettingCache,
    add_result,
    checked_span,
    invalid,
    job_of,
    out_of_range,
    result_of,
    wire_enum,
)
from tenure.protocol import limits
from tenure.protocol.errors import Rejected, TenureError, refusal_to_wire
from tenure.protocol.ids import JobId, home_check, is_job_id, mint, partition_of
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import TERMINAL, JobState
from tenure.v1 import jobs_pb2

_WAIT_S_DEFAULT: Final = 30.0
_WAIT_S_MAX: Final = 60.0
#: A result without its bytes and its error, and a full envelope of results.
_RESULT_BYTES: Final = 512
_ENVELOPE_BYTES: Final = 512 * 1024
#: A page of a list ends early above this: errors are large, and many clients take 4 MiB at most.
_PAGE_BYTES: Final = 2 * 1024 * 1024

Send = Callable[[jobs_pb2.StreamSubmitsResponse], Awaitable[None]]


class JobApi:
    """The clients' service, without gRPC: messages in, messages out, errors raised.

    Args:
        roster: Finds the term of a partition, or says who leads it.
        rng: Mints ids for callers that send none.
    """

    def __init__(self, *, roster: Roster, rng: Rng) -> None:
        self._roster = roster
        self._rng = rng
        self._settings = SettingCache(roster.partitions)

    # Submits.

    async def submit_jobs(self, request: jobs_pb2.SubmitJobsRequest) -> jobs_pb2.SubmitJobsResponse:
        """Accepts a batch; returns when it is durable."""
        if not request.jobs:
            return jobs_pb2.SubmitJobsResponse()
        term, command, size = self._submit(request)
        return submitted(await term.ask(command, size=size))

    async def stream_submits(
        self,
        requests: AsyncIterator[jobs_pb2.StreamSubmitsRequest],
        send: Send,
    ) -> None:
        """Accepts numbered batches, several at once; answers each as it becomes durable."""
        outbox: Outbox[jobs_pb2.StreamSubmitsResponse] = Outbox()

        async def read() -> None:
            async for request in requests:
                self._submit_numbered(request, outbox)
            outbox.close()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            await outbox.write(send)

    def _submit_numbered(
        self,
        request: jobs_pb2.StreamSubmitsRequest,
        outbox: Outbox[jobs_pb2.StreamSubmitsResponse],
    ) -> None:
        answers = numbered(request.number, outbox)
        try:
            term, command, size = self._submit(request.request)
        except TenureError as error:
            answers.first(error)
        else:
            in_parts = request.in_parts and not command.all_or_nothing
            term.post(command, answers if in_parts else answers.first, size=size)

    def _submit(self, request: jobs_pb2.SubmitJobsRequest) -> tuple[Term, SubmitJobs, int]:
        jobs = request.jobs
        if len(jobs) > limits.BATCH_JOBS_MAX:
            raise _too_many("jobs", len(jobs))
        # A batch becomes one event, and an event goes to the store in one piece.
        size = request.ByteSize()
        if size > limits.BATCH_BYTES_MAX:
            raise _too_big(size)
        if not request.options:
            raise invalid("options", "there are none; jobs name theirs by index")
        if len(request.options) > len(jobs):
            raise invalid("options", f"there are {len(request.options)} for {len(jobs)} jobs")
        settings = [
            self._settings.get(options, f"options[{index}]")
            for index, options in enumerate(request.options)
        ]
        home = settings[0].home
        for index, setting in enumerate(settings):
            if setting.home != home:
                raise _foreign(f"options[{index}].queue", home, setting.home)
        term = self._roster.term(home)
        is_ours = home_check(home)
        longest = limits.KEY_CHARS_MAX
        rows = []
        for index, job in enumerate(jobs):
            job_id = job.job_id
            if not is_ours(job_id):
                job_id = self._mint(job_id, index, term)
            options, key = job.options, job.key
            limit_key, sticky_key = job.limit_key, job.sticky_key
            if options >= len(settings):
                raise invalid(
                    f"jobs[{index}].options",
                    f"{options} is no index of options, of which there are {len(settings)}",
                )
            if len(key) > longest:
                raise _key_too_long(f"jobs[{index}].key", key)
            if len(limit_key) > longest:
                raise _key_too_long(f"jobs[{index}].limit_key", limit_key)
            if len(sticky_key) > longest:
                raise _key_too_long(f"jobs[{index}].sticky_key", sticky_key)
            parents = self._parents(job.parents, index) if job.parents else ()
            row = SubmitRow(job_id, options, job.payload, key, limit_key, sticky_key, parents)
            rows.append(self._member(row, job.workflow_id, index) if job.workflow_id else row)
        command = SubmitJobs(
            settings=[setting.core for setting in settings],
            rows=rows,
            all_or_nothing=request.all_or_nothing,
        )
        if term.gate.full:
            raise term.no_space(command)
        return term, command, size

    def _parents(self, job_ids: Sequence[str], index: int) -> tuple[JobId, ...]:
        """The ids of a row's parents; whether there are such jobs is found out later."""
        field = f"jobs[{index}].parents"
        if len(job_ids) > limits.PARENTS_MAX:
            raise invalid(field, f"it has {len(job_ids)} jobs (at most {limits.PARENTS_MAX})")
        for place, job_id in enumerate(job_ids):
            name = f"{field}[{place}]"
            if _partition_of(job_id, name) >= self._roster.partitions:
                raise _elsewhere(name, job_id, self._roster.partitions)
        return tuple(map(JobId, job_ids))

    def _member(self, row: SubmitRow, workflow_id: str, index: int) -> SubmitRow:
        """A row of a workflow, which it waits for as for a parent."""
        name = f"jobs[{index}].workflow_id"
        if _partition_of(workflow_id, name) >= self._roster.partitions:
            raise _elsewhere(name, workflow_id, self._roster.partitions)
        parents = (JobId(workflow_id), *row.parents)
        return structs.replace(row, parents=parents, workflow_id=workflow_id)

    def _mint(self, job_id: str, index: int, term: Term) -> JobId:
        """An id for a row without one; any other that is not the partition's is refused."""
        if not job_id:
            return mint(term.number, term.clock.now_ms(), self._rng.getrandbits(62))
        field = f"jobs[{index}].job_id"
        raise _foreign(field, term.number, _partition_of(job_id, field))

    # Reads.

    async def get_job(self, request: jobs_pb2.GetJobRequest) -> jobs_pb2.GetJobResponse:
        """One job."""
        term = self._term_of(request.job_id)
        record = await _read(term, request.job_id)
        holding = term.partition.holding_of(record.job_id)
        job = job_of(record, holding, with_payload=not request.without_payload)
        return jobs_pb2.GetJobResponse(job=job)

    async def explain_job(self, request: jobs_pb2.ExplainJobRequest) -> jobs_pb2.ExplainJobResponse:
        """Why a job does not run."""
        term, job_id = self._term_of(request.job_id), request.job_id
        while (response := await explain(term, JobId(job_id))) is None:
            await _read(term, job_id)
        return response

    async def list_jobs(self, request: jobs_pb2.ListJobsRequest) -> jobs_pb2.ListJobsResponse:
        """A page of one partition's jobs, newest first."""
        size = page_size(request.page_size)
        wanted = select_jobs(request.filter)
        listed = f"{request.partition}/{request.filter}"
        before = number_of(request.page_token, listed)
        term = self._roster.term(request.partition)
        response = jobs_pb2.ListJobsResponse()
        seq, room = 0, _PAGE_BYTES
        async for record in _scan(term, wanted, before, size + 1):
            if len(response.jobs) == size or room <= 0:
                response.next_page_token = page_token(listed, str(before or 0))
                break
            holding = term.partition.holding_of(record.job_id)
            job = job_of(record, holding, with_payload=False)
            room -= job.ByteSize()
            response.jobs.append(job)
            before = record.ordinal
            seq = max(seq, record.seq)
        await term.readable(seq)
        return response

    async def count_jobs(self, request: jobs_pb2.CountJobsRequest) -> jobs_pb2.CountJobsResponse:
        """How many jobs of one partition are in each state."""
        wanted = select_jobs(request.filter)
        term = self._roster.term(request.partition)
        counts = await counted(term, wanted)
        response = jobs_pb2.CountJobsResponse()
        for state in JobState:
            if counts.get(state):
                response.counts.add(state=wire_enum(state), count=counts[state])
        await term.readable(term.partition.next_seq - 1)
        return response

    async def wait_job(self, request: jobs_pb2.WaitJobRequest) -> jobs_pb2.WaitJobResponse:
        """The job's result, or its present state when the timeout has passed."""
        timeout_s = _WAIT_S_DEFAULT
        if request.HasField("timeout"):
            if request.timeout.ToMilliseconds() < 0:
                raise invalid("timeout", "it is negative")
            timeout_s = min(request.timeout.ToMilliseconds() / 1000, _WAIT_S_MAX)
        term = self._term_of(request.job_id)
        record = await _read(term, request.job_id)
        if record.state not in TERMINAL:
            sink = _Single()
            term.waiters.add([request.job_id], sink)
            try:
                async with asyncio.timeout(timeout_s):
                    return jobs_pb2.WaitJobResponse(result=await sink.future)
            except TimeoutError:
                record = await _read(term, request.job_id)
            finally:
                term.waiters.discard(request.job_id, sink)
        return jobs_pb2.WaitJobResponse(result=result_of(record))

    async def stream_results(
        self,
        requests: AsyncIterator[jobs_pb2.StreamResultsRequest],
        send: Callable[[jobs_pb2.StreamResultsResponse], Awaitable[None]],
    ) -> None:
        """Ids in, results out as the jobs end."""
        sink = _Stream()

        async def read() -> None:
            async for request in requests:
                await self._await_results(request, sink)
            sink.outbox.close()

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(read())
                await sink.outbox.write(send)
        finally:
            for job_id, term in sink.waiting.items():
                term.waiters.discard(job_id, sink)

    async def _await_results(self, request: jobs_pb2.StreamResultsRequest, sink: "_Stream") -> None:
        if not request.job_ids:
            return
        term = self._term_of(request.job_ids[0], "job_ids[0]")
        # A job that a deposed leader does not know may be its successor's.
        term.check_office()
        unknown = _await(term, cast(Sequence[JobId], request.job_ids), sink)
        if unknown:
            # They may have been purged, or not have been submitted, by what never commits.
            await term.readable(term.partition.next_seq - 1)
            for job_id in _await(term, unknown, sink):
                sink.refuse(
                    job_id, _missing(job_id, expired=term.partition.get(job_id) is not None)
                )

    async def watch_jobs(
        self,
        request: jobs_pb2.WatchJobsRequest,
        send: Callable[[jobs_pb2.WatchJobsResponse], Awaitable[None]],
    ) -> None:
        """Committed changes of one partition's jobs, from a cursor on."""
        wanted = select_changes(request.filter)
        term = self._roster.term(request.partition)
        after_seq = request.after_seq if request.HasField("after_seq") else None
        pace = Pace(term.clock.now_ms)
        async with aclosing(term.watch.follow(wanted, after_seq, pace)) as responses:
            async for response in responses:
                await send(response)

    def reader(self, job_id: str) -> tuple[Term, Callable[[], Awaitable[JobRecord]]]:
        """A job's term, and what reads the job's record there as it has committed."""
        term = self._term_of(job_id)
        return term, partial(_read, term, job_id)

    # Changes.

    async def cancel_jobs(self, request: jobs_pb2.CancelJobsRequest) -> jobs_pb2.CancelJobsResponse:
        """Cancels queued jobs at once and asks running ones to stop."""
        term, ids = self._batch(request.job_ids)
        reply = await term.ask(CancelJobs(job_ids=ids, reason=request.reason[:1024]))
        return jobs_pb2.CancelJobsResponse(verdicts=_verdicts(reply))

    async def requeue_jobs(
        self, request: jobs_pb2.RequeueJobsRequest
    ) -> jobs_pb2.RequeueJobsResponse:
        """Gives FAILED or CANCELLED jobs a new run."""
        term, ids = self._batch(request.job_ids)
        payload = request.payload if request.HasField("payload") else None
        if payload is not None and len(ids) > 1:
            raise invalid("payload", f"there are {len(ids)} jobs; give it with one at a time")
        command = RequeueJobs(job_ids=ids, payload=payload)
        reply = await term.ask(command, size=len(payload or b""))
        return jobs_pb2.RequeueJobsResponse(verdicts=_verdicts(reply))

    async def purge_jobs(self, request: jobs_pb2.PurgeJobsRequest) -> jobs_pb2.PurgeJobsResponse:
        """Forgets terminal jobs."""
        term, ids = self._batch(request.job_ids)
        reply = await term.ask(PurgeJobs(job_ids=ids))
        return jobs_pb2.PurgeJobsResponse(verdicts=_verdicts(reply))

    async def boost_jobs(self, request: jobs_pb2.BoostJobsRequest) -> jobs_pb2.BoostJobsResponse:
        """Gives jobs that wait another priority, or another time at which they are due."""
        priority = request.priority if request.HasField("priority") else None
        delay_ms = None
        if request.HasField("delay"):
            delay_ms = checked_span(request.delay, "delay", limits.DELAY_MS_MAX)
        if priority is None and delay_ms is None:
            raise invalid("priority", "neither it nor a delay is given; give one at least")
        if priority is not None and priority > limits.PRIORITY_MAX:
            raise invalid("priority", out_of_range(priority))
        term, ids = self._batch(request.job_ids)
        reply = await term.ask(BoostJobs(job_ids=ids, priority=priority, delay_ms=delay_ms))
        return jobs_pb2.BoostJobsResponse(verdicts=_verdicts(reply))

    def _batch(self, job_ids: Sequence[str]) -> tuple[Term, list[JobId]]:
        if not job_ids:
            raise invalid("job_ids", "it is empty; name one job at least")
        if len(job_ids) > limits.BATCH_JOBS_MAX:
            raise _too_many("job_ids", len(job_ids))
        term = self._term_of(job_ids[0], "job_ids[0]")
        is_ours = home_check(term.number)
        ids = []
        for index, job_id in enumerate(job_ids):
            if not is_ours(job_id):
                field = f"job_ids[{index}]"
                raise _foreign(field, term.number, _partition_of(job_id, field))
            ids.append(job_id)
        return term, ids

    def _term_of(self, job_id: str, field: str = "job_id") -> Term:
        partition = _partition_of(job_id, field)
        if partition >= self._roster.partitions:
            raise _elsewhere(field, job_id, self._roster.partitions)
        return self._roster.term(partition)


class _Stream:
    """The sink of a StreamResults call: results collect in envelopes."""

    def __init__(self) -> None:
        self.outbox: Outbox[jobs_pb2.StreamResultsResponse] = Outbox()
        self.waiting: dict[str, Term] = {}
        self._room = 0

    def add(self, record: JobRecord) -> None:
        self.waiting.pop(record.job_id, None)
        size = _RESULT_BYTES + len(record.result)
        if record.fault is not None:
            size += fault_bytes(record.fault)
        add_result(self._envelope(size), record)

    def refuse(self, job_id: str, error: TenureError) -> None:
        """Tells that a job's result cannot be had."""
        result = self._envelope(_RESULT_BYTES).results.add(job_id=job_id)
        result.refusal.CopyFrom(refusal_to_wire(error.to_refusal()))

    def _envelope(self, size: int) -> jobs_pb2.StreamResultsResponse:
        envelope = self.outbox.last()
        if envelope is None or self._room < size:
            envelope = jobs_pb2.StreamResultsResponse()
            self.outbox.put(envelope)
            self._room = _ENVELOPE_BYTES
        self._room -= size
        return envelope

    def fail(self, error: TenureError) -> None:
        self.outbox.fail(error)


class _Single:
    """The sink of a WaitJob call."""

    def __init__(self) -> None:
        self.future: asyncio.Future[jobs_pb2.JobResult]
        self.future = asyncio.get_running_loop().create_future()

    def add(self, record: JobRecord) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):
            self.future.set_result(result_of(record))

    def fail(self, error: TenureError) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):
            self.future.set_exception(error)


def _await(term: Term, job_ids: Sequence[JobId], sink: _Stream) -> list[JobId]:
    """Gives a sink the results that are there, lets it wait for others; returns unknown jobs."""
    committed_seq = term.gate.committed_seq
    get = term.partition.get
    waiting, unknown = [], []
    for job_id in job_ids:
        record = get(job_id)
        if not isinstance(record, JobRecord):
            unknown.append(job_id)
        elif record.state in TERMINAL and record.seq <= committed_seq:
            sink.add(record)
        elif job_id not in sink.waiting:
            # Who polls asks for a job again and again on one stream, and wants its result once.
            sink.waiting[job_id] = term
            waiting.append(job_id)
    term.waiters.add(waiting, sink)
    return unknown


async def counted(term: Term, wanted: Filter) -> Mapping[JobState, int]:
    """How many jobs of a partition match, by state; what the caller shows has to be readable."""
    if wanted.also is None:
        return term.partition.counts(wanted)
    counts: Counter[JobState] = Counter()
    async for record in _scan(term, wanted, None, sys.maxsize):
        counts[record.state] += 1
    return counts


async def _scan(
    term: Term, wanted: Filter, before_ordinal: int | None, limit: int
) -> AsyncIterator[JobRecord]:
    """Jobs that match, newest first; others get their turn between slices. Records are live."""
    scan = term.partition.scan(wanted, before_ordinal=before_ordinal)
    pace = Pace(term.clock.now_ms)
    while True:
        for record in scan.take(limit, pace.looks):
            limit -= 1
            yield record
        if scan.done or limit <= 0:
            return
        await pace.rest()


async def _read(term: Term, job_id: str) -> JobRecord:
    """The job as it has committed: records are live, so it is looked at again after each wait."""
    while True:
        record = term.partition.get(JobId(job_id))
        if isinstance(record, JobRecord):
            seq = record.seq
            await term.readable(seq)
            if record.seq == seq:
                return record
        else:
            await term.readable(term.partition.next_seq - 1)
            found = term.partition.get(JobId(job_id))
            if not isinstance(found, JobRecord):
                raise _missing(job_id, expired=found is not None)


def _missing(job_id: str, *, expired: bool) -> TenureError:
    if expired:
        return Rejected(
            f"expected to read job {job_id}, but it was purged and only its tombstone is left; "
            "keep results longer with result_ttl, or read them sooner",
            reason=Reason.RESULT_EXPIRED,
            metadata={"job_id": job_id},
        )
    return Rejected(
        f"expected to read job {job_id}, but no such job is known; check the id and the cluster",
        reason=Reason.NOT_FOUND,
        metadata={"job_id": job_id},
    )


def _verdicts(reply: Reply) -> list[jobs_pb2.JobVerdict]:
    if not isinstance(reply, list):
        raise TypeError(f"expected verdicts, got {type(reply).__name__}")
    return [_verdict(row) for row in reply]


def _verdict(row: JobVerdict) -> jobs_pb2.JobVerdict:
    wire = jobs_pb2.JobVerdict(job_id=row.job_id)
    if row.state is not None:
        wire.state = wire_enum(row.state)
    if row.refusal is not None:
        wire.refusal.CopyFrom(refusal_to_wire(row.refusal))
    return wire


def _partition_of(job_id: str, field: str) -> int:
    if not is_job_id(job_id):
        raise invalid(
            field, f"{job_id[:60]!r} is no lower-case UUIDv7; give an id that a submit answered"
        )
    return partition_of(job_id)


def _elsewhere(field: str, job_id: str, partitions: int) -> TenureError:
    partition = partition_of(job_id)
    return Rejected(
        f"expected a job of this cluster, but {job_id} names partition {partition} and there are "
        f"{partitions}; check the id and the cluster",
        reason=Reason.WRONG_PARTITION,
        metadata={
            "job_id": job_id,
            "partition": str(partition),
            "partitions": str(partitions),
        },
        field=field,
    )


def _key_too_long(field: str, key: str) -> TenureError:
    return invalid(field, f"it has {len(key)} characters (at most {limits.KEY_CHARS_MAX})")


def _too_many(field: str, count: int) -> TenureError:
    return Rejected(
        f"expected at most {limits.BATCH_JOBS_MAX} jobs in a batch, but it has {count}; split it",
        reason=Reason.BATCH_TOO_LARGE,
        metadata={"jobs": str(count), "limit": str(limits.BATCH_JOBS_MAX)},
        field=field,
    )


def _too_big(size: int) -> TenureError:
    return Rejected(
        f"expected a batch of at most {limits.BATCH_BYTES_MAX} bytes, but it has {size}; split it",
        reason=Reason.BATCH_TOO_LARGE,
        metadata={"bytes": str(size), "limit": str(limits.BATCH_BYTES_MAX)},
        field="jobs",
    )


def _foreign(field: str, home: int, found: int) -> TenureError:
    return Rejected(
        f"expected all jobs of a batch to live in partition {home}, but {field} belongs to "
        f"partition {found}; send one batch a partition",
        reason=Reason.WRONG_PARTITION,
        metadata={"partition": str(home), "found": str(found)},
        field=field,
    )
