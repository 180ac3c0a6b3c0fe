"""The workers' service: who is found by which name, what is shown, and when a drain is answered."""

import asyncio

import pytest

from tenure.master.node.link import WorkerLink
from tenure.master.node.workers import FleetApi
from tenure.protocol.errors import Rejected, Unavailable
from tenure.protocol.limits import PROTOCOL_REVISION
from tenure.protocol.refusal import Reason
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.v1 import worker_pb2, workers_pb2
from tests.unit.master.node.fakes import settle
from tests.unit.master.node.term_rig import TermRig, granted, leading, outcome


def fleet_of(rig: TermRig) -> FleetApi:
    """The service of the rig's master."""
    return FleetApi(roster=rig.roster, hub=rig.hub, clock=SimClock())


def hello(incarnation: str, name: str) -> worker_pb2.Hello:
    """Of a worker that runs the rig's jobs."""
    return worker_pb2.Hello(
        incarnation=incarnation,
        name=name,
        job_names=["job"],
        slots=4,
        labels={"zone": "eu"},
        build_id="v1",
        protocol=PROTOCOL_REVISION,
    )


def tell(rig: TermRig, link: WorkerLink, **vitals: object) -> None:
    """A worker says how it does."""
    request = worker_pb2.SessionRequest(vitals=worker_pb2.Vitals(**vitals))  # type: ignore[arg-type]
    rig.workers._take(link, request)


async def listed(fleet: FleetApi, **request: object) -> list[str]:
    """The incarnations on a page."""
    wire = workers_pb2.ListWorkersRequest(**request)  # type: ignore[arg-type]
    return [worker.incarnation for worker in (await fleet.list_workers(wire)).workers]


async def state_of(fleet: FleetApi, worker: str) -> str:
    """A worker's state, by its name."""
    found = await fleet.get_worker(workers_pb2.GetWorkerRequest(worker=worker))
    return workers_pb2.WorkerState.Name(found.worker.state).removeprefix("WORKER_STATE_")


async def refusal_of(call: object) -> Rejected:
    """What a call is refused with."""
    error = await outcome(call)
    assert isinstance(error, Rejected)
    return error


def test_a_list_has_each_worker_once_in_pages() -> None:
    """In order of name and incarnation, whatever is in a name, and newer streams for older ones."""

    async def main() -> None:
        async with leading() as rig:
            fleet = fleet_of(rig)
            names = {"c": "a:b%", "a": "w1", "b": "w1", "d": "w2"}
            for incarnation, name in [*names.items(), ("a", "w1")]:
                rig.hub.connect(hello(incarnation, name))
            await rig.commit()
            seen, token = [], ""
            while True:
                page = await fleet.list_workers(
                    workers_pb2.ListWorkersRequest(page_size=1, page_token=token)
                )
                seen += [worker.incarnation for worker in page.workers]
                token = page.next_page_token
                if not token:
                    break
            assert seen == ["c", "a", "b", "d"]
            assert await listed(fleet) == seen
            with pytest.raises(Rejected, match="page_token"):
                await listed(fleet, page_token="nonsense")

    run_virtual(main)


def test_a_worker_is_shown_with_what_it_holds() -> None:
    """Leases of the partition, what it told of itself, and for how long it is connected."""

    async def main() -> None:
        async with leading() as rig:
            fleet = fleet_of(rig)
            (job_id,) = rig.submit()
            await rig.commit()
            link = rig.connect()
            tell(rig, link, rss_bytes=5_000_000, slots_used=1)
            await rig.commit()
            assert granted(rig.heard(link)) == [job_id]
            worker = (await fleet.get_worker(workers_pb2.GetWorkerRequest(worker="w"))).worker
            assert (worker.leases, worker.slots, worker.job_name_count) == (1, 10, 1)
            assert list(worker.job_names) == ["job"]
            assert [row.job_id for row in worker.running] == [job_id]
            assert worker.vitals.rss_bytes == 5_000_000
            assert not worker.running[0].HasField("started_at")
            (row,) = (await fleet.list_workers(workers_pb2.ListWorkersRequest())).workers
            assert (row.leases, list(row.job_names), list(row.running)) == (1, [], [])

    run_virtual(main)


def test_a_worker_has_one_name_or_is_named_by_its_incarnation() -> None:
    """Two of a name are told apart; a name that nobody has is answered with one like it."""

    async def main() -> None:
        async with leading() as rig:
            fleet = fleet_of(rig)
            for incarnation, name in (("i1", "mail-1"), ("i2", "mail-2"), ("i3", "mail-2")):
                rig.hub.connect(hello(incarnation, name))
            await rig.commit()
            assert await state_of(fleet, "mail-1") == "ACTIVE"
            assert await state_of(fleet, "i3") == "ACTIVE"
            two = await refusal_of(state_of(fleet, "mail-2"))
            assert two.reason is Reason.WORKER_AMBIGUOUS
            assert two.metadata["incarnations"] == "i2, i3"
            nobody = await refusal_of(state_of(fleet, "mial-1"))
            assert nobody.reason is Reason.NOT_FOUND
            assert "did you mean mail-1" in nobody.message

    run_virtual(main)


def test_a_drain_is_answered_when_the_worker_has_said_so() -> None:
    """It is told over its stream; nothing is granted from its word on, until it takes that back."""

    async def main() -> None:
        async with leading() as rig:
            fleet = fleet_of(rig)
            link = rig.connect()
            tell(rig, link)
            await rig.commit()
            request = workers_pb2.DrainWorkerRequest(worker="w")
            async with asyncio.TaskGroup() as group:
                call = group.create_task(fleet.drain_worker(request))
                await settle()
                assert link._envelopes[-1].HasField("drain")
                tell(rig, link, slots_used=1)
                await settle()
                assert not call.done()
                tell(rig, link, drained=True, slots_used=1)
            rig.submit()
            await rig.commit()
            assert granted(rig.heard(link)) == []
            assert await state_of(fleet, "w") == "DRAINING"
            tell(rig, link, drained=True)
            assert await state_of(fleet, "w") == "DRAINED"
            async with asyncio.TaskGroup() as group:
                again = workers_pb2.UndrainWorkerRequest(worker="w")
                group.create_task(fleet.undrain_worker(again))
                await settle()
                assert link._envelopes[-1].HasField("undrain")
                tell(rig, link)
            await rig.commit()
            assert len(granted(rig.heard(link))) == 1
            assert await state_of(fleet, "w") == "ACTIVE"

    run_virtual(main)


def test_a_term_that_begins_later_knows_who_is_drained() -> None:
    """The worker's word is its stream's, so it needs not be said again."""

    async def main() -> None:
        async with leading() as rig:
            link = rig.connect()
            tell(rig, link, drained=True)
            rig.hub.open_partition(rig.term)
            rig.say(link, declare=worker_pb2.LeaseSet())
            rig.submit()
            await rig.commit()
            assert granted(rig.heard(link)) == []

    run_virtual(main)


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_worker_that_does_not_answer_is_told_of(is_gone: bool) -> None:
    """In two seconds if it is silent, at once if its stream ends; the call may be made again."""

    async def main() -> None:
        async with leading() as rig:
            fleet = fleet_of(rig)
            link = rig.connect()
            tell(rig, link)
            async with asyncio.TaskGroup() as group:
                request = workers_pb2.DrainWorkerRequest(worker="w")
                call = group.create_task(outcome(fleet.drain_worker(request)))
                await settle()
                if is_gone:
                    rig.hub.disconnect(link)
                    await settle()
                    assert call.done()
            error = call.result()
            assert isinstance(error, Unavailable)
            assert error.reason is Reason.DEADLINE_EXCEEDED

    run_virtual(main)


def test_a_worker_that_tells_nothing_of_itself_cannot_be_drained() -> None:
    """Its release does not know how; it is refused at once, with what to do."""

    async def main() -> None:
        async with leading() as rig:
            rig.connect()
            request = workers_pb2.DrainWorkerRequest(worker="w")
            error = await refusal_of(fleet_of(rig).drain_worker(request))
            assert error.reason is Reason.WRONG_STATE
            assert "SIGTERM" in error.message

    run_virtual(main)


def test_a_quarantine_is_answered_when_the_worker_has_said_so() -> None:
    """As a drain; the leader grants it nothing until it is released."""

    async def main() -> None:
        async with leading() as rig:
            fleet = fleet_of(rig)
            link = rig.connect()
            tell(rig, link)
            await rig.commit()
            async with asyncio.TaskGroup() as group:
                wish = workers_pb2.QuarantineWorkerRequest(worker="w", reason="its disk")
                group.create_task(fleet.quarantine_worker(wish))
                await settle()
                said = link._envelopes[-1].quarantine
                assert (said.reason, said.by_hand) == ("its disk", True)
                tell(rig, link, quarantine=said)
            rig.submit()
            await rig.commit()
            assert granted(rig.heard(link)) == []
            assert await state_of(fleet, "w") == "QUARANTINED"
            rig.hub.open_partition(rig.term)
            rig.say(link, declare=worker_pb2.LeaseSet())
            await rig.commit()
            assert granted(rig.heard(link)) == []
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    fleet.release_worker(workers_pb2.ReleaseWorkerRequest(worker="w"))
                )
                await settle()
                assert link._envelopes[-1].quarantine.lifted
                tell(rig, link)
            rig.submit()
            await rig.commit()
            assert granted(rig.heard(link))
            assert await state_of(fleet, "w") == "ACTIVE"
            long = workers_pb2.QuarantineWorkerRequest(worker="w", reason="x" * 257)
            assert (await refusal_of(fleet.quarantine_worker(long))).field == "reason"

    run_virtual(main)


def test_a_blocked_loop_is_a_state() -> None:
    """Who blocks it is told; the worker gets work all the same."""

    async def main() -> None:
        async with leading() as rig:
            fleet = fleet_of(rig)
            link = rig.connect()
            blocked = worker_pb2.LoopBlocked(job_id="j", name="job", blocked_ms=4_000)
            tell(rig, link, loop_blocked=blocked)
            rig.submit()
            await rig.commit()
            assert await state_of(fleet, "w") == "BLOCKED"
            assert len(granted(rig.heard(link))) == 1

    run_virtual(main)
