"""The standard health service of a real master, as probes ask it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tenure.master.rpc.health import WATCHES_MAX
from tenure.protocol.errors import error_from_rpc
from tenure.protocol.refusal import Reason
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


def test_watches_are_bounded(tmp_path: Path) -> None:
    """Who has no token may not keep a master busy; each watch that ends makes room for another."""
    with Cluster(tmp_path / "cluster", f"sqlite://{tmp_path}/store.db") as cluster:
        master = cluster.start_master("master-1")
        cluster.wait_leader()
        with grpc.insecure_channel(cluster.address_of(master)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            watches = [stub.Watch(request, timeout=60) for _ in range(WATCHES_MAX)]
            assert {next(watch).status for watch in watches} == {_Status.SERVING}
            with pytest.raises(grpc.RpcError) as refused:
                next(stub.Watch(request, timeout=10))
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert error_from_rpc(refused.value, address="").reason is Reason.TOO_MANY_WATCHES
            assert stub.Check(request, timeout=10).status == _Status.SERVING
            watches.pop().cancel()
            assert _accepted(lambda: stub.Watch(request, timeout=10))


def _accepted(watch: Callable[[], Iterator[health_pb2.HealthCheckResponse]]) -> bool:
    """Tries until the master has seen that another one ended."""
    for _ in range(1_000):
        with suppress(grpc.RpcError):
            return next(watch()).status == _Status.SERVING
    return False
