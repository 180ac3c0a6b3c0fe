"""Rounds of a chaos run: draw one to three faults, inject them side by side, let all heal, look.

Everything drawn comes from the run's seed: which half of the faults is on for the next rounds,
which are drawn, when each begins, whom each hurts. When things happen inside real processes it does
not decide, so a seed gives the same plan and not the same run.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import inf

import psutil

from tenure.testing.etcd import EtcdNotReady
from tests.chaos import faults_below  # noqa: F401 - declares its faults
from tests.chaos.arena import Arena, Busy
from tests.chaos.faults import Fault
from tests.chaos.process import Event, Expired
from tests.chaos.strace import NotAttached
from tests.chaos.tail import RunningNow
from tests.oracles.evidence import FaultWindow, Sample
from tests.oracles.history import boottime_ms
from tests.oracles.liveness import RECOVERED_MS
from tests.oracles.verdict import Violation

_log = logging.getLogger(__name__)

#: After its healing a round is over when every client has read new results; later is a violation.
SETTLE_TIMEOUT_S = 60.0
#: How long jobs may take to be as many as a failover should meet.
_FILL_TIMEOUT_S = 20.0
_ROUNDS_A_HALF = 6
#: For how long the load is watched before the first round, and once submits are to be as before.
_BEFORE_S, _AFTER_S, _LOOKS = 20.0, 15.0, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One fault as it was injected.

    Attributes:
        fault: Which.
        since_ms: From when (boot clock, ms).
        until_ms: Until when all that it hurt was whole again.
        hurt: Whom it had claimed.
        error: Why it could not be done; empty: it was.
        failed: What did not come that should have while it was done.
    """

    fault: Fault
    since_ms: float
    until_ms: float
    hurt: tuple[str, ...]
    error: str = ""
    failed: str = ""

    def windows(self) -> list[FaultWindow]:
        """The same for the oracles."""
        rows = self.fault.rows or (0,)
        return [
            FaultWindow(rows[0], self.fault.name, node, self.since_ms, self.until_ms)
            for node in self.hurt or ("",)
        ]


@dataclass(slots=True)
class Log:
    """What was done in a run.

    Attributes:
        strikes: All faults that were injected.
        busy: How many could not be, because others had whom they wanted.
        settled_ms: For each round how long after its healing everybody worked again.
        violations: Of L1, and processes that ended by themselves.
        samples: What masters, workers and etcd held, for R1.
        steady_ms: Since when the load before the first round was as it was to be.
    """

    strikes: list[Strike] = field(default_factory=list)
    busy: int = 0
    settled_ms: list[float] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    steady_ms: float = -inf


def play(
    arena: Arena, faults: Sequence[Fault], *, until_s: float, running_min: int, pairs: bool = True
) -> Log:
    """Play rounds until a time, between two times in which nothing is done but the load goes on.

    What the faults must not change for good is measured in both: how long submits take, and what
    processes hold.

    Args:
        arena: Started.
        faults: To draw from.
        until_s: When to stop, by the monotonic clock.
        running_min: How many jobs should run when a round begins.
        pairs: Whether a random half of the faults is on at a time, and up to three strike at once.
    """
    log = Log()
    now = RunningNow(arena.cluster.history)
    enabled = list(faults)
    number = 0
    arena.cluster.timeline.wait(
        lambda _: True if now.count() >= running_min else None, _FILL_TIMEOUT_S
    )
    log.steady_ms = boottime_ms()
    watch_calm(arena, log, _BEFORE_S)
    while time.monotonic() < until_s:
        if pairs and len(faults) > 4 and number % _ROUNDS_A_HALF == 0:
            enabled = arena.rng.sample(list(faults), len(faults) // 2 + 1)
        arena.cluster.timeline.wait(
            lambda _: True if now.count() >= running_min else None, _FILL_TIMEOUT_S
        )
        count = arena.rng.choice((1, 2, 2, 3)) if pairs else 1
        play_round(arena, log, draw(arena.rng, enabled, count))
        log.samples += sample(arena)
        number += 1
    # What submits take counts from a while after the last healing on.
    arena.pause(RECOVERED_MS / 1_000)
    watch_calm(arena, log, _AFTER_S)
    return log


def watch_calm(arena: Arena, log: Log, seconds: float) -> None:
    """Let the load go on by itself for a while, and look a few times at what processes hold."""
    for _ in range(_LOOKS):
        arena.pause(seconds / _LOOKS)
        log.samples += sample(arena)


def draw(rng: random.Random, faults: Sequence[Fault], count: int) -> list[Fault]:
    """Distinct ones, by their weights."""
    left = list(faults)
    drawn: list[Fault] = []
    while left and len(drawn) < count:
        (one,) = rng.choices(left, [fault.weight for fault in left])
        left.remove(one)
        drawn.append(one)
    return drawn


def play_round(arena: Arena, log: Log, drawn: Sequence[Fault]) -> list[Strike]:
    """Some faults at once, each a little later than the one before; then all must heal.

    Returns:
        How it went, those that could not be done included.
    """
    _log.info("round: %s", ", ".join(fault.name for fault in drawn))
    with ThreadPoolExecutor(len(drawn)) as pool:
        futures = []
        for place, fault in enumerate(drawn):
            rng = random.Random(arena.rng.random())
            delay_s = rng.uniform(0, 3) * place
            futures.append(pool.submit(strike, arena, fault, rng, delay_s))
        strikes = [future.result() for future in futures]
    for one in strikes:
        if one.failed:
            log.violations.append(Violation("L1", one.fault.name, one.failed))
            log.strikes.append(one)
            _log.error("%s: %s", one.fault.name, one.failed)
        elif one.error:
            log.busy += 1
            _log.info("%s was not done: %s", one.fault.name, one.error)
        else:
            log.strikes.append(one)
    settle(arena, log, [fault.name for fault in drawn])
    return strikes


def strike(arena: Arena, fault: Fault, rng: random.Random, delay_s: float) -> Strike:
    """One fault from its beginning to its end."""
    arena.pause(delay_s)
    since_ms = boottime_ms()
    with arena.witness() as hurt:
        error = failed = ""
        try:
            fault.inject(arena, rng)
        except (Busy, NotAttached) as busy:
            error = str(busy).strip() or repr(busy)
        except (Expired, EtcdNotReady) as late:
            failed = str(late)
    return Strike(
        fault=fault,
        since_ms=since_ms,
        until_ms=boottime_ms(),
        hurt=tuple(hurt),
        error=error,
        failed=failed,
    )


def settle(arena: Arena, log: Log, names: Sequence[str]) -> None:
    """Wait until every client reads results again (L1), and see who ended by itself."""
    cluster = arena.cluster
    for name, process in list(cluster.processes.items()):
        if process.crashed and not process.found_no_store:
            text = f"ended with {process.process.returncode} amid {names}: {process.log_tail(5)}"
            log.violations.append(Violation("L1", process.log.name, text))
            _log.error("%s %s", name, text)
        if not process.running and name in arena.lasting:
            arena.start_again(name)
    healed_ms = boottime_ms()
    for name in arena.client_names:
        who = cluster.processes[name].log.name

        def goes_on(events: list[Event], who: str = who) -> Event | None:
            for event in reversed(events):
                if event.at_ms <= healed_ms:
                    return None
                if (event.process, event.name) == (who, "completed"):
                    return event
            return None

        if cluster.timeline.wait(goes_on, SETTLE_TIMEOUT_S) is None:
            text = f"reads no results {SETTLE_TIMEOUT_S:.0f} s after {', '.join(names)} had healed"
            log.violations.append(Violation("L1", name, text))
            _log.error("%s %s\n%s", name, text, cluster.story())
    log.settled_ms.append(boottime_ms() - healed_ms)


def sample(arena: Arena) -> list[Sample]:
    """What masters and workers hold, whichever process has their names, and etcd's data."""
    at_ms = boottime_ms()
    found = []
    for name in arena.lasting:
        if name in arena.client_names:
            continue
        try:
            process = psutil.Process(arena.cluster.processes[name].pid)
            memory, descriptors = process.memory_info().rss, process.num_fds()
        except psutil.Error:
            continue
        found.append(Sample(at_ms, name, memory_bytes=memory, descriptors=descriptors))
    for member in arena.etcd.members:
        try:
            status = member.post("/v3/maintenance/status", {})
        except OSError:
            continue
        used = int(status.get("dbSizeInUse", status["dbSize"]))
        found.append(Sample(at_ms, member.name, store_bytes=used))
    return found
