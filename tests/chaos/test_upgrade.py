"""Two releases side by side: masters and workers are upgraded under load, and taken back again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tenure.client import Client
from tenure.testing.etcd import EtcdCluster
from tests.chaos.cluster import Cluster
from tests.chaos.process import Process
from tests.chaos.release import Release, check_out
from tests.chaos.scenarios import Stage, stage

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(300)]

RELEASES = ("0.1.0",)


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    """One member, that nobody hurts."""
    with EtcdCluster(1) as cluster:
        yield cluster


@pytest.fixture(params=RELEASES)
def old(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Release | None:
    """A release of the past; None on a shallow clone, which says so."""
    release = check_out(request.param, tmp_path / "old")
    if release is None:
        with capsys.disabled():
            print(  # noqa: T201 - nobody shall believe that it was tested
                f"\nNOT TESTED: a shallow clone does not have release {request.param}; "
                "`git fetch --unshallow` brings it"
            )
    return release


class Fleet:
    """A cluster whose processes are of one release or the other.

    Args:
        cluster: The processes.
        old: The release of the past.
    """

    def __init__(self, cluster: Cluster, old: Release) -> None:
        self._cluster = cluster
        self._old = old

    def master(self, name: str, *, old: bool) -> Process:
        """Starts a master, or another release of it after SIGTERM, and waits until it serves."""
        former = self._cluster.processes.get(name)
        if former is not None and former.running:
            former.terminate()
            assert former.wait_exit(20) == 0, former.log_tail(40)
        # What old leaders trace of their state is no business of today's audit.
        past = ("env", "-u", "TENURE_TRACE", f"PYTHONPATH={self._old.path}") if old else ()
        master = self._cluster.start_master(name, wrapper=past)
        self._cluster.wait_said(master, "serving")
        return master

    def worker(self, name: str, *, old: bool) -> Process:
        """The same of a worker."""
        former = self._cluster.processes.get(name)
        with self._release(old):
            if former is not None:
                former.terminate()
                assert former.wait_exit(40) == 0, former.log_tail(40)
            worker = self._cluster.start_worker(name, slots=8)
        self._cluster.wait_said(worker, "registered")
        return worker

    def load(self, name: str, *, old: bool) -> Process:
        """A client that submits and reads results all the time."""
        with self._release(old):
            return self._cluster.start_load(name, "--open", "20", "--hold-s", "0.1")

    @contextmanager
    def _release(self, old: bool) -> Iterator[None]:
        if old:
            self._cluster.environment["PYTHONPATH"] = self._old.path
        yield
        self._cluster.environment.pop("PYTHONPATH", None)


def roll(run: Stage, old: Release, *, rounds: int, masters: int) -> None:
    """Upgrades and downgrades all nodes, one by one, ``rounds`` times; each time a leader dies.

    That is when masters of both releases are there, and the one before the last is another's: the
    next leader begins with what the other release has left.
    """
    cluster, fleet = run.cluster, Fleet(run.cluster, old)
    run.all_trace = False
    names = [f"master-{number}" for number in range(1, masters + 1)]
    workers = ["worker-1", "worker-2"]
    for name in names:
        fleet.master(name, old=True)
    cluster.wait_leader()
    for name in workers:
        fleet.worker(name, old=True)
    loads = [fleet.load("client-1", old=True), fleet.load("client-2", old=False)]
    done = 0
    for past in (False, True) * rounds:
        *others, last = sorted(names, key=cluster.leader().name.__eq__)
        for name in others:
            fleet.master(name, old=past)
        leader = cluster.leader()
        way = "way back" if past else "upgrade"
        run.after(f"kill -9 of {leader.name}, {way} half done", leader.kill())
        for name in dict.fromkeys((leader.name, last)):
            fleet.master(name, old=past)
        for name in workers:
            fleet.worker(name, old=past)
        done += 40
        for load in loads:
            cluster.wait_said(load, "completed", at_least={"completed": done})
    cluster.drain(*loads)


def test_upgrade_and_downgrade(
    etcd: EtcdCluster, tmp_path: Path, old: Release | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up and back again, with clients of both releases: nothing lost, nothing accepted twice."""
    if old is None:
        return
    assert old.home_of("tenure.master.main").is_relative_to(old.tree)
    assert old.home_of("tenure.worker.runtime").is_relative_to(old.tree)
    with stage("upgrade", etcd, tmp_path) as run:
        roll(run, old, rounds=1, masters=2)
        report = run.finish()

    assert report.audit.acked >= 160
    assert report.audit.unknown == 0
    with capsys.disabled():
        print(f"\n{report}")  # noqa: T201 - measured counts are to be seen


def test_an_older_master_steps_aside_for_what_it_does_not_know(
    etcd: EtcdCluster, tmp_path: Path, old: Release | None
) -> None:
    """Amid an upgrade somebody uses what is new, and the newer leader dies: nothing is halted.

    The older master gives the office back at once and ends, and a newer one goes on where the
    other was killed.
    """
    if old is None:
        return
    with stage("aside", etcd, tmp_path) as run:
        cluster, fleet = run.cluster, Fleet(run.cluster, old)
        newer = fleet.master("master-1", old=False)
        cluster.wait_leader()
        older = fleet.master("master-2", old=True)
        fleet.worker("worker-1", old=False)
        load = fleet.load("client-1", old=False)
        with Client(cluster.addresses, timeout=30) as client:
            client.queues.set("default", weight=2.0)
        cluster.wait_said(load, "completed", at_least={"completed": 20})

        killed_ms = newer.kill()
        assert older.wait_exit(30) == 0, older.log_tail(40)
        assert [said.fields["why"] for said in older.events("follower")] == ["format too new"]
        assert not older.events("leader")
        assert not older.events("halted")

        fleet.master("master-1", old=False)
        run.after("kill -9 of the only master that can lead", killed_ms)
        cluster.wait_said(load, "completed", at_least={"completed": 40})
        with Client(cluster.addresses, timeout=30) as client:
            assert client.queues.get("default").settings.weight == 2.0
        cluster.drain(load)
        report = run.finish()

    assert report.audit.unknown == 0


@pytest.mark.nightly
def test_many_upgrades_and_downgrades(
    etcd: EtcdCluster, tmp_path: Path, old: Release | None
) -> None:
    """The same, five times, with three masters and another leader each time."""
    if old is None:
        return
    with stage("upgrades", etcd, tmp_path) as run:
        roll(run, old, rounds=5, masters=3)
        report = run.finish()

    assert report.audit.acked >= 800


def test_a_shallow_clone_says_what_it_lacks(tmp_path: Path) -> None:
    """A release that is not in the whole history is an error, and its name is in it."""
    with pytest.raises(OSError, match=r"manifest\.json"):
        check_out("9.9.9", tmp_path)
