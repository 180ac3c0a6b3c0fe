"""What users get wrong: refused at once, by the SDK, the command line and the master alike.

One cluster serves all tests; at the end everything that it accepted has completed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tenure.client import Client, Reason, Rejected, TenureError, named
from tenure.client.channel import GrpcTransport
from tenure.protocol.ids import mint
from tenure.v1 import common_pb2, jobs_pb2
from tests.chaos.cluster import Cluster
from tests.integration.app import double, size
from tests.integration.commands import Outcome, run

NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - it is what the test is about
TOO_MUCH = "x" * (256 * 1024)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One master on SQLite and one worker."""
    directory = tmp_path_factory.mktemp("bad-input")
    with Cluster(directory, f"sqlite://{directory}/store.db") as cluster:
        cluster.start_masters(1)
        worker = cluster.start_worker("worker-1", app="tests.integration.app")
        cluster.wait_said(worker, "registered")
        yield cluster


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    """A client, and proof at the end that the cluster still works and has lost nothing."""
    with Client(cluster.addresses) as client:
        accepted = client.submit(double, 21)
        yield client
        assert accepted.result(timeout=20) == 42


def submit(cluster: Cluster, *arguments: str, stdin: str = "") -> Outcome:
    """``tenure submit`` to this cluster."""
    return run("submit", "--address", cluster.addresses, *arguments, stdin=stdin)


def send(cluster: Cluster, options: common_pb2.JobOptions, payload: bytes) -> TenureError:
    """What the master itself says to one job, asked past the SDK's own checks."""

    async def ask() -> TenureError:
        from tenure.protocol.errors import error_of, refusal_from_wire
        from tenure.v1 import cluster_pb2

        transport = GrpcTransport()
        try:
            topology = await transport.unary(
                cluster.addresses,
                "/tenure.v1.ClusterService/GetTopology",
                cluster_pb2.GetTopologyRequest(),
                cluster_pb2.GetTopologyResponse,
                5.0,
            )
            job = jobs_pb2.JobSpec(job_id=mint(0, topology.now_ms, 1), payload=payload)
            answer = await transport.unary(
                cluster.addresses,
                "/tenure.v1.JobService/SubmitJobs",
                jobs_pb2.SubmitJobsRequest(options=[options], jobs=[job]),
                jobs_pb2.SubmitJobsResponse,
                5.0,
            )
        except TenureError as error:
            return error
        finally:
            await transport.close()
        if not answer.errors:
            raise AssertionError(f"expected a refusal, but the master accepted {answer}")
        return error_of(refusal_from_wire(answer.errors[0].refusal))

    return asyncio.run(ask())


def test_unknown_job_name_waits_and_says_so(cluster: Cluster, client: Client) -> None:
    """No worker serves the name: the job is kept for one that will; a waiter is told in time."""
    unserved = client.submit(named("app.no_such_job"), 1)

    waited = submit(cluster, "app.no_such_job", "1", "--wait", "--wait-timeout", "0.5")

    assert waited.code == 124
    assert "app.no_such_job" in waited.complaint or "jobs" in waited.complaint
    assert unserved.wait(timeout=0.1) is False
    unserved.cancel("the test is over")


def test_unknown_job_name_cannot_be_called() -> None:
    """A job known by name only has no function here: the error names it."""
    with pytest.raises(Rejected, match=r"app\.no_such_job") as refused:
        named("app.no_such_job")(1)

    assert refused.value.reason is Reason.UNKNOWN_JOB


def test_name_that_is_none(cluster: Cluster, client: Client) -> None:
    """A job's name has an alphabet and a length."""
    with pytest.raises(Rejected) as refused:
        client.submit(named("no such job!"), 1)
    outcome = submit(cluster, "no such job!", "1")
    theirs = send(cluster, common_pb2.JobOptions(name="no such job!"), b"")

    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert outcome.code == 2
    assert "no such job!" in outcome.complaint
    assert theirs.reason is Reason.INVALID_ARGUMENT


def test_naive_datetime(client: Client) -> None:
    """A time without a zone is two times a year nobody's time: it is refused before it is sent."""
    with pytest.raises(Rejected, match="zone") as refused:
        client.submit(double.options(at=NAIVE), 1)

    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert refused.value.field == "at"


def test_oversize_payload(cluster: Cluster, client: Client, tmp_path: Path) -> None:
    """More than the limit is refused at once, by a line that names the limit."""
    arguments = tmp_path / "arguments.json"
    arguments.write_text(f'["{TOO_MUCH}"]')

    with pytest.raises(Rejected, match=str(256 * 1024)) as refused:
        client.submit(size, TOO_MUCH)
    outcome = submit(cluster, "size", "--json", str(arguments))
    theirs = send(cluster, common_pb2.JobOptions(name="size"), TOO_MUCH.encode() + b"x")

    assert refused.value.reason is Reason.PAYLOAD_TOO_LARGE
    assert outcome.code == 2
    assert "PAYLOAD_TOO_LARGE" in outcome.complaint
    assert theirs.reason is Reason.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize("priority", [-1, 11])
def test_bad_priority(cluster: Cluster, client: Client, priority: int) -> None:
    """Priorities go from 0 to 10, for the SDK, the command line and whoever else calls."""
    with pytest.raises(Rejected, match="priority") as refused:
        client.submit(double.options(priority=priority), 1)
    outcome = submit(cluster, "double", "1", f"--priority={priority}")

    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert refused.value.field == "priority"
    assert outcome.code == 2
    assert "priority" in outcome.complaint


def test_master_checks_priority_itself(cluster: Cluster, client: Client) -> None:
    """A caller without our SDK meets the same limit."""
    theirs = send(cluster, common_pb2.JobOptions(name="double", priority=11), b"")

    assert theirs.reason is Reason.INVALID_ARGUMENT
    assert "priority" in theirs.field


def test_arguments_that_the_function_does_not_take(client: Client) -> None:
    """A call that could only fail at the worker fails here."""
    with pytest.raises(Rejected, match="double") as refused:
        client.submit(double, 1, 2)  # type: ignore[call-arg]

    assert refused.value.reason is Reason.INVALID_ARGUMENT


def test_job_that_does_not_exist(cluster: Cluster, client: Client) -> None:
    """A well-formed id that names nothing is not found; a malformed one is a usage error."""
    unknown = run(
        *("jobs", "get", "--address", cluster.addresses),
        "018f0000-0000-7000-8000-000000000000",
    )
    malformed = run("jobs", "get", "--address", cluster.addresses, "42")

    assert unknown.code == 3
    assert "NOT_FOUND" in unknown.complaint
    assert malformed.code == 2
    assert "42" in malformed.complaint
