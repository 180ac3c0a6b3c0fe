"""A cluster that loses its leader and a worker while it measures the standard library.

    python -m examples.stdlib_metrics.demo_cluster

Three etcd members, three masters, three workers, all real processes on loopback. Midway the leader
is killed with kill -9, later a worker. The timeline shows what the cluster did about it; the audit
shows that no job was lost and none was accepted twice.
"""

from __future__ import annotations

import asyncio
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from examples.stdlib_metrics.audit import Audit, audit_jobs
from examples.stdlib_metrics.demo import OUT, check, work_list
from examples.stdlib_metrics.jobs import measure
from examples.stdlib_metrics.outcome import Outcomes
from examples.stdlib_metrics.program import ROOT, DemoFailed, EventLog, Line, Program
from examples.stdlib_metrics.report import (
    Failure,
    Moment,
    Report,
    text_table,
    timeline_text,
    write_html,
)
from tenure.client import AsyncClient, TenureError
from tenure.testing.etcd import EtcdCluster, EtcdNotFound, EtcdNotReady
from tenure.v1 import cluster_pb2

_MASTERS: Final = 3
_WORKERS: Final = 3
_SLOTS: Final = 6
#: Every module is measured so often, for work enough.
_ROUNDS: Final = 2
#: Jobs that take long, so that faults find them running: their places in the queue, and how many
#: seconds each takes, which must outlast a failover. They leave six slots to the others.
_LONG: Final = range(0, 48, 4)
_LONG_S: Final = 24.0
#: The leader dies when so many jobs run, and so long after the first submit at the earliest.
_RUNNING_AT_KILL: Final = 12
_KILL_AFTER_S: Final = 4.0
_ADOPTED_MIN: Final = 8
#: The worker dies so long after the failover.
_RESPITE_S: Final = 3.0
#: Worst after kill -9: 15 s to a new leader, 18 s to its first grant; a lease lives 15 s.
_FAILOVER_S: Final = 30.0
_EXPIRY_S: Final = 40.0
_TIME_LIMIT_S: Final = 240.0
_LOGS: Final = OUT / "cluster-logs"


@dataclass(slots=True, eq=False)
class Cluster:
    """The processes of the demo."""

    events: EventLog
    masters: list[Program]
    workers: list[Program]
    addresses: list[str]


@dataclass(slots=True, eq=False)
class Story:
    """What happened, on a clock that starts with the first submit."""

    began: float = 0.0
    began_wall_s: float = 0.0
    moments: list[Moment] = field(default_factory=list)
    adopted: int = 0
    expired: int = 0

    def begin(self) -> None:
        """Starts the clock."""
        self.began = time.monotonic()
        self.began_wall_s = time.time()

    def note(self, kind: str, text: str, at: float | None = None) -> None:
        """Adds a moment: now, or at a time of the monotonic clock."""
        self.add(kind, text, (time.monotonic() if at is None else at) - self.began)

    def add(self, kind: str, text: str, at_seconds: float) -> None:
        """Adds a moment at so many seconds after the first submit."""
        self.moments.append(Moment(at_seconds=max(at_seconds, 0.0), kind=kind, text=text))
        self.moments.sort(key=lambda moment: moment.at_seconds)


def main() -> int:
    """Runs the demo. Returns the exit code."""
    story = Story()
    with tempfile.TemporaryDirectory(prefix="tenure-demo-") as name:
        logs = Path(name)
        try:
            with ExitStack() as stack:
                cluster = start(stack, logs)
                report, audit = asyncio.run(run(cluster, story))
        except (DemoFailed, TenureError, EtcdNotFound, EtcdNotReady) as error:
            print(timeline_text(story.moments), file=sys.stderr)
            print(f"demo failed: {error}", file=sys.stderr)
            print(f"The logs are in {_LOGS.relative_to(ROOT)}", file=sys.stderr)
            return 1
        finally:
            shutil.rmtree(_LOGS, ignore_errors=True)
            shutil.copytree(logs, _LOGS)
    page = OUT / "cluster-report.html"
    write_html(report, page)
    print(text_table(report))
    print(f"\nThe report with charts: {page.relative_to(ROOT)}")
    broken = conditions_not_met(audit, story)
    for line in broken:
        print(f"demo failed: {line}", file=sys.stderr)
    return 1 if broken else 0


def start(stack: ExitStack, folder: Path) -> Cluster:
    """Starts etcd, the masters and the workers, and waits until all are ready."""
    print(f"Starting 3 etcd members, {_MASTERS} masters, {_WORKERS} workers …", flush=True)
    etcd = stack.enter_context(EtcdCluster(3))
    events = EventLog()

    def program(name: str, *arguments: str) -> Program:
        return stack.enter_context(Program(name, [*arguments, "--name", name], events, folder))

    masters = [
        program(f"master-{n}", "master", "--store", etcd.url(), "--listen", "127.0.0.1:0")
        for n in range(1, _MASTERS + 1)
    ]
    addresses = [str(master.expect("serving").fields["address"]) for master in masters]
    events.wait("a first leader", lambda line: line.event == "leader", timeout_s=_FAILOVER_S)
    worker_flags = ("--master", ",".join(addresses), "--slots", str(_SLOTS))
    workers = [
        program(f"worker-{n}", "worker", "examples.stdlib_metrics.jobs", *worker_flags)
        for n in range(1, _WORKERS + 1)
    ]
    for worker in workers:
        worker.expect("registered")
    return Cluster(events=events, masters=masters, workers=workers, addresses=addresses)


async def run(cluster: Cluster, story: Story) -> tuple[Report, Audit]:
    """Submits the work, breaks the cluster, gathers the outcomes, audits them."""
    paths = work_list() * _ROUNDS
    calls = [(path, _LONG_S if n in _LONG else 0.0) for n, path in enumerate(paths)]
    outcomes = Outcomes()
    async with AsyncClient(",".join(cluster.addresses), timeout=60) as client:
        story.begin()
        path_of: dict[str, str] = {}
        try:
            async with asyncio.timeout(_TIME_LIMIT_S), asyncio.TaskGroup() as group:
                faults = group.create_task(break_things(cluster, client, story))
                await gather(client, calls, outcomes, path_of, story)
                await faults
        except TimeoutError:
            raise DemoFailed(
                f"expected to be done within {_TIME_LIMIT_S:g} s, but only "
                f"{len(outcomes.ended_seconds):,} of {len(paths):,} jobs have ended"
            ) from None
        except ExceptionGroup as errors:
            known = errors.subgroup((DemoFailed, TenureError))
            if known is None:
                raise
            raise DemoFailed(str(_first(known))) from None
        story.note("note", f"the last of {len(paths):,} jobs ended")
        audit = await audit_jobs(client, path_of)
    check(outcomes, len(paths))
    for rerun in audit.reruns[:1]:
        at_seconds = rerun.ended_wall_s - story.began_wall_s
        story.add("recovery", f"re-run: {rerun.path} by {rerun.worker}", at_seconds)
    print(timeline_text(story.moments))
    print()
    print("\n".join(f"{label:30}{value:>8}" for label, value in audit.rows(story.adopted)))
    print()
    report = Report(
        title="A leader and a worker die; no job does",
        summary=f"{len(paths):,} jobs on three workers, three masters and three etcd members: each "
        f"module of Python {platform.python_version()}'s standard library, {_ROUNDS} times.",
        modules=list({module.path: module for module in outcomes.modules}.values()),
        failures=sorted(
            {failure.path: failure for failure in outcomes.failures}.values(), key=_path
        ),
        facts=audit.rows(story.adopted),
        ended_seconds=outcomes.ended_seconds,
        timeline=story.moments,
    )
    return report, audit


async def gather(
    client: AsyncClient,
    calls: Sequence[tuple[str, float]],
    outcomes: Outcomes,
    path_of: dict[str, str],
    story: Story,
) -> None:
    """Submits every job and takes its outcome when it comes."""
    handles = await client.submit_many(measure, calls)
    story.note("note", f"{len(handles):,} jobs submitted, {len(_LONG)} of them long ones")
    path_of.update((handle.id, path) for handle, (path, _) in zip(handles, calls, strict=True))
    async for handle in client.as_completed(handles):
        at_seconds = time.monotonic() - story.began
        try:
            outcomes.completed(path_of[handle.id], await handle.result(), at_seconds)
        except TenureError as error:
            outcomes.failed(path_of[handle.id], error, at_seconds)


async def break_things(cluster: Cluster, client: AsyncClient, story: Story) -> None:
    """Kills the leader while many jobs run, and a worker that holds leases after that."""
    leader = await kill_leader(cluster, client, story)
    after = time.monotonic()
    others = {master.name for master in cluster.masters} - {leader}

    async def next_line(event: str, what: str, timeout_s: float) -> Line:
        return await asyncio.to_thread(
            cluster.events.wait,
            what,
            lambda line: line.event == event and line.source in others and line.at > after,
            timeout_s=timeout_s,
        )

    elected = await next_line("leader", "a new leader", _FAILOVER_S)
    story.note("recovery", f"{elected.source} leads", elected.at)
    closed = await next_line("window_closed", "running jobs to be adopted", _FAILOVER_S)
    story.adopted = int(closed.fields["adopted"])
    story.note("recovery", f"{story.adopted} leases adopted: their jobs never stopped", closed.at)
    granted = await next_line("first_grant", "the first grant of the new leader", _FAILOVER_S)
    story.note("recovery", "first grant", granted.at)

    await asyncio.sleep(_RESPITE_S)
    await kill_worker(cluster, client, story)
    after = time.monotonic()
    expired = await next_line("expired", "the dead worker's leases to expire", _EXPIRY_S)
    story.expired = int(expired.fields["leases"])
    story.note("recovery", f"{story.expired} leases expired, their jobs wait again", expired.at)


async def kill_leader(cluster: Cluster, client: AsyncClient, story: Story) -> str:
    """Waits until the leader has enough jobs running, kills it, returns its name."""
    while True:
        view = await leader_view(client)
        running = sum(partition.running for partition in view.partitions) if view else 0
        if view and running >= _RUNNING_AT_KILL and time.monotonic() - story.began > _KILL_AFTER_S:
            break
        await asyncio.sleep(0.05)
    victim = next(master for master in cluster.masters if master.name == view.name)
    victim.kill()
    story.note("fault", f"leader {victim.name} killed (kill -9) while {running} jobs are leased")
    return victim.name


async def kill_worker(cluster: Cluster, client: AsyncClient, story: Story) -> None:
    """Waits until a worker holds a full hand of leases and kills it."""
    while True:
        view = await leader_view(client)
        busiest = max(view.workers, key=lambda row: row.leases, default=None) if view else None
        if busiest and busiest.leases >= _SLOTS:
            break
        await asyncio.sleep(0.05)
    victim = next(worker for worker in cluster.workers if worker.name == busiest.name)
    victim.kill()
    story.note("fault", f"{victim.name} killed (kill -9), holding {busiest.leases} leases")


async def leader_view(client: AsyncClient) -> cluster_pb2.GetStatusResponse | None:
    """What the master that serves the partition says of itself, if one does."""
    views, _ = await client.cluster.status()
    serving = (cluster_pb2.PARTITION_ROLE_SERVING, cluster_pb2.PARTITION_ROLE_ADOPTING)
    for view in views:
        if any(partition.role in serving for partition in view.partitions):
            return view
    return None


def _path(failure: Failure) -> str:
    return failure.path


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    error: Exception = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def conditions_not_met(audit: Audit, story: Story) -> list[str]:
    """What the demo promised and did not show."""
    wanted = [
        (story.adopted >= _ADOPTED_MIN, f"{_ADOPTED_MIN} adopted leases", story.adopted),
        (story.expired >= 1, "an expired lease", story.expired),
        (len(audit.reruns) >= 1, "a re-run after a lost attempt", len(audit.reruns)),
    ]
    broken = [f"expected at least {what}, but got {found}" for ok, what, found in wanted if not ok]
    if audit.lost:
        broken.append(f"expected no lost job, but {audit.lost} are")
    if audit.accepted_twice:
        broken.append(f"expected no job accepted twice, but {audit.accepted_twice} are")
    return broken


if __name__ == "__main__":
    sys.exit(main())
