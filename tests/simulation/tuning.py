"""What users do to how a cluster is run: limits, rates, weights, pauses, breakers, priorities.

After the storm it is put right (``restoring``): what somebody has paused would wait for ever.
"""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from tenure.client import BreakerSettings, RateLimit, TenureError, Unavailable
from tenure.testing.process import elapse
from tests.simulation.load import QUEUES, TENANTS, Visit, script

#: What jobs of a run are mostly called.
_JOB_NAMES = ("act", "act", "tick")


async def _try(change: Coroutine[Any, Any, object]) -> None:
    """Changes something, if the cluster can hear it."""
    try:
        await change
    except Unavailable:
        pass


async def _set_queue(visit: Visit, **changes: Any) -> None:
    """Changes how some queue is run."""
    tenant, queue = visit.rng.choice(TENANTS), visit.rng.choice(QUEUES)
    visit.load.changed.queues[tenant, queue] = None
    await _try(visit.client.queues.set(queue, tenant=tenant, **changes))


async def _set_job_type(visit: Visit, tenant: str, name: str, **changes: Any) -> None:
    """Changes how the jobs of some name are run."""
    visit.load.changed.job_types[tenant, name] = None
    await _try(visit.client.job_types.set(name, tenant=tenant, **changes))


def _rate(visit: Visit) -> RateLimit | None:
    rng = visit.rng
    if rng.random() < 0.3:
        return None
    burst = rng.choice((None, 1, 5))
    return RateLimit(count=rng.choice((1, 3, 20)), per=timedelta(seconds=1), burst=burst)


@script(8, "limits")
async def limit_queues(visit: Visit) -> None:
    """Queues get limits, and others, and none, while their jobs run."""
    rng = visit.rng
    with visit.load.changed.at_work():
        for _ in range(rng.randint(1, 4)):
            match rng.randrange(4):
                case 0:
                    await _set_queue(visit, concurrency=rng.choice((0, 1, 2, 4)))
                case 1:
                    strategy = rng.choice(("queue", "queue", "cancel_in_progress", "cancel_newest"))
                    most = rng.choice((0, 1, 1, 2))
                    await _set_queue(visit, key_concurrency=most, key_strategy=strategy)
                case 2:
                    await _set_queue(visit, rate=_rate(visit))
                case _:
                    await _set_queue(visit, key_rate=_rate(visit))
            await elapse(rng.uniform(0, 6))


@script(6, "weights")
async def weigh(visit: Visit) -> None:
    """Shares of queues and tenants, what they are counted in, reserved slots, depths."""
    rng = visit.rng
    with visit.load.changed.at_work():
        for _ in range(rng.randint(1, 3)):
            match rng.randrange(5):
                case 0:
                    fair_by = rng.choice(("grants", "time"))
                    await _set_queue(visit, weight=rng.choice((0.1, 1.0, 7.5)), fair_by=fair_by)
                case 1:
                    tenant = rng.choice(TENANTS)
                    visit.load.changed.tenants[tenant] = None
                    weight = rng.choice((0.5, 1.0, 4.0))
                    await _try(visit.client.tenants.set(tenant, weight=weight))
                case 2:
                    priority = rng.choice((0, 5, 10))
                    reserved = rng.choice((0.0, 0.25, 0.5))
                    await _set_queue(visit, reserved=reserved, reserved_priority=priority)
                case 3:
                    await _set_queue(visit, depth_max=rng.choice((0, 1, 5)))
                case _:
                    await _set_queue(visit, refuse_late=rng.random() < 0.7)
            await elapse(rng.uniform(0, 6))


@script(9, "pauses")
async def pause(visit: Visit) -> None:
    """A queue, a tenant or a job type stands still for a while, and jobs come all the same."""
    rng, client, changed = visit.rng, visit.client, visit.load.changed
    options, name = visit.options(), rng.choice(_JOB_NAMES)
    tenant, queue = options["tenant"], options["queue"]
    kind = rng.choice(("queue", "queue", "tenant", "job type"))

    async def turn(paused: bool) -> None:
        match kind:
            case "queue":
                changed.queues[tenant, queue] = None
                one = client.queues.pause if paused else client.queues.resume
                await _try(one(queue, tenant=tenant))
            case "tenant":
                changed.tenants[tenant] = None
                whole = client.tenants.pause if paused else client.tenants.resume
                await _try(whole(tenant))
            case _:
                changed.job_types[tenant, name] = None
                some = client.job_types.pause if paused else client.job_types.resume
                await _try(some(name, tenant=tenant))

    async def stand_still() -> None:
        with changed.at_work():
            await turn(True)
            await elapse(rng.uniform(1, 20))
            await turn(False)

    calls = [(visit.text(), visit.hold_s() / 4, "", 0) for _ in range(rng.randint(1, 3))]
    handles = await visit.desk.submit_many(visit.works.act.options(**options), calls)
    await visit.see_all(handles, stand_still())


@script(6, "trouble")
async def mind_failures(visit: Visit) -> None:
    """Breakers, taken by hand at times, retry budgets and longer backoffs, for what fails often."""
    rng, tenant, name = visit.rng, visit.rng.choice(TENANTS), "act"
    with visit.load.changed.at_work():
        breaker = _breaker(visit)
        await _set_job_type(visit, tenant, name, breaker=breaker)
        await elapse(rng.uniform(0, 6))
        match rng.randrange(4):
            case 0:
                await _set_job_type(visit, tenant, name, breaker_override="open")
                await elapse(rng.uniform(0, 5))
                override = rng.choice(("none", "closed"))
                await _set_job_type(visit, tenant, name, breaker_override=override)
            case 1:
                await _set_job_type(visit, tenant, name, retry_budget=rng.choice((0.1, 0.5)))
            case 2:
                await _set_job_type(visit, tenant, name, adaptive_retry=True)
            case _:
                await _set_job_type(visit, tenant, name, breaker=None)


def _breaker(visit: Visit) -> BreakerSettings:
    rng = visit.rng
    return BreakerSettings(
        failure_rate=rng.choice((0.2, 0.5, 1.0)),
        window=timedelta(seconds=rng.choice((5, 30))),
        volume_min=rng.choice((1, 3)),
        open_for=timedelta(seconds=rng.choice((1, 8))),
        probes=rng.choice((1, 2)),
    )


@script(5, "trouble")
async def mind_failures_of_keys(visit: Visit) -> None:
    """Breakers of limit keys, taken by hand at times, and jobs of such keys that fail much."""
    rng, changed = visit.rng, visit.load.changed
    options = {**visit.options(), "limit_key": rng.choice(("red", "green"))}
    tenant, queue = options["tenant"], options["queue"]

    async def turn(**changes: Any) -> None:
        changed.queues[tenant, queue] = None
        await _try(visit.client.queues.set(queue, tenant=tenant, **changes))

    async def tune() -> None:
        with changed.at_work():
            await elapse(rng.uniform(0, 8))
            if rng.random() < 0.5:
                await turn(key_breaker_overrides={"red": rng.choice(("open", "closed"))})
                await elapse(rng.uniform(0, 5))
                await turn(key_breaker_overrides=rng.choice((None, {"red": "none"})))
            elif rng.random() < 0.5:
                await turn(key_breaker=None)

    with changed.at_work():
        await turn(key_breaker=_breaker(visit))
    calls = [(visit.text(), rng.uniform(0, 1), "fail", rng.choice((0, 1, 2, 9))) for _ in range(4)]
    handles = await visit.desk.submit_many(visit.works.act.options(**options), calls)
    await visit.see_all(handles, tune())


@script(5, "trouble")
async def fail_much(visit: Visit) -> None:
    """Many jobs at once, of which most fail a few times."""
    rng = visit.rng
    job = visit.works.act.options(**visit.options())
    calls = [(visit.text(), rng.uniform(0, 1), "fail", rng.choice((0, 1, 2, 9))) for _ in range(5)]
    await visit.see_all(await visit.desk.submit_many(job, calls))


@script(6, "boosts")
async def boost(visit: Visit) -> None:
    """Jobs that wait get other places: earlier, later, at once."""
    rng, client = visit.rng, visit.client
    job = visit.works.act.options(**visit.options(), delay=timedelta(seconds=rng.uniform(0, 10)))
    calls = [(visit.text(), visit.hold_s() / 4, "", 0) for _ in range(rng.randint(1, 4))]
    handles = await visit.desk.submit_many(job, calls)

    async def change() -> None:
        for _ in range(rng.randint(1, 3)):
            await elapse(rng.uniform(0, 4))
            priority = rng.choice((None, rng.randint(0, 10)))
            delay = None if priority is not None else timedelta(seconds=rng.choice((0, 0, 5)))
            await _try(client.boost([each.id for each in handles], priority=priority, delay=delay))

    await visit.see_all(handles, change())


@script(6, "limits")
async def fill_key(visit: Visit) -> None:
    """Many jobs of one limit key, at once and one after the other, in a queue with a limit."""
    rng, changed = visit.rng, visit.load.changed
    options = {**visit.options(), "limit_key": rng.choice(("red", "green"))}
    tenant, queue = options["tenant"], options["queue"]
    if rng.random() < 0.7:
        with changed.at_work():
            changed.queues[tenant, queue] = None
            most = rng.choice((1, 1, 2))
            await _try(visit.client.queues.set(queue, tenant=tenant, key_concurrency=most))
    handles = []
    for _ in range(rng.randint(1, 3)):
        calls = [(visit.text(), visit.hold_s(), "", 0) for _ in range(rng.randint(1, 3))]
        handles += await visit.desk.submit_many(visit.works.act.options(**options), calls)
        await elapse(rng.uniform(0, 2))
    await visit.see_all(handles)


@script(2, "labels")
async def ask_for_much(visit: Visit) -> None:
    """A job for workers that may be gone, or that there never were: it is given up in the end."""
    requires = visit.rng.choice(({"disk": "ssd"}, {"zone": "us"}, {"zone": "moon"}, {"disk": "*"}))
    handle = await visit.submit(visit.hold_s() / 4, requires=requires)
    await visit.see(handle, visit.give_up(handle, visit.rng.uniform(5, 25)))


@script(2)
async def survey_settings(visit: Visit) -> None:
    """What an operator sees of queues, tenants, job types, and of what goes by itself."""
    client = visit.client
    for _ in range(2):
        await elapse(visit.rng.uniform(0, 8))
        try:
            for queue in await client.queues.list(tenant=visit.rng.choice(("", "acme"))):
                await client.queues.get(queue.name, tenant=queue.tenant)
            for tenant in await client.tenants.list():
                await client.tenants.get(tenant.name)
            for job_type in await client.job_types.list():
                await client.job_types.get(job_type.name, tenant=job_type.tenant)
            await client.batches.list()
            async for _workflow, _counts in client.workflows.list():
                continue
        except TenureError:
            # What was there a moment ago may be gone, and so may its leader.
            continue
