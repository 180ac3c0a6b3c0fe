"""Queues, tenants and job types through the SDK, in a cluster of several partitions."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tenure.client import (
    AsyncClient,
    BatchKind,
    BreakerSettings,
    BreakerState,
    JobState,
    JobTypeSettings,
    KeyBreaker,
    QueueSettings,
    RateLimit,
    Reason,
    Rejected,
    TenantSettings,
    job,
)
from tenure.client.settings import OverrideName
from tenure.testing.cluster import simulated_cluster
from tenure.testing.process import run_processes

PARTITIONS = 3


@job(name="app.add", queue="sums")
def add(left: int) -> int:
    """Adds nothing."""
    return left


def play(work: Callable[[AsyncClient], Awaitable[None]], *, workers: int = 0) -> None:
    """Runs a piece of work with a client of a cluster."""

    async def main() -> None:
        async with simulated_cluster(
            seed=5, jobs=[add], masters=2, workers=workers, partitions=PARTITIONS
        ) as cluster:
            await work(cluster.client())

    run_processes(main, limit_s=600)


def test_queues_are_set_up() -> None:
    """What is named changes and the rest stays; a list shows queues of all partitions."""

    async def work(client: AsyncClient) -> None:
        rate = RateLimit(count=10, per=timedelta(seconds=1), burst=20)
        queue = await client.queues.set("sums", weight=2.5, rate=rate, key_strategy="cancel_newest")
        expected = QueueSettings(weight=2.5, rate=rate, key_strategy="cancel_newest")
        assert queue.settings == expected
        assert (await client.queues.pause("sums")).settings.paused
        queue = await client.queues.set("sums", rate=None, fair_by="time", paused=False)
        expected = QueueSettings(weight=2.5, key_strategy="cancel_newest", fair_by="time")
        assert queue.settings == expected
        assert await client.queues.get("sums") == queue
        breaker = BreakerSettings(failure_rate=0.3, open_for=timedelta(seconds=5))
        overrides: dict[str, OverrideName] = {"acme": "open", "globex": "closed"}
        queue = await client.queues.set(
            "hooks", tenant="zeta", key_breaker=breaker, key_breaker_overrides=overrides
        )
        expected = QueueSettings(key_breaker=breaker, key_breaker_overrides=overrides)
        assert queue.settings == expected
        await client.submit(add.options(queue="hooks", tenant="zeta", limit_key="acme"), 1)
        (shown,) = (await client.queues.get("hooks", tenant="zeta")).key_breakers
        assert shown == KeyBreaker(limit_key="acme", state=BreakerState.OPEN)
        for number in range(6):
            await client.queues.set(f"q{number}", tenant="acme", concurrency=number)
        handle = await client.submit(add.options(queue="by-job"), 1)
        queues = await client.queues.list()
        names = [("acme", f"q{number}") for number in range(6)]
        assert [(q.tenant, q.name) for q in queues] == [
            *names,
            ("default", "by-job"),
            ("default", "sums"),
            ("zeta", "hooks"),
        ]
        assert {q.partition for q in queues} == set(range(PARTITIONS))
        by_job = await client.queues.get("by-job")
        assert by_job.counts == {await handle.status(): 1}
        assert by_job.settings == QueueSettings()
        assert len(await client.queues.list(tenant="acme")) == 6
        with pytest.raises(Rejected) as refused:
            await client.queues.get("nowhere")
        assert refused.value.reason is Reason.NOT_FOUND

    play(work)


def test_operators_do_not_lose_each_others_overrides() -> None:
    """Who overrides breakers of some limit keys, with others at the same time, changes only those.

    Of those, none lets go of one, and None of all.
    """

    async def work(client: AsyncClient) -> None:
        async def override(overrides: dict[str, OverrideName] | None) -> QueueSettings:
            queue = await client.queues.set("hooks", key_breaker_overrides=overrides)
            return queue.settings

        await asyncio.gather(override({"acme": "open"}), override({"globex": "closed"}))
        both = await override({"initech": "open"})
        assert both.key_breaker_overrides == {
            "acme": "open",
            "globex": "closed",
            "initech": "open",
        }
        left = await override({"initech": "none", "acme": "none"})
        assert left.key_breaker_overrides == {"globex": "closed"}
        with pytest.raises(Rejected, match="key_breaker_overrides"):
            await override({})
        assert not (await override(None)).key_breaker_overrides

    play(work)


def test_tenants_and_job_types_are_set_up_everywhere() -> None:
    """Every partition has the settings; counts are of all partitions together."""

    async def work(client: AsyncClient) -> None:
        tenant = await client.tenants.set("acme", weight=3.0)
        assert (tenant.settings, tenant.everywhere) == (TenantSettings(weight=3.0), True)
        for number in range(9):
            await client.submit(add.options(queue=f"q{number}", tenant="acme"), 1)
        (acme,) = await client.tenants.list()
        assert acme == await client.tenants.get("acme")
        assert sum(acme.counts.values()) == 9
        assert acme.everywhere
        assert (await client.tenants.pause("acme")).settings == TenantSettings(
            weight=3.0, paused=True
        )
        assert not (await client.tenants.resume("acme")).settings.paused
        breaker = BreakerSettings(failure_rate=0.1, window=timedelta(minutes=5))
        job_type = await client.job_types.set("app.add", tenant="acme", breaker=breaker)
        assert job_type.settings == JobTypeSettings(breaker=breaker)
        assert (await client.job_types.pause("app.add", tenant="acme")).settings.paused
        found = await client.job_types.get("app.add", tenant="acme")
        assert found.settings == JobTypeSettings(breaker=breaker, paused=True)
        assert sum(found.counts.values()) == 9
        assert found.everywhere
        assert not (await client.job_types.resume("app.add", tenant="acme")).settings.paused
        assert await client.job_types.list(tenant="other") == []

    play(work)


def test_a_queue_is_purged() -> None:
    """What waits is cancelled and what has ended is forgotten; other queues are left alone."""

    async def work(client: AsyncClient) -> None:
        done = await client.submit(add, 1)
        assert await done.result(60) == 1
        later = add.options(delay=timedelta(hours=1))
        await client.map(later, range(20))
        kept = await client.submit(later.options(queue="other"), 1)
        assert await client.queues.purge("sums") == 21
        assert await client.count(queue="sums") == {}
        batches = [(batch.kind, batch.changed) for batch in await client.batches.list()]
        assert batches == [(BatchKind.PURGE, 21), (BatchKind.CANCEL, 20)]
        assert await kept.status() is JobState.SCHEDULED

    play(work, workers=1)


def test_jobs_that_wait_are_boosted() -> None:
    """A job that is due in an hour is due at once, and its handle says so."""

    async def work(client: AsyncClient) -> None:
        later = await client.submit(add.options(delay=timedelta(hours=1)), 1)
        assert await later.boost(priority=0) is JobState.SCHEDULED
        assert (await client.describe(later.id)).options.priority == 0
        assert await later.boost(delay=timedelta(0)) is JobState.PENDING
        assert await later.result(60) == 1
        with pytest.raises(Rejected) as refused:
            await later.boost(priority=1)
        assert refused.value.reason is Reason.WRONG_STATE
        with pytest.raises(Rejected) as refused:
            await later.boost()
        assert refused.value.field == "priority"

    play(work, workers=1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, "changes"),
        ({"weight": 0}, "settings.weight"),
        ({"weight": "2"}, "weight"),
        ({"wieght": 2}, "wieght"),
        ({"paused": 1}, "paused"),
        ({"concurrency": -1}, "concurrency"),
        ({"fair_by": "turns"}, "fair_by"),
        ({"rate": 10}, "rate"),
        ({"reserved": 1.0}, "settings.reserved"),
        ({"reserved_priority": 11}, "settings.reserved_priority"),
    ],
)
def test_wrong_changes_are_refused_by_name(changes: dict[str, object], field: str) -> None:
    """By the SDK where it can tell, by the master where only the whole can be judged."""

    async def work(client: AsyncClient) -> None:
        with pytest.raises(Rejected) as refused:
            await client.queues.set("sums", **changes)  # type: ignore[arg-type]
        assert (refused.value.reason, refused.value.field) == (Reason.INVALID_ARGUMENT, field)

    play(work)


@pytest.mark.parametrize(
    ("limit", "field"),
    [
        ({"count": 0}, "rate.count"),
        ({"count": 1, "per": timedelta(0)}, "rate.per"),
        ({"count": 1, "per": 1}, "rate.per"),
        ({"count": 1, "burst": 0}, "rate.burst"),
    ],
)
def test_wrong_rates_are_refused_where_they_are_made(limit: dict[str, object], field: str) -> None:
    """A rate of 0 would never let a job begin."""
    with pytest.raises(Rejected) as refused:
        RateLimit(**limit)  # type: ignore[arg-type]
    assert refused.value.field == field
