"""Four partitions on three masters, whose offices change hands all the time under load.

An operator hands them over, their keys vanish from etcd, and masters are killed. Nothing may be
lost or accepted twice, every partition must go on, and when the last master is back all of them
must lead their part again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.faults import hand_over, steal
from tests.chaos.process import Event
from tests.chaos.site import Site, site

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(240)]

#: From the word of a master that it serves again until all lead their part.
BALANCED_S = 30.0


def leaders(events: Sequence[Event]) -> dict[int, str]:
    """Who leads each partition by the masters' own words; those that nobody does are left out."""
    found: dict[int, str] = {}
    for event in events:
        partition = event.fields.get("partition")
        if event.name == "leader":
            found[partition] = event.process
        elif event.name == "follower" and found.get(partition) == event.process:
            del found[partition]
    return found


def all_led(site: Site, events: Sequence[Event]) -> bool | None:
    """True when the masters that run lead all partitions between them."""
    running = {master.log.name for master in site.arena.cluster.masters}
    led = leaders(events)
    return (len(led) == site.arena.partitions and set(led.values()) <= running) or None


def balanced(site: Site, events: Sequence[Event]) -> bool | None:
    """True when all three masters lead all partitions between them, each of them one or two."""
    counts = Counter(leaders(events).values())
    return (all_led(site, events) and len(counts) == 3 and max(counts.values()) <= 2) or None


def kill_one(site: Site, rng: random.Random) -> float:
    """kill -9 of a master, which comes back when others lead all; how long until the balance, s."""
    arena, cluster = site.arena, site.arena.cluster
    killed = arena.some_leader(rng)
    with arena.claim(killed.name):
        arena.kill(killed)
        cluster.wait(lambda events: all_led(site, events), 30, "other leaders")
        back_ms = cluster.wait_said(cluster.start_master(killed.name), "serving").at_ms
        cluster.wait(lambda events: balanced(site, events), BALANCED_S, "a balance of offices")
    return (site.now_ms() - back_ms) / 1_000


@pytest.mark.parametrize(
    ("seconds", "kills"), [(4.0, 1), pytest.param(20.0, 3, marks=pytest.mark.nightly)]
)
def test_offices_are_handed_over_and_stolen_all_the_time(
    seconds: float, kills: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clients and workers follow; a master that was killed soon leads its part again."""
    rng = random.Random(kills)
    with site(tmp_path) as here, ThreadPoolExecutor(2) as pool:
        moved = stolen = 0
        with here.struck("offices handed over and stolen", deposes="anybody"):
            # A move that meets a theft takes seconds: there are to be enough of both.
            while moved < seconds / 3 or stolen < seconds / 4:
                moves = pool.submit(hand_over, here.arena, random.Random(rng.random()), seconds)
                thefts = pool.submit(steal, here.arena, random.Random(rng.random()), seconds)
                moved += moves.result()
                stolen += thefts.result()
        with here.struck("masters killed", deposes="claimed"):
            took_s = [kill_one(here, rng) for _ in range(kills)]
    with capsys.disabled():
        took = ", ".join(f"{one_s:.1f} s" for one_s in took_s)
        print(f"\n{moved} handed over, {stolen} stolen; balanced after {took}")  # noqa: T201
