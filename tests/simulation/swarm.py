"""Random runs: a plan drawn from a seed, played on a simulated cluster, judged by the oracles.

    outcome = simulate(7)        # the plan of seed 7, from start to end on virtual time
    outcome.violations           # empty, or what is wrong

Swarm testing: each run enables a random half of the faults, in waves of one to three at a time, and
a random half of what users' doings may be about beside plain jobs. In
*safety mode* all is healed after the storm; in *liveness mode* a core is healed while a minority
stays broken for good. In both every accepted job must then come to its end in time.

A plan is data. The same plan gives the same run, and a plan with some parts left out (as shrinking
does) is a plan: each fault and each user draws from a randomness of its own.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from tenure.master.node.sizes import LOG_SIZES, LogSizes
from tenure.testing.cluster import Announcement, SimCluster, StoreKind, simulated_cluster
from tenure.testing.ground import EtcdGround
from tenure.testing.loop import Deadlock, TimeLimit
from tenure.testing.process import all_processes, elapse, run_processes
from tenure.worker.crew import LOST_MIN, LOST_PART
from tests.oracles.court import hear
from tests.oracles.evidence import Evidence, FaultWindow, PartitionLog, Said
from tests.oracles.history import hash_of
from tests.oracles.journal import Change
from tests.oracles.sim_watch import sim_changes
from tests.oracles.verdict import Violation
from tests.simulation import (  # noqa: F401 - they register faults, and what users do
    bulk,
    calendars,
    disk_faults,
    etcd_faults,
    families,
    faults,
    fleet,
    plain,
    tuning,
    users,
)
from tests.simulation.ledger import Desk
from tests.simulation.load import CROWD_ROW, TOPICS, WORKER_LABELS, Load
from tests.simulation.stage import KINDS, Kind, Stage, Struck
from tests.simulation.wiretap import Wiretap

#: At least so many strokes of faults are drawn for a run, in waves; one in ten finds no target.
STROKES_MIN: Final = 13
WAVE_S: Final = 3.2
#: How many of the runs have one master on SQLite instead of a cluster on etcd, and how many are
#: in liveness mode.
SQLITE_SHARE: Final = 0.15
LIVENESS_SHARE: Final = 0.25
#: Row 52 scaled to what a run may cost: failovers with many workers and much to do.
CROWD_SHARE, CROWD_WORKERS, CROWD_USERS = 0.02, 12, 80
#: So often a leader is killed beside that.
CROWD_KILLS: Final = 3
#: 200 ppm: a bad quartz.
DRIFT_MAX: Final = 2e-4
#: After everything is whole again: the TTL of a lost lease, a failover, and the rest of the jobs,
#: of which the longest take 25 s and four slots may have many.
DRAIN_S: Final = 200.0
#: How much virtual time a run may take in all.
LIMIT_S: Final = 1_200.0

#: What the masters' keys in etcd start with.
PREFIX: Final = b"/tenure"

Mode = Literal["safety", "liveness"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke:
    """One planned stroke of a fault.

    Attributes:
        number: Tells it from the plan's other ones, also of its randomness.
        kind: The fault's name.
        at_s: When, from the run's beginning.
    """

    number: int
    kind: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run is made of.

    Attributes:
        seed: Of all randomness that no part has for itself.
        mode: What is demanded after the storm.
        strokes: The storm, in the order of its times.
        lasting: A fault that strikes after the storm and never ends (liveness mode).
        topics: What the users' doings are about beside plain jobs.
        users: The numbers of those who come, each to do something and to see what becomes of it.
        storm_s: For so long faults strike and users come.
        skews_ms: How far each master's wall clock is off.
        crowd: Whether there are so many workers and users that failovers are another fault.
        drift: By what part the clocks of nodes run too fast or too slow, at most.
        log_sizes: Of masters' batches and snapshots.
    """

    seed: int
    mode: Mode
    store: StoreKind
    partitions: int
    workers: int
    clients: int
    slots: int
    store_delay_ms: int
    skews_ms: tuple[int, ...]
    crowd: bool
    drift: float
    log_sizes: LogSizes
    strokes: tuple[Stroke, ...]
    lasting: Stroke | None
    topics: tuple[str, ...]
    users: tuple[int, ...]
    storm_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        plan: What was played.
        violations: Every way in which an invariant does not hold.
        evidence: What they were judged by: the history, the journals, what was said and broken.
        struck: The strokes that found something to strike.
        rows_hit: How often each row of the fault table was injected, by strokes and by users.
        announcements: What the processes said of themselves.
        delivered: How many messages arrived.
        failovers: How many terms followed on one whose leader was lost, among several masters.
        handed_over: How many followed on one whose leader had given it to the next.
        restarted: How many followed on one of the only master (on SQLite).
        acked: How many jobs were accepted.
        given_up: How many attempts were given up while their code went on.
        restarts: How many workers were started again because they had lost too many slots.
        virtual_s: How long it took, on the cluster's clock.
    """

    plan: Plan
    violations: list[Violation]
    evidence: Evidence
    struck: list[Struck]
    rows_hit: Counter[int]
    announcements: list[Announcement]
    delivered: int
    failovers: int
    handed_over: int
    restarted: int
    acked: int
    given_up: int
    restarts: int
    virtual_s: float

    def digest(self) -> str:
        """The same for the same run, to the last row and its time and the last byte of journals."""
        return hash_of(
            (
                self.evidence.rows,
                self.announcements,
                [log.all_batches() for log in self.evidence.logs],
                [(one.at_s, one.until_s, one.kind, one.target, one.hit) for one in self.struck],
                self.delivered,
                self.virtual_s,
            )
        )


# ---- plans --------------------------------------------------------------------------------------


def draw_plan(seed: int) -> Plan:
    """The plan of a seed."""
    rng = Random(f"{seed}/plan")
    mode: Mode = "liveness" if rng.random() < LIVENESS_SHARE else "safety"
    store: StoreKind = "sqlite" if rng.random() < SQLITE_SHARE else "etcd"
    kinds = {name: kind for name, kind in KINDS.items() if store in kind.stores}
    strokes = _draw_strokes(rng, [name for name, kind in kinds.items() if not kind.lasting])
    crowd = Random(f"{seed}/crowd").random() < CROWD_SHARE
    if crowd:
        strokes = _with_kills(Random(f"{seed}/kills"), strokes)
    storm_s = max(stroke.at_s for stroke in strokes) + WAVE_S
    lasting = None
    if mode == "liveness":
        name = rng.choice([name for name, kind in kinds.items() if kind.lasting])
        lasting = Stroke(number=len(strokes), kind=name, at_s=0.0)
    return Plan(
        seed=seed,
        mode=mode,
        store=store,
        crowd=crowd,
        partitions=rng.choice((1, 1, 1, 1, 2, 3, 4)),
        workers=CROWD_WORKERS if crowd else rng.choice((2, 2, 3)),
        clients=2,
        slots=rng.choice((2, 4, 8)),
        store_delay_ms=rng.choice((1, 1, 10, 80)),
        skews_ms=rng.choice(((0, 0, 0), tuple(rng.randint(-2_000, 2_000) for _ in range(3)))),
        drift=rng.choice((0.0, rng.uniform(0, DRIFT_MAX))),
        log_sizes=_draw_log_sizes(Random(f"{seed}/log"), store),
        strokes=strokes,
        lasting=lasting,
        topics=_draw_topics(Random(f"{seed}/topics")),
        users=tuple(range(CROWD_USERS if crowd else rng.choice((5, 9, 13)))),
        storm_s=storm_s,
    )


def _draw_log_sizes(rng: Random, store: StoreKind) -> LogSizes:
    """Mostly so small that a short run has batches in flight together, and cuts its log."""
    if rng.random() < 0.25:
        return LOG_SIZES
    # What SQLite has deleted, nobody has seen: its log stays whole for the oracles.
    cut = LOG_SIZES.log_bytes_min if store == "sqlite" else rng.choice((1_000, 3_000, 10_000))
    return LogSizes(
        batch_bytes=rng.choice((1, 200, 1_000)),
        log_bytes_min=cut,
        slice_rows=rng.choice((2, 8, 256)),
    )


def _draw_topics(rng: Random) -> tuple[str, ...]:
    """A random half of them."""
    return tuple(sorted(rng.sample(TOPICS, len(TOPICS) // 2)))


def _draw_strokes(rng: Random, names: list[str]) -> tuple[Stroke, ...]:
    """Waves of one to three faults of the enabled half, until there are enough."""
    enabled = rng.sample(names, (len(names) + 1) // 2)
    weights = [KINDS[name].weight for name in enabled]
    strokes: list[Stroke] = []
    wave_s = 1.0
    while len(strokes) < STROKES_MIN:
        for _ in range(rng.randint(1, 3)):
            at_s = wave_s + rng.uniform(0, WAVE_S)
            (kind,) = rng.choices(enabled, weights)
            strokes.append(Stroke(number=len(strokes), kind=kind, at_s=at_s))
        wave_s += WAVE_S
    return tuple(sorted(strokes, key=lambda stroke: stroke.at_s))


def _with_kills(rng: Random, strokes: tuple[Stroke, ...]) -> tuple[Stroke, ...]:
    """The same, with some kills of leaders."""
    last_s = strokes[-1].at_s
    kills = [
        Stroke(number=len(strokes) + more, kind="kill_leader", at_s=rng.uniform(1, last_s))
        for more in range(CROWD_KILLS)
    ]
    return tuple(sorted((*strokes, *kills), key=lambda stroke: stroke.at_s))


# ---- runs ---------------------------------------------------------------------------------------


def simulate(seed: int, *, plan: Plan | None = None) -> Outcome:
    """Plays the plan of a seed, or another one, from start to end on a virtual clock."""
    plan = plan or draw_plan(seed)
    # An abandoned generator in a cycle ends when it is collected, and what then runs has effects:
    # that moment would depend on all that the process has done before.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return run_processes(lambda: random_run(seed, plan=plan), limit_s=LIMIT_S)
    except (Deadlock, TimeLimit) as error:
        return _stuck(plan, error)
    finally:
        if collecting:
            gc.enable()


@contextmanager
def _silence() -> Iterator[None]:
    """Nobody reads what the masters of random runs log."""
    logger = logging.getLogger("tenure")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


async def random_run(seed: int, *, plan: Plan | None = None) -> Outcome:
    """The same, inside of a loop for processes.

    Args:
        seed: Of everything.
        plan: What to play instead of the seed's own plan.
    """
    plan = plan or draw_plan(seed)
    load = Load(plan.storm_s, plan.topics)
    with _silence():
        async with simulated_cluster(
            seed=seed,
            jobs=load.jobs,
            partitions=plan.partitions,
            workers=plan.workers,
            slots=plan.slots,
            worker_labels=WORKER_LABELS,
            store=plan.store,
            store_delay_ms=plan.store_delay_ms,
            log_sizes=plan.log_sizes,
            folders=False,
        ) as cluster:
            play = _Play(plan, load, cluster)
            violations = await play.play()
            evidence = _evidence(plan, load, cluster, play)
            verdict = hear(evidence)
            violations += [
                Violation("crash", "a handler", repr(error)) for error in cluster.network.failures
            ]
            violations += [Violation("crash", "a job", wrong) for wrong in load.works.wrong]
            terms = successions(cluster.announcements, masters=len(cluster.masters))
            return Outcome(
                plan=plan,
                violations=violations + verdict.violations,
                evidence=evidence,
                struck=[one for one in play.struck if one.target],
                rows_hit=_rows_hit(plan, load, terms, play.struck),
                announcements=cluster.announcements,
                delivered=cluster.network.delivered,
                failovers=terms["lost"],
                handed_over=terms["handed over"],
                restarted=terms["restarted"],
                acked=verdict.acked,
                given_up=verdict.given_up,
                restarts=play.restarts,
                virtual_s=asyncio.get_running_loop().time(),
            )


class _Play:
    """One run under way."""

    def __init__(self, plan: Plan, load: Load, cluster: SimCluster) -> None:
        self.struck: list[Struck] = []
        self.restarts = 0
        self._plan = plan
        self._load = load
        load.attach(cluster)
        self._cluster = cluster
        self.wiretap = Wiretap(cluster.network)
        self._clients = [cluster.client() for _ in range(plan.clients)]
        for master, skew_ms in zip(cluster.masters.values(), plan.skews_ms, strict=False):
            master.clock.wall_skew_ms = skew_ms
        if plan.drift:
            rng = Random(f"{plan.seed}/drift")
            for node in cluster.nodes:
                node.clock.drift(1 + rng.uniform(-plan.drift, plan.drift))

    async def play(self) -> list[Violation]:
        """All of it; what it violates by not coming to its end."""
        try:
            async with asyncio.timeout(None) as bound, asyncio.TaskGroup() as group:
                keeping = group.create_task(self._keep_up())
                async with asyncio.TaskGroup() as acts:
                    for number in self._plan.users:
                        acts.create_task(self._user(number))
                    acts.create_task(self._storm(bound))
                keeping.cancel()
        except TimeoutError:
            return [Violation("L1", "run", f"jobs do not end within {DRAIN_S} s after the storm")]
        except ExceptionGroup as errors:
            return [Violation("crash", "", "".join(traceback.format_exception(errors)))]
        return []

    async def _storm(self, bound: asyncio.Timeout) -> None:
        async with asyncio.TaskGroup() as group:
            for stroke in self._plan.strokes:
                group.create_task(self._strike(stroke))
        self._cluster.heal()
        self._cluster.restart_dead()
        if self._plan.lasting is not None:
            await self._strike(self._plan.lasting)
        bound.reschedule(asyncio.get_running_loop().time() + DRAIN_S)
        desk = Desk(self._load.ledger, self._clients[0])
        async with asyncio.TaskGroup() as group:
            for partition in range(self._plan.partitions):
                probe = self._load.probe(desk, partition, self._plan.partitions)
                group.create_task(probe)
            late = any(stroke.kind == "repeat_calls" for stroke in self._plan.strokes)
            group.create_task(self._load.put_right(desk.client, late_calls=late))

    async def _strike(self, stroke: Stroke) -> None:
        await elapse(stroke.at_s)
        loop = asyncio.get_running_loop()
        struck = Struck(at_s=loop.time(), kind=stroke.kind)
        self.struck.append(struck)
        kind: Kind = KINDS[stroke.kind]
        rng = Random(f"{self._plan.seed}/stroke/{stroke.number}")
        clients = tuple(f"c{number}" for number in range(1, self._plan.clients + 1))
        await kind.strike(Stage(cluster=self._cluster, rng=rng, clients=clients, struck=struck))
        if not kind.lasting:
            struck.until_s = loop.time()

    async def _keep_up(self) -> None:
        """Starts processes again that have exited by themselves, as a service manager does."""
        while True:
            await elapse(1)
            for node in self._cluster.nodes:
                if node.to_restart:
                    self.restarts += node.process.error is None
                    self._cluster.start(node)

    async def _user(self, number: int) -> None:
        rng = Random(f"{self._plan.seed}/user/{number}")
        desk = Desk(self._load.ledger, self._clients[number % len(self._clients)])
        await self._load.user(self._cluster, desk, number, rng)


# ---- judgement ----------------------------------------------------------------------------------


def _evidence(plan: Plan, load: Load, cluster: SimCluster, play: _Play) -> Evidence:
    """What the court is told of a run."""
    said = [
        Said(
            at_ms=a.at_s * 1000,
            process=a.process,
            incarnation=a.incarnation,
            event=a.event,
            partition=int(str(a.fields["partition"])),
            token=_token(str(a.fields["term"])),
        )
        for a in cluster.announcements
        if a.event in ("leader", "follower")
    ]
    said += [
        Said(process.ended_s * 1000, process.name, process.incarnation, "ended")
        for process in all_processes()
        if process.name in cluster.masters and process.ended_s is not None
    ]
    return Evidence(
        rows=load.ledger.rows,
        logs=_logs(cluster),
        partitions=cluster.partitions,
        announcements=sorted(said, key=lambda one: one.at_ms),
        faults=[window for stroke in play.struck for window in _windows(stroke)],
        words=play.wiretap.words(),
        skew_ms=_skew_ms(plan, play.struck),
        slots=plan.slots,
        lost_slots_max=max(LOST_MIN, plan.slots // LOST_PART),
    )


def _skew_ms(plan: Plan, struck: list[Struck]) -> float:
    """How far apart masters' clocks were at most."""
    skew_ms = float(max(plan.skews_ms) - min(plan.skews_ms))
    if plan.drift:
        skew_ms += 2 * plan.drift * LIMIT_S * 1000
    bent = {"jump_wall": 3_600_000, "skew_and_fail_over": 10_000}
    return skew_ms + sum(bent.get(one.kind, 0) for one in struck if one.hit)


def _logs(cluster: SimCluster) -> list[PartitionLog]:
    hashes: dict[int, dict[int, str]] = {number: {} for number in range(cluster.partitions)}
    for (number, seq), text in cluster.state_hashes.items():
        hashes[number][seq] = text
    changes: dict[int, list[Change]] = {number: [] for number in range(cluster.partitions)}
    if isinstance(cluster.ground, EtcdGround):
        etcd = cluster.etcd
        for change in sim_changes(etcd.changes(PREFIX), PREFIX.decode(), etcd.committed_ms):
            changes[change.partition].append(change)
    return [
        PartitionLog(
            partition=number,
            changes=changes[number] or None,
            batches=cluster.journal(number),
            hashes=hashes[number],
            trace=cluster.traces.get(number, ()),
        )
        for number in range(cluster.partitions)
    ]


def _windows(struck: Struck) -> Iterator[FaultWindow]:
    """For each that it struck, from when to when; also if nothing came of it."""
    until_ms = math.inf if struck.until_s is None else struck.until_s * 1000
    for node in struck.nodes:
        yield FaultWindow(
            min(struck.rows, default=0), struck.kind, node, struck.at_s * 1000, until_ms
        )


def _token(term: str) -> str:
    """The first digits of a term's fences."""
    epoch, revision = map(int, term.split("."))
    return f"{epoch:08x}{revision:016x}"


def _rows_hit(plan: Plan, load: Load, terms: Counter[str], struck: list[Struck]) -> Counter[int]:
    hits = load.rows_hit + Counter(row for one in struck for row in one.rows)
    if plan.crowd:
        hits[CROWD_ROW] += terms["lost"] + terms["restarted"]
    return hits


def successions(announcements: Iterable[Announcement], *, masters: int) -> Counter[str]:
    """What became of the terms that others followed on: lost, handed over; restarted on SQLite."""
    terms: Counter[str] = Counter()
    led: set[object] = set()
    handed_over: set[object] = set()
    for said in announcements:
        partition = said.fields.get("partition")
        if said.event == "follower" and said.fields["why"] == "handed over":
            handed_over.add(partition)
        elif said.event == "leader" and partition not in led:
            led.add(partition)
        elif said.event == "leader":
            how = "handed over" if partition in handed_over else "lost"
            terms["restarted" if masters == 1 else how] += 1
            handed_over.discard(partition)
    return terms


def _stuck(plan: Plan, error: Exception) -> Outcome:
    return Outcome(
        plan=plan,
        violations=[Violation("L1", "run", str(error))],
        evidence=Evidence(rows=[], logs=[]),
        struck=[],
        rows_hit=Counter(),
        announcements=[],
        delivered=0,
        failovers=0,
        handed_over=0,
        restarted=0,
        acked=0,
        given_up=0,
        restarts=0,
        virtual_s=LIMIT_S,
    )
