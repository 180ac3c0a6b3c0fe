"""The standard health service of a real master, as probes ask it."""

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.chaos.cluster import Cluster

_Status = health_pb2.HealthCheckResponse


def test_probes_are_answered(tmp_path: Path) -> None:
    """A master that leads is alive, ready, and serves its partition; other names are unknown."""
    with Cluster(tmp_path / "cluster", f"sqlite://{tmp_path}/store.db") as cluster:
        master = cluster.start_master("master-1")
        cluster.wait_leader()
        with grpc.insecure_channel(cluster.address_of(master)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for name in ("", "liveness", "readiness", "tenure.partition.0"):
                request = health_pb2.HealthCheckRequest(service=name)
                assert stub.Check(request, timeout=10).status == _Status.SERVING
                assert next(stub.Watch(request, timeout=10)).status == _Status.SERVING
            request = health_pb2.HealthCheckRequest(service="tenure.partition.1")
            with pytest.raises(grpc.RpcError) as refused:
                stub.Check(request, timeout=10)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            assert next(stub.Watch(request, timeout=10)).status == _Status.SERVICE_UNKNOWN
