"""Chaos, the short version: real masters, workers, clients and etcd members, killed and frozen.

Every run records a history and is audited (S1 to S6, S9, S15, S20) before its test says anything
else. The run under load and the one whose first grants are timed come by themselves; those that
mostly wait run side by side, and each test waits for its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tenure.testing.etcd import EtcdCluster
from tests.chaos import scenarios
from tests.chaos.scenarios import FIRST_GRANT_MS, NEW_LEADER_MS, Report
from tests.oracles.facts import Settled
from tests.oracles.history import END, START
from tests.oracles.journal import BatchDeleted, SnapshotPublished

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(300)]

HAND_OVER_MS = 1_500


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    """Three members that nobody hurts."""
    with EtcdCluster(3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where logs, histories and traces go; kept for a look when something fails."""
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="module")
def side_by_side(
    etcd: EtcdCluster, directory: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Report]]:
    """Starts the scenarios of all collected tests that mostly wait; gives each one's report."""
    runs: dict[str, Callable[[], Report]] = {
        "masters_killed": lambda: scenarios.masters_killed(etcd, directory),
        "worker_killed": lambda: scenarios.worker_killed(etcd, directory),
        "zombies": lambda: scenarios.zombies(etcd, directory),
        "etcd_hurt": lambda: scenarios.etcd_hurt(directory),
        "sqlite_killed": lambda: scenarios.sqlite_killed(directory),
    }
    collected = {item.name.removeprefix("test_") for item in request.session.items}
    with ThreadPoolExecutor(len(runs)) as pool:
        futures: dict[str, Future[Report]] = {
            name: pool.submit(run) for name, run in runs.items() if name in collected
        }
        yield lambda name: futures[name].result()


def show(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """The times are part of the run's output."""
    with capsys.disabled():
        print(f"\n{report}")  # noqa: T201 - measured times are to be seen


def assert_in_time(report: Report) -> None:
    """Every failover kept the quoted bounds."""
    for failover in report.failovers:
        assert failover.new_leader_ms <= NEW_LEADER_MS, report
        assert failover.first_grant_ms <= FIRST_GRANT_MS, report


@pytest.mark.fault(2)
@pytest.mark.parametrize(
    ("kills", "acked_min", "padding"),
    [(4, 8_000, 2_400), pytest.param(10, 20_000, 700, marks=pytest.mark.nightly)],
)
def test_leader_killed_under_load(
    kills: int, acked_min: int, padding: int, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thousands of acknowledged jobs outlive leaders, each killed with a batch in flight."""
    report = scenarios.leader_killed_under_load(
        directory / f"kills-{kills}",
        kills=kills,
        running_min=420,
        acked_min=acked_min,
        padding=padding,
    )

    show(report, capsys)
    assert_in_time(report)
    assert report.audit.acked >= acked_min
    assert [f.cause for f in report.failovers if not f.in_flight] == []
    assert [f.cause for f in report.failovers if f.running < 300] == []
    assert len(report.failovers) >= kills
    kinds = {type(change) for change in report.changes}
    assert {SnapshotPublished, BatchDeleted} <= kinds


@pytest.mark.fault(5)
@pytest.mark.parametrize("leaders", [3, pytest.param(20, marks=pytest.mark.nightly)])
def test_rolling_restart(
    leaders: int, etcd: EtcdCluster, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM hands over in order: jobs hardly notice, and none runs twice.

    A leader that waits for its successor goes on granting: what counts is when nobody does.
    """
    report = scenarios.rolling_restart(etcd, directory, leaders=leaders)

    show(report, capsys)
    assert report.audit.reruns == {}
    assert len(report.failovers) >= leaders
    assert len(report.hand_overs) >= leaders
    assert [h for h in report.hand_overs if h.first_grant_ms > HAND_OVER_MS] == []


@pytest.mark.fault(1, 4)
def test_masters_killed(
    side_by_side: Callable[[str], Report], capsys: pytest.CaptureFixture[str]
) -> None:
    """An idle leader is replaced; with all masters gone, the journal alone brings all back."""
    report = side_by_side("masters_killed")

    show(report, capsys)
    assert report.failovers[0].new_leader_ms <= NEW_LEADER_MS, report
    assert_in_time(Report(name="", audit=report.audit, failovers=report.failovers[1:]))
    assert report.audit.acked >= 400
    assert report.audit.unknown >= 1, "the client that was killed left no call open"


@pytest.mark.fault(11)
def test_worker_killed(
    side_by_side: Callable[[str], Report], capsys: pytest.CaptureFixture[str]
) -> None:
    """A dead worker's leases expire once each, at the cost of one loss, and the jobs run again."""
    report = side_by_side("worker_killed")

    show(report, capsys)
    lost = [closed.job for closed in scenarios.losses(report.audit.facts)]
    assert 1 <= len(lost) <= 4
    assert len(set(lost)) == len(lost)
    assert report.audit.reruns == dict.fromkeys(lost, 2)


@pytest.mark.fault(7, 12)
def test_zombies(side_by_side: Callable[[str], Report], capsys: pytest.CaptureFixture[str]) -> None:
    """A leader and a worker that come back too late change nothing; a blocked loop is no fault."""
    report = side_by_side("zombies")

    show(report, capsys)
    assert_in_time(report)
    assert scenarios.terms_of(report.changes) - report.handed_over == 2
    blocked = [row for row in report.audit.rows if row.f == START and row.process == "worker-3"]
    assert len(blocked) == 1
    assert blocked[0].job not in report.audit.reruns
    # The late worker ended jobs that had been started again: its word came second.
    settled = {fact.job: fact.lease for fact in report.audit.facts if isinstance(fact, Settled)}
    late = [
        row
        for row in report.audit.rows
        if row.f == END and row.job in report.audit.reruns and row.lease != settled[row.job]
    ]
    assert len(report.audit.reruns) >= 2
    assert late


@pytest.mark.fault(18, 19, 20)
def test_etcd_hurt(
    side_by_side: Callable[[str], Report], capsys: pytest.CaptureFixture[str]
) -> None:
    """A member less is not felt; without a majority the leader freezes, then goes on as it was."""
    report = side_by_side("etcd_hurt")

    show(report, capsys)
    assert scenarios.terms_of(report.changes) - report.handed_over == 1
    assert report.audit.reruns == {}


@pytest.mark.fault(2)
def test_sqlite_killed(
    side_by_side: Callable[[str], Report], capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 in the middle of a commit loses nothing that was acknowledged."""
    report = side_by_side("sqlite_killed")

    show(report, capsys)
    assert_in_time(report)
    assert [failover.in_flight > 0 for failover in report.failovers] == [True] * 3
