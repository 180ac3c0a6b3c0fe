"""What workers say is brought within bounds before anything is decided on it."""

import math

import pytest

from tenure.master.core.record import JobRecord, Policy
from tenure.master.node.hub import WorkerHub
from tenure.master.node.link import WorkerLink
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.v1 import worker_pb2
from tests.unit.master.node.term_rig import TermRig, leading


def beat(number: int, grant: worker_pb2.Grant, progress: float) -> worker_pb2.Heartbeat:
    """A heartbeat that lists one running job."""
    said = worker_pb2.Heartbeat(number=number, last_assignment=1)
    held = said.held.leases.add(started=True, running_ms=1_000 * number, progress=progress)
    held.lease.job_id, held.lease.seq, held.lease.run = grant.job_id, grant.seq, grant.run
    return said


async def begin(rig: TermRig, policy: Policy) -> worker_pb2.Grant:
    """One job granted to the worker's stream that is opened for it."""
    rig.submit(policy)
    await rig.commit()
    link = rig.connect()
    await rig.commit()
    (grant,) = [grant for part in rig.heard(link) for grant in part.assignment.grants]
    return grant


def test_progress_that_is_no_number_is_no_progress() -> None:
    """NaN differs from itself: told again and again it would hide that the job hangs."""

    async def main() -> None:
        async with leading() as rig:
            grant = await begin(rig, Policy(name="job", heartbeat_timeout_ms=10_000))
            (link,) = rig.hub.links()
            for number in range(1, 20):
                rig.say(link, heartbeat=beat(number, grant, math.nan))
                await SimClock().sleep(1_000)
                await rig.commit()
            record = rig.partition.get(grant.job_id)
            assert isinstance(record, JobRecord)
            assert [row.outcome for row in record.history] == [AttemptOutcome.TIMED_OUT]

    run_virtual(main)


@pytest.mark.parametrize(
    ("told", "kept"), [(50.5, 50.5), (-1.0, 0.0), (math.inf, 100.0), (-math.inf, 0.0), (1e9, 100.0)]
)
def test_progress_is_a_percentage(told: float, kept: float) -> None:
    """What is out of range becomes the nearest that is not."""

    async def main() -> None:
        async with leading() as rig:
            grant = await begin(rig, Policy(name="job"))
            (link,) = rig.hub.links()
            rig.say(link, heartbeat=beat(1, grant, told))
            await rig.commit()
            holding = rig.partition.holding_of(grant.job_id)
            assert holding is not None
            assert holding.progress == kept

    run_virtual(main)


def test_what_a_job_takes_is_what_all_its_workers_say() -> None:
    """Nothing of a job that nobody runs, that one is silent about, or that two tell differently,
    as two releases do in a rolling upgrade.
    """
    hub = WorkerHub()

    def connect(name: str, schema: str | None, *jobs: str) -> WorkerLink:
        said = {} if schema is None else dict.fromkeys(jobs, schema)
        hello = worker_pb2.Hello(incarnation=name, job_names=jobs, argument_schemas=said)
        return hub.connect(hello)

    assert hub.argument_schema("order") == ""
    first = connect("w1", "old", "order", "pay")
    second = connect("w2", "old", "order")
    connect("w3", "of another job", "ship")
    assert hub.argument_schema("order") == "old"
    newer = connect("w4", "new", "order")
    assert (hub.argument_schema("order"), hub.argument_schema("pay")) == ("", "old")
    hub.disconnect(first)
    hub.disconnect(second)
    assert (hub.argument_schema("order"), hub.argument_schema("pay")) == ("new", "")
    connect("w5", None, "order")
    assert hub.argument_schema("order") == ""
    hub.disconnect(newer)
