"""Runs the suite over every adapter: coroutine tests run on the loop of their bench."""

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tenure.testing.etcd import EtcdCluster
from tenure.testing.simetcd.cluster import QUOTA_BYTES
from tests.conformance.bench import Bench, SqliteBench
from tests.conformance.etcd_bench import ETCD_CLUSTERS, EtcdBench, SimEtcdBench
from tests.conformance.etcd_site import Etcd, MakeEtcd, Member, RealEtcd, SimulatedEtcd, Site

ETCD_PARAMS = [
    pytest.param(name, marks=pytest.mark.etcd) for name in ETCD_CLUSTERS if name != "etcd-frozen"
] + [
    # Each client of a frozen member waits out one deadline, and every test makes several.
    pytest.param("etcd-frozen", marks=[pytest.mark.etcd, pytest.mark.nightly])
]


#: How the first of three simulated members is struck before the test.
SIM_PARAMS: dict[str, Callable[[Member], None] | None] = {
    "sim": None,
    "sim-killed": Member.kill,
    "sim-frozen": Member.pause,
}


@contextmanager
def _bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "sqlite":
        yield SqliteBench(tmp_path)
    elif request.param in SIM_PARAMS:
        etcd = SimulatedEtcd(3)
        strike = SIM_PARAMS[request.param]
        if strike is not None:
            strike(etcd.members[0])
        yield SimEtcdBench(etcd, _prefix(request))
        etcd.close()
    else:
        cluster: EtcdCluster = request.getfixturevalue(ETCD_CLUSTERS[request.param])
        yield EtcdBench(RealEtcd(cluster).site(_prefix(request)))


@pytest.fixture(params=["sqlite", *SIM_PARAMS, *ETCD_PARAMS])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Each store, one test at a time."""
    with _bench(request, tmp_path) as bench:
        yield bench


@pytest.fixture(params=[*SIM_PARAMS, *ETCD_PARAMS])
def shared_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Each store that several masters may have open at once."""
    with _bench(request, tmp_path) as bench:
        yield bench


@pytest.fixture(params=["sqlite", *SIM_PARAMS])
def fillable_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Each store that can be made full without a cluster of its own."""
    with _bench(request, tmp_path) as bench:
        yield bench


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


@pytest.fixture(params=[pytest.param("real", marks=pytest.mark.etcd), "simulated"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which etcd: what is said of one holds for the other."""
    return str(request.param)


@pytest.fixture
def etcd(kind: str, request: pytest.FixtureRequest) -> Iterator[Etcd]:
    """Three members; what a test has done to them is mended after it."""
    if kind == "real":
        real = RealEtcd(request.getfixturevalue("cluster"))
        yield real
        real.mend()
    else:
        simulated = SimulatedEtcd(3)
        yield simulated
        simulated.close()


@pytest.fixture
def make_etcd(kind: str) -> Iterator[MakeEtcd]:
    """Makes clusters for one test."""
    made: list[Etcd] = []

    def make(size: int, *, quota_bytes: int = QUOTA_BYTES, beside: Etcd | None = None) -> Etcd:
        if kind == "real":
            started = EtcdCluster(size, quota_bytes=quota_bytes)
            started.start()
            etcd: Etcd = RealEtcd(started)
        else:
            neighbour = beside if isinstance(beside, SimulatedEtcd) else None
            etcd = SimulatedEtcd(size, quota_bytes=quota_bytes, beside=neighbour)
        made.append(etcd)
        return etcd

    yield make
    for etcd in reversed(made):
        etcd.close()


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A path for the keys of this test alone."""
    return _prefix(request)


@pytest.fixture
def site(etcd: Etcd, prefix: str) -> Site:
    """A place for a new store."""
    return etcd.site(prefix)


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
