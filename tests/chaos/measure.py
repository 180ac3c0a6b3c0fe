"""What a chaos run came to: the court's verdict, and the times that changes of leaders took.

A failover is one partition's: a master that led it was killed, and another leads it now. How long
that took is counted from the kill to the ``leader`` line, and to the first start under a lease of
the new term. A hand-over is an office given up in order: how long no job started, see ``starts``.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from tenure.master.backend.etcd.client import VERSION_FLOOR
from tenure.protocol.ids import partition_of
from tenure.worker.crew import LOST_MIN, LOST_PART
from tests.chaos.app import ASKED
from tests.chaos.arena import Arena, Kill
from tests.chaos.audit import Traces, in_flight, token_text
from tests.chaos.process import Event
from tests.chaos.rounds import Log, Strike
from tests.chaos.scope import Unjudged, find_unjudged
from tests.chaos.starts import Starts
from tests.oracles.court import Verdict, hear
from tests.oracles.evidence import Capacity, Evidence, PartitionLog, Said
from tests.oracles.facts import Adopted, Fact, Granted, Submitted
from tests.oracles.history import (
    DEFY,
    END,
    LIST,
    PURGE,
    QUIT,
    REQUEUE,
    SCHEDULE,
    SEAL,
    START,
    SUBMIT,
    TRIGGER,
    Row,
    read_history,
)
from tests.oracles.liveness import SubmitTimes, submit_times
from tests.oracles.resources import Held, compare

#: From here on no former leader of etcd revokes what its successor has renewed, as one that stood
#: still or waited for its disk did before (etcd issue 15247). The first is the newest 3.4's.
_REVOKES_RIGHTLY = ((3, 4, 31), VERSION_FLOOR)

#: A cause may show so much later: an office lives on for its TTL, a lease for its own.
_OFFICE_LAG_MS, _LEASE_LAG_MS = 12_000.0, 25_000.0
#: For so long a failover withholds jobs whose workers have not come back: a lease TTL.
_WITHHELD_MS = 15_000.0
#: In so long before a hand-over a partition that is at work starts this many: one each 100 ms.
_BUSY_MS, _BUSY_STARTS = 5_000.0, 50
#: What a job that has ended takes of a master's memory, and of the store, until its retention is
#: over: nothing of a run is. One master may hold all of them.
_KEPT_JOB_BYTES, _STORED_JOB_BYTES = 4 << 10, 1 << 10


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
        first_grant_ms: Until the first start under its leases, or those of a later term.
        in_flight: Batches of the partition that the killed leader had on their way.
        running: Jobs that ran in the whole cluster at that moment.
        running_here: Those of this partition.
        restarted: Those of them that were started again, and nothing had been done to who ran them:
            job and why.
        excused: How many others were started again, by what had been done to who ran them.
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
    excused: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    """One office that was given up in order: by SIGTERM, by a transfer, for the sake of balance.

    Attributes:
        partition: Which.
        at_ms: When the former leader followed.
        by: Its log's name.
        to: The next leader's.
        alone: Whether nothing else was wrong that could hold up an election or a grant.
        first_grant_ms: For how long no job started: from the last start under an older token to the
            first one under this or a newer one.
    """

    partition: int
    at_ms: float
    by: str
    to: str
    alone: bool
    first_grant_ms: float


@dataclass(slots=True, kw_only=True)
class Measured:
    """All that a run says about itself.

    Attributes:
        verdict: The court's.
        unjudged: What it could not judge.
        failovers: Those that kills caused, in order.
        false_failovers: Offices that were lost though nothing was done that may cost one.
        revoked_by_etcd: Offices that a fault may have cost only because this etcd is old.
        hand_overs: Offices given up in order.
        planned: How often there was what the planner does: schedules, workflows, keys, and so on.
        stall_ms: By partition: the longest time without a start.
        submits: How long they took before the first fault and after the last one.
        held: What processes held before the first fault and at the end.
        kept: How much more than before they may hold for what they keep on purpose.
    """

    verdict: Verdict
    unjudged: list[Unjudged]
    failovers: list[Failover]
    false_failovers: list[str]
    revoked_by_etcd: list[str]
    hand_overs: list[HandOver]
    planned: Mapping[str, int]
    stall_ms: dict[int, float]
    submits: SubmitTimes
    held: list[Held]
    kept: Mapping[tuple[str, str], int]

    def unexplained(self) -> list[tuple[str, str]]:
        """Restarts of jobs whose workers lived, for which there is no excuse."""
        found = (one for failover in self.failovers for one in failover.restarted)
        return [(job, why) for job, why in found if not why]

    def excused(self) -> Counter[str]:
        """Restarts of jobs that a fault of that time explains, by fault."""
        return sum((Counter(failover.excused) for failover in self.failovers), Counter())


@dataclass(frozen=True, slots=True)
class Execution:
    """One lease that was started: from when to when, and by whom; whether it failed by itself."""

    job: str
    lease: str
    process: str
    began_ms: float
    ended_ms: float
    failed: bool = False


def measure(arena: Arena, log: Log) -> Measured:
    """Judge a run whose processes have ended."""
    evidence = gather(arena, log)
    verdict = hear(evidence)
    rows, events = evidence.rows, arena.cluster.timeline.events()
    executions = executions_of(rows)
    starts = Starts(rows)
    sent = {
        kill.log: in_flight(arena.cluster.traces[kill.log])
        for kill in arena.kills
        if kill.log in arena.cluster.traces
    }
    failovers = failovers_of(arena.kills, sent, events, starts, log.strikes)
    journaled = {f.lease for f in verdict.facts if isinstance(f, Granted | Adopted)}
    count_running(failovers, executions)
    lost = lost_offices(events, log.strikes, old_etcd=is_old(arena.etcd_version))
    name_restarted(failovers, executions, journaled, log.strikes, events)
    return Measured(
        verdict=verdict,
        unjudged=find_unjudged(evidence, verdict.facts),
        failovers=failovers,
        false_failovers=lost.for_nothing,
        revoked_by_etcd=lost.by_etcd,
        hand_overs=hand_overs_of(events, starts, log.strikes),
        planned=planned_of(rows, verdict.facts),
        stall_ms=longest_stalls(rows, arena.partitions),
        submits=submit_times(rows, evidence.faults or (), steady_ms=log.steady_ms),
        held=compare(log.samples, evidence.faults or ()),
        kept=evidence.kept,
    )


def gather(arena: Arena, log: Log) -> Evidence:
    """All that is known of a run."""
    changes = arena.watch.finish()
    rows = read_history(arena.cluster.history)
    traces = Traces(arena.cluster.traces.values())
    jobs = len({row.job for row in rows if row.job})
    return Evidence(
        rows=rows,
        logs=[
            PartitionLog(
                partition=partition,
                changes=[change for change in changes if change.partition == partition],
                hashes=traces.hashes(partition),
                trace=traces.rows(partition),
            )
            for partition in range(arena.partitions)
        ],
        partitions=arena.partitions,
        announcements=announcements(arena.cluster.timeline.events(), arena.kills),
        faults=[window for one in log.strikes for window in one.windows()],
        samples=log.samples,
        kept={
            **{(f"master-{n}", "memory_bytes"): _KEPT_JOB_BYTES * jobs for n in (1, 2, 3)},
            **{(m.name, "store_bytes"): _STORED_JOB_BYTES * jobs for m in arena.etcd.members},
        },
        steady_ms=log.steady_ms,
        office_ttl_ms=arena.office_ttl_s * 1_000.0,
        capacities={
            name: Capacity(slots, max(LOST_MIN, slots // LOST_PART))
            for name, slots in arena.slots_of().items()
        },
    )


def announcements(events: Iterable[Event], kills: Iterable[Kill]) -> list[Said]:
    """The masters' lines about their offices, and their deaths by kills, in the order of time."""
    found = [
        Said(kill.at_ms, kill.name, kill.log, "ended")
        for kill in kills
        if kill.name.startswith("master-")
    ]
    for event in events:
        if event.name in ("leader", "follower"):
            fields = event.fields
            found.append(
                Said(
                    event.at_ms,
                    event.process.split(".")[0],
                    event.process,
                    event.name,
                    int(fields["partition"]),
                    token_text(str(fields["term"])),
                )
            )
    return sorted(found, key=lambda said: said.at_ms)


def executions_of(rows: Iterable[Row]) -> list[Execution]:
    """Every lease that was started, in order."""
    began: dict[str, Row] = {}
    ended: dict[str, tuple[float, bool]] = {}
    for row in rows:
        if row.f == START:
            began.setdefault(row.lease, row)
        elif row.f in (END, QUIT):
            ended[row.lease] = (row.boottime, row.f == QUIT and row.detail != ASKED)
    never = (float("inf"), False)
    return [
        Execution(row.job, lease, row.process, row.boottime, *ended.get(lease, never))
        for lease, row in began.items()
    ]


def failovers_of(
    kills: Sequence[Kill],
    sent: Mapping[str, Sequence[tuple[int, int]]],
    events: Sequence[Event],
    starts: Starts,
    strikes: Sequence[Strike],
) -> list[Failover]:
    """For each killed master: what became of the partitions that it led.

    Args:
        kills: Of whomever.
        sent: By a killed master's log: the batches (partition, number) that it had on their way.
        events: The masters' lines.
        starts: All of them.
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
            led_ms = after[0].at_ms
            first_ms = starts.first_ms(partition, token_text(term), led_ms)
            found.append(
                Failover(
                    partition=partition,
                    at_ms=kill.at_ms,
                    killed=kill.log,
                    term=term,
                    alone=is_alone(strikes, kill.at_ms, led_ms),
                    new_leader_ms=led_ms - kill.at_ms,
                    first_grant_ms=first_ms - kill.at_ms,
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
    """Whether, besides, there was work to do, and somebody who could do it.

    There was not where a partition's client was hurt, or all workers had been killed while their
    leases stood.
    """
    together = strikes_amid(strikes, since_ms, until_ms)
    # The fault ends when the leases of the killed are over.
    killed = any(strike.fault.name == "workers-killed" for strike in together)
    idle = any(name.startswith("client-") for strike in together for name in strike.hurt)
    return is_alone(strikes, since_ms, until_ms) and not killed and not idle


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
    events: Sequence[Event],
) -> None:
    """Which jobs ran at a failover and were started again later, and why.

    Args:
        failovers: Where that is noted.
        executions: All of them.
        journaled: The leases that the journals have.
        strikes: What was done to whom.
        events: The masters' lines.
    """
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
                    why = excuse(one, later, strikes, events)
                    if why:
                        failover.excused[why] = failover.excused.get(why, 0) + 1
                    else:
                        unwritten = "first grant not committed at the kill"
                        why = "" if one.lease in journaled else unwritten
                        failover.restarted.append((job, why))


#: Faults that claim a worker and cost it no lease: what it has begun it goes on with.
_COSTS_NO_LEASE = frozenset({"worker-drained"})


def excuse(
    one: Execution, later: Execution, strikes: Sequence[Strike], events: Sequence[Event]
) -> str:
    """Which fault may have cost a lease, be it its worker's or its leader's; empty: none did."""
    for strike in strikes:
        if strike.since_ms > later.began_ms or strike.until_ms + _LEASE_LAG_MS < one.began_ms:
            continue
        name = strike.fault.name
        if one.process in strike.hurt and name not in _COSTS_NO_LEASE:
            return f"its worker was hurt: {name}"
        if strike.fault.costs_leases:
            led = leaders_amid(events, partition_of(one.job), strike.since_ms, strike.until_ms)
            if led & set(strike.hurt):
                return f"its leader was hurt: {name}"
    return ""


def leaders_amid(
    events: Sequence[Event], partition: int, since_ms: float, until_ms: float
) -> set[str]:
    """Who led a partition at some moment of a time, as far as they said."""
    found: set[str] = set()
    for event in events:
        if event.name != "leader" or event.fields["partition"] != partition:
            continue
        if event.at_ms > until_ms:
            break
        if event.at_ms <= since_ms:
            found.clear()
        found.add(event.process.split(".")[0])
    return found


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
    events: Sequence[Event], starts: Starts, strikes: Sequence[Strike]
) -> list[HandOver]:
    """Each office given up in order, and whether anything else could hold up an election or grants.

    Where all workers had been killed, their jobs are withheld while their leases stand; and where
    a failover has met such jobs, for a lease TTL from then on. A partition whose clients have all
    their jobs running starts hardly any: between two of those nobody need have waited.

    Args:
        events: The masters' lines.
        starts: All of them.
        strikes: What was done to whom.
    """
    found = []
    withheld = [(e.at_ms, e.fields["partition"]) for e in events if e.name == "suspect"]
    for place, event in enumerate(events):
        if event.name != "follower" or event.fields.get("why") != "handed over":
            continue
        partition, at_ms = event.fields["partition"], event.at_ms
        terms = (e for e in events[place:] if e.name == "leader")
        later = next((e for e in terms if e.fields["partition"] == partition), None)
        if later is None:
            continue
        token = token_text(str(later.fields["term"]))
        pause = starts.around(partition, token, at_ms)
        if pause.until_ms == math.inf:
            # The run was over: that nobody waits for ever is judged by itself.
            continue
        held_up = any(
            partition == of and since_ms <= at_ms and pause.since_ms <= since_ms + _WITHHELD_MS
            for since_ms, of in withheld
        )
        begun = starts.count(partition, pause.since_ms - _BUSY_MS, pause.since_ms)
        alone = begun >= _BUSY_STARTS and not held_up and is_unhindered(strikes, *pause)
        found.append(
            HandOver(
                partition=partition,
                at_ms=at_ms,
                by=event.process,
                to=later.process,
                alone=alone,
                first_grant_ms=pause.length_ms,
            )
        )
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
        "submits with a key": sum(row.f == SUBMIT and bool(row.key) for row in took),
        "requeues": sum(row.f == REQUEUE for row in took),
        "purges": sum(row.f == PURGE for row in took),
        "lists": sum(row.f == LIST for row in took),
        "attempts that went on behind what was saved": sum(bool(row.saved) for row in took),
        "attempts that were asked to stop and went on": sum(row.f == DEFY for row in took),
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
    """Their number, minimum, median, 99th percentile and maximum; empty for no values."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "min": ordered[0],
        "median": statistics.median(ordered),
        "p99": ordered[math.ceil(len(ordered) * 0.99) - 1],
        "max": ordered[-1],
    }
