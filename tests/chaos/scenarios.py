"""What is done to clusters: each scenario runs one, hurts it, lets it heal, and audits it.

Scenarios that mostly wait run side by side (see ``test_smoke``); each has its own prefix in etcd or
its own etcd. They report numbers; whatever breaks an invariant or a deadline raises at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from tenure.testing.etcd import EtcdCluster
from tenure.v1 import cluster_pb2
from tests.chaos.audit import (
    Audit,
    audit_etcd,
    audit_sqlite,
    first_start,
    in_flight,
    running_at,
)
from tests.chaos.cluster import END_TIMEOUT_S, Cluster
from tests.chaos.measure import HandOver, hand_overs_of
from tests.chaos.process import Event, Process
from tests.chaos.starts import Starts
from tests.chaos.tail import RunningNow, open_submits
from tests.oracles.etcd_watch import StoreWatch
from tests.oracles.facts import Closed, Fact, TermBegan
from tests.oracles.journal import Change, OfficeTaken
from tests.oracles.sqlite_rows import read_remains

#: Quoted bounds after kill -9, in ms: a new leader, and its first grant.
NEW_LEADER_MS, FIRST_GRANT_MS = 15_000, 18_000

_ROLE = cluster_pb2.PartitionRole


@dataclass(slots=True, kw_only=True)
class Failover:
    """One change of leadership: when it was caused (boot clock, ms) and how long it took.

    Attributes:
        cause: What was done.
        new_leader_ms: Until the next ``leader`` line.
        first_grant_ms: Until the first job started under the new term's lease.
        in_flight: Batches that the former leader had sent and not seen committed.
        running: Executions under way at that moment.
    """

    cause: str
    at_ms: float
    term: str
    new_leader_ms: float
    first_grant_ms: float = 0.0
    in_flight: int = 0
    running: int = 0


@dataclass(slots=True, kw_only=True)
class Report:
    """What a scenario came to.

    Attributes:
        handed_over: How many terms ended by their leader's own will.
        hand_overs: For how long that held up jobs, where others came afterwards.
    """

    name: str
    audit: Audit
    failovers: list[Failover] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    handed_over: int = 0
    hand_overs: list[HandOver] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.audit}"]
        lines += [
            f"  {f.cause}: new leader {f.new_leader_ms:.0f} ms, first grant"
            f" {f.first_grant_ms:.0f} ms, batches in flight {f.in_flight}, running {f.running}"
            for f in self.failovers
        ]
        lines += [f"  handed over: no grant for {h.first_grant_ms:.0f} ms" for h in self.hand_overs]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


@dataclass(slots=True, kw_only=True)
class Stage:
    """A cluster on etcd that is being watched, and what has happened to it so far.

    ``all_trace`` is whether all of its masters write down when their batches have committed.
    """

    name: str
    cluster: Cluster
    watch: StoreWatch
    failovers: list[Failover] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    traces: list[tuple[Failover, Path]] = field(default_factory=list)
    all_trace: bool = True

    def note(self, text: str) -> None:
        """A line for the report."""
        self.notes.append(text)

    def after(self, cause: str, at_ms: float, former: Process | None = None) -> Failover:
        """Wait for the leader that comes after what was done."""
        event = self.cluster.wait_leader(after_ms=at_ms)
        failover = Failover(
            cause=cause,
            at_ms=at_ms,
            term=str(event.fields["term"]),
            new_leader_ms=event.at_ms - at_ms,
        )
        self.failovers.append(failover)
        if former is not None:
            self.traces.append((failover, self.cluster.traces[former.log.name]))
        return failover

    def finish(self) -> Report:
        """End all processes and audit what is left."""
        cluster = self.cluster
        events = cluster.timeline.events()
        handed_over = sum(
            event.fields.get("why") == "handed over" for event in events if event.name == "follower"
        )
        cluster.end()
        changes = self.watch.finish()
        if self.watch.halted:
            raise AssertionError(f"partitions were halted: {self.watch.halted}")
        audit = audit_etcd(
            self.cluster.history,
            changes,
            self.cluster.traces.values(),
            failovers=len(self.failovers),
            all_trace=self.all_trace,
        )
        for failover, trace in self.traces:
            failover.in_flight = len(in_flight(trace))
        for failover in self.failovers:
            failover.running = running_at(audit.rows, failover.at_ms)
            failover.first_grant_ms = first_start(audit.rows, failover.term) - failover.at_ms
        return Report(
            name=self.name,
            audit=audit,
            failovers=self.failovers,
            changes=changes,
            notes=self.notes,
            handed_over=handed_over,
            hand_overs=hand_overs_of(events, Starts(audit.rows), ()),
        )


@contextmanager
def stage(name: str, etcd: EtcdCluster, directory: Path) -> Iterator[Stage]:
    """A watched cluster under a prefix of its own."""
    prefix = f"/{name}"
    with (
        StoreWatch(etcd.endpoints, prefix) as watch,
        Cluster(directory / name, etcd.url(prefix)) as cluster,
    ):
        yield Stage(name=name, cluster=cluster, watch=watch)


def status(address: str, partition: int = 0) -> cluster_pb2.PartitionStatus | None:
    """How a partition is by a master's account; None while that does not answer."""
    with grpc.insecure_channel(address, (("grpc.enable_http_proxy", 0),)) as channel:
        get = channel.unary_unary(
            "/tenure.v1.ClusterService/GetStatus",
            request_serializer=cluster_pb2.GetStatusRequest.SerializeToString,
            response_deserializer=cluster_pb2.GetStatusResponse.FromString,
        )
        try:
            answer: cluster_pb2.GetStatusResponse = get(cluster_pb2.GetStatusRequest(), timeout=2.0)
        except grpc.RpcError:
            return None
    return next((one for one in answer.partitions if one.partition == partition), None)


# Under load.


def leader_killed_under_load(
    directory: Path, *, kills: int, running_min: int, acked_min: int, padding: int
) -> Report:
    """kill -9 the leader again and again, each time with a batch in flight and jobs running.

    The leaders compact etcd, so it is nobody else's.
    """
    with EtcdCluster(3) as etcd, stage("load", etcd, directory) as run:
        cluster = run.cluster
        cluster.start_masters(3)
        for number in (1, 2):
            cluster.start_worker(f"worker-{number}", slots=250)
        # So much that the log is cut meanwhile: terms begin from snapshots too.
        much = ("--open", "1200", "--hold-s", "0.3", "--padding", str(padding))
        load = cluster.start_load("client-1", *much)
        now = RunningNow(cluster.history)
        for number in range(1, kills + 1):
            leader = cluster.leader()
            at_ms = kill_in_flight(cluster, leader, lambda: now.count() >= running_min)
            failover = run.after(f"kill {number} under load", at_ms, leader)
            run.note(f"kill {number}: {leader.name}, then term {failover.term}")
            cluster.start_master(leader.name)
        cluster.wait_said(load, "acked", 60, at_least={"acked": acked_min})
        cluster.drain(load)
        return run.finish()


def kill_in_flight(
    cluster: Cluster, leader: Process, ready: Callable[[], bool] = lambda: True
) -> float:
    """kill -9 at a moment when a batch is sent and not known to be committed.

    The process is frozen for a look at its trace; if nothing is on its way it goes on, and the next
    look comes a moment later. Returns the boot clock just before the kill, in ms.

    Args:
        cluster: Its cluster.
        leader: Whom to kill.
        ready: What else must hold at that moment.
    """
    trace = cluster.traces[leader.log.name]

    def caught() -> bool:
        if not ready():
            return False
        leader.freeze()
        if in_flight(trace) and ready():
            return True
        leader.thaw()
        return False

    cluster.until(caught, 30, "a batch in flight, and the work that should run meanwhile")
    return leader.kill()


# Leaders, workers and all masters, with little load.


def masters_killed(etcd: EtcdCluster, directory: Path) -> Report:
    """kill -9 an idle leader; then, with jobs running, a client and all masters at once."""
    with stage("killed", etcd, directory) as run:
        cluster = run.cluster
        cluster.start_masters(3)
        cluster.start_worker("worker-1", slots=8)
        leader = cluster.leader()
        cluster.wait_said(cluster.processes["worker-1"], "registered")
        run.after("kill of an idle leader", leader.kill(), leader)
        load = cluster.start_load("client-1", "--open", "16", "--hold-s", "0.1")
        doomed = cluster.start_load("client-2", "--open", "64")
        cluster.wait_said(doomed, "acked")
        kill_amid_submits(cluster, doomed)
        cluster.wait_said(load, "acked", at_least={"acked": 200})
        at_ms = 0.0
        for master in cluster.masters:
            at_ms = master.kill()
        for number in (1, 2, 3):
            cluster.start_master(f"master-{number}")
        run.after("kill of all masters", at_ms)
        cluster.wait_said(load, "acked", at_least={"acked": 400})
        cluster.drain(load)
        return run.finish()


def kill_amid_submits(cluster: Cluster, client: Process) -> None:
    """kill -9 a client that has asked for jobs and not heard yet: nobody knows what became of them.

    It is frozen for a look, so that it hears of nothing between the look and its end.
    """

    def caught() -> bool:
        client.freeze()
        found = open_submits(cluster.history, client.name) > 0
        if found:
            client.kill()
        else:
            client.thaw()
        return found

    cluster.until(caught, 20, f"open submits of {client.name}")


def worker_killed(etcd: EtcdCluster, directory: Path) -> Report:
    """kill -9 a worker with jobs running: their leases expire once, and the jobs run elsewhere."""
    with stage("worker-killed", etcd, directory) as run:
        cluster = run.cluster
        cluster.start_masters(1)
        doomed = cluster.start_worker("worker-1", slots=4)
        cluster.start_worker("worker-2", slots=4)
        now = RunningNow(cluster.history)
        load = cluster.start_load("client-1", "--open", "12", "--hold-s", "1.0")
        cluster.until(lambda: now.count() >= 8, 30, "jobs running on both workers")
        at_ms = doomed.kill()
        said = cluster.wait(lambda events: find(events, "expired", at_ms), 30, "an expired lease")
        run.note(f"leases expired {said.at_ms - at_ms:.0f} ms after kill -9 of a worker")
        cluster.drain(load)
        return run.finish()


def rolling_restart(etcd: EtcdCluster, directory: Path, *, leaders: int) -> Report:
    """SIGTERM each master in turn while jobs run; its workers are back before the next one goes.

    It goes round until so many have been stopped while they led.
    """
    with stage(f"rolling-{leaders}", etcd, directory) as run:
        cluster = run.cluster
        cluster.start_masters(3)
        workers = [cluster.start_worker(f"worker-{number}", slots=16) for number in (1, 2)]
        load = cluster.start_load("client-1", "--open", "100", "--hold-s", "0.2")
        cluster.wait_said(load, "completed", at_least={"completed": 250})
        pending = {master.name for master in cluster.masters}
        while pending or len(run.failovers) < leaders:
            leader = cluster.leader()
            follows = pending and leader.name not in pending
            master = cluster.processes[min(pending)] if follows else leader
            at_ms = master.terminate()
            if master is leader:
                run.after(f"SIGTERM of {leader.name}, which led", at_ms)
            if master.wait_exit(END_TIMEOUT_S) != 0:
                raise AssertionError(f"{master.name} failed:\n{master.log_tail(40)}")
            pending.discard(master.name)
            started = cluster.wait_said(cluster.start_master(master.name), "serving")
            for worker in workers:
                cluster.wait_said(worker, "registered", after_ms=started.at_ms)
        cluster.drain(load)
        return run.finish()


def zombies(etcd: EtcdCluster, directory: Path) -> Report:
    """SIGSTOP a worker past its leases, then the leader past its TTL; both come back too late.

    Meanwhile a job on a third worker blocks that worker's event loop for 20 s.
    """
    with stage("zombies", etcd, directory) as run:
        cluster = run.cluster
        cluster.start_masters(3)
        sleeper = cluster.start_worker("worker-1", slots=4)
        cluster.start_worker("worker-2", slots=4)
        blocker = cluster.start_load(
            "client-2", "--jobs", "1", "--hold-s", "20", "--job", "block_the_loop"
        )
        cluster.start_worker("worker-3", slots=1, queues="blocking")
        load = cluster.start_load("client-1", "--open", "12", "--hold-s", "0.5")
        now = RunningNow(cluster.history)
        cluster.until(lambda: now.count() >= 9, 30, "jobs running on all workers")
        at_ms = sleeper.freeze()
        said = cluster.wait(lambda events: find(events, "expired", at_ms), 30, "an expired lease")
        run.note(f"leases expired {said.at_ms - at_ms:.0f} ms after a worker froze")
        # Thawed too early, it would save its work: the results of jobs not granted again count.
        cluster.until(lambda: now.repeated() >= 2, 20, "jobs started again elsewhere")
        sleeper.thaw()
        zombie = cluster.leader()
        run.after("SIGSTOP of the leader", zombie.freeze(), zombie)
        thawed_ms = zombie.thaw()
        stepped = cluster.wait_said(zombie, "follower", 20, after_ms=thawed_ms)
        run.note(f"the zombie stepped down {stepped.at_ms - thawed_ms:.0f} ms after it came back")
        cluster.drain(load, blocker)
        return run.finish()


# Etcd's own faults.


def etcd_hurt(directory: Path) -> Report:
    """kill -9 a follower and then the leader of etcd; then its majority, which comes back."""
    with EtcdCluster(3) as etcd, stage("etcd-hurt", etcd, directory) as run:
        cluster = run.cluster
        cluster.start_masters(2)
        cluster.start_worker("worker-1", slots=8)
        load = cluster.start_load("client-1", "--open", "16", "--hold-s", "0.2")
        cluster.wait_said(load, "completed", at_least={"completed": 250})
        raft_leader = etcd.leader()
        follower = next(member for member in etcd.members if member is not raft_leader)
        for member, what in ((follower, "follower"), (raft_leader, "leader")):
            member.kill()
            progress(run, load, f"kill of etcd's {what}")
            member.start()
            etcd.wait_ready()
        leader = cluster.leader()
        held = run.cluster.wait_leader()
        dead = etcd.members[:2]
        for member in dead:
            member.kill()
        address = cluster.address_of(leader)
        cluster.until(lambda: role_is(address, _ROLE.PARTITION_ROLE_FROZEN), 20, "FROZEN")
        for member in dead:
            member.start()
        etcd.wait_ready()
        back_ms = progress(run, load, "etcd's majority back")
        terms = [event for event in cluster.timeline.events() if event.name == "leader"]
        run.note(f"thawed under {held.fields['term']}" if len(terms) == 1 else f"terms: {terms}")
        run.note(f"{back_ms:.0f} ms from etcd's majority to the next results")
        cluster.drain(load)
        return run.finish()


def progress(run: Stage, load: Process, what: str) -> float:
    """Wait for the next results; how long it took, in ms, is noted."""
    done = load.events("completed")[-1]
    later = run.cluster.wait_said(
        load, "completed", 40, at_least={"completed": done.fields["completed"] + 1}
    )
    waited = later.at_ms - done.at_ms
    run.note(f"{what}: results went on after {waited:.0f} ms")
    return waited


def role_is(address: str, role: cluster_pb2.PartitionRole, partition: int = 0) -> bool:
    """Whether a master says that it has a role in a partition."""
    found = status(address, partition)
    return found is not None and found.role == role


# SQLite.


def sqlite_killed(directory: Path) -> Report:
    """kill -9 the only master in the middle of its work, three times; it finds all again."""
    name = "sqlite"
    path = directory / name / "store.db"
    with Cluster(directory / name, f"sqlite://{path}") as cluster:
        cluster.start_masters(1)
        cluster.start_worker("worker-1", slots=16)
        load = cluster.start_load("client-1", "--open", "100", "--hold-s", "0.1")
        failovers = []
        for number in (1, 2, 3):
            cluster.wait_said(load, "completed", at_least={"completed": 250 * number})
            leader = cluster.leader()
            at_ms = kill_in_flight(cluster, leader)
            trace = cluster.traces[leader.log.name]
            cluster.start_master(leader.name)
            event = cluster.wait_leader(after_ms=at_ms)
            failovers.append(
                Failover(
                    cause=f"kill {number}",
                    at_ms=at_ms,
                    term=str(event.fields["term"]),
                    new_leader_ms=event.at_ms - at_ms,
                    in_flight=len(in_flight(trace)),
                )
            )
        cluster.drain(load)
        cluster.end()
        history = cluster.history
    remains = read_remains(path)
    if remains.first != 0:
        raise AssertionError("the journal was truncated: this audit needs all of it")
    traces = cluster.traces.values()
    audit = audit_sqlite(history, remains.batches, traces, failovers=len(failovers))
    for failover in failovers:
        failover.running = running_at(audit.rows, failover.at_ms)
        failover.first_grant_ms = first_start(audit.rows, failover.term) - failover.at_ms
    return Report(name=name, audit=audit, failovers=failovers)


# Looking at events and facts.


def find(events: list[Event], name: str, after_ms: float) -> Event | None:
    """The first event of a kind after a moment."""
    return next((e for e in events if e.name == name and e.at_ms > after_ms), None)


def losses(facts: list[Fact]) -> list[Closed]:
    """Leases that were closed at the cost of a loss."""
    return [fact for fact in facts if isinstance(fact, Closed) and fact.charged == "loss"]


def terms_of(changes: list[Change]) -> int:
    """How many terms began."""
    return sum(isinstance(change, OfficeTaken) for change in changes)


def terms_in(facts: list[Fact]) -> int:
    """How many terms the journal shows."""
    return sum(isinstance(fact, TermBegan) for fact in facts)
