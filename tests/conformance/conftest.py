"""Runs the suite over every adapter: coroutine tests run on the loop of their bench."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure.testing.etcd import EtcdCluster
from tests.conformance.bench import BENCHES, Bench, FillableBench, SimBench, SqliteBench
from tests.conformance.etcd_bench import ETCD_CLUSTERS, EtcdBench

ETCD_PARAMS = [
    pytest.param(name, marks=pytest.mark.etcd) for name in ETCD_CLUSTERS if name != "etcd-frozen"
] + [
    # Each client of a frozen member waits out one deadline, and every test makes several.
    pytest.param("etcd-frozen", marks=[pytest.mark.etcd, pytest.mark.nightly])
]


def _bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param not in ETCD_CLUSTERS:
        return BENCHES[request.param](tmp_path)
    cluster: EtcdCluster = request.getfixturevalue(ETCD_CLUSTERS[request.param])
    return EtcdBench(cluster.url(_prefix(request)))


@pytest.fixture(params=[*sorted(BENCHES), *ETCD_PARAMS])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """Each store, one test at a time."""
    return _bench(request, tmp_path)


@pytest.fixture(params=[*sorted(name for name in BENCHES if name != "sqlite"), *ETCD_PARAMS])
def shared_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """Each store that several masters may have open at once."""
    return _bench(request, tmp_path)


@pytest.fixture(params=["sqlite", "sim"])
def fillable_bench(request: pytest.FixtureRequest, tmp_path: Path) -> FillableBench:
    """Each store that can be made full without a cluster of its own."""
    return {"sqlite": SqliteBench, "sim": SimBench}[request.param](tmp_path)


@pytest.fixture(scope="session")
def cluster() -> Iterator[EtcdCluster]:
    """Three members of etcd; whoever kills or freezes one brings it back."""
    with EtcdCluster(3) as started:
        yield started


@pytest.fixture(scope="session")
def tls_cluster() -> Iterator[EtcdCluster]:
    """One member that talks to those with a certificate only."""
    with EtcdCluster(1, tls=True) as started:
        yield started


@pytest.fixture(scope="session")
def cluster_with_a_dead_member() -> Iterator[EtcdCluster]:
    """Three members, the first of them killed."""
    with EtcdCluster(3) as started:
        started.members[0].kill()
        started.wait_ready()
        yield started


@pytest.fixture(scope="session")
def cluster_with_a_frozen_member() -> Iterator[EtcdCluster]:
    """Three members, the first of them stopped: its connections stay open, and it is silent."""
    with EtcdCluster(3) as started:
        started.members[0].pause()
        yield started


@pytest.fixture
def url(cluster: EtcdCluster, request: pytest.FixtureRequest) -> str:
    """The URL of a new store on the cluster."""
    return cluster.url(_prefix(request))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a coroutine test on its bench's loop; leaves plain functions to pytest."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    (used,) = (value for value in arguments.values() if isinstance(value, Bench))
    used.run(lambda: test(**arguments))
    return True


def _prefix(request: pytest.FixtureRequest) -> str:
    return "/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())
