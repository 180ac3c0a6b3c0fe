"""A cluster of real processes on loopback: masters, workers and loaded clients of one store.

    with Cluster(directory, etcd.url("/run-1")) as cluster:
        cluster.start_masters(3)
        cluster.start_worker("worker-1", slots=250)
        load = cluster.start_load("client-1", "--open", "1000")
        killed_ms = cluster.leader().kill()
        cluster.wait_leader(after_ms=killed_ms)

Processes keep their names and their ports over restarts. Everything they say and all that they log
is in the directory; what fails shows the ends of the logs. With ``links`` they reach one another
only through the proxy, and their clocks can be bent.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.chaos.links import Links
from tests.chaos.namespace import Namespace
from tests.chaos.ports import free_port
from tests.chaos.process import Event, Expired, Process, Timeline, until
from tests.chaos.skewed import Dial
from tests.oracles.history import boottime_ms

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 40.0
#: A master waits up to 20 s for a successor, and then for a store that may be away.
END_TIMEOUT_S = 40.0


class Cluster:
    """Masters, workers and clients of one store.

    Args:
        directory: For logs, histories and traces; made if it is not there.
        store: The masters' store URL.
        partitions: For the bootstrap.
        links: The proxy between all processes; etcd's members are ``m0``, ``m1``, ... in it. None:
            they talk without one.

    Attributes:
        dials: By process name: what bends its clocks (with ``links``).
        places: By master's name: the network namespace that it is started in.
        environment: Of every process that is started from now on.
    """

    def __init__(
        self, directory: Path, store: str, *, partitions: int = 1, links: Links | None = None
    ) -> None:
        self.directory = directory
        self.store = store
        self.partitions = partitions
        self.dials: dict[str, Dial] = {}
        self.places: dict[str, Namespace] = {}
        self.environment: dict[str, str] = {}
        self._links = links
        self._doors: dict[str, int] = {}
        self.history = directory / "history"
        self.history.mkdir(parents=True, exist_ok=True)
        self.timeline = Timeline()
        self.processes: dict[str, Process] = {}
        self.traces: dict[str, Path] = {}
        self._ended: list[Process] = []
        self._listens: dict[str, str] = {}
        self._addresses: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in [*self.processes.values(), *self._ended]:
            process.stop()

    # Processes.

    def start_masters(self, count: int) -> list[Process]:
        """Start ``master-1`` and so on; return when one leads."""
        masters = [self.start_master(f"master-{number}") for number in range(1, count + 1)]
        for master in masters:
            self.wait_said(master, "serving")
        self.wait_leader()
        return masters

    def start_master(self, name: str, *flags: str, wrapper: Sequence[str] = ()) -> Process:
        """Start one master, or start it again on its old address; ``wrapper`` goes before it."""
        place = self.places.get(name)
        host = place.inside if place else "127.0.0.1"
        listen = self._listens.setdefault(name, f"{host}:{free_port()}")
        trace = self.directory / f"trace-{name}-{len(self.traces)}.jsonl"
        command = ["master", "--store", self._store_of(place), "--listen", listen, "--name", name]
        command += ["--partitions", str(self.partitions), *flags]
        if self._links is not None:
            # One that other masters can dial as well, from where they are.
            door_host = place.outside if place else "127.0.0.1"
            self._addresses[name] = f"{door_host}:{self._door(name, listen)}"
            command += ["--advertise", self._addresses[name]]
        if place is not None:
            wrapper = [*place.wrapper, *wrapper]
            command.append("--insecure")
        self._addresses.setdefault(name, listen)
        master = self._start(
            name, [*wrapper, *self._tenure(*command)], {"TENURE_TRACE": str(trace)}
        )
        self.traces[master.log.name] = trace
        return master

    def _store_of(self, place: Namespace | None) -> str:
        """The store as a master dials it: without a proxy as it is, else by the proxy's doors."""
        scheme, _, rest = self.store.partition("://")
        if self._links is None or scheme != "etcd":
            return self.store
        members, slash, prefix = rest.partition("/")
        host = place.outside if place else "127.0.0.1"
        doors = [f"{host}:{self._door(f'm{i}', m)}" for i, m in enumerate(members.split(","))]
        return f"etcd://{','.join(doors)}{slash}{prefix}"

    def _door(self, target: str, address: str) -> int:
        if self._links is None:
            raise RuntimeError("expected a proxy to open a door, but this cluster has none")
        if target not in self._doors:
            self._doors[target] = self._links.door(target, address)
        return self._doors[target]

    def _tenure(self, *arguments: str) -> list[str]:
        """The ``tenure`` command, with clocks that can be bent if anything can."""
        if self._links is None:
            return tenure(*arguments)
        return [sys.executable, "-m", "tests.chaos.skewed", *arguments]

    def start_worker(
        self,
        name: str,
        *,
        slots: int = 8,
        queues: str = "default",
        app: str = "tests.chaos.app",
        flags: Sequence[str] = (),
    ) -> Process:
        """Start one worker; it may register a moment later."""
        command = [
            *("worker", app, "--master", self.addresses, "--name", name),
            *("--slots", str(slots), "--queues", queues),
            *flags,
        ]
        return self._start(name, self._tenure(*command), {})

    def start_crowd(self, name: str, *, workers: int, slots: int) -> Process:
        """Start a process of many workers (see ``crowd``); when it ends it has noted its dials."""
        command = [
            *(sys.executable, "-m", "tests.chaos.crowd", "--master", self.addresses),
            *("--name", name, "--workers", str(workers), "--slots", str(slots)),
            *("--dials", str(self.directory / f"dials-{name}.json")),
        ]
        return self._start(name, command, {})

    def start_load(self, name: str, *flags: str) -> Process:
        """Start one loaded client (see ``load``)."""
        command = [sys.executable, "-m", "tests.chaos.load", "--address", self.addresses]
        return self._start(name, [*command, "--name", name, *flags], {})

    def start_planner(self, name: str, *flags: str) -> Process:
        """Start a client that plans (see ``planner``)."""
        command = [sys.executable, "-m", "tests.chaos.planner", "--address", self.addresses]
        return self._start(name, [*command, "--name", name, *flags], {})

    def _start(self, name: str, command: Sequence[str], environment: dict[str, str]) -> Process:
        former = self.processes.get(name)
        if former is not None:
            self._ended.append(former)
        clock = self.directory / f"clock-{name}"
        if self._links is not None:
            self.dials.setdefault(name, Dial(clock))
        process = Process(
            name,
            command,
            self.directory,
            self.timeline,
            {
                "CHAOS_HISTORY": str(self.history),
                "CHAOS_PROCESS": name,
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
                "PYTHONFAULTHANDLER": "1",
                "CHAOS_CLOCK": str(clock),
                **self.environment,
                **environment,
            },
        )
        self.processes[name] = process
        if self._links is not None:
            place = self.places.get(name)
            self._links.know(name, pid=process.pid, address=place.inside if place else "")
        return process

    @property
    def addresses(self) -> str:
        """The masters' addresses, as flags take them."""
        return ",".join(self._addresses.values())

    def address_of(self, master: Process) -> str:
        """Where a master listens."""
        return self._addresses[master.name]

    @property
    def masters(self) -> list[Process]:
        """The masters that run now, frozen ones included."""
        return [
            process
            for name, process in self.processes.items()
            if name.startswith("master") and process.running
        ]

    # Waiting.

    def wait(self, look: Callable[[list[Event]], T | None], timeout_s: float, what: str) -> T:
        """What is found in the events.

        Raises:
            Expired: it is not found in time, or a process failed before.
        """

        def look_or_give_up(events: list[Event]) -> tuple[T | None] | None:
            found = look(events)
            if found is not None:
                return (found,)
            return (None,) if any(p.crashed for p in self.processes.values()) else None

        (found,) = self.timeline.wait(look_or_give_up, timeout_s) or (None,)
        if found is None:
            raise Expired(f"{what} did not come within {timeout_s} s\n{self.story()}")
        return found

    def until(self, condition: Callable[[], T | None], timeout_s: float, what: str) -> T:
        """What a condition that no event announces comes to.

        Raises:
            Expired: it does not come in time.
        """
        found = until(condition, timeout_s)
        if found is None:
            raise Expired(f"{what} did not come within {timeout_s} s\n{self.story()}")
        return found

    def wait_said(
        self,
        process: Process,
        event: str,
        timeout_s: float = START_TIMEOUT_S,
        *,
        after_ms: float = 0.0,
        at_least: dict[str, int] | None = None,
    ) -> Event:
        """The first such line of one process, with counts that have come so far."""

        def look(events: list[Event]) -> Event | None:
            for said in events:
                if (
                    said.process == process.log.name
                    and said.name == event
                    and said.at_ms >= after_ms
                    and all(said.fields.get(k, 0) >= v for k, v in (at_least or {}).items())
                ):
                    return said
            return None

        return self.wait(look, timeout_s, f"{process.name}: {event} {at_least or ''}")

    def wait_leader(
        self, *, after_ms: float = 0.0, timeout_s: float = START_TIMEOUT_S, partition: int = 0
    ) -> Event:
        """The first ``leader`` line of a partition after a moment."""

        def look(events: list[Event]) -> Event | None:
            wanted = ("leader", partition)
            for event in events:
                found = (event.name, event.fields.get("partition"))
                if event.at_ms > after_ms and found == wanted:
                    return event
            return None

        return self.wait(look, timeout_s, f"a leader of partition {partition}")

    def leader(self, partition: int = 0) -> Process:
        """The process that leads a partition now, as far as it said."""
        for event in reversed(self.timeline.events()):
            if (event.name, event.fields.get("partition")) == ("leader", partition):
                for process in self.masters:
                    if process.log.name == event.process:
                        return process
        raise Expired(f"no running master leads partition {partition}\n{self.story()}")

    # Ends.

    def drain(self, *loads: Process, timeout_s: float = 60.0) -> None:
        """Let the clients stop submitting and wait until all their results are in."""
        for load in loads:
            load.tell("stop")
        for load in loads:
            self.wait_said(load, "drained", timeout_s)
            if load.wait_exit(10) != 0:
                raise Expired(f"{load.name} failed:\n{load.log_tail(40)}")

    def end(self, timeout_s: float = END_TIMEOUT_S) -> None:
        """SIGTERM the workers, then the masters; each must end by itself, with exit code 0."""
        workers = [p for p in self.processes.values() if p.running and p not in self.masters]
        for group in (workers, self.masters):
            for process in group:
                process.terminate()
            for process in group:
                code = process.wait_exit(timeout_s)
                if code != 0:
                    raise Expired(f"{process.name} ended with {code}:\n{process.log_tail(40)}")

    def story(self) -> str:
        """What happened, for the message of a failure."""
        lines = [
            f"{event.at_ms / 1000:.3f} {event.process} {json.dumps(event.fields)}"
            for event in self.timeline.events()[-40:]
        ]
        for process in self.processes.values():
            state = "runs" if process.running else f"ended with {process.process.returncode}"
            lines += [f"--- {process.log.name} ({state})", process.log_tail()]
        return "\n".join([f"now {boottime_ms() / 1000:.3f}, logs in {self.directory}", *lines])


def tenure(*arguments: str) -> list[str]:
    """The ``tenure`` command of this very environment."""
    return [sys.executable, "-m", "tenure.cli", *arguments]
