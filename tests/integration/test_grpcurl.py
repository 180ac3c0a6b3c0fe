"""The API without an SDK: what docs/grpcurl.md says is what comes, and errors keep AIP-193."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tenure.protocol.errors import DOMAIN
from tenure.protocol.ids import mint
from tenure.protocol.limits import BATCH_JOBS_MAX
from tenure.protocol.refusal import Reason
from tenure.v1 import jobs_pb2, jobs_pb2_grpc
from tests.chaos.cluster import REPOSITORY, Cluster

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
ADDRESS = "127.0.0.1:7400"
MARK = "-- next --"
ID = "018f0000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One master on SQLite and one worker."""
    directory = tmp_path_factory.mktemp("grpcurl")
    with Cluster(directory, f"sqlite://{directory}/store.db") as cluster:
        cluster.start_masters(1)
        worker = cluster.start_worker("worker-1", app="tests.conformance.worker_app")
        cluster.wait_said(worker, "registered")
        yield cluster


def recipes() -> list[tuple[str, str]]:
    """(command, what it shows) of every block of the page, in order."""
    text = (REPOSITORY / "docs" / "grpcurl.md").read_text("utf-8")
    found = []
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, shown = part.partition("\n")
            found.append((command, shown.strip()))
    return found


def like(shown: str) -> re.Pattern[str]:
    """A pattern of the output: … is anything, over lines where it stands alone."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + "\n"
        for line in shown.splitlines()
    ]
    return re.compile("".join(lines))


def test_recipes(cluster: Cluster, tmp_path: Path) -> None:
    """Each command of the page, run in one shell, shows what the page shows."""
    script = "".join(f"{command} 2>&1\necho '{MARK}'\n" for command, _ in recipes())
    done = subprocess.run(
        ["bash", "-c", script.replace(ADDRESS, cluster.addresses)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    outputs = done.stdout.replace(cluster.addresses, ADDRESS).split(f"{MARK}\n")

    assert len(recipes()) >= 10
    for (command, shown), output in zip(recipes(), outputs, strict=False):
        assert like(shown).fullmatch(output), f"{command}\n{output}"


@pytest.mark.parametrize(
    ("method", "request_", "reason", "field"),
    [
        ("GetJob", jobs_pb2.GetJobRequest(job_id="42"), Reason.INVALID_ARGUMENT, "job_id"),
        ("GetJob", jobs_pb2.GetJobRequest(job_id=ID), Reason.NOT_FOUND, ""),
        (
            "GetJob",
            jobs_pb2.GetJobRequest(job_id=mint(9, 1, 1)),
            Reason.WRONG_PARTITION,
            "job_id",
        ),
        ("ListJobs", jobs_pb2.ListJobsRequest(page_size=-1), Reason.INVALID_ARGUMENT, "page_size"),
        (
            "ListJobs",
            jobs_pb2.ListJobsRequest(page_token="?"),
            Reason.INVALID_ARGUMENT,
            "page_token",
        ),
        ("ListJobs", jobs_pb2.ListJobsRequest(filter="("), Reason.INVALID_ARGUMENT, "filter"),
        ("ListJobs", jobs_pb2.ListJobsRequest(partition=9), Reason.WRONG_PARTITION, "partition"),
        ("CountJobs", jobs_pb2.CountJobsRequest(filter="a"), Reason.INVALID_ARGUMENT, "filter"),
        ("WatchJobs", jobs_pb2.WatchJobsRequest(filter="run=1"), Reason.INVALID_ARGUMENT, "filter"),
        ("CancelJobs", jobs_pb2.CancelJobsRequest(), Reason.INVALID_ARGUMENT, "job_ids"),
        (
            "PurgeJobs",
            jobs_pb2.PurgeJobsRequest(job_ids=[ID] * (BATCH_JOBS_MAX + 1)),
            Reason.BATCH_TOO_LARGE,
            "job_ids",
        ),
        (
            "SubmitJobs",
            jobs_pb2.SubmitJobsRequest(jobs=[jobs_pb2.JobSpec()] * (BATCH_JOBS_MAX + 1)),
            Reason.BATCH_TOO_LARGE,
            "jobs",
        ),
        (
            "SubmitJobs",
            jobs_pb2.SubmitJobsRequest(jobs=[jobs_pb2.JobSpec()]),
            Reason.INVALID_ARGUMENT,
            "options",
        ),
    ],
)
def test_errors_keep_aip_193(
    cluster: Cluster, method: str, request_: object, reason: Reason, field: str
) -> None:
    """One ErrorInfo of our domain, no detail twice, the numbers of the text in the metadata.

    What was wrong in a field is not repeated there: the metadata has the field's path.
    """
    with grpc.insecure_channel(cluster.addresses) as channel:
        call = getattr(jobs_pb2_grpc.JobServiceStub(channel), method)
        with pytest.raises(grpc.RpcError) as refused:
            list(answer) if hasattr(answer := call(request_, timeout=10), "cancel") else answer
    status = rpc_status.from_call(refused.value)
    assert status is not None

    kinds = [detail.type_url for detail in status.details]
    assert len(kinds) == len(set(kinds))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == (DOMAIN, reason)
    violations = error_details_pb2.BadRequest()
    named = [
        v.field for d in status.details if d.Unpack(violations) for v in violations.field_violations
    ]
    assert named == ([field] if field else [])
    assert status.message == refused.value.details()
    if reason is not Reason.INVALID_ARGUMENT:
        numbers = re.findall(r"(?<![\w-])\d+(?![\w-])", status.message)
        assert set(numbers) <= set(info.metadata.values()), status.message


def test_health_tells_liveness_from_readiness(cluster: Cluster) -> None:
    """Each service name of the probes is known; another one is not."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(cluster.addresses) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "liveness", "readiness"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(health_pb2.HealthCheckRequest(service="none"), timeout=5)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
