"""Every fault that a chaos run can draw: one function each, which hurts, waits, and heals.

A function takes the arena and its own source of randomness, claims whom it hurts, and leaves all as
it found it: what it killed runs again, what it bent is straight. What it must not cost anybody is
said by its declaration, so that a run can tell a failover that had a cause from a false one.

The two halves: ``masters and workers`` here, ``etcd and the network`` in ``faults_below``.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal

from tenure.client import Client, TenureError, WorkerState
from tenure.master.node.share import share_out
from tests.chaos.arena import GROUP, Arena, Busy, office_key
from tests.chaos.audit import in_flight
from tests.chaos.cluster import END_TIMEOUT_S, START_TIMEOUT_S
from tests.chaos.process import Expired, Process, until
from tests.processes import has_ended

Inject = Callable[[Arena, random.Random], None]

#: Whose office it may cost: nobody's, that of the masters it claims, anybody's; or anybody's, but
#: only where etcd is so old that its former leader revokes leases that its successor has renewed.
Deposes = Literal["nobody", "claimed", "anybody", "anybody on old etcd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault as runs draw it.

    Attributes:
        name: What it is called, for ``FAULTS=`` and the report.
        rows: Its rows in the table of faults; none: what partitions must stand beyond it.
        inject: Does it, from the first hurt to the last healing.
        weight: How often it is drawn, beside others.
        deposes: Whose office it may cost.
        costs_leases: Whether workers that live may lose leases by it.
        needs: What the machine must have (``Arena.missing``).
    """

    name: str
    rows: tuple[int, ...]
    inject: Inject
    weight: int
    deposes: Deposes
    costs_leases: bool
    needs: str


FAULTS: dict[str, Fault] = {}


def fault(
    *rows: int,
    weight: int = 1,
    deposes: Deposes = "nobody",
    costs_leases: bool = False,
    needs: str = "",
) -> Callable[[Inject], Inject]:
    """Declares a fault; its name is the function's."""

    def declare(inject: Inject) -> Inject:
        name = inject.__name__.replace("_", "-")
        FAULTS[name] = Fault(
            name=name,
            rows=rows,
            inject=inject,
            weight=weight,
            deposes=deposes,
            costs_leases=costs_leases,
            needs=needs,
        )
        return inject

    return declare


def chosen(text: str) -> list[Fault]:
    """The faults that a user names, by name or row number; all for an empty text.

    Raises:
        ValueError: a word names none.
    """
    words = text.replace(",", " ").split()
    picked: dict[str, Fault] = {}
    for word in words:
        found = [f for f in FAULTS.values() if word == f.name or word in map(str, f.rows)]
        if not found:
            names = ", ".join(FAULTS)
            raise ValueError(f"expected a fault's name or row, got {word!r}; there are {names}")
        picked |= {f.name: f for f in found}
    return list((picked or FAULTS).values())


# Masters.


@fault(1, 2, weight=8, deposes="claimed")
def leader_killed(arena: Arena, rng: random.Random) -> None:
    """kill -9 of a leader with a batch on its way; it comes back after a while."""
    leader = arena.some_leader(rng)
    with arena.claim(leader.name):
        kill_amid_batch(arena, leader)
        arena.pause(rng.uniform(1, 6))
        arena.cluster.start_master(leader.name)
        arena.pause(6)


@fault(3, weight=2, deposes="anybody")
def successor_killed(arena: Arena, rng: random.Random) -> None:
    """kill -9 of a leader, and of the master that takes its office, as soon as it has the key."""
    partition = rng.randrange(arena.partitions)
    leader = arena.leader_of(partition)
    with arena.claim(*(f"master-{number}" for number in (1, 2, 3))):
        kill_amid_batch(arena, leader)
        name = until(lambda: successor(arena, partition, leader.name), 20)
        if name is not None:
            arena.kill(arena.cluster.processes[name])
            arena.cluster.start_master(name)
        arena.cluster.start_master(leader.name)
        arena.pause(10)


@fault(4, deposes="anybody")
def all_masters_killed(arena: Arena, rng: random.Random) -> None:
    """kill -9 of all masters at once; they come back one after the other."""
    masters = arena.cluster.masters
    with arena.claim(*(master.name for master in masters)):
        for master in masters:
            arena.kill(master)
        arena.pause(rng.uniform(0, 3))
        for master in masters:
            arena.cluster.start_master(master.name)
        arena.pause(10)


@fault(5, weight=3, deposes="claimed")
def masters_restarted(arena: Arena, rng: random.Random) -> None:
    """SIGTERM to one master after the other, each started again before the next."""
    masters = arena.cluster.masters
    with arena.claim(*(master.name for master in masters)):
        for master in masters:
            # One that an earlier fault has killed may be beginning: it does not hear signals yet.
            until(lambda own=master: bool(own.events("serving")), START_TIMEOUT_S)  # type: ignore[misc]
            master.terminate()
            if master.wait_exit(END_TIMEOUT_S) != 0:
                raise Expired(f"{master.name} failed at its end:\n{master.log_tail(40)}")
            until_serving(arena, master.name)
            # Its workers come back to it; without them it would be a leader of nobody.
            arena.pause(2)


@fault(6)
def leader_paused_shortly(arena: Arena, rng: random.Random) -> None:
    """A leader stands still for less than its office is good for."""
    leader = arena.some_leader(rng)
    with arena.claim(leader.name), frozen(leader):
        arena.pause(2)


@fault(7, weight=2, deposes="claimed")
def leader_paused(arena: Arena, rng: random.Random) -> None:
    """A leader stands still until others lead, then goes on as a zombie."""
    leader = arena.some_leader(rng)
    with arena.claim(leader.name):
        with frozen(leader):
            arena.pause(rng.uniform(9, 15))
        arena.pause(3)


@fault(9, deposes="claimed")
def leader_flapping(arena: Arena, rng: random.Random) -> None:
    """A leader stands still for half of each second."""
    leader = arena.some_leader(rng)
    with arena.claim(leader.name):
        for _ in range(15):
            with frozen(leader):
                arena.pause(0.5)
            arena.pause(0.5)


@fault(39)
def leader_wall_jumps(arena: Arena, rng: random.Random) -> None:
    """A leader's wall clock is set an hour forward or back."""
    leader = arena.some_leader(rng)
    with arena.claim(leader.name):
        dial = arena.cluster.dials[leader.name]
        dial.set_wall(rng.choice((-1, 1)) * 3_600_000)
        arena.pause(10)
        dial.set_wall(0)


@fault(40, deposes="claimed")
def masters_skewed(arena: Arena, rng: random.Random) -> None:
    """The masters' wall clocks differ by up to 10 s, and the leader is killed."""
    leader = arena.some_leader(rng)
    names = [master.name for master in arena.cluster.masters]
    with arena.claim(*names):
        for name in names:
            arena.cluster.dials[name].set_wall(rng.uniform(-5_000, 5_000))
        arena.pause(3)
        kill_amid_batch(arena, leader)
        arena.cluster.start_master(leader.name)
        arena.pause(12)
        for name in names:
            arena.cluster.dials[name].set_wall(0)


@fault(42, deposes="claimed")
def leader_suspended(arena: Arena, rng: random.Random) -> None:
    """A leader's machine sleeps for a minute: its boot clock has gone on when it wakes."""
    leader = arena.some_leader(rng)
    with arena.claim(leader.name):
        with frozen(leader):
            arena.pause(rng.uniform(1, 8))
            arena.cluster.dials[leader.name].skip(60_000)
        arena.pause(3)


# Offices.


@fault()
def leaders_transferred(arena: Arena, rng: random.Random) -> None:
    """An operator has random partitions handed over to random masters; then all back home."""
    hand_over(arena, rng, rng.uniform(10, 20))


@fault(deposes="anybody")
def offices_stolen(arena: Arena, rng: random.Random) -> None:
    """The keys of random offices are deleted, or their leases revoked, under their holders."""
    steal(arena, rng, rng.uniform(10, 20))


# Workers and clients.


@fault(11, 13, weight=4)
def worker_killed(arena: Arena, rng: random.Random) -> None:
    """kill -9 of a worker; another comes up under its name while its leases still stand."""
    name = rng.choice(arena.worker_names)
    with arena.claim(name):
        arena.kill(arena.cluster.processes[name])
        arena.pause(rng.uniform(0, 4))
        arena.start_worker(name)
        arena.pause(rng.uniform(2, 16))


@fault(12)
def worker_paused(arena: Arena, rng: random.Random) -> None:
    """A worker stands still until its leases are over, then goes on with its jobs."""
    name = rng.choice(arena.worker_names)
    with arena.claim(name):
        with frozen(arena.cluster.processes[name]):
            arena.pause(18)
        arena.pause(2)


@fault(weight=2)
def worker_group_killed(arena: Arena, rng: random.Random) -> None:
    """kill -9 of one of a supervisor's workers; it starts another one in its place."""
    with supervised(arena) as group:
        doomed = rng.choice(group.events("started")).fields
        os.kill(doomed["pid"], signal.SIGKILL)

        def replaced() -> bool:
            heir = group.events("started")[2:]
            came = [e for e in group.events("registered") if e.fields["name"] == doomed["name"]]
            return bool(heir) and bool(came) and came[-1].at_ms > heir[-1].at_ms

        if not until(replaced, START_TIMEOUT_S):
            raise Expired(f"nobody took the place of {doomed['name']}:\n{group.log_tail(40)}")
        arena.pause(rng.uniform(2, 16))


@fault()
def supervisor_killed(arena: Arena, rng: random.Random) -> None:
    """kill -9 of a supervisor: its workers drain by themselves, and leave nothing behind."""
    with supervised(arena) as group:
        pids = [event.fields["pid"] for event in group.events("started")]
        arena.kill(group)
        if not until(lambda: all(map(has_ended, pids)), END_TIMEOUT_S):
            raise Expired(f"orphans are left of {pids}:\n{group.log_tail(40)}")
        arena.pause(rng.uniform(0, 3))


@fault(14)
def workers_killed(arena: Arena, rng: random.Random) -> None:
    """kill -9 of all workers; nobody works until they are back."""
    with arena.claim(*arena.worker_names):
        for name in arena.worker_names:
            arena.kill(arena.cluster.processes[name])
        arena.pause(rng.uniform(1, 5))
        for name in arena.worker_names:
            arena.start_worker(name)
        arena.pause(16)


@fault(weight=2)
def worker_drained(arena: Arena, rng: random.Random) -> None:
    """An operator drains a worker: it begins nothing until they let it work again."""
    name = rng.choice(arena.worker_names)
    with arena.claim(name), Client(arena.cluster.addresses, timeout=10) as client:
        # With other faults beside this one, nobody may lead for a while; and it may run a job that
        # takes its whole process along.
        with suppress(TenureError):
            incarnation = client.workers.drain(name).incarnation
            # What had begun by then has said so.
            arena.pause(1)
            begun = _begun(arena, name)
            arena.pause(rng.uniform(3, 12))
            more = _begun(arena, name) - begun
            if client.workers.get(incarnation).state in _RESTING and more:
                raise Expired(f"drained {name} has begun {more} jobs")
        until(lambda: _works_again(client, name), END_TIMEOUT_S)


_RESTING: Final = frozenset({WorkerState.DRAINING, WorkerState.DRAINED})


def _begun(arena: Arena, name: str) -> int:
    """How many jobs a worker has begun, by its own word."""
    rows = arena.cluster.history.glob(f"{name}-*.jsonl")
    return sum(path.read_bytes().count(b'"f":"start"') for path in rows)


def _works_again(client: Client, name: str) -> bool:
    """Undrains a worker, if anybody can pass that on now."""
    try:
        return client.workers.undrain(name).state not in _RESTING
    except TenureError:
        return False


@fault(41, costs_leases=True)
def worker_clock_fast(arena: Arena, rng: random.Random) -> None:
    """A worker's clock runs half as fast again: it gives leases up early, never late."""
    name = rng.choice(arena.worker_names)
    with arena.claim(name):
        dial = arena.cluster.dials[name]
        dial.set_rate(1.5)
        arena.pause(15)
        dial.set_rate(1.0)


@fault(35, weight=2)
def client_killed(arena: Arena, rng: random.Random) -> None:
    """kill -9 of a client with calls open; nobody knows what became of them."""
    name = rng.choice(arena.client_names)
    with arena.claim(name):
        arena.kill(arena.cluster.processes[name])
        arena.start_client(name)
        arena.pause(2)


# What several do.


@contextmanager
def supervised(arena: Arena) -> Iterator[Process]:
    """Two workers under a supervisor while the body runs; what is left of them ends in order."""
    with arena.claim(GROUP):
        group = arena.start_group(GROUP)
        try:
            if not until(lambda: len(_names(group, "registered")) == 2, START_TIMEOUT_S):
                raise Expired(f"a group of workers did not come up:\n{group.log_tail(40)}")
            for event in group.events("started"):
                arena.links.know(event.fields["name"], pid=event.fields["pid"])
            yield group
        finally:
            if group.running:
                group.terminate()
                if group.wait_exit(END_TIMEOUT_S) != 0:
                    raise Expired(f"{group.name} failed at its end:\n{group.log_tail(40)}")


def _names(group: Process, event: str) -> set[str]:
    return {said.fields["name"] for said in group.events(event)}


@contextmanager
def frozen(process: Process) -> Iterator[None]:
    """It stands still while the body runs."""
    process.freeze()
    try:
        yield
    finally:
        process.thaw()


def hand_over(arena: Arena, rng: random.Random, seconds: float) -> int:
    """An operator moves partitions for a while; in the end each is to be led by whom it would be.

    Returns:
        How many times one was handed over.
    """
    masters = [name for name in arena.lasting if name.startswith("master")]
    ended_s = time.monotonic() + seconds
    moved = 0
    with Client(arena.cluster.addresses, timeout=5) as client:
        while time.monotonic() < ended_s and not arena.stopping.is_set():
            partition = rng.randrange(arena.partitions)
            # With other faults beside this one, its leader or the named one may be away.
            with suppress(TenureError):
                answer = client.cluster.transfer_leader(partition, rng.choice(["", *masters]))
                moved += answer.master != answer.from_master
            arena.pause(rng.uniform(0, 1))
        for partition, home in enumerate(share_out(arena.partitions, masters)):
            with suppress(TenureError):
                client.cluster.transfer_leader(partition, home)
    return moved


def steal(arena: Arena, rng: random.Random, seconds: float) -> int:
    """Takes random offices from whoever holds them, for a while; returns how many times."""
    ended_s = time.monotonic() + seconds
    stolen = 0
    while time.monotonic() < ended_s and not arena.stopping.is_set():
        stolen += rob(arena, rng.randrange(arena.partitions), revoke=rng.random() < 0.5)
        # Each term has time to begin, and seldom time to hear what all its workers hold.
        arena.pause(rng.uniform(0.5, 3))
    return stolen


def rob(arena: Arena, partition: int, *, revoke: bool) -> bool:
    """Deletes an office's key, or ends the lease that it lives by.

    Returns:
        Whether it did: not if there was none, or no member of etcd answers.
    """
    key = {"key": office_key(partition)}
    for member in arena.etcd.members:
        with suppress(OSError):
            if not revoke:
                return int(member.post("/v3/kv/deleterange", key).get("deleted", 0)) > 0
            held = member.post("/v3/kv/range", key).get("kvs", [])
            for office in held:
                member.post("/v3/lease/revoke", {"ID": office["lease"]})
            return bool(held)
    return False


def until_serving(arena: Arena, name: str) -> None:
    """Starts a master, and once more whenever it ends because etcd is away.

    Raises:
        Expired: it ends for another reason, or serves nothing in time.
    """
    ended_s = time.monotonic() + START_TIMEOUT_S
    master = start_and_wait(arena, name)
    while master.found_no_store and time.monotonic() < ended_s:
        master = start_and_wait(arena, name)
    if not master.events("serving"):
        raise Expired(f"{name} serves nothing:\n{master.log_tail(40)}")


def start_and_wait(arena: Arena, name: str) -> Process:
    """Starts a master; returns when it serves, or has ended, or takes too long."""
    master = arena.cluster.start_master(name)
    until(lambda: master.crashed or bool(master.events("serving")), START_TIMEOUT_S)
    return master


def kill_amid_batch(arena: Arena, leader: Process) -> None:
    """kill -9 with a batch on its way if that can be caught soon; at any moment otherwise."""
    trace = arena.cluster.traces[leader.log.name]

    def caught() -> bool:
        leader.freeze()
        if in_flight(trace):
            return True
        leader.thaw()
        return False

    if not leader.running:
        raise Busy(f"{leader.name} is gone")
    until(caught, 2)
    arena.kill(leader)


def successor(arena: Arena, partition: int, former: str) -> str | None:
    """Whoever has the office after somebody, as soon as it has it."""
    name = arena.office_of(partition)
    return name if name and name != former else None
