"""More of what users do in random runs: typed values, many results at once, filters, mistakes.

What they see beside the ledger is checked here: a wrong answer ends the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from tenure.client import (
    AsyncClient,
    JobState,
    Rejected,
    TenureError,
    Unavailable,
    WaitTimeout,
)
from tenure.client.handle import AsyncJobHandle
from tenure.protocol.ids import mint
from tenure.testing.clock import WALL_ORIGIN_MS
from tenure.testing.process import elapse
from tenure.v1 import jobs_pb2
from tenure.v1.common_pb2 import JobOptions, RetryPolicy
from tenure.v1.jobs_pb2 import (
    CancelJobsRequest,
    CancelJobsResponse,
    CountJobsRequest,
    CountJobsResponse,
    JobSpec,
    ListJobsRequest,
    ListJobsResponse,
    SubmitJobsRequest,
    SubmitJobsResponse,
    WaitJobRequest,
    WaitJobResponse,
)
from tests.simulation.ledger import Desk
from tests.simulation.load import Visit, script
from tests.simulation.parcels import Clerk, parcel

_SERVICE: Final = "/tenure.v1.JobService/"

Fits = Callable[[jobs_pb2.Job], bool]
#: Filters, and what must be true of each job that they let through.
_FILTERS: Final[list[tuple[str, Fits]]] = [
    ("state = COMPLETED AND queue = media", lambda job: job.options.queue == "media"),
    ("labels.region = eu AND labels:region", lambda job: job.options.labels["region"] == "eu"),
    ("priority <= 3 AND attempts >= 0", lambda job: job.options.priority <= 3),
    ("NOT (queue = media OR tenant = acme)", lambda job: job.options.queue != "media"),
    ("name = ac* AND submitted_at > 2020-01-31T09:00:00Z", lambda job: job.options.name == "act"),
    ('error.message:"told to" AND -cancel_requested = true', lambda job: job.HasField("error")),
    ("finished_at:* AND run >= 0", lambda job: job.HasField("finished_at")),
    ("failure_reason = EXHAUSTED", lambda job: job.state == JobState.FAILED.value),
    ("state != RUNNING AND worker:*", lambda job: job.state != JobState.RUNNING.value),
    ("key = 'key*' AND losses_charged < 99", lambda job: job.key.startswith("key")),
    ("job_id = 0*", lambda job: job.job_id.startswith("0")),
]
#: Filters of changes.
_CHANGES: Final = ("state = COMPLETED", "name = act AND NOT queue = mail", "labels.region = eu")


async def _unless_away(work: Coroutine[Any, Any, None]) -> None:
    """Does something that a cluster in trouble may not answer."""
    try:
        await work
    except (Unavailable, TimeoutError):
        pass


@script(3)
async def send_parcels(visit: Visit) -> None:
    """Typed values, through middleware, by a client of one's own."""
    rng = visit.rng
    name = f"p{visit.number}"
    async with AsyncClient(
        ",".join(visit.cluster.addresses),
        timeout=60.0,
        transport=visit.cluster.network.transport(name),
        rng=Random(rng.getrandbits(32)),
        middleware=[Clerk()],
    ) as client:
        desk = Desk(visit.desk.ledger, client)
        job = visit.works.forward.options(**visit.options())
        calls = [(parcel(rng, visit.text(), visit.hold_s() / 4),) for _ in range(rng.randint(1, 3))]
        if len(calls) == 1:
            handle = await desk.submit(job, *calls[0])
            handles = [] if handle is None else [handle]
        else:
            handles = [*await desk.submit_many(job, calls)]
        async with asyncio.TaskGroup() as group:
            for handle in handles:
                group.create_task(desk.result(handle))


@script(3)
async def gather(visit: Visit) -> None:
    """The results of many jobs: the first, each as it comes, or all."""
    rng, client = visit.rng, visit.desk.client
    job = visit.works.act.options(**visit.options(), labels={"region": rng.choice(("eu", "us"))})
    calls = [(visit.text(), visit.hold_s() / 4, "", 0) for _ in range(rng.randint(2, 6))]
    handles = await visit.desk.submit_many(job, calls)
    if not handles:
        return
    within_s = rng.choice((1.0, 20.0, None))
    match rng.randrange(3):
        case 0:
            first = await client.wait_any(handles, within_s)
            if first is not None and first.known is None:
                raise RuntimeError(f"expected {first} to have ended")
        case 1:
            await client.wait_all(handles, within_s)
        case _:
            await _as_they_come(client.as_completed(handles, within_s))
    async with asyncio.TaskGroup() as group:
        for handle in handles:
            group.create_task(visit.desk.result(handle))


async def _as_they_come(handles: AsyncIterator[AsyncJobHandle[str]]) -> None:
    try:
        async for handle in handles:
            if handle.known is None:
                raise RuntimeError(f"expected {handle} to have ended")
    except WaitTimeout:
        pass


@script(2)
async def follow_one(visit: Visit) -> None:
    """One job's changes, its logs, its progress and its state, while it runs."""
    handle = await visit.submit(visit.hold_s(), "progress")
    await visit.see(
        handle,
        _unless_away(_follow(handle)),
        _unless_away(_listen(handle)),
        _unless_away(_ask(visit, handle)),
    )


async def _follow(handle: AsyncJobHandle[str]) -> None:
    async with asyncio.timeout(30):
        async for event in handle.events():
            if event.job_id != handle.id:
                raise RuntimeError(f"expected changes of {handle.id}, but got one of {event}")


async def _listen(handle: AsyncJobHandle[str]) -> None:
    last = (0, 0, 0)
    async with asyncio.timeout(30):
        async for line in handle.logs(follow=True):
            place = (line.run, line.attempt, line.number)
            if place <= last:
                raise RuntimeError(f"expected a line behind {last}, but got {line}")
            last = place


async def _ask(visit: Visit, handle: AsyncJobHandle[str]) -> None:
    await elapse(visit.rng.uniform(0, 6))
    await handle.status()
    await handle.progress()
    client = visit.desk.client
    found = await client.get(handle.id, visit.works.act)
    await found.wait(timeout=1.0)
    described = await client.describe(handle.id, with_payload=True)
    await client.cluster.unserved(described)


@script(3)
async def sift(visit: Visit) -> None:
    """Lists, counts and watches with filters."""
    rng, client = visit.rng, visit.desk.client
    for text, fits in rng.sample(_FILTERS, 4):
        await elapse(rng.uniform(0, 6))
        await _unless_away(_sift(client, text, fits))
    await _unless_away(_watch_some(client, rng))


async def _sift(client: AsyncClient, text: str, fits: Fits) -> None:
    async for job in client.list(filter=text):
        if not fits(job):
            raise RuntimeError(f"expected only jobs of {text!r}, but got {job}")
    await client.count(filter=text)


async def _watch_some(client: AsyncClient, rng: Random) -> None:
    async with asyncio.timeout(rng.uniform(1, 6)):
        async for event in client.watch(filter=rng.choice(_CHANGES)):
            if not event.cursor:
                raise RuntimeError(f"expected a cursor with {event}")


@script(2)
async def blunder(visit: Visit) -> None:
    """What the SDK or a master refuses, whatever state the cluster is in."""
    rng, client, act = visit.rng, visit.desk.client, visit.works.act
    forward, sent = visit.works.forward, parcel(rng, "no zone", 0.0)
    sent.sent = datetime(2026, 1, 1)  # noqa: DTZ001 - it has no time zone: that is the mistake
    now_ms = WALL_ORIGIN_MS + int(asyncio.get_running_loop().time() * 1000)
    nobody = mint(0, now_ms, rng.getrandbits(62))
    mistakes: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: client.submit(forward, sent),
        lambda: client.submit(act, object(), 0.0, "", 0),
        lambda: client.submit(act, {"path": [1, {2: object()}]}, 0.0, "", 0),
        lambda: client.submit(act, "x" * 300_000, 0.0, "", 0),
        lambda: client.count(filter="state = NOWHERE"),
        lambda: client.count(filter="(queue = a OR"),
        lambda: client.count(filter="queue = a b"),
        lambda: _first_change(client, "never given"),
        lambda: client.describe("no id"),
        lambda: client.describe(nobody),
        lambda: _first_refusal(client, nobody),
    ]
    for mistake in rng.sample(mistakes, 5):
        await _refused(mistake())


async def _refused(asked: Coroutine[Any, Any, Any]) -> None:
    try:
        answer = await asked
    except (Rejected, Unavailable):
        return
    raise RuntimeError(f"expected a refusal, but got {answer}")


async def _first_change(client: AsyncClient, cursor: str) -> str:
    async for event in client.watch(cursor=cursor):
        return event.job_id
    return ""


async def _first_refusal(client: AsyncClient, job_id: str) -> None:
    """Changes of a job that nobody knows."""
    for change in (client.cancel, client.requeue, client.purge):
        (verdict,) = await change([job_id])
        verdict.state_or_raise()


@script(1)
async def look_around(visit: Visit) -> None:
    """What an operator sees of a cluster, and now and then an order of theirs."""
    rng, cluster = visit.rng, visit.desk.client.cluster
    for _ in range(2):
        await elapse(rng.uniform(0, 6))
        try:
            await cluster.topology()
            members = await cluster.members()
            await cluster.status()
            if rng.random() < 0.5:
                names = ["", *(member.name for member in members)]
                partition = rng.randrange(visit.cluster.partitions)
                await cluster.transfer_leader(partition, rng.choice(names))
        except TenureError:
            continue


@script(2)
async def keep_shortly(visit: Visit) -> None:
    """A job whose result is kept for a moment only."""
    handle = await visit.submit(0.0, result_ttl=timedelta(seconds=visit.rng.choice((1, 5))))
    await visit.see(handle)
    await elapse(visit.rng.uniform(0, 10))
    await visit.desk.get(handle.id)


@script(2)
async def write_by_hand(visit: Visit) -> None:
    """A client without our SDK: what is wrong with its requests is found by masters alone."""
    transport = visit.cluster.network.transport(f"h{visit.number}")
    address = visit.rng.choice(visit.cluster.addresses)
    for method, request, response_type in visit.rng.sample(_wrong_requests(), 8):
        sending = transport.unary(address, _SERVICE + method, request, response_type, 2.0)
        await _refused(sending)
    await transport.close()


def _wrong_requests() -> list[tuple[str, Message, type[Message]]]:
    """Requests that no master takes, whatever it leads."""
    fine = JobOptions(name="act")
    bad = [
        JobOptions(),
        JobOptions(name="act", priority=11),
        JobOptions(name="act", queue="q" * 300),
        JobOptions(name="act", labels={"": "x"}),
        JobOptions(name="act", retry=RetryPolicy(factor=-1.0)),
        JobOptions(name="act", delay=Duration(seconds=-1)),
        JobOptions(name="act", timeout=Duration(seconds=10**9)),
    ]
    batches = [
        SubmitJobsRequest(jobs=[JobSpec()]),
        SubmitJobsRequest(options=[fine, fine], jobs=[JobSpec()]),
        SubmitJobsRequest(options=[fine], jobs=[JobSpec(options=7)]),
        SubmitJobsRequest(options=[fine], jobs=[JobSpec(job_id="no id")]),
        SubmitJobsRequest(options=[fine], jobs=[JobSpec(key="k" * 2_000)]),
        SubmitJobsRequest(options=[fine], jobs=[JobSpec(payload=bytes(900_000))] * 2),
        *(SubmitJobsRequest(options=[options], jobs=[JobSpec()]) for options in bad),
    ]
    reads: list[tuple[str, Message, type[Message]]] = [
        ("ListJobs", ListJobsRequest(page_size=-1), ListJobsResponse),
        ("ListJobs", ListJobsRequest(page_token="torn"), ListJobsResponse),
        ("ListJobs", ListJobsRequest(partition=99), ListJobsResponse),
        ("CountJobs", CountJobsRequest(filter="nothing = here"), CountJobsResponse),
        ("CancelJobs", CancelJobsRequest(), CancelJobsResponse),
        ("CancelJobs", CancelJobsRequest(job_ids=["no id"]), CancelJobsResponse),
        ("WaitJob", WaitJobRequest(timeout=Duration(seconds=-1)), WaitJobResponse),
    ]
    return [("SubmitJobs", batch, SubmitJobsResponse) for batch in batches] + reads
