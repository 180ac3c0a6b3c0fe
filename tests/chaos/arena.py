"""What faults act on: a cluster behind a proxy on an etcd of its own, and who is being hurt now."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tenure.master.election.etcd import OFFICE_TTL_S
from tenure.protocol.ids import home_partition
from tenure.protocol.limits import DEFAULT_TENANT
from tenure.testing.etcd import EtcdCluster, EtcdMember, EtcdNotReady
from tests.chaos import namespace, strace
from tests.chaos.cluster import Cluster
from tests.chaos.links import Links
from tests.chaos.process import Expired, Process
from tests.oracles.etcd_watch import StoreWatch
from tests.oracles.history import boottime_ms

PREFIX = "/chaos"
#: The client of ``planner``.
PLANNER = "planner"
#: Two workers under a supervisor: each writes its history under this name.
GROUP = "group-1"
_GROUP_SLOTS = 50
#: Half an hour's log and data, several times over.
_TMPFS_MIB = 2_048


class Busy(Exception):
    """Whom a fault wants to hurt is being hurt already, or is not there: not this time."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill -9: when (boot clock, ms), of whom, and the log that names the incarnation."""

    at_ms: float
    name: str
    log: str


def queues_of(partitions: int, kind: str = "chaos") -> list[str]:
    """For each partition a queue whose home it is."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        queue = f"{kind}-{number}"
        found.setdefault(home_partition(DEFAULT_TENANT, queue, partitions), queue)
        number += 1
    return [found[partition] for partition in range(partitions)]


def office_key(partition: int) -> str:
    """The key of a partition's office, as etcd's JSON gateway takes it."""
    return base64.b64encode(f"{PREFIX}/partitions/{partition:04d}/office".encode()).decode()


class Arena:
    """Three etcd members, three masters, workers and clients, each reached through the proxy.

    Args:
        directory: For everything that is written.
        partitions: How many.
        workers: How many.
        slots: Of each worker.
        seed: Of all that is drawn.
        office_ttl_s: To try another TTL of the masters' offices than theirs.
        plans: Whether one more client has schedules, workflows, limits and the like.

    Attributes:
        kills: Every kill -9, in order.
        etcd_version: Of its members, as in ``3.5.21``.
        missing: What cannot be done on this machine, by means, with the reason.
        stopping: Set when faults have to end early.
    """

    def __init__(
        self,
        directory: Path,
        *,
        partitions: int = 4,
        workers: int = 3,
        slots: int = 700,
        seed: int,
        office_ttl_s: int = OFFICE_TTL_S,
        plans: bool = False,
    ) -> None:
        self.directory = directory
        self.partitions = partitions
        self.queues = queues_of(partitions)
        self.planned_queues = queues_of(partitions, "plan") if plans else []
        self.worker_names = [f"worker-{number}" for number in range(1, workers + 1)]
        self.client_names = [f"client-{number}" for number in range(1, partitions + 1)]
        self.client_names += [PLANNER] if plans else []
        self.slots = slots
        self.office_ttl_s = office_ttl_s
        self.rng = random.Random(seed)
        self.kills: list[Kill] = []
        self.missing: dict[str, str] = {}
        self.stopping = threading.Event()
        self._load_flags: dict[str, Sequence[str]] = {}
        self._taken: set[str] = set()
        self._taking = threading.Lock()
        self._witnesses = threading.local()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        stack = self._stack
        try:
            self.links = stack.enter_context(Links(self.directory))
            self.etcd = EtcdCluster(3, peer_door=self._peer_door)
            self._mount_small_disk()
            stack.enter_context(self.etcd)
            self._introduce_members()
            status = self.etcd.members[0].post("/v3/maintenance/status", {})
            self.etcd_version = str(status["version"])
            self.watch = stack.enter_context(StoreWatch(self.etcd.endpoints, PREFIX))
            self.cluster = stack.enter_context(
                Cluster(
                    self.directory,
                    self.etcd.url(PREFIX),
                    partitions=self.partitions,
                    links=self.links,
                )
            )
            self.cluster.environment["CHAOS_OFFICE_TTL_S"] = str(self.office_ttl_s)
            self._lay_cables()
        except BaseException:
            stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start(self, open_jobs: int, hold_s: float, *, say_every: int = 200) -> None:
        """Start all processes, and the load: so many jobs under way, each for about that long."""
        self.cluster.start_masters(3)
        for partition in range(self.partitions):
            self.cluster.wait_leader(partition=partition)
        for name in self.worker_names:
            self.start_worker(name)
        share = open_jobs // len(self.queues)
        for name, queue in zip(self.client_names, self.queues, strict=False):
            self._load_flags[name] = (
                *("--queue", queue, "--open", str(share), "--hold-s", str(hold_s)),
                *("--padding", "200", "--say-every", str(say_every)),
            )
        for name in self.client_names:
            self.start_client(name)

    def start_worker(self, name: str) -> Process:
        """Start a worker, or start it again under its name."""
        queues = ",".join([*self.queues, *self.planned_queues])
        return self.cluster.start_worker(name, slots=self.slots, queues=queues)

    def slots_of(self) -> dict[str, int]:
        """How many jobs each worker runs at once, by the name that it goes by in histories."""
        return {**dict.fromkeys(self.worker_names, self.slots), GROUP: _GROUP_SLOTS}

    def start_group(self, name: str) -> Process:
        """Start two workers under a supervisor; their names have numbers after this one."""
        queues = ",".join([*self.queues, *self.planned_queues])
        flags = ("--processes", "2", "--drain-timeout", "5")
        return self.cluster.start_worker(name, slots=_GROUP_SLOTS, queues=queues, flags=flags)

    def start_client(self, name: str) -> Process:
        """Start a client, or another process under its name: it takes up a load of its own."""
        if name == PLANNER:
            seed = str(self.rng.randrange(2**32))
            queues = ",".join(self.planned_queues)
            return self.cluster.start_planner(name, "--queues", queues, "--seed", seed)
        return self.cluster.start_load(name, *self._load_flags[name])

    @property
    def lasting(self) -> list[str]:
        """Who has to run for as long as the run lasts."""
        masters = [f"master-{number}" for number in (1, 2, 3)]
        return [*masters, *self.worker_names, *self.client_names]

    def start_again(self, name: str) -> Process:
        """Start a master, worker or client under its name."""
        if name in self.worker_names:
            return self.start_worker(name)
        if name in self.client_names:
            return self.start_client(name)
        return self.cluster.start_master(name)

    # Whom to hurt.

    @contextmanager
    def claim(self, *names: str) -> Iterator[None]:
        """These are one fault's own while the body runs.

        Raises:
            Busy: another fault has one of them.
        """
        with self._taking:
            if self._taken & set(names):
                raise Busy(f"one of {names} is taken")
            self._taken |= set(names)
        self.blame(*names)
        try:
            yield
        finally:
            with self._taking:
                self._taken -= set(names)

    def blame(self, *names: str) -> None:
        """What the calling thread does hurts these, too."""
        hurt = getattr(self._witnesses, "hurt", None)
        if hurt is not None:
            hurt.update(dict.fromkeys(names))

    @contextmanager
    def witness(self) -> Iterator[dict[str, None]]:
        """Takes down whom the calling thread claims while the body runs."""
        hurt: dict[str, None] = {}
        self._witnesses.hurt = hurt
        try:
            yield hurt
        finally:
            self._witnesses.hurt = None

    def leader_of(self, partition: int) -> Process:
        """Who leads it now, as far as it said.

        Raises:
            Busy: nobody that runs.
        """
        try:
            return self.cluster.leader(partition)
        except Expired as error:
            raise Busy(str(error).splitlines()[0]) from error

    def some_leader(self, rng: random.Random) -> Process:
        """A master that leads something."""
        return self.leader_of(rng.randrange(self.partitions))

    def office_of(self, partition: int) -> str:
        """The name of the master whose key holds an office, by etcd itself; empty: nobody's."""
        for member in self.etcd.members:
            with suppress(OSError):
                found = member.post("/v3/kv/range", {"key": office_key(partition)})
                if "kvs" not in found:
                    return ""
                return str(json.loads(base64.b64decode(found["kvs"][0]["value"]))["name"])
        return ""

    def raft_leader(self) -> EtcdMember:
        """Etcd's own leader.

        Raises:
            Busy: there is none at the moment.
        """
        try:
            return self.etcd.leader()
        except EtcdNotReady as error:
            raise Busy(str(error)) from error

    def raft_followers(self) -> list[EtcdMember]:
        """The members that do not lead etcd."""
        leader = self.raft_leader()
        return [member for member in self.etcd.members if member is not leader]

    # How to hurt.

    def pause(self, seconds: float) -> None:
        """Let time pass; less if the run has to end."""
        self.stopping.wait(timeout=seconds)

    def kill(self, process: Process) -> float:
        """kill -9; returns the boot clock just before, in ms."""
        at_ms = process.kill()
        self.kills.append(Kill(at_ms, process.name, process.log.name))
        return at_ms

    def kill_member(self, member: EtcdMember) -> None:
        """kill -9 an etcd member."""
        self.kills.append(Kill(boottime_ms(), member.name, ""))
        member.kill()

    def start_member(self, member: EtcdMember) -> None:
        """Start an etcd member (again); it may take a moment until it answers."""
        member.start()
        self._introduce_members()

    def small_disk(self) -> tuple[EtcdMember, Path]:
        """The member whose data lie on a small file system, and that file system.

        Raises:
            Busy: there is none.
        """
        if "tmpfs" in self.missing:
            raise Busy(self.missing["tmpfs"])
        member = self.etcd.members[-1]
        return member, member.directory

    def _introduce_members(self) -> None:
        for member in self.etcd.members:
            if member.pid is not None:
                self.links.know(member.name, pid=member.pid)

    def _peer_door(self, name: str, url: str) -> str:
        return f"http://127.0.0.1:{self.links.door(name, url.removeprefix('http://'))}"

    def _mount_small_disk(self) -> None:
        """The last member's data on a file system of memory, which can be filled up."""
        directory = self.etcd.members[-1].directory
        directory.mkdir(exist_ok=True)
        options = f"size={_TMPFS_MIB}m"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            output = getattr(error, "stderr", "") or ""
            self.missing["tmpfs"] = f"no file system in memory: {error} {output}".strip()
            return
        # Lazily: a member may still be ending when the run is torn down.
        self._stack.callback(subprocess.run, ["umount", "-l", str(directory)], check=False)

    def _lay_cables(self) -> None:
        """Each master behind a cable of its own, if that can be done here."""
        reason = namespace.why_not()
        if reason:
            self.missing["netns"] = reason
        else:
            for number in (1, 2, 3):
                place = self._stack.enter_context(namespace.Namespace(f"m{number}", number))
                self.cluster.places[f"master-{number}"] = place
        if reason := strace.why_not():
            self.missing["strace"] = reason
