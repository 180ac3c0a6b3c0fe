"""What users do with jobs by themselves: these wait, fail, are cancelled, requeued and purged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import Any, Final

from tenure.client import JobState, Retry, TenureError, Unavailable
from tenure.client.codec import encode_args
from tenure.protocol.ids import home_partition, mint
from tenure.testing.clock import WALL_ORIGIN_MS
from tenure.testing.network import SimTransport
from tenure.testing.process import Process, elapse
from tenure.v1 import jobs_pb2
from tests.oracles.history import SUBMIT, Fields, hash_of
from tests.simulation.ledger import Desk
from tests.simulation.load import Visit, script

_SUBMIT_JOBS: Final = "/tenure.v1.JobService/SubmitJobs"
#: A client without our SDK gives up after so many masters have not answered.
_TRIES: Final = 60


@script(10)
async def work(visit: Visit) -> None:
    """A job that works."""
    await visit.see(await visit.submit(visit.hold_s()))


@script(8)
async def fail_at_first(visit: Visit) -> None:
    """A job that fails once or a few times, with every kind of backoff."""
    rng = visit.rng
    retry = Retry(
        max_attempts=rng.randint(2, 4),
        max_lost=10,
        backoff=rng.choice(("exponential", "linear", "fixed", "fibonacci", "none", "none")),
        base=timedelta(milliseconds=rng.choice((10, 200, 1_000))),
        jitter=rng.choice(("full", "equal", "none")),
    )
    manner = rng.choice(("fail", "fail", "fail", "later"))
    await visit.see(
        await visit.submit(visit.hold_s() / 4, manner, rng.choice((1, 1, 2, 9)), retry=retry)
    )


@script(5)
async def wait_first(visit: Visit) -> None:
    """A job that becomes ready later: after a delay, or at a time of day."""
    rng = visit.rng
    after = timedelta(seconds=rng.choice((0.5, 3, rng.uniform(0, 15))))
    if rng.random() < 0.7:
        handle = await visit.submit(0.0, delay=after)
    else:
        now_s = asyncio.get_running_loop().time() + WALL_ORIGIN_MS / 1000
        handle = await visit.submit(0.0, at=datetime.fromtimestamp(now_s, UTC) + after)
    others = [visit.cancel(handle)] if rng.random() < 0.2 else []
    await visit.see(handle, *others)


@script(5)
async def change_mind(visit: Visit) -> None:
    """A job that is cancelled; it may not listen."""
    manner = visit.rng.choice(("", "", "progress", "stubborn", "deaf"))
    handle = await visit.submit(visit.rng.uniform(0, 10), manner)
    await visit.see(handle, visit.cancel(handle))


@script(7)
async def climb(visit: Visit) -> None:
    """A job of many steps that saves how far it is: it may be lost often, if it gets on."""
    retry = Retry(max_attempts=4, max_lost=visit.rng.randint(3, 6), backoff="none")
    await visit.see(await visit.submit(visit.rng.uniform(3, 20), "climb", retry=retry))


@script(4)
async def bring_many(visit: Visit) -> None:
    """A batch, perhaps all or nothing, of which all results are read."""
    rng, works = visit.rng, visit.works
    job = works.act.options(**visit.options())
    calls = [(visit.text(), visit.hold_s() / 4, "fail", 0) for _ in range(rng.randint(2, 8))]
    whole = rng.choice(("", f"whole of user {visit.number}"))
    handles = await visit.desk.submit_many(job, calls, whole=whole)
    async with asyncio.TaskGroup() as group:
        for handle in handles:
            group.create_task(visit.desk.result(handle))


@script(3)
async def share_key(visit: Visit) -> None:
    """Two clients submit the same thing under one key, at the same time or one after the other."""
    rng = visit.rng
    text, hold_s = visit.text(), visit.hold_s()
    options = {**visit.options(), "key": f"key {visit.number}"}
    if rng.random() < 0.2:
        options["key_window"] = timedelta(seconds=30)
    desks = [visit.desk, Desk(visit.desk.ledger, visit.cluster.client())]

    async def bring(desk: Desk, after_s: float) -> None:
        await elapse(after_s)
        handle = await desk.submit(visit.works.act, text, hold_s, "", 0, **options)
        if handle is not None:
            await desk.result(handle)

    async with asyncio.TaskGroup() as group:
        for desk in desks:
            group.create_task(bring(desk, rng.choice((0.0, 0.0, rng.uniform(0, 8)))))


@script(3)
async def revive(visit: Visit) -> None:
    """A job that fails for good, and is requeued until it works, perhaps with other arguments."""
    handle = await visit.submit(visit.hold_s() / 4, "permanent", 9)
    if await visit.see(handle) != "FAILED":
        return
    await elapse(visit.rng.uniform(0, 3))
    other = visit.works.act.bind(visit.text(), visit.hold_s() / 4, "", 0)
    await visit.desk.requeue(handle.id, visit.rng.choice((None, other)))
    await visit.see(visit.handle(handle.id))


@script(2)
async def forget(visit: Visit) -> None:
    """A job that is purged when it has ended; then nobody knows it."""
    handle = await visit.submit(0.0)
    await visit.see(handle)
    await visit.desk.purge(handle.id)
    await visit.desk.get(handle.id)


@script(3, row=17)
async def run_into_limit(visit: Visit) -> None:
    """A job that hangs, beats too rarely, or waits too long: one of its limits ends it."""
    rng = visit.rng
    limit = timedelta(seconds=rng.uniform(0.5, 4))
    retry = Retry(max_attempts=2, max_lost=10, backoff="none")
    name = rng.choice(("timeout", "timeout", "heartbeat_timeout", "schedule_timeout", "deadline"))
    if name == "schedule_timeout":
        delay = limit * rng.choice((0.5, 2))
        handle = await visit.submit(0.0, schedule_timeout=limit, delay=delay)
    else:
        manner = rng.choice(("", "stubborn", "progress"))
        options: dict[str, Any] = {"retry": retry, name: limit}
        handle = await visit.submit(rng.uniform(1, 12), manner, **options)
    await visit.see(handle)


@script(3, row=17)
async def dig_in(visit: Visit) -> None:
    """Jobs that neither end in time nor listen: workers lose more slots than they put up with."""
    rng = visit.rng
    job = visit.works.act.options(
        **visit.options(),
        timeout=timedelta(seconds=rng.uniform(0.5, 3)),
        retry=Retry(max_attempts=rng.choice((1, 2)), max_lost=10, backoff="none"),
    )
    calls = [(visit.text(), rng.uniform(7, 25), "deaf", 0) for _ in range(rng.randint(2, 6))]
    await visit.see_all(await visit.desk.submit_many(job, calls))


@script(1)
async def poison(visit: Visit) -> None:
    """A job that kills its worker, once or more often than it may."""
    retry = Retry(max_attempts=2, max_lost=visit.rng.randint(1, 2), backoff="none")
    times = visit.rng.randint(1, 3)
    await visit.see(await visit.submit(0.0, "poison", times, retry=retry))


@script(2)
async def run_once(visit: Visit) -> None:
    """A job that must not run twice."""
    await visit.see(await visit.submit(visit.hold_s(), at_most_once=True))


@script(3)
async def survey(visit: Visit) -> None:
    """Lists and counts, with filters, now and then."""
    rng = visit.rng
    for _ in range(3):
        await elapse(rng.uniform(0, 6))
        wanted = rng.choice(({}, {}, {"tenant": "acme"}, {"queue": "media"}))
        await visit.desk.list(**wanted)
        try:
            await visit.desk.client.count(states=[JobState.RUNNING])
        except Unavailable:
            continue


@script(2)
async def watch(visit: Visit) -> None:
    """Watches for a while, leaves, and comes back with the cursor of the last event."""
    rng, cursor = visit.rng, None
    for _ in range(2):
        try:
            async with asyncio.timeout(rng.uniform(1, 10)):
                async for event in visit.desk.client.watch(cursor=cursor):
                    cursor = event.cursor
        except (TimeoutError, TenureError):
            pass
        await elapse(rng.uniform(0, 3))


@script(2)
async def die_amid(visit: Visit) -> None:
    """A client process that is killed and started anew, and sends again what it had written down.

    Its jobs' ids are on its disk before they are sent: the same ids are the same jobs.
    """
    rng, name = visit.rng, f"u{visit.number}"
    sheets = [_Sheet(visit) for _ in range(rng.randint(1, 4))]
    async with asyncio.TaskGroup() as group:
        process = Process(name)
        process.start(group, lambda: _send_all(visit, name, sheets))
        await elapse(rng.uniform(0, 3))
        visit.cluster.network.crash(name)
        process.kill()
        await process.join()
        visit.desk.ledger.close(process)
        await elapse(rng.uniform(0, 4))
        process = Process(name)
        process.start(group, lambda: _send_all(visit, name, sheets))
        await process.join()
    async with asyncio.TaskGroup() as group:
        for sheet in sheets:
            if sheet.taken:
                group.create_task(visit.desk.result(visit.handle(sheet.job_id)))


class _Sheet:
    """One job of a client without our SDK, which writes it down before it sends it."""

    def __init__(self, visit: Visit) -> None:
        self.text, options = visit.text(), visit.options()
        queue, tenant = options["queue"], options["tenant"]
        job = visit.works.act.options(queue=queue, tenant=tenant)
        #: Whether it was told that it is taken.
        self.taken = False
        now_ms = WALL_ORIGIN_MS + int(asyncio.get_running_loop().time() * 1000)
        partition = home_partition(tenant, queue, visit.cluster.partitions)
        self.job_id = mint(partition, now_ms, visit.rng.getrandbits(62))
        self.asked: Fields = {
            "job": self.job_id,
            "hash": hash_of(self.text),
            "queue": queue,
            "tenant": tenant,
        }
        self.request = jobs_pb2.SubmitJobsRequest(options=[job.wire])
        payload = encode_args(job, (self.text, visit.hold_s() / 4, "", 0), {})
        self.request.jobs.add(job_id=self.job_id, payload=payload)


async def _send_all(visit: Visit, name: str, sheets: Sequence[_Sheet]) -> None:
    """The program of a client that is killed: all its jobs, at once."""
    transport = visit.cluster.network.transport(name)
    async with asyncio.TaskGroup() as group:
        for sheet in sheets:
            if not sheet.taken:
                group.create_task(_send(visit, transport, sheet))
    await transport.close()


async def _send(visit: Visit, transport: SimTransport, sheet: _Sheet) -> None:
    """Sends one job to one master after the other until it is answered."""
    ledger = visit.desk.ledger
    call = ledger.invoke(SUBMIT, **sheet.asked)
    for address in islice(cycle(visit.cluster.addresses), _TRIES):
        try:
            answer = await transport.unary(
                address, _SUBMIT_JOBS, sheet.request, jobs_pb2.SubmitJobsResponse, 5.0
            )
        except TenureError:
            await elapse(0.5)
            continue
        if not answer.errors:
            sheet.taken = True
            ledger.write("ok", SUBMIT, call, **sheet.asked)
            return
        break
    # Refused now, it may have been taken by an earlier try all the same.
    ledger.write("info", SUBMIT, call, **sheet.asked)
