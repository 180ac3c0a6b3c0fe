"""What a chaos run came to: the court's verdict, and the times that failovers took.

A failover is one partition's: a master that led it was killed, and another leads it now. How long
that took is counted from the kill to the ``leader`` line, and to the first start under a lease of
the new term.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from tenure.master.backend.etcd.client import VERSION_FLOOR
from tenure.protocol.ids import partition_of
from tests.chaos.arena import Arena, Kill
from tests.chaos.audit import in_flight, live_hashes_of, token_text
from tests.chaos.process import Event
from tests.chaos.rounds import Log, Strike
from tests.oracles.court import Verdict, hear
from tests.oracles.evidence import Evidence, PartitionLog, Said
from tests.oracles.facts import Adopted, Fact, Granted, Submitted, token_of
from tests.oracles.history import (
    END,
    QUIT,
    SCHEDULE,
    SEAL,
    START,
    SUBMIT,
    TRIGGER,
    Row,
    read_history,
)

#: From here on no former leader of etcd revokes what its successor has renewed, as one that stood
#: still or waited for its disk did before (etcd issue 15247). The first is the newest 3.4's.
_REVOKES_RIGHTLY = ((3, 4, 31), VERSION_FLOOR)

#: A cause may show so much later: an office lives on for its TTL, a lease for its own.
_OFFICE_LAG_MS, _LEASE_LAG_MS = 12_000.0, 25_000.0
#: For so long a failover withholds jobs whose workers have not come back: a lease TTL.
_WITHHELD_MS = 15_000.0


@dataclass(slots=True, kw_only=True)
class Failover:
    """One partition that lost its leader to a kill.

    Attributes:
        partition: Which.
        at_ms: When the leader was killed (boot clock).
        killed: Its log's name.
        term: The next term's token.
        alone: Whether nothing else was wrong that could hold up an election.
        new_leader_ms: Until the next ``leader`` line.
        first_grant_ms: Until the first start under its leases.
        in_flight: Batches of the partition that the killed leader had on their way.
        running: Jobs that ran in the whole cluster at that moment.
        running_here: Those of this partition.
        restarted: Those of them that were started again though their worker lived: job and why.
    """

    partition: int
    at_ms: float
    killed: str
    term: str
    alone: bool
    new_leader_ms: float
    first_grant_ms: float
    in_flight: int
    running: int = 0
    running_here: int = 0
    restarted: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class HandOver:
    """One office that was given up in order, and how long until the next term's first start.

    Where there was no job to start yet, from the moment there was one.
    """

    partition: int
    at_ms: float
    by: str
    to: str
    first_grant_ms: float


@dataclass(slots=True, kw_only=True)
class Measured:
    """All that a run says about itself.

    Attributes:
        verdict: The court's.
        failovers: Those that kills caused, in order.
        false_failovers: Offices that were lost though nothing was done that may cost one.
        revoked_by_etcd: Offices that a fault may have cost only because this etcd is old.
        hand_overs: Offices given up in order while nothing else was wrong.
        planned: How often schedules were put, ticked and were triggered, workflows were sealed, and
            jobs with parents were taken.
        stall_ms: By partition: the longest time without a start.
    """

    verdict: Verdict
    failovers: list[Failover]
    false_failovers: list[str]
    revoked_by_etcd: list[str]
    hand_overs: list[HandOver]
    planned: Mapping[str, int]
    stall_ms: dict[int, float]

    def unexplained(self) -> list[tuple[str, str]]:
        """Restarts of jobs whose workers lived, for which there is no excuse."""
        found = (one for failover in self.failovers for one in failover.restarted)
        return [(job, why) for job, why in found if not why]


@dataclass(frozen=True, slots=True)
class Execution:
    """One lease that was started: from when to when, and by whom; whether it ended in a failure."""

    job: str
    lease: str
    process: str
    began_ms: float
    ended_ms: float
    failed: bool = False


def measure(arena: Arena, log: Log) -> Measured:
    """Judge a run whose processes have ended."""
    changes = arena.watch.finish()
    rows = read_history(arena.cluster.history)
    events = arena.cluster.timeline.events()
    hashes = live_hashes_of(arena.cluster.traces.values())
    verdict = hear(
        Evidence(
            rows=rows,
            logs=[
                PartitionLog(
                    partition=partition,
                    changes=[change for change in changes if change.partition == partition],
                    hashes=hashes.get(partition, {}),
                )
                for partition in range(arena.partitions)
            ],
            partitions=arena.partitions,
            announcements=list(announcements(events)),
            faults=[window for one in log.strikes for window in one.windows()],
            samples=log.samples,
            office_ttl_ms=arena.office_ttl_s * 1_000.0,
        )
    )
    executions = executions_of(rows)
    first = first_starts(rows)
    sent = {
        kill.log: in_flight(arena.cluster.traces[kill.log])
        for kill in arena.kills
        if kill.log in arena.cluster.traces
    }
    failovers = failovers_of(arena.kills, sent, events, first, log.strikes)
    journaled = {f.lease for f in verdict.facts if isinstance(f, Granted | Adopted)}
    count_running(failovers, executions)
    lost = lost_offices(events, log.strikes, old_etcd=is_old(arena.etcd_version))
    name_restarted(failovers, executions, journaled, log.strikes)
    return Measured(
        verdict=verdict,
        failovers=failovers,
        false_failovers=lost.for_nothing,
        revoked_by_etcd=lost.by_etcd,
        hand_overs=hand_overs_of(events, first, log.strikes),
        planned=planned_of(rows, verdict.facts),
        stall_ms=longest_stalls(rows, arena.partitions),
    )


def announcements(events: Iterable[Event]) -> Iterable[Said]:
    """The masters' lines about their offices."""
    for event in events:
        if event.name in ("leader", "follower"):
            fields = event.fields
            yield Said(
                event.at_ms,
                event.process.split(".")[0],
                event.process,
                event.name,
                int(fields["partition"]),
                token_text(str(fields["term"])),
            )


def executions_of(rows: Iterable[Row]) -> list[Execution]:
    """Every lease that was started, in order."""
    began: dict[str, Row] = {}
    ended: dict[str, tuple[float, bool]] = {}
    for row in rows:
        if row.f == START:
            began.setdefault(row.lease, row)
        elif row.f in (END, QUIT):
            ended[row.lease] = (row.boottime, row.f == QUIT)
    never = (float("inf"), False)
    return [
        Execution(row.job, lease, row.process, row.boottime, *ended.get(lease, never))
        for lease, row in began.items()
    ]


@dataclass(frozen=True, slots=True)
class FirstStart:
    """When the first job of a term started, and when somebody had begun to submit it."""

    at_ms: float
    asked_ms: float

    def after(self, since_ms: float) -> float:
        """How long it took, in ms; where there was no job yet, from the moment there was one."""
        return self.at_ms - max(since_ms, self.asked_ms)


def first_starts(rows: Iterable[Row]) -> dict[str, FirstStart]:
    """By token: the first start of a job under a lease of that term."""
    first: dict[str, FirstStart] = {}
    asked: dict[str, float] = {}
    for row in rows:
        if row.f == SUBMIT and row.type == "invoke":
            asked[row.hash] = row.boottime
        elif row.f == START:
            start = FirstStart(row.boottime, asked.get(row.hash, 0.0))
            first.setdefault(token_of(row.lease), start)
    return first


def failovers_of(
    kills: Sequence[Kill],
    sent: Mapping[str, Sequence[tuple[int, int]]],
    events: Sequence[Event],
    first: Mapping[str, FirstStart],
    strikes: Sequence[Strike],
) -> list[Failover]:
    """For each killed master: what became of the partitions that it led.

    Args:
        kills: Of whomever.
        sent: By a killed master's log: the batches (partition, number) that it had on their way.
        events: The masters' lines.
        first: By token: the first start under it.
        strikes: What was done to whom.
    """
    terms = [event for event in events if event.name in ("leader", "follower")]
    found = []
    for kill in kills:
        for partition in sorted({event.fields["partition"] for event in terms}):
            about = [event for event in terms if event.fields["partition"] == partition]
            after = [e for e in about if e.at_ms > kill.at_ms and e.name == "leader"]
            before = [event for event in about if event.at_ms <= kill.at_ms]
            own = [event for event in before if event.process == kill.log]
            # A zombie may say that it follows after its successor has said that it leads.
            newest = [event for event in before if event.name == "leader"][-1:]
            if not after or not newest or own[-1:] != newest:
                continue
            term = str(after[0].fields["term"])
            token = token_text(term)
            found.append(
                Failover(
                    partition=partition,
                    at_ms=kill.at_ms,
                    killed=kill.log,
                    term=term,
                    alone=is_alone(strikes, kill.at_ms, after[0].at_ms),
                    new_leader_ms=after[0].at_ms - kill.at_ms,
                    first_grant_ms=(
                        first[token].after(kill.at_ms) if token in first else float("inf")
                    ),
                    in_flight=sum(where == partition for where, _ in sent.get(kill.log, ())),
                )
            )
    return found


#: Faults that leave an election alone: they kill leaders, or hurt workers and clients only.
_BY_ITSELF = frozenset(
    {
        *("leader-killed", "worker-killed", "worker-paused", "workers-killed", "client-killed"),
        *("worker-unheard", "worker-clock-fast", "narrow-line", "etcd-compacted"),
        *("masters-restarted", "worker-group-killed", "supervisor-killed"),
    }
)


def is_alone(strikes: Sequence[Strike], since_ms: float, until_ms: float) -> bool:
    """Whether etcd, the network and all other masters were well in that time."""
    together = strikes_amid(strikes, since_ms, until_ms)
    masters = ("leader-killed", "etcd-compacted", "masters-restarted")
    kills = sum(s.fault.name in masters for s in together)
    return kills <= 1 and all(s.fault.name in _BY_ITSELF for s in together)


def is_unhindered(strikes: Sequence[Strike], since_ms: float, until_ms: float) -> bool:
    """Whether, besides, somebody could work: not all had been killed while their leases stood."""
    together = strikes_amid(strikes, since_ms, until_ms)
    # The fault ends when the leases of the killed are over.
    killed = any(strike.fault.name == "workers-killed" for strike in together)
    return is_alone(strikes, since_ms, until_ms) and not killed


def strikes_amid(strikes: Sequence[Strike], since_ms: float, until_ms: float) -> list[Strike]:
    """Those that were under way at some moment of that time."""
    return [s for s in strikes if s.since_ms <= until_ms and s.until_ms >= since_ms]


def count_running(failovers: Sequence[Failover], executions: Sequence[Execution]) -> None:
    """How many jobs ran when leaders were killed."""
    for failover in failovers:
        for one in executions:
            if one.began_ms <= failover.at_ms < one.ended_ms < float("inf"):
                failover.running += 1
                failover.running_here += partition_of(one.job) == failover.partition


def name_restarted(
    failovers: Sequence[Failover],
    executions: Sequence[Execution],
    journaled: set[str],
    strikes: Sequence[Strike],
) -> None:
    """Which jobs ran at a failover, on a worker that lived, and were started again later."""
    by_job: defaultdict[str, list[Execution]] = defaultdict(list)
    for one in executions:
        by_job[one.job].append(one)
    again = [(job, leases) for job, leases in by_job.items() if len(leases) > 1]
    for failover in failovers:
        for job, leases in again:
            if partition_of(job) != failover.partition:
                continue
            for one, later in pairwise(leases):
                if one.failed and one.ended_ms <= later.began_ms:
                    # It was let end, and is tried again.
                    continue
                if one.began_ms <= failover.at_ms < min(one.ended_ms, later.began_ms):
                    why = excuse(one, later, journaled, strikes)
                    if why != "its worker was hurt":
                        failover.restarted.append((job, why))


def excuse(one: Execution, later: Execution, journaled: set[str], strikes: Sequence[Strike]) -> str:
    """Why a job was started again; empty: for no reason that is known."""
    for strike in strikes:
        hurt = one.process in strike.hurt or strike.fault.costs_leases
        if (
            hurt
            and strike.since_ms <= later.began_ms
            and strike.until_ms + _LEASE_LAG_MS >= one.began_ms
        ):
            return "its worker was hurt"
    return "" if one.lease in journaled else "first grant not committed at the kill"


def is_old(version: str) -> bool:
    """Whether an etcd of this version may revoke leases that are being renewed."""
    number = tuple(map(int, version.split(".")))
    newest_minor, floor = _REVOKES_RIGHTLY
    return number < floor and not (newest_minor <= number < (*newest_minor[:1], 5, 0))


class LostOffices(NamedTuple):
    """Offices that masters lost and should not have.

    Attributes:
        for_nothing: Nothing was done that may cost one.
        by_etcd: Nothing but what costs one on an etcd as old as this.
    """

    for_nothing: list[str]
    by_etcd: list[str]


def lost_offices(
    events: Iterable[Event], strikes: Sequence[Strike], *, old_etcd: bool = False
) -> LostOffices:
    """Sorts the lines of masters that follow and did not want to, by what explains them."""
    found = LostOffices([], [])
    for event in events:
        if event.name != "follower" or event.fields.get("why") == "handed over":
            continue
        causes = causes_of(event, strikes)
        if not causes & {"claimed", "anybody"}:
            explained = old_etcd and "anybody on old etcd" in causes
            line = f"{event.process} at {event.at_ms / 1000:.3f}: {event.fields}"
            (found.by_etcd if explained else found.for_nothing).append(line)
    return found


def causes_of(event: Event, strikes: Sequence[Strike]) -> set[str]:
    """What the faults of that time may cost whom, as far as that takes in this master."""
    name = event.process.split(".")[0]
    return {
        strike.fault.deposes
        for strike in strikes
        if strike.since_ms <= event.at_ms <= strike.until_ms + _OFFICE_LAG_MS
        and strike.fault.deposes != "nobody"
        and (strike.fault.deposes != "claimed" or name in strike.hurt)
    }


def hand_overs_of(
    events: Sequence[Event], first: Mapping[str, FirstStart], strikes: Sequence[Strike]
) -> list[HandOver]:
    """Each office given up in order, where nothing else could hold up an election or a grant.

    Where all workers had been killed, their jobs are withheld while their leases stand; and where
    a failover has met such jobs, for a lease TTL from then on.

    Args:
        events: The masters' lines.
        first: By token: the first start under it.
        strikes: What was done to whom.
    """
    found = []
    withheld = [(e.at_ms, e.fields["partition"]) for e in events if e.name == "suspect"]
    for place, event in enumerate(events):
        if event.name == "follower" and event.fields.get("why") == "handed over":
            partition = event.fields["partition"]
            if any(
                partition == of and at_ms <= event.at_ms <= at_ms + _WITHHELD_MS
                for at_ms, of in withheld
            ):
                continue
            for later in events[place:]:
                if later.name == "leader" and later.fields["partition"] == partition:
                    start = first.get(token_text(str(later.fields["term"])))
                    if start is not None and is_unhindered(strikes, event.at_ms, start.at_ms):
                        took_ms = start.after(event.at_ms)
                        found.append(
                            HandOver(partition, event.at_ms, event.process, later.process, took_ms)
                        )
                    break
    return found


def planned_of(rows: Sequence[Row], facts: Iterable[Fact]) -> dict[str, int]:
    """What there was besides single jobs."""
    took = [row for row in rows if row.type == "ok"]
    ticking = {row.hash for row in took if row.f == SCHEDULE}
    return {
        "schedules": sum(row.f == SCHEDULE for row in took),
        "ticks": sum(isinstance(fact, Submitted) and fact.content in ticking for fact in facts),
        "triggers": sum(row.f == TRIGGER for row in took),
        "workflows": sum(row.f == SEAL for row in took),
        "children": sum(row.f == SUBMIT and bool(row.parents) for row in took),
    }


def longest_stalls(rows: Iterable[Row], partitions: int) -> dict[int, float]:
    """By partition: the longest time between one start and the next, in ms."""
    last: dict[int, float] = {}
    stalls = dict.fromkeys(range(partitions), 0.0)
    for row in rows:
        if row.f == START:
            partition = partition_of(row.job)
            if partition in last:
                stalls[partition] = max(stalls[partition], row.boottime - last[partition])
            last[partition] = row.boottime
    return stalls


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median, 99th percentile and maximum; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "p99": ordered[math.ceil(len(ordered) * 0.99) - 1],
        "max": ordered[-1],
    }
