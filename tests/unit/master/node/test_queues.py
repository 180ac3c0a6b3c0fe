"""The services of queues, tenants and job types: what they answer, and what they refuse."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from tenure.master.core.command import SubmitJobs, SubmitRow, SubmitSetting
from tenure.master.core.record import Policy
from tenure.master.election.port import Candidate
from tenure.master.node.queues import SettingsApi
from tenure.master.node.roster import Roster
from tenure.protocol.errors import Rejected, TenureError
from tenure.protocol.refusal import Reason
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.v1 import common_pb2, jobs_pb2, queues_pb2
from tests.unit.master.node.term_rig import TermRig, leading

DEFAULTS = queues_pb2.QueueSettings(
    weight=1,
    fair_by=queues_pb2.FAIR_BY_GRANTS,
    key_strategy=queues_pb2.LIMIT_STRATEGY_QUEUE,
    reserved_priority=10,
)
RATE = queues_pb2.RateLimit(count=10)
BREAKER = queues_pb2.BreakerSettings()
MAX_NAME = "n" * 129


def with_api(test: Callable[[TermRig, SettingsApi], Awaitable[None]]) -> None:
    """Runs a test against a leader; whatever is applied commits soon."""

    async def main() -> None:
        async with leading() as rig, asyncio.TaskGroup() as tasks:
            committing = tasks.create_task(commit_always(rig))
            await test(rig, SettingsApi(roster=rig.roster))
            committing.cancel()

    run_virtual(main)


async def commit_always(rig: TermRig) -> None:
    """Commits again and again."""
    while True:
        await rig.commit()


def refusal_of(call: str, request: Message) -> TenureError:
    """What a master that leads nothing says: NOT_LEADER if it finds nothing wrong."""
    me = Candidate(incarnation="1", name="m", address="127.0.0.1:1")
    api = SettingsApi(roster=Roster(cluster_id="c", partitions=1, me=me, clock=SimClock()))
    with pytest.raises(TenureError) as refused:
        asyncio.run(getattr(api, call)(request))
    return refused.value


def test_a_queue_is_set_up() -> None:
    """What the mask names is set, the rest stays; defaults are written out."""

    async def test(rig: TermRig, api: SettingsApi) -> None:
        settings = queues_pb2.QueueSettings(weight=3, rate=RATE, concurrency=7)
        request = queues_pb2.UpdateQueueRequest(name="mail", settings=settings)
        request.update_mask.paths.extend(["weight", "rate"])
        queue = (await api.update_queue(request)).queue
        expected = queues_pb2.QueueSettings()
        expected.CopyFrom(DEFAULTS)
        expected.weight = 3
        expected.rate.count = expected.rate.burst = 10
        expected.rate.per.FromSeconds(1)
        assert (queue.tenant, queue.name, queue.settings) == ("default", "mail", expected)
        # A field that the mask names and the settings lack is taken away.
        request = queues_pb2.UpdateQueueRequest(name="mail")
        request.update_mask.paths.append("rate")
        expected.ClearField("rate")
        assert (await api.update_queue(request)).queue.settings == expected
        found = await api.get_queue(queues_pb2.GetQueueRequest(name="mail"))
        assert found.queue.settings == expected
        # Without a mask all is replaced, by defaults where nothing is said.
        request = queues_pb2.UpdateQueueRequest(name="mail")
        assert (await api.update_queue(request)).queue.settings == DEFAULTS

    with_api(test)


def test_what_is_there_is_listed() -> None:
    """By its jobs or by its settings, with counts, in order of the names, page by page."""

    async def test(rig: TermRig, api: SettingsApi) -> None:
        rig.submit(Policy(name="send", queue="mail", tenant="acme"), count=3)
        rig.submit(Policy(name="send", queue="media", tenant="acme"))
        await api.update_queue(queues_pb2.UpdateQueueRequest(tenant="zoo", name="a"))
        request = queues_pb2.ListQueuesRequest(page_size=2)
        first = await api.list_queues(request)
        assert [(q.tenant, q.name) for q in first.queues] == [("acme", "mail"), ("acme", "media")]
        pending = jobs_pb2.StateCount(state=common_pb2.JOB_STATE_PENDING, count=3)
        assert [*first.queues[0].counts] == [pending]
        request.page_token = first.next_page_token
        second = await api.list_queues(request)
        assert [(q.tenant, q.name) for q in second.queues] == [("zoo", "a")]
        assert not second.next_page_token
        request.tenant = "acme"
        with pytest.raises(Rejected, match="page_token"):
            await api.list_queues(request)
        tenants = await api.list_tenants(queues_pb2.ListTenantsRequest())
        assert [t.name for t in tenants.tenants] == ["acme"]
        types = await api.list_job_types(queues_pb2.ListJobTypesRequest(tenant="acme"))
        assert [(t.name, t.counts[0].count) for t in types.job_types] == [("send", 4)]

    with_api(test)


def test_tenants_and_job_types_are_set_up() -> None:
    """Each in its own partition, with the defaults of what is not said."""

    async def test(rig: TermRig, api: SettingsApi) -> None:
        mask = FieldMask(paths=["paused"])
        paused = queues_pb2.TenantSettings(paused=True)
        tenant = (
            await api.update_tenant(
                queues_pb2.UpdateTenantRequest(name="acme", settings=paused, update_mask=mask)
            )
        ).tenant
        assert tenant.settings == queues_pb2.TenantSettings(weight=1, paused=True)
        job_type = (
            await api.update_job_type(
                queues_pb2.UpdateJobTypeRequest(
                    name="send", settings=queues_pb2.JobTypeSettings(breaker=BREAKER)
                )
            )
        ).job_type
        breaker = job_type.settings.breaker
        assert (breaker.failure_rate, breaker.volume_min, breaker.probes) == (0.5, 20, 3)
        assert (breaker.window.seconds, breaker.open_for.seconds) == (60, 30)
        assert job_type.settings.breaker_override == queues_pb2.BREAKER_OVERRIDE_NONE
        assert job_type.breaker_state == queues_pb2.BREAKER_STATE_CLOSED
        held = queues_pb2.JobTypeSettings(breaker_override=queues_pb2.BREAKER_OVERRIDE_OPEN)
        mask = FieldMask(paths=["breaker_override"])
        job_type = (
            await api.update_job_type(
                queues_pb2.UpdateJobTypeRequest(name="send", settings=held, update_mask=mask)
            )
        ).job_type
        assert job_type.settings.breaker.volume_min == 20
        assert job_type.breaker_state == queues_pb2.BREAKER_STATE_OPEN
        assert not job_type.HasField("breaker_open_until")

    with_api(test)


def test_breakers_of_limit_keys() -> None:
    """What is set comes back; those keys are shown whose breakers do not let all through."""

    async def test(rig: TermRig, api: SettingsApi) -> None:
        settings = queues_pb2.QueueSettings(
            key_breaker=BREAKER,
            key_breaker_overrides={
                "acme": queues_pb2.BREAKER_OVERRIDE_OPEN,
                "globex": queues_pb2.BREAKER_OVERRIDE_CLOSED,
                "initech": queues_pb2.BREAKER_OVERRIDE_NONE,
            },
        )
        request = queues_pb2.UpdateQueueRequest(name="hooks", settings=settings)
        queue = (await api.update_queue(request)).queue
        assert queue.settings.key_breaker.volume_min == 20
        assert dict(queue.settings.key_breaker_overrides) == {
            "acme": queues_pb2.BREAKER_OVERRIDE_OPEN,
            "globex": queues_pb2.BREAKER_OVERRIDE_CLOSED,
        }
        setting = SubmitSetting(Policy(name="job", queue="hooks"), 5, 0, 0)
        keys = ("acme", "globex", "initech")
        rows = [SubmitRow(rig.mint(), 0, b"", "", limit_key=key) for key in keys]
        rig.term.post(SubmitJobs(settings=[setting], rows=rows))
        await rig.commit()
        found = (await api.get_queue(queues_pb2.GetQueueRequest(name="hooks"))).queue
        (shown,) = found.key_breakers
        assert (shown.limit_key, shown.state) == ("acme", queues_pb2.BREAKER_STATE_OPEN)
        assert not shown.HasField("open_until")
        mask = FieldMask(paths=["key_breaker", "key_breaker_overrides"])
        request = queues_pb2.UpdateQueueRequest(name="hooks", update_mask=mask)
        queue = (await api.update_queue(request)).queue
        assert not queue.settings.HasField("key_breaker")
        assert not queue.key_breakers

    with_api(test)


def test_a_mask_names_one_limit_key() -> None:
    """Whatever characters it has; others stay, and so does one that only the settings name."""

    async def test(rig: TermRig, api: SettingsApi) -> None:
        async def override(key: str, override: int, *others: str) -> dict[str, int]:
            overrides = dict.fromkeys((key, *others), override)
            request = queues_pb2.UpdateQueueRequest(
                name="hooks",
                settings=queues_pb2.QueueSettings(key_breaker_overrides=overrides),  # type: ignore[arg-type]
                update_mask=FieldMask(paths=[f"key_breaker_overrides.{key}"]),
            )
            queue = (await api.update_queue(request)).queue
            return dict(queue.settings.key_breaker_overrides)

        held, let = queues_pb2.BREAKER_OVERRIDE_OPEN, queues_pb2.BREAKER_OVERRIDE_NONE
        strange = "a.b=c, `d`"
        assert await override(strange, held, "other") == {strange: held}
        assert await override("acme", held) == {strange: held, "acme": held}
        assert await override(strange, let) == {"acme": held}

    with_api(test)


def test_unknown_queue_is_not_found() -> None:
    """A queue without jobs and settings is not there: its name may be mistyped."""

    async def test(rig: TermRig, api: SettingsApi) -> None:
        with pytest.raises(Rejected) as refused:
            await api.get_queue(queues_pb2.GetQueueRequest(name="mial"))
        assert refused.value.reason is Reason.NOT_FOUND

    with_api(test)


@pytest.mark.parametrize(
    ("settings", "mask", "field"),
    [
        ({"weight": 0}, ["weight"], "settings.weight"),
        ({"weight": -1}, [], "settings.weight"),
        ({"weight": float("nan")}, [], "settings.weight"),
        ({"rate": queues_pb2.RateLimit()}, [], "settings.rate.count"),
        ({"rate": queues_pb2.RateLimit(burst=5)}, ["rate"], "settings.rate.count"),
        ({"rate": queues_pb2.RateLimit(count=1, per=Duration())}, [], "settings.rate.per"),
        ({"key_rate": queues_pb2.RateLimit()}, ["key_rate"], "settings.key_rate.count"),
        ({"reserved": 1}, ["reserved"], "settings.reserved"),
        (
            {"key_breaker": queues_pb2.BreakerSettings(failure_rate=1.5)},
            ["key_breaker"],
            "settings.key_breaker.failure_rate",
        ),
        (
            {"key_breaker": queues_pb2.BreakerSettings(window=Duration())},
            [],
            "settings.key_breaker.window",
        ),
        ({"key_breaker_overrides": {"": 2}}, [], "settings.key_breaker_overrides['']"),
        ({"key_breaker_overrides": {"acme": 9}}, [], "settings.key_breaker_overrides['acme']"),
        (
            {"key_breaker_overrides": {f"key-{n}": 2 for n in range(101)}},
            ["key_breaker_overrides"],
            "settings.key_breaker_overrides",
        ),
        ({"reserved_priority": 11}, [], "settings.reserved_priority"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], mask: list[str], field: str) -> None:
    """With the path of the field, by the leader, and nothing is set."""

    async def test(rig: TermRig, api: SettingsApi) -> None:
        request = queues_pb2.UpdateQueueRequest(
            name="mail",
            settings=queues_pb2.QueueSettings(**settings),
            update_mask=FieldMask(paths=mask),
        )
        with pytest.raises(Rejected) as refused:
            await api.update_queue(request)
        assert (refused.value.reason, refused.value.field) == (Reason.INVALID_ARGUMENT, field)
        assert not len(rig.partition.settings)

    with_api(test)


@pytest.mark.parametrize(
    ("call", "request_", "field"),
    [
        (
            "update_queue",
            queues_pb2.UpdateQueueRequest(name="q", update_mask=FieldMask(paths=["paused", "x"])),
            "update_mask.paths[1]",
        ),
        (
            "update_queue",
            queues_pb2.UpdateQueueRequest(name="q", update_mask=FieldMask(paths=["rate.count"])),
            "update_mask.paths[0]",
        ),
        (
            "update_queue",
            queues_pb2.UpdateQueueRequest(
                name="q", update_mask=FieldMask(paths=["key_breaker_overrides."])
            ),
            "update_mask.paths[0]",
        ),
        (
            "update_tenant",
            queues_pb2.UpdateTenantRequest(
                name="t", update_mask=FieldMask(paths=["key_breaker_overrides.a"])
            ),
            "update_mask.paths[0]",
        ),
        ("update_queue", queues_pb2.UpdateQueueRequest(name=MAX_NAME), "name"),
        ("update_queue", queues_pb2.UpdateQueueRequest(), "name"),
        ("update_queue", queues_pb2.UpdateQueueRequest(name="q", tenant="a b"), "tenant"),
        (
            "update_queue",
            queues_pb2.UpdateQueueRequest(
                name="q",
                settings=queues_pb2.QueueSettings(fair_by=9),  # type: ignore[arg-type]
            ),
            "settings.fair_by",
        ),
        (
            "update_queue",
            queues_pb2.UpdateQueueRequest(
                name="q",
                settings=queues_pb2.QueueSettings(
                    rate=queues_pb2.RateLimit(count=1, per=Duration(seconds=-1))
                ),
            ),
            "settings.rate.per",
        ),
        ("get_queue", queues_pb2.GetQueueRequest(name=MAX_NAME), "name"),
        ("list_queues", queues_pb2.ListQueuesRequest(page_size=-1), "page_size"),
        ("list_queues", queues_pb2.ListQueuesRequest(page_token="x"), "page_token"),
        ("list_job_types", queues_pb2.ListJobTypesRequest(tenant="a b"), "tenant"),
        ("update_tenant", queues_pb2.UpdateTenantRequest(name=""), "name"),
        (
            "update_tenant",
            queues_pb2.UpdateTenantRequest(name="t", update_mask=FieldMask(paths=["rate"])),
            "update_mask.paths[0]",
        ),
        ("update_job_type", queues_pb2.UpdateJobTypeRequest(name=MAX_NAME), "name"),
        (
            "update_job_type",
            queues_pb2.UpdateJobTypeRequest(
                name="t",
                settings=queues_pb2.JobTypeSettings(
                    breaker=queues_pb2.BreakerSettings(window=Duration(seconds=3601))
                ),
            ),
            "settings.breaker.window",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(call: str, request_: Message, field: str) -> None:
    """Any master says so, with the path of the field."""
    refused = refusal_of(call, request_)
    assert (refused.reason, refused.field) == (Reason.INVALID_ARGUMENT, field)  # type: ignore[attr-defined]


def test_only_the_leader_is_asked() -> None:
    """A master that does not lead the partition says who does."""
    request = queues_pb2.UpdateQueueRequest(name="q")
    assert refusal_of("update_queue", request).reason is Reason.NOT_LEADER
