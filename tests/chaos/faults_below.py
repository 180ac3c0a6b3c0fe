"""The faults below Tenure: etcd's members, their disks, and the network between any two."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from pathlib import Path

from tenure.testing.etcd import EtcdMember
from tests.chaos.arena import Arena, Busy
from tests.chaos.faults import fault, kill_amid_batch
from tests.chaos.namespace import Namespace
from tests.chaos.process import Expired, until
from tests.chaos.strace import injected

_MEMBERS = ("m0", "m1", "m2")


# Etcd's members.


@fault(18, weight=2)
def etcd_follower_killed(arena: Arena, rng: random.Random) -> None:
    """kill -9 of an etcd member that does not lead."""
    member = rng.choice(arena.raft_followers())
    with arena.claim(*_MEMBERS):
        arena.kill_member(member)
        arena.pause(rng.uniform(1, 8))
        bring_back(arena, member)


@fault(19, weight=3)
def etcd_leader_killed(arena: Arena, rng: random.Random) -> None:
    """kill -9 of etcd's leader."""
    member = arena.raft_leader()
    with arena.claim(*_MEMBERS):
        arena.kill_member(member)
        arena.pause(rng.uniform(1, 8))
        bring_back(arena, member)


@fault(20, deposes="anybody")
def etcd_majority_killed(arena: Arena, rng: random.Random) -> None:
    """kill -9 of two members of three: nothing commits until they are back."""
    dead = rng.sample(arena.etcd.members, 2)
    with arena.claim(*_MEMBERS):
        for member in dead:
            arena.kill_member(member)
        arena.pause(rng.uniform(5, 20))
        for member in dead:
            arena.start_member(member)
        arena.etcd.wait_ready()
        arena.pause(8)


@fault(21, deposes="anybody")
def etcd_paused(arena: Arena, rng: random.Random) -> None:
    """All members stand still; leases go on or not as their clocks have it."""
    with arena.claim(*_MEMBERS):
        for member in arena.etcd.members:
            member.pause()
        try:
            arena.pause(rng.uniform(5, 20))
        finally:
            for member in arena.etcd.members:
                member.resume()
        arena.etcd.wait_ready()
        arena.pause(8)


@fault(22, weight=2, deposes="anybody on old etcd")
def etcd_leader_paused(arena: Arena, rng: random.Random) -> None:
    """Etcd's leader stands still with all its connections open."""
    member = arena.raft_leader()
    with arena.claim(*_MEMBERS):
        member.pause()
        try:
            arena.pause(rng.uniform(3, 10))
        finally:
            member.resume()
        arena.etcd.wait_ready()


@fault(22, deposes="anybody on old etcd")
def etcd_leader_half_cut(arena: Arena, rng: random.Random) -> None:
    """What etcd's leader sends to the other members is held; what they send arrives."""
    member = arena.raft_leader()
    with (
        arena.claim(*_MEMBERS),
        arena.links.spoiled(member.name, "m?", way="up", hold=True),
        arena.links.spoiled("m?", member.name, way="down", hold=True),
    ):
        arena.pause(rng.uniform(3, 10))


@fault(44, needs="tmpfs")
def etcd_disk_full(arena: Arena, rng: random.Random) -> None:
    """A member's file system is full: the member dies of it, the cluster must not."""
    member, directory = arena.small_disk()
    with arena.claim(*_MEMBERS):
        filler = directory / "filler"
        fill(filler)
        died = until(lambda: not member.running, 20)
        arena.pause(rng.uniform(2, 6))
        filler.unlink()
        bring_back(arena, member)
    if not died:
        raise Busy(f"{member.name} has found space all the same")


@fault(46, deposes="anybody on old etcd", needs="strace")
def etcd_fsync_slow(arena: Arena, rng: random.Random) -> None:
    """Each fsync of a member takes 0.2 to 1 s longer."""
    member = rng.choice(arena.etcd.members)
    micros = rng.randrange(200_000, 1_000_000)
    with (
        arena.claim(*_MEMBERS),
        injected(pid_of(member), "fsync,fdatasync", f"delay_enter={micros}") as injection,
    ):
        arena.pause(10)
        bent = injection.bent()
    if not bent:
        raise Busy(f"{member.name} had nothing to write")


@fault(47, needs="strace")
def etcd_fsync_fails(arena: Arena, rng: random.Random) -> None:
    """One fsync of a member fails: it must not go on as if nothing had been, so it ends."""
    member = rng.choice(arena.etcd.members)
    with arena.claim(*_MEMBERS):
        with injected(pid_of(member), "fsync,fdatasync", "error=EIO:when=1") as injection:
            died = until(lambda: not member.running, 10)
            failed = injection.bent()
        arena.pause(2)
        bring_back(arena, member)
    if not failed:
        raise Busy(f"{member.name} had nothing to write")
    if not died:
        raise Expired(f"{member.name} goes on after an fsync that failed:\n{member.log_tail()}")


@fault(50)
def etcd_compacted(arena: Arena, rng: random.Random) -> None:
    """Old revisions are thrown away again and again, and a leader recovers meanwhile."""
    leader = arena.some_leader(rng)
    with arena.claim(leader.name):
        kill_amid_batch(arena, leader)
        for _ in range(16):
            # Not beyond what the oracle has seen: it judges every revision.
            body = {"revision": str(arena.watch.changes[-1].revision)}
            with suppress(OSError):
                rng.choice(arena.etcd.members).post("/v3/kv/compaction", body)
            arena.pause(0.5)
        arena.cluster.start_master(leader.name)
        arena.pause(3)


@fault(51, deposes="claimed")
def etcd_defragmented(arena: Arena, rng: random.Random) -> None:
    """Each member is defragmented, one after the other, under load."""
    with arena.claim(*_MEMBERS):
        for member in [*arena.raft_followers(), arena.raft_leader()]:
            began_s = time.monotonic()
            with suppress(OSError):
                member.post("/v3/maintenance/defragment", {}, timeout_s=20)
            if time.monotonic() - began_s > arena.office_ttl_s / 3:
                # It answers nobody meanwhile: no office can be renewed for so long.
                arena.blame(*(master.name for master in arena.cluster.masters))
            arena.pause(1)


# The network.


@fault(25, weight=2, deposes="claimed", costs_leases=True, needs="netns")
def leader_unplugged(arena: Arena, rng: random.Random) -> None:
    """The cable of a leader is pulled: etcd, workers and clients are gone for it."""
    leader = arena.some_leader(rng)
    place = place_of(arena, leader.name)
    with arena.claim(leader.name):
        place.unplug()
        try:
            arena.pause(rng.uniform(3, 14))
        finally:
            place.heal()
        arena.pause(3)


@fault(25, 28, deposes="claimed", costs_leases=True, needs="netns")
def leader_deaf(arena: Arena, rng: random.Random) -> None:
    """Packets to a leader are lost in the kernel; its own arrive."""
    leader = arena.some_leader(rng)
    place = place_of(arena, leader.name)
    with arena.claim(leader.name):
        place.lose_received()
        try:
            arena.pause(rng.uniform(3, 14))
        finally:
            place.heal()
        arena.pause(3)


@fault(25, deposes="claimed")
def leader_cut_from_etcd(arena: Arena, rng: random.Random) -> None:
    """A leader and etcd hear nothing of one another; its workers hear it."""
    leader = arena.some_leader(rng)
    with arena.claim(leader.name):
        with arena.links.spoiled(leader.name, "m?", hold=True):
            arena.pause(rng.uniform(3, 14))
        arena.pause(3)


@fault(26, deposes="claimed", costs_leases=True)
def leader_cut_from_workers(arena: Arena, rng: random.Random) -> None:
    """A leader and all workers hear nothing of one another; its office is safe."""
    leader = arena.some_leader(rng)
    with arena.claim(leader.name):
        with arena.links.spoiled("worker-*", leader.name, hold=True):
            arena.pause(rng.uniform(3, 20))
        arena.pause(3)


@fault(27, deposes="claimed")
def requests_to_etcd_held(arena: Arena, rng: random.Random) -> None:
    """What a leader sends to etcd is held, and arrives in the end."""
    leader = arena.some_leader(rng)
    with arena.claim(leader.name):
        with arena.links.spoiled(leader.name, "m?", way="up", hold=True):
            arena.pause(rng.uniform(2, 10))
        arena.pause(3)


@fault(28, deposes="claimed")
def replies_of_etcd_held(arena: Arena, rng: random.Random) -> None:
    """What etcd answers a leader is held: nobody knows what became of its writes."""
    leader = arena.some_leader(rng)
    with arena.claim(leader.name):
        with arena.links.spoiled(leader.name, "m?", way="down", hold=True):
            arena.pause(rng.uniform(2, 10))
        arena.pause(3)


@fault(29, 36)
def worker_unheard(arena: Arena, rng: random.Random) -> None:
    """What a worker sends to the masters is held; what they send arrives. Then all comes, late."""
    name = rng.choice(arena.worker_names)
    with arena.claim(name):
        with arena.links.spoiled(name, "master-*", way="up", hold=True):
            arena.pause(rng.uniform(4, 18))
        arena.pause(3)


@fault(31, 38, weight=3)
def bytes_cut(arena: Arena, rng: random.Random) -> None:
    """Connections break amid messages: after some bytes of a submit, a report, a grant, a batch."""
    sources = [*arena.worker_names, *arena.client_names]
    master = arena.some_leader(rng).name
    for _ in range(10):
        if rng.random() < 0.3:
            pair = (master, "m?")
        else:
            pair = (rng.choice(sources), "master-*")
        rule = arena.links.make(
            *pair,
            way=rng.choice(("up", "down")),
            cut_after=rng.randrange(4_000),
            reset=rng.random() < 0.5,
        )
        arena.links.wait_cut(rule, 2)
        arena.links.drop(rule)


@fault(32)
def resets(arena: Arena, rng: random.Random) -> None:
    """All connections between two kinds of processes are reset, once a second."""
    pair = rng.choice((("worker-*", "master-*"), ("client-*", "master-*"), ("master-*", "m?")))
    for _ in range(8):
        arena.links.reset(*pair)
        arena.pause(1)


@fault(33)
def etcd_far_away(arena: Arena, rng: random.Random) -> None:
    """Between a leader and etcd each message takes 50 ms longer each way."""
    leader = arena.some_leader(rng)
    with arena.links.spoiled(leader.name, "m?", delay_ms=50):
        arena.pause(10)


@fault(34)
def narrow_line(arena: Arena, rng: random.Random) -> None:
    """256 kbit/s between a worker, or a client, and the masters."""
    name = rng.choice([*arena.worker_names, *arena.client_names])
    with arena.claim(name), arena.links.spoiled(name, "master-*", bytes_per_s=32_000):
        arena.pause(10)


def fill(path: Path) -> None:
    """Takes all that is free of a file system, the large pieces first."""
    taken = 0
    with path.open("wb") as file:
        for size in (2**28, 2**20, 2**12):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), taken, size)
                    taken += size


def bring_back(arena: Arena, member: EtcdMember) -> None:
    """It runs again and answers."""
    arena.start_member(member)
    arena.etcd.wait_ready()


def pid_of(member: EtcdMember) -> int:
    """Of a member that runs."""
    if member.pid is None or not member.running:
        raise Busy(f"{member.name} is gone")
    return member.pid


def place_of(arena: Arena, name: str) -> Namespace:
    """The network namespace of a master."""
    place = arena.cluster.places.get(name)
    if place is None:
        raise Busy(f"{name} has no cable of its own")
    return place
