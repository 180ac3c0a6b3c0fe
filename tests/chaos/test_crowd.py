"""A thousand workers and a hundred thousand ready jobs at a failover, for real.

``tests/simulation/test_crowd.py`` has it smaller, on virtual time, where the pace can be held to
the millisecond.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from statistics import stdev
from typing import Final

import psutil
import pytest

from tenure.testing.etcd import EtcdCluster
from tests.chaos.audit import token_text
from tests.chaos.cluster import Cluster
from tests.chaos.crowd import Dial, read_dials
from tests.chaos.process import Process
from tests.chaos.scenarios import FIRST_GRANT_MS, NEW_LEADER_MS, Report, stage
from tests.oracles.facts import token_of
from tests.oracles.history import START
from tests.oracles.pace import most_within, ramp_allows

pytestmark = [pytest.mark.etcd, pytest.mark.nightly, pytest.mark.timeout(900)]

_PROCESSES: Final = 2
_WORKERS: Final = 1_000
_SLOTS: Final = 4
_READY: Final = 100_000
#: What the crowd may have begun before everybody is there.
_EARLY: Final = 30_000
_HOLD_S: Final = 2.0
#: Five hundred workers that say goodbye at once, in one process.
_DRAINED_S: Final = 120.0
#: The longest wait before a first redial, and before each later one; what is drawn evenly between
#: nothing and that has a standard deviation of 0.29 of it, and a herd one of nothing.
_FIRST_MS, _LATER_MS, _SPREAD = 500.0, 1_000.0, 0.2
#: The first start may come so much after the first grant, where the ramp begins.
_LATE_S: Final = 0.5
_MEMORY_MAX: Final = 1_024 << 20


@pytest.mark.fault(52)
def test_row_52_a_thousand_workers_and_a_hundred_thousand_jobs_at_a_failover(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workers come back one by one, grants ramp up, memory stays bounded, everything is done."""
    with EtcdCluster(3) as etcd, stage("crowd", etcd, tmp_path) as run:
        cluster = run.cluster
        cluster.start_masters(3)
        jobs = _READY + _EARLY
        flags = ("--at-once", "--jobs", str(jobs), "--hold-s", str(_HOLD_S))
        load = cluster.start_load("client-1", *flags, "--say-every", "1000")
        cluster.wait_said(load, "acked", 120, at_least={"acked": jobs})
        crowds = start_crowds(cluster)
        survivors = [master for master in cluster.masters if master is not cluster.leader()]
        base = {master.name: descriptors(master) for master in survivors}

        leader = cluster.leader()
        at_ms = leader.kill()
        failover = run.after("kill before a crowd", at_ms, leader)
        dead = cluster.address_of(leader)
        restarted = cluster.start_master(leader.name)
        restarted_ms = cluster.wait_said(restarted, "serving").at_ms
        cluster.drain(load, timeout_s=600)
        memory = {master.name: memory_high(master) for master in cluster.masters}
        after = {master.name: descriptors(master) for master in survivors}
        for crowd in crowds:
            crowd.terminate()
        assert [crowd.wait_exit(_DRAINED_S) for crowd in crowds] == [0] * _PROCESSES
        report = run.finish()

    dials = [
        dial
        for crowd in crowds
        for dial in read_dials(run.cluster.directory / f"dials-{crowd.name}.json")
        if dial.address == dead and at_ms < dial.at_ms
    ]
    early = sum(row.f == START and row.boottime < at_ms for row in report.audit.rows)
    report.notes += [f"{early} started before", f"memory {memory}", f"descriptors {base} {after}"]
    with capsys.disabled():
        print(f"\n{report}")  # noqa: T201 - measured times are to be seen
    assert early <= _EARLY
    assert failover.new_leader_ms <= NEW_LEADER_MS
    assert failover.first_grant_ms <= FIRST_GRANT_MS
    assert report.audit.acked == report.audit.completed == jobs
    came_back_one_by_one(dials, restarted_ms)
    assert ramp_exceeded(report) == []
    assert max(memory.values()) <= _MEMORY_MAX
    # A worker may ask any master that it knows for the topology, by a connection of its own.
    assert all(after[name] <= base[name] + _WORKERS + 16 for name in base)


def start_crowds(cluster: Cluster) -> list[Process]:
    """The workers, each with a session at every master."""
    crowds = []
    for number in range(1, _PROCESSES + 1):
        name = f"crowd-{number}"
        crowds.append(cluster.start_crowd(name, workers=_WORKERS // _PROCESSES, slots=_SLOTS))
    sessions = _WORKERS // _PROCESSES * len(cluster.masters)
    for crowd in crowds:
        cluster.wait_said(crowd, "crowd", 120, at_least={"opened": sessions})
    return crowds


def came_back_one_by_one(dials: Iterable[Dial], restarted_ms: float) -> None:
    """All dialled the dead master again and again, each after a wait of its own."""
    times: dict[str, list[float]] = {}
    for dial in sorted(dials):
        if dial.at_ms < restarted_ms:
            times.setdefault(dial.worker, []).append(dial.at_ms)
    assert len(times) == _WORKERS
    first = [found[0] for found in times.values()]
    assert stdev(first) >= _SPREAD * _FIRST_MS
    assert most_within(first, _FIRST_MS / 5) <= _WORKERS / 2
    waits = [later - at for found in times.values() for at, later in pairwise(found)]
    assert len(waits) >= _WORKERS
    assert stdev(waits) >= _SPREAD * _LATER_MS


def ramp_exceeded(report: Report) -> list[float]:
    """When more had started under the new term than its ramp allows, s from its first start."""
    token = token_text(report.failovers[0].term)
    times = sorted(
        row.boottime / 1000
        for row in report.audit.rows
        if row.f == START and token_of(row.lease) == token
    )
    since = [time - times[0] + _LATE_S for time in times]
    return [time for number, time in enumerate(since, 1) if number > ramp_allows(time)]


def descriptors(process: Process) -> int:
    """How many files and connections it has open."""
    return psutil.Process(process.pid).num_fds()


def memory_high(process: Process) -> int:
    """The most memory that it has ever held, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
