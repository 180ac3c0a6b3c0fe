"""``AsyncClient``: submit jobs, wait for them, look at them, stop them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, overload

from google.protobuf.message import Message

from tenure.client.change import BOOST, CANCEL, PURGE, REQUEUE, Change, JobVerdict, change
from tenure.client.channel import GrpcTransport
from tenure.client.cluster import ClusterView
from tenure.client.connection import Connection, Core
from tenure.client.errors import WaitTimeout, invalid
from tenure.client.filter import filter_text
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import Flow, JobDef
from tenure.client.listing import count_all, look_up, newest_first
from tenure.client.middleware import Call, Middleware, overriding, submit_through
from tenure.client.options import check_boost
from tenure.client.router import Router
from tenure.client.security import Credentials
from tenure.client.sending import Given, send, send_many
from tenure.client.topology import Rng, fresh_rng, parse_addresses
from tenure.client.transport import Transport
from tenure.protocol import limits
from tenure.protocol.ids import is_job_id
from tenure.protocol.tls import Tls
from tenure.protocol.vocabulary import JobState
from tenure.v1 import jobs_pb2

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from tenure.client.batches import AsyncBatches
    from tenure.client.explain import Explanation
    from tenure.client.queues import AsyncJobTypes, AsyncQueues, AsyncTenants
    from tenure.client.schedule import AsyncSchedules
    from tenure.client.watch import JobEvent
    from tenure.client.workers import AsyncWorkers
    from tenure.client.workflow import AsyncStartedFlow, AsyncWorkflow, AsyncWorkflows

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class AsyncClient:
    """A connection to a cluster, for one event loop.

    Finds the masters by itself, follows leaders through failovers, and makes batches of concurrent
    submits. Use it with ``async with``, or call ``close()`` in the end.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | Path | None = None,
        tls: Tls | None = None,
        timeout: float = 30.0,
        middleware: Iterable[Middleware] = (),
        transport: Transport | None = None,
        rng: Rng | None = None,
    ) -> None:
        """Connects at first use.

        Args:
            address: ``HOST:PORT`` of any master, or several, comma-separated; None reads
                TENURE_ADDRESS, then takes 127.0.0.1:7400.
            token: The cluster's bearer token, or the path of a file that holds it, which is read
                again when it changes; None reads the file that TENURE_TOKEN_FILE names, or takes
                TENURE_TOKEN.
            tls: Files to trust the masters by, and to prove who one is; None takes TENURE_TLS_CA,
                TENURE_TLS_CERT and TENURE_TLS_KEY, and plaintext if the first is not set.
            timeout: Seconds that one operation may take, failovers included. Waiting for a result
                has its own.
            middleware: What surrounds each submit, the outermost first (docs/middleware.md).
            transport: How masters are reached; None: gRPC.
            rng: Randomness; None: seeded by the system.

        Raises:
            Rejected: The address is not of that form, or the token or a file cannot be used
                (CREDENTIALS_UNUSABLE).
        """
        text = address or os.environ.get("TENURE_ADDRESS") or limits.DEFAULT_ADDRESS
        addresses = parse_addresses(text)
        if timeout <= 0:
            raise invalid("timeout", f"more than 0 seconds, got {timeout}")
        self._timeout_s = timeout
        self._layers = overriding(middleware, "on_submit")
        transport = transport or GrpcTransport(Credentials(token, tls))
        self._connection = Connection(addresses, transport, rng or fresh_rng(), timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all streams; who still waits gets Unavailable. Idempotent."""
        await self._connection.close()

    @property
    def cluster(self) -> ClusterView:
        """The cluster itself: masters, leaders, workers."""
        return ClusterView(self._connection.started().router, self._timeout_s)

    @property
    def queues(self) -> AsyncQueues:
        """Queues: how they do, and how they are run."""
        from tenure.client.queues import AsyncQueues

        return AsyncQueues(self, self._timeout_s)

    @property
    def tenants(self) -> AsyncTenants:
        """Tenants: how they do, and how they are run."""
        from tenure.client.queues import AsyncTenants

        return AsyncTenants(self, self._timeout_s)

    @property
    def job_types(self) -> AsyncJobTypes:
        """Job types, a tenant's jobs of one name: how they do, and how they are run."""
        from tenure.client.queues import AsyncJobTypes

        return AsyncJobTypes(self, self._timeout_s)

    @property
    def batches(self) -> AsyncBatches:
        """One thing done to all jobs that match a filter."""
        from tenure.client.batches import AsyncBatches

        return AsyncBatches(self, self._timeout_s)

    @property
    def schedules(self) -> AsyncSchedules:
        """Jobs by the calendar."""
        from tenure.client.schedule import AsyncSchedules

        return AsyncSchedules(self, self._timeout_s)

    @property
    def workers(self) -> AsyncWorkers:
        """Workers: how they do, what they run, and whether they get work."""
        from tenure.client.workers import AsyncWorkers

        return AsyncWorkers(self, self._timeout_s)

    @property
    def workflows(self) -> AsyncWorkflows:
        """Workflows that were opened, here or elsewhere."""
        from tenure.client.workflow import AsyncWorkflows

        return AsyncWorkflows(self)

    def workflow(
        self,
        name: str,
        *,
        tenant: str = limits.DEFAULT_TENANT,
        seal_within: timedelta | None = None,
    ) -> AsyncWorkflow:
        """A new workflow; a ``with`` block opens it, and seals it in the end.

        Args:
            name: For people; the characters of names.
            tenant: Whose it is.
            seal_within: It is cancelled if it is not sealed so soon; None: one hour (at most 7
                days).
        """
        from tenure.client.workflow import AsyncWorkflow

        return AsyncWorkflow(self, name, tenant=tenant, seal_within=seal_within)

    async def start(self, flow: Flow[R], *, name: str = "flow") -> AsyncStartedFlow[R]:
        """Starts a chain, a group or a chord as a workflow.

        Args:
            flow: What ``chain``, ``group``, ``chord`` or ``job.bind`` has made.
            name: The workflow's.

        Raises:
            BatchFailed: Some of its jobs were refused; nothing runs.
        """
        async with self.workflow(name) as workflow:
            return workflow.put(flow)

    async def router(self) -> Router:
        """What calls the leaders, once the number of partitions is known."""
        return (await self._connection.ready()).router

    # ------------------------------------------------------------------------------- submitting

    async def submit(
        self, job: JobDef[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncJobHandle[R]:
        """Submits one job; returns when it is durably accepted.

        Concurrent calls share requests. After a failover the same job is sent again under the
        same id, so it is never accepted twice. A cancelled call may or may not be accepted.
        Callbacks are accepted with the job, or not at all, where that can be.

        Args:
            job: What to run; ``job.options(…)`` says how.
            *args: For the function; checked against its signature.
            **kwargs: For the function.

        Raises:
            Rejected: The job cannot be accepted; ``reason`` and ``field`` say why.
            Unavailable: Nobody could accept it in time. OUTCOME_UNKNOWN: somebody may have.
        """
        if not self._layers:
            return await self._send(job, (args, kwargs))

        async def send(
            job: JobDef[..., Any], calls: Sequence[Call]
        ) -> Sequence[AsyncJobHandle[Any]]:
            return [await self._send(job, call) for call in calls]

        (handle,) = await submit_through(self._layers, job, [Call(args, kwargs)], send)
        return handle

    async def map(
        self, job: JobDef[Concatenate[T, ...], R], items: Iterable[T]
    ) -> Sequence[AsyncJobHandle[R]]:
        """Submits one job for each item, in few requests; returns when all are accepted.

        Jobs of one queue keep the order of the items; callbacks follow when the jobs were
        accepted. It is not all or nothing: ``submit_many`` may be.

        Args:
            job: A job that takes the item as its first argument.
            items: The arguments.

        Raises:
            BatchFailed: Some were not accepted; it has the handles of the others.
        """
        return await self.submit_many(job, ((item,) for item in items))

    async def submit_many(
        self,
        job: JobDef[..., R],
        calls: Iterable[Sequence[Any]],
        *,
        all_or_nothing: bool = False,
    ) -> Sequence[AsyncJobHandle[R]]:
        """Submits one job for each sequence of positional arguments.

        Args:
            job: What to run.
            calls: The arguments of each.
            all_or_nothing: Takes all of them or none: at most 1,000 jobs and 400 KiB, callbacks
                and options included, and if there are several, none that waits for a job at home
                in another partition.

        Raises:
            BatchFailed: Some were not accepted, or not their callbacks; it has the handles of the
                others.
            Rejected: With ``all_or_nothing``: one could not be accepted, so none was; ``index`` in
                its metadata says which call. ``field`` is ``calls`` if there are too many.
            Unavailable: With ``all_or_nothing``: OUTCOME_UNKNOWN, all or none may be accepted.
        """
        sending = partial(self._send_many, all_or_nothing=all_or_nothing)
        if not self._layers:
            return await sending(job, ((tuple(args), {}) for args in calls))
        each = [Call(tuple(args), {}) for args in calls]
        return await submit_through(self._layers, job, each, sending)

    async def _send(self, job: JobDef[..., R], given: Given) -> AsyncJobHandle[R]:
        core = self._connection.started()
        return await send(self, await self.core() if job.has_callbacks else core, job, given)

    async def _send_many(
        self, job: JobDef[..., R], calls: Iterable[Given], *, all_or_nothing: bool = False
    ) -> Sequence[AsyncJobHandle[R]]:
        core = self._connection.started()
        if job.has_callbacks or all_or_nothing:
            core = await self.core()
        return await send_many(self, core, job, [*calls], all_or_nothing=all_or_nothing)

    # ---------------------------------------------------------------------------------- waiting

    async def as_completed(
        self, handles: Iterable[AsyncJobHandle[R]], timeout: float | None = None
    ) -> AsyncIterator[AsyncJobHandle[R]]:
        """Yields handles as their jobs end; ``result()`` of such a handle returns at once.

        A job that ended FAILED or CANCELLED is yielded too, and its ``result()`` raises.

        Args:
            handles: Of the jobs; one given twice is yielded twice.
            timeout: Seconds until all must have ended; None waits as long as it takes.

        Raises:
            WaitTimeout: Some have not; they go on.
        """
        async with aclosing(self.completions(handles, timeout)) as pieces:
            async for piece in pieces:
                for handle in piece:
                    yield handle

    async def wait_any(
        self, handles: Iterable[AsyncJobHandle[R]], timeout: float | None = None
    ) -> AsyncJobHandle[R] | None:
        """Waits until one of the jobs has ended. None: none has within ``timeout`` seconds.

        Raises:
            Rejected: There are no handles.
        """
        given = [*handles]
        if not given:
            raise invalid("handles", "one at least, got none")
        try:
            async with aclosing(self.completions(given, timeout)) as pieces:
                return (await anext(pieces))[0]
        except WaitTimeout:
            return None

    async def wait_all(
        self, handles: Iterable[AsyncJobHandle[Any]], timeout: float | None = None
    ) -> bool:
        """Waits until all of the jobs have ended. False: they have not in ``timeout`` seconds."""
        try:
            async with aclosing(self.completions(handles, timeout)) as pieces:
                async for _ in pieces:
                    pass
        except WaitTimeout:
            return False
        return True

    async def completions(
        self, handles: Iterable[AsyncJobHandle[R]], timeout: float | None = None
    ) -> AsyncGenerator[Sequence[AsyncJobHandle[R]], None]:
        """``as_completed`` by pieces: what has ended by the time that one asks."""
        waiting: dict[str, list[AsyncJobHandle[R]]] = {}
        ended: list[AsyncJobHandle[R]] = []
        for handle in handles:
            if handle.known is not None:
                ended.append(handle)
            else:
                waiting.setdefault(handle.id, []).append(handle)
        if ended:
            yield ended
        if not waiting:
            return
        deadline_s = None if timeout is None else asyncio.get_running_loop().time() + timeout
        waiter = (await self._connection.ready()).waiter
        wait = waiter.expect(waiting)
        try:
            while waiting:
                try:
                    async with asyncio.timeout_at(deadline_s):
                        results = await wait.take()
                except TimeoutError:
                    raise WaitTimeout(next(iter(waiting)), timeout or 0, len(waiting) - 1) from None
                ended = []
                for job_id, result in results.items():
                    for handle in waiting.pop(job_id):
                        handle.take(result)
                        ended.append(handle)
                yield ended
        finally:
            waiter.forget(waiting, wait)

    async def wait_for_result(self, job_id: str) -> jobs_pb2.JobResult:
        """The final state of a job as the master sends it. Waits as long as it takes."""
        core = self._connection.started()
        if not core.router.topology.partitions:
            core = await self._connection.ready()
        return await core.waiter.result(job_id)

    # ---------------------------------------------------------------------------------- looking

    @overload
    async def get(self, job_id: str) -> AsyncJobHandle[Any]: ...
    @overload
    async def get(self, job_id: str, job: JobDef[..., R]) -> AsyncJobHandle[R]: ...
    async def get(self, job_id: str, job: JobDef[..., Any] | None = None) -> AsyncJobHandle[Any]:
        """A handle of a job that was submitted earlier, here or elsewhere.

        Args:
            job_id: Its id.
            job: Its definition; gives the result its type.

        Raises:
            Rejected: NOT_FOUND; or the job is another one than ``job``.
        """
        found = await self.describe(job_id)
        if job is not None and job.name != found.options.name:
            raise invalid("job", f"{found.options.name}, as {job_id} says, got {job.name}")
        return AsyncJobHandle(self, job_id, found.options.name, job)

    async def describe(self, job_id: str, *, with_payload: bool = False) -> jobs_pb2.Job:
        """Everything that the cluster knows of a job: state, options, attempts, error.

        Args:
            job_id: The job.
            with_payload: The encoded arguments and result, too.

        Raises:
            Rejected: NOT_FOUND, or RESULT_EXPIRED after its retention.
        """
        home = await self._home(job_id)
        router = self._connection.started().router
        return await look_up(router, home, job_id, self._timeout_s, with_payload=with_payload)

    async def explain(self, job_id: str) -> Explanation:
        """Why a job does not run: its place, all that blocks it, and an estimate.

        Args:
            job_id: The job.

        Raises:
            Rejected: NOT_FOUND, or RESULT_EXPIRED after its retention.
        """
        from tenure.client.explain import explain

        home = await self._home(job_id)
        return await explain(self._connection.started().router, home, job_id, self._timeout_s)

    async def list(
        self,
        *,
        filter: str = "",
        states: Iterable[JobState] = (),
        queue: str = "",
        name: str = "",
        tenant: str = "",
    ) -> AsyncIterator[jobs_pb2.Job]:
        """Jobs, newest first, without payloads; pages are fetched as they are needed.

        Args:
            filter: Which jobs, in the language of docs/filters.md, for example
                ``labels.region = eu AND attempts > 1``; the others narrow it further.
            states: Only these; none: all.
            queue: Only this one.
            name: Only jobs of this name.
            tenant: Only this one's.
        """
        jobs = filter_text(filter, states, queue, name, tenant)
        async for job in newest_first(await self.router(), jobs, self._timeout_s):
            yield job

    async def count(
        self,
        *,
        filter: str = "",
        states: Iterable[JobState] = (),
        queue: str = "",
        name: str = "",
        tenant: str = "",
    ) -> dict[JobState, int]:
        """How many jobs are in each state; filters as in ``list``."""
        jobs = filter_text(filter, states, queue, name, tenant)
        return await count_all(await self.router(), jobs, self._timeout_s)

    async def watch(
        self,
        *,
        cursor: str | None = None,
        filter: str = "",
        states: Iterable[JobState] = (),
        queue: str = "",
        name: str = "",
        tenant: str = "",
    ) -> AsyncIterator[JobEvent]:
        """Changes of jobs as they are committed, each once, until the caller stops.

        Args:
            cursor: Go on after the event that carried it, with the same filter; None: from now on.
            filter: As in ``list``, with job_id, state, name, queue, tenant and labels only.
            states: Only changes into these states; none: all.
            queue: Only this one.
            name: Only jobs of this name.
            tenant: Only this one's.

        Raises:
            Rejected: CURSOR_EXPIRED: it is too old; list the jobs, then watch without a cursor.
        """
        from tenure.client.watch import Watch

        core = await self._connection.ready()
        jobs = filter_text(filter, states, queue, name, tenant)
        watch = Watch(core.router, core.scope, jobs, range(core.router.topology.partitions))
        async with aclosing(watch.events(cursor)) as events:
            async for event in events:
                yield event

    async def follow(self, job_id: str) -> AsyncIterator[JobEvent]:
        """One job's states as they change. See ``AsyncJobHandle.events``."""
        from tenure.client.watch import follow

        await self._home(job_id)
        core = self._connection.started()
        async with aclosing(follow(core.router, core.scope, job_id, self.describe)) as events:
            async for event in events:
                yield event

    # --------------------------------------------------------------------------------- changing

    async def cancel(self, job_ids: Iterable[str], *, reason: str = "") -> Sequence[JobVerdict]:
        """Asks jobs to stop. One verdict for each id, in order.

        Args:
            job_ids: The jobs.
            reason: For the record.
        """
        return await self._change(
            CANCEL, job_ids, lambda ids: jobs_pb2.CancelJobsRequest(job_ids=ids, reason=reason)
        )

    async def requeue(self, job_ids: Iterable[str]) -> Sequence[JobVerdict]:
        """Gives FAILED or CANCELLED jobs a new run. One verdict for each id, in order."""
        return await self._change(
            REQUEUE, job_ids, lambda ids: jobs_pb2.RequeueJobsRequest(job_ids=ids)
        )

    async def purge(self, job_ids: Iterable[str]) -> Sequence[JobVerdict]:
        """Forgets jobs that have ended. One verdict for each id, in order."""
        return await self._change(
            PURGE, job_ids, lambda ids: jobs_pb2.PurgeJobsRequest(job_ids=ids)
        )

    async def boost(
        self,
        job_ids: Iterable[str],
        *,
        priority: int | None = None,
        delay: timedelta | None = None,
    ) -> Sequence[JobVerdict]:
        """Gives jobs that wait another place. One verdict for each id, in order.

        Args:
            job_ids: The jobs.
            priority: 0 (critical) to 10 (low); None: as it was.
            delay: Due so long from now, 0 for at once; None: as it was. A job that is due already
                keeps its age when it is to be due at once.

        Raises:
            Rejected: A value is out of range; ``field`` names it.
        """
        check_boost(priority, delay)

        def request(ids: Sequence[str]) -> jobs_pb2.BoostJobsRequest:
            message = jobs_pb2.BoostJobsRequest(job_ids=ids, delay=delay)
            if priority is not None:
                message.priority = priority
            return message

        return await self._change(BOOST, job_ids, request)

    # ---------------------------------------------------------------------------------- private

    @property
    def timeout_s(self) -> float:
        """Seconds that one operation may take."""
        return self._timeout_s

    @property
    def layers(self) -> tuple[Middleware, ...]:
        """What surrounds each submit."""
        return self._layers

    @property
    def started_core(self) -> Core:
        """What it has once it is in use; the topology need not be known."""
        return self._connection.started()

    async def core(self) -> Core:
        """The same, once the number of partitions is known."""
        return await self._connection.ready()

    async def _home(self, job_id: str) -> int:
        if not is_job_id(job_id):
            raise invalid("job_id", f"a job's id as submit gave it (a UUIDv7), got {job_id!r}")
        return (await self._connection.ready()).router.topology.home_of_id(job_id)

    async def _change(
        self, kind: Change, job_ids: Iterable[str], request: Callable[[Sequence[str]], Message]
    ) -> Sequence[JobVerdict]:
        ids = [*job_ids]
        homes = [await self._home(job_id) for job_id in ids]
        router = await self.router()
        return await change(router, kind, zip(ids, homes, strict=True), request, self._timeout_s)
