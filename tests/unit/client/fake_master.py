"""A cluster in a few lines, behind the transport port: enough to see what a client does.

Jobs live in one store that all masters share, as they would in a journal. A test says who leads,
which answers get lost, and when a job ends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from tenure.client import named
from tenure.client.codec import encode_result
from tenure.master.core.record import Policy
from tenure.master.core.state import JobChange
from tenure.master.node.selection import select_changes
from tenure.protocol.errors import (
    LEADER_METADATA,
    Rejected,
    TenureError,
    Unavailable,
    refusal_to_wire,
)
from tenure.protocol.ids import JobId, home_partition, mint, partition_of
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import FailureReason, JobState
from tenure.testing.clock import SimClock
from tenure.v1 import batches_pb2, cluster_pb2, jobs_pb2, queues_pb2, schedules_pb2

#: The cluster's clock at the loop's time 0.
EPOCH_MS = 1_760_000_000_000
#: Whose results are sent as they are.
_ANY_JOB = named("test")


def unreachable(address: str) -> Unavailable:
    """What a transport says of a dead master."""
    return Unavailable(
        f"expected to reach {address}, but nobody answers", reason=Reason.UNREACHABLE
    )


class FakeCluster:
    """Implements ``tenure.client.transport.Transport``.

    Attributes:
        leaders: Partition to address.
        halted: Partitions that nobody can lead.
        dead: Addresses at which nobody answers.
        jobs: What was accepted, by id.
        requests: Every submit request, in order of arrival, with the address it came to.
        on_submit: Called with each submit request; may return a refusal of the whole.
        lose_answers: So many answers to submits are lost; their streams break.
        workers: Those that every master is connected to.
        refuse_rows: Called with each new row; may return why it is refused.
        is_late: Called with each row; whether it is acknowledged later, by ``tell_late``.
    """

    def __init__(self, partitions: int = 1, masters: tuple[str, ...] = ("a:1",)) -> None:
        self.partitions = partitions
        self.masters = masters
        self.leaders = dict.fromkeys(range(partitions), masters[0])
        self.terms = dict.fromkeys(range(partitions), 1)
        self.dead: set[str] = set()
        self.workers = [
            cluster_pb2.WorkerStatus(
                incarnation="w", name="worker-1", slots=10, leases=1, job_names=["app.add"]
            )
        ]
        self.halted: set[int] = set()
        self.jobs: dict[str, jobs_pb2.Job] = {}
        self.schedules: dict[str, schedules_pb2.Schedule] = {}
        #: What workers say that jobs take, by their names.
        self.schemas: dict[str, str] = {}
        #: By address: how far a master has replayed what it leads, or follows.
        self.applied_seqs: dict[str, int] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.requests: list[tuple[str, jobs_pb2.SubmitJobsRequest]] = []
        self.on_submit: Callable[[jobs_pb2.SubmitJobsRequest], Refusal | None] = lambda _: None
        self.refuse_rows: Callable[[jobs_pb2.JobSpec], Refusal | None] = lambda _: None
        self.is_late: Callable[[jobs_pb2.JobSpec], bool] = lambda _: False
        #: By job: the stream, the number and the index that it came with.
        self._late: dict[str, tuple[FakeStream, int, int]] = {}
        self.lose_answers = 0
        self.silent = False
        self.streams: list[FakeStream] = []
        self.calls: list[tuple[str, str]] = []
        self.skew_ms = 0
        self.forgotten: list[str] = []
        self.clock = SimClock()
        self.tasks: asyncio.TaskGroup

    def now_ms(self) -> int:
        """The cluster's clock."""
        return EPOCH_MS + int(asyncio.get_running_loop().time() * 1000) + self.skew_ms

    # ------------------------------------------------------------------------ what tests do

    async def pass_time(self, seconds: float) -> None:
        """Lets (virtual) time go by."""
        await self.clock.sleep(round(seconds * 1000))

    def lead(self, address: str, partition: int = 0) -> None:
        """Another master wins a partition; streams to the old one are told, if it lives."""
        old = self.leaders.get(partition)
        self.leaders[partition] = address
        self.terms[partition] += 1
        for stream in [s for s in self.streams if s.address == old and s.partition == partition]:
            stream.end(self.not_leader(partition))

    def kill(self, address: str) -> None:
        """A master dies: its streams break."""
        self.dead.add(address)
        for stream in [s for s in self.streams if s.address == address]:
            stream.end(unreachable(address))

    def complete(self, job_id: str, value: object = None) -> None:
        """A job ends well."""
        job = self.jobs[job_id]
        job.state = JobState.COMPLETED
        job.result = encode_result(value, _ANY_JOB)
        self._ended(job)

    def fail(self, job_id: str, kind: str, message: str) -> None:
        """A job ends badly."""
        job = self.jobs[job_id]
        job.state = JobState.FAILED
        job.error.type, job.error.message = kind, message
        job.failure_reason = FailureReason.EXHAUSTED
        job.attempts_charged = 4
        self._ended(job)

    def tell_late(self, job_id: str, refusal: Refusal | None = None) -> None:
        """A job that was late is accepted, or refused."""
        stream, number, index = self._late.pop(job_id)
        answer = jobs_pb2.StreamSubmitsResponse(number=number)
        job = answer.late.jobs.add(index=index)
        if refusal is not None:
            job.refusal.CopyFrom(refusal_to_wire(refusal))
        stream.deliver(answer)

    def not_leader(self, partition: int) -> Unavailable:
        """What a follower answers."""
        if partition in self.halted:
            return Unavailable("expected to serve, but halted", reason=Reason.PARTITION_HALTED)
        hint = self.leaders.get(partition)
        metadata = {LEADER_METADATA: hint} if hint else {}
        return Unavailable(
            "expected to lead, but another does", reason=Reason.NOT_LEADER, metadata=metadata
        )

    # ---------------------------------------------------------------------- the transport port

    async def unary(
        self, address: str, method: str, request: Any, response_type: Any, timeout_s: float
    ) -> Any:
        await self.clock.sleep(1)
        self.calls.append((address, method.rpartition("/")[2]))
        if address in self.dead or address not in self.masters:
            raise unreachable(address)
        name = method.rpartition("/")[2]
        if method.startswith("/tenure.v1.ClusterService/"):
            return getattr(self, f"_{name}")(address)
        if name == "GetArgumentSchema":
            return queues_pb2.GetArgumentSchemaResponse(schema=self.schemas.get(request.name, ""))
        if method.startswith("/tenure.v1.ScheduleService/"):
            return self._schedule_call(name, request)
        partition = getattr(request, "partition", None)
        if partition is None:
            ids = getattr(request, "job_ids", None) or [request.job_id]
            partition = partition_of(ids[0])
        if self.leaders.get(partition) != address:
            raise self.not_leader(partition)
        return getattr(self, f"_{name}")(request)

    def stream(self, address: str, method: str, response_type: Any) -> "FakeStream":
        stream = FakeStream(self, address, method.rpartition("/")[2])
        self.streams.append(stream)
        if address in self.dead or address not in self.masters:
            stream.end(unreachable(address))
        return stream

    def forget(self, address: str) -> None:
        self.forgotten.append(address)

    async def close(self) -> None:
        for stream in list(self.streams):
            stream.cancel()

    # ------------------------------------------------------------------------------ the calls

    def _GetTopology(self, address: str) -> cluster_pb2.GetTopologyResponse:
        response = cluster_pb2.GetTopologyResponse(
            cluster_id="c",
            partition_count=self.partitions,
            masters=self.masters,
            now_ms=self.now_ms(),
        )
        for partition, leader in self.leaders.items():
            entry = response.leaders.add(partition=partition, address=leader, name=leader)
            entry.token.epoch, entry.token.revision = 1, self.terms[partition]
        return response

    def _ListMembers(self, address: str) -> cluster_pb2.ListMembersResponse:
        return cluster_pb2.ListMembersResponse(
            members=[
                cluster_pb2.Member(incarnation=f"i-{name}", name=name, address=name, version="0")
                for name in self.masters
            ]
        )

    def _GetStatus(self, address: str) -> cluster_pb2.GetStatusResponse:
        response = cluster_pb2.GetStatusResponse(
            cluster_id="c", name=address, address=address, version="0", store="sqlite:///x"
        )
        for partition, leader in self.leaders.items():
            role = (
                cluster_pb2.PARTITION_ROLE_SERVING
                if leader == address
                else cluster_pb2.PARTITION_ROLE_FOLLOWER
            )
            status = response.partitions.add(partition=partition, role=role)
            status.applied_seq = self.applied_seqs.get(address, 0)
            if leader == address:
                status.jobs = len(self.jobs)
                status.token.epoch, status.token.revision = 1, self.terms[partition]
        response.workers.extend(self.workers)
        return response

    def _schedule_call(self, name: str, request: Any) -> Any:
        """Schedules that never tick: enough to show them."""
        match request:
            case schedules_pb2.ListSchedulesRequest():
                found = [self.schedules[key] for key in sorted(self.schedules)]
                return schedules_pb2.ListSchedulesResponse(schedules=found)
            case schedules_pb2.PutScheduleRequest():
                made = schedules_pb2.Schedule(
                    tenant=request.tenant, name=request.name, spec=request.spec
                )
                made.upcoming.add().FromMilliseconds(EPOCH_MS)
                self.schedules[request.name] = made
        schedule = self.schedules.get(request.name)
        if schedule is None:
            raise Rejected(f"expected a schedule {request.name}", reason=Reason.NOT_FOUND)
        match request:
            case schedules_pb2.PauseScheduleRequest() | schedules_pb2.ResumeScheduleRequest():
                schedule.spec.paused = name.startswith("Pause")
                schedule.ClearField("upcoming")
            case schedules_pb2.TriggerScheduleRequest():
                return schedules_pb2.TriggerScheduleResponse(job_id=mint(0, EPOCH_MS, 7))
            case schedules_pb2.DeleteScheduleRequest():
                del self.schedules[request.name]
                return schedules_pb2.DeleteScheduleResponse()
        return getattr(schedules_pb2, f"{name}Response")(schedule=schedule)

    def _GetJob(self, request: jobs_pb2.GetJobRequest) -> jobs_pb2.GetJobResponse:
        job = self.jobs.get(request.job_id)
        if job is None:
            raise _missing(request.job_id)
        return jobs_pb2.GetJobResponse(job=job)

    def _ListJobs(self, request: jobs_pb2.ListJobsRequest) -> jobs_pb2.ListJobsResponse:
        found = [
            job
            for job_id, job in sorted(self.jobs.items(), reverse=True)
            if partition_of(job_id) == request.partition and _matches(job, request.filter)
        ]
        start, size = int(request.page_token or 0), request.page_size or 2
        page = jobs_pb2.ListJobsResponse(jobs=found[start : start + size])
        if start + size < len(found):
            page.next_page_token = str(start + size)
        return page

    def _CountJobs(self, request: jobs_pb2.CountJobsRequest) -> jobs_pb2.CountJobsResponse:
        response = jobs_pb2.CountJobsResponse()
        jobs = [
            job
            for job_id, job in self.jobs.items()
            if partition_of(job_id) == request.partition and _matches(job, request.filter)
        ]
        for state in JobState:
            count = sum(job.state == state for job in jobs)
            if count:
                response.counts.add(state=state, count=count)
        return response

    def _CreateBatch(
        self, request: batches_pb2.CreateBatchRequest
    ) -> batches_pb2.CreateBatchResponse:
        asked = jobs_pb2.CountJobsRequest(partition=request.partition, filter=request.filter)
        counts = self._CountJobs(asked).counts
        batch = batches_pb2.Batch(
            batch_id=request.batch_id,
            partition=request.partition,
            kind=request.kind,
            filter=request.filter,
            matched=sum(row.count for row in counts),
        )
        if not request.dry_run:
            batch.state = batches_pb2.BATCH_STATE_RUNNING
        return batches_pb2.CreateBatchResponse(batch=batch, counts=counts)

    def _CancelJobs(self, request: jobs_pb2.CancelJobsRequest) -> jobs_pb2.CancelJobsResponse:
        return jobs_pb2.CancelJobsResponse(
            verdicts=[self._verdict(i, JobState.CANCELLED, request.reason) for i in request.job_ids]
        )

    def _RequeueJobs(self, request: jobs_pb2.RequeueJobsRequest) -> jobs_pb2.RequeueJobsResponse:
        if request.HasField("payload"):
            self.jobs[request.job_ids[0]].payload = request.payload
        return jobs_pb2.RequeueJobsResponse(
            verdicts=[self._verdict(i, JobState.PENDING) for i in request.job_ids]
        )

    def _PurgeJobs(self, request: jobs_pb2.PurgeJobsRequest) -> jobs_pb2.PurgeJobsResponse:
        return jobs_pb2.PurgeJobsResponse(
            verdicts=[self._verdict(i, None) for i in request.job_ids]
        )

    def _verdict(self, job_id: str, state: JobState | None, reason: str = "") -> Any:
        job = self.jobs.get(job_id)
        if job is None:
            refusal = refusal_to_wire(_missing(job_id).to_refusal())
            return jobs_pb2.JobVerdict(job_id=job_id, refusal=refusal)
        if state is None:
            del self.jobs[job_id]
            return jobs_pb2.JobVerdict(job_id=job_id)
        job.state = state
        job.cancel_reason = reason
        if state is JobState.CANCELLED:
            self._ended(job)
        return jobs_pb2.JobVerdict(job_id=job_id, state=state)

    # ---------------------------------------------------------------------------- the streams

    def submitted(self, stream: "FakeStream", message: jobs_pb2.StreamSubmitsRequest) -> None:
        """A batch arrives."""
        request = message.request
        self.requests.append((stream.address, request))
        stream.partition = home_partition(
            request.options[0].tenant, request.options[0].queue, self.partitions
        )
        if self.silent:
            return
        answer = jobs_pb2.StreamSubmitsResponse(number=message.number)
        refusal = self.on_submit(request)
        if self.leaders.get(stream.partition) != stream.address:
            refusal = self.not_leader(stream.partition).to_refusal()
        if refusal is not None:
            answer.refusal.CopyFrom(refusal_to_wire(refusal))
            stream.deliver(answer)
            return
        for index, spec in enumerate(request.jobs):
            self._accept(answer.response, index, spec, request.options[spec.options])
            if message.in_parts and self.is_late(spec):
                answer.response.late.append(index)
                self._late[spec.job_id] = (stream, message.number, index)
        if self.lose_answers:
            self.lose_answers -= 1
            stream.end(unreachable(stream.address))
        else:
            answer.response.SetInParent()
            stream.deliver(answer)

    def _accept(self, response: Any, index: int, spec: Any, options: Any) -> None:
        key = (options.queue, spec.key)
        existing = spec.job_id if spec.job_id in self.jobs else self.keys.get(key, "")
        refusal = None if existing else self.refuse_rows(spec)
        if refusal is not None:
            response.job_ids.append("")
            response.errors.add(index=index, refusal=refusal_to_wire(refusal))
            return
        if existing:
            response.existing.append(index)
        else:
            existing = spec.job_id
            self.jobs[existing] = job = jobs_pb2.Job(
                job_id=existing, state=JobState.PENDING, options=options, payload=spec.payload
            )
            job.submitted_at.FromMilliseconds(self.now_ms())
            if spec.key:
                self.keys[key] = existing
                job.key = spec.key
        response.job_ids.append(existing)

    def awaited(self, stream: "FakeStream", message: jobs_pb2.StreamResultsRequest) -> None:
        """Ids arrive whose results are wanted."""
        stream.partition = partition_of(message.job_ids[0])
        if self.leaders.get(stream.partition) != stream.address:
            stream.end(self.not_leader(stream.partition))
            return
        response = jobs_pb2.StreamResultsResponse()
        for job_id in message.job_ids:
            job = self.jobs.get(job_id)
            if job is None:
                wire = refusal_to_wire(_missing(job_id).to_refusal())
                response.results.add(job_id=job_id, refusal=wire)
            elif job.state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED):
                response.results.append(_result(job))
            else:
                stream.awaited.add(job_id)
        if response.results:
            stream.deliver(response)

    def watched(self, stream: "FakeStream", request: jobs_pb2.WatchJobsRequest) -> None:
        """A watch begins; tests deliver its changes through ``stream.deliver``."""
        stream.partition = request.partition
        stream.watch = request
        if request.HasField("after_seq") and request.after_seq == 404:
            stream.end(Rejected("expected a live cursor, got 404", reason=Reason.CURSOR_EXPIRED))
        else:
            begun = jobs_pb2.WatchPosition(partition=request.partition, seq=request.after_seq)
            stream.deliver(jobs_pb2.WatchJobsResponse(position=begun))

    def read(self, stream: "FakeStream", request: jobs_pb2.StreamLogsRequest) -> None:
        """Somebody reads a log; tests deliver its lines through ``stream.deliver``."""
        stream.partition = partition_of(request.job_id)
        if self.leaders.get(stream.partition) != stream.address:
            stream.end(self.not_leader(stream.partition))
        elif request.job_id not in self.jobs:
            stream.end(_missing(request.job_id))

    def _ended(self, job: jobs_pb2.Job) -> None:
        for stream in self.streams:
            if job.job_id in stream.awaited:
                stream.awaited.discard(job.job_id)
                stream.deliver(jobs_pb2.StreamResultsResponse(results=[_result(job)]))


class FakeStream:
    """Implements ``tenure.client.transport.Stream``."""

    def __init__(self, cluster: FakeCluster, address: str, method: str) -> None:
        self.address = address
        self.method = method
        self.partition = -1
        self.awaited: set[str] = set()
        self.watch: jobs_pb2.WatchJobsRequest | None = None
        self.sent: list[Any] = []
        self.clock = cluster.clock
        self._cluster = cluster
        self._inbox: asyncio.Queue[Any] = asyncio.Queue()
        self._ended: TenureError | None = None

    async def send(self, message: Any) -> None:
        await self.clock.sleep(1)
        if self._ended is not None:
            raise self._ended
        copy = type(message).FromString(message.SerializeToString())
        self.sent.append(copy)
        handlers = {
            "StreamSubmits": self._cluster.submitted,
            "StreamResults": self._cluster.awaited,
            "WatchJobs": self._cluster.watched,
            "StreamLogs": self._cluster.read,
        }
        handlers[self.method](self, copy)

    def deliver(self, message: Any) -> None:
        """The master sends an answer."""
        self._inbox.put_nowait(message)

    def end(self, error: TenureError) -> None:
        """The call ends with an error."""
        if self._ended is None:
            self._ended = error
            self._inbox.put_nowait(error)
            self._cluster.streams.remove(self)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._read()

    async def _read(self) -> AsyncIterator[Any]:
        while True:
            message = await self._inbox.get()
            if isinstance(message, TenureError):
                raise message
            await self.clock.sleep(1)
            yield message

    async def close_sending(self) -> None:
        pass

    def cancel(self) -> None:
        self.end(unreachable(self.address))


def _missing(job_id: str) -> Rejected:
    return Rejected(f"expected job {job_id} to exist, but it does not", reason=Reason.NOT_FOUND)


def _matches(job: jobs_pb2.Job, text: str) -> bool:
    options = job.options
    policy = Policy(name=options.name, queue=options.queue, tenant=options.tenant)
    change = JobChange(JobId(job.job_id), JobState(job.state), policy, 0, 0)
    return select_changes(text)(change)


def _result(job: jobs_pb2.Job) -> jobs_pb2.JobResult:
    return jobs_pb2.JobResult(
        job_id=job.job_id,
        state=job.state,
        result=job.result,
        error=job.error,
        failure_reason=job.failure_reason,
        attempts=job.attempts_charged,
        cancel_reason=job.cancel_reason,
    )
