"""The supervisor's shell: it starts worker processes, listens to them, and decides nothing.

```
 supervisor ─┬─ worker NAME-1     each with a socket to the supervisor (``lifeline``)
             └─ worker NAME-2 …   and in a session of its own: Ctrl-C reaches only the supervisor
```
What is to be done is ``fleet``'s business. Nothing of gRPC and nothing of the application is in
this process, so that nothing of either can take it down.
"""

import asyncio
import json
import logging
import os
import random
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, assert_never

from tenure.protocol.systemd import Notifier
from tenure.worker import lifeline, metrics, probe
from tenure.worker.cgroup import take_over_for
from tenure.worker.fleet import Act, Fleet, News, Order, State
from tenure.worker.herald import summary
from tenure.worker.probe import Readiness, Report
from tenure.worker.pulse import Refusal

_LOGGER: Final = logging.getLogger(__name__)
#: How often the fleet is looked at when nothing happens.
TICK_S: Final = 0.5
#: How a process counts that could not be started.
_NOT_STARTED: Final = 1


@dataclass(frozen=True, slots=True)
class Command:
    """How to start one worker process.

    Attributes:
        arguments: The program and what it is given.
        fd: An open file that it reads first; closed here when it has started.
    """

    arguments: list[str]
    fd: int


#: Makes the command for a worker of this name, whose end of the lifeline has this number.
MakeCommand = Callable[[str, int], Command]


@dataclass(slots=True, eq=False)
class _Child:
    """One worker process, from the order to start it to its end."""

    process: Process | None = None
    #: Ordered before it was there.
    owed: list[signal.Signals] | None = None


class Supervisor:
    """Worker processes of one application.

    Args:
        fleet: Decides.
        name: Of all; each process has a number after it.
        make_command: How to start one.
        announce: Told what happens, an event and its fields.
        notifier: To systemd.
    """

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        make_command: MakeCommand,
        announce: Callable[[str, Mapping[str, object]], None],
        notifier: Notifier,
    ) -> None:
        self.fleet = fleet
        self._notifier = notifier
        self._is_ready = False
        self._name = name
        self._make_command = make_command
        self._announce = announce
        self._children: dict[int, _Child] = {}
        self._stirred = asyncio.Event()

    async def run(self) -> Refusal | None:
        """Runs until it was asked to end and all processes have, or until none can start.

        Returns:
            Why none can start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._drain)
        loop.add_signal_handler(signal.SIGHUP, self._restart)
        async with asyncio.TaskGroup() as tasks:
            while not self.fleet.over:
                self._stirred.clear()
                self.fleet.tick(_now_ms())
                self._obey(tasks)
                self._tell_systemd()
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._stirred.wait()
        self._tell()
        self._announce("stopped", {"name": self._name})
        return self.fleet.refusal

    def _drain(self) -> None:
        if not self.fleet.ending:
            self._announce("draining", {"name": self._name})
            self._notifier.stopping()
        self.fleet.drain(_now_ms())
        self._stirred.set()

    def _restart(self) -> None:
        if not self.fleet.ending:
            self._notifier.reloading()
        self.fleet.restart(_now_ms())
        self._stirred.set()

    def _obey(self, tasks: asyncio.TaskGroup) -> None:
        self._tell()
        for order in self.fleet.take_orders():
            match order.act:
                case Act.START:
                    child = self._children[order.number] = _Child(owed=[])
                    tasks.create_task(self._keep(order.number, child))
                case Act.DRAIN:
                    self._signal(order, signal.SIGTERM)
                case Act.KILL:
                    self._signal(order, signal.SIGKILL)
                case _:
                    assert_never(order.act)

    def _signal(self, order: Order, number: signal.Signals) -> None:
        child = self._children.get(order.number)
        if child is None:
            return
        if child.process is not None:
            _send(child.process, number)
        elif child.owed is not None:
            child.owed.append(number)

    async def _keep(self, number: int, child: _Child) -> None:
        """One process from its start to its end."""
        name = f"{self._name}-{number}"
        ours, theirs = lifeline.pair()
        loop = asyncio.get_running_loop()
        try:
            process = await self._start(name, theirs)
            if process is None:
                code = _NOT_STARTED
            else:
                child.process = process
                self._announce("started", {"name": name, "pid": process.pid})
                for owed in child.owed or []:
                    _send(process, owed)
                loop.add_reader(ours, self._listen, number, ours)
                code = await process.wait()
                loop.remove_reader(ours)
                # Its last words may say why.
                self._listen(number, ours)
        finally:
            ours.close()
        del self._children[number]
        self.fleet.ended(number, code, _now_ms())
        self._stirred.set()

    async def _start(self, name: str, theirs: socket.socket) -> Process | None:
        with theirs:
            command = self._make_command(name, theirs.fileno())
            try:
                return await asyncio.create_subprocess_exec(
                    *command.arguments,
                    stdin=DEVNULL,
                    pass_fds=(theirs.fileno(), command.fd),
                    start_new_session=True,
                )
            except OSError as error:
                _LOGGER.error("%s could not be started: %s", name, error.strerror)
                return None
            finally:
                os.close(command.fd)

    def _listen(self, number: int, ours: socket.socket) -> None:
        said = lifeline.read(ours)
        if said is None:
            # It has closed its end, or ends.
            asyncio.get_running_loop().remove_reader(ours)
            return
        for pulse in said:
            self.fleet.heard(number, pulse, _now_ms())
        self._stirred.set()

    def _tell(self) -> None:
        for news in self.fleet.take_news():
            name = self._name if news.number is None else f"{self._name}-{news.number}"
            # Who has seen the event finds in the log why.
            self._log(news, name)
            self._announce(news.event, {"name": name, **news.fields})
            if news.event in ("restarted", "restart_failed"):
                self._notifier.ready()

    def _tell_systemd(self) -> None:
        if self.fleet.ready and not self._is_ready:
            self._is_ready = True
            self._notifier.ready()
        self._notifier.status(self._summary())

    def _summary(self) -> str:
        fleet = self.fleet
        places = fleet.places.values()
        bad = sum(1 for place in places if place.quarantined)
        used = sum(place.pulse.busy for place in places if place.pulse is not None)
        slots = sum(place.pulse.slots for place in places if place.pulse is not None)
        looping = f", {bad} in a crash loop" if bad else ""
        return (
            f"{fleet.ready} of {fleet.target} workers ready{looping}, {used} of {slots} slots used"
        )

    def report(self) -> Report:
        """What probes are told: of the supervisor, and of each process."""
        return Report(self._readiness, self._families)

    def _readiness(self) -> Readiness:
        lines = [f"{self._name}: {self._summary()}"]
        for number, place in sorted(self.fleet.places.items()):
            said = summary(place.pulse) if place.pulse is not None else place.state.value
            if place.quarantined:
                said = f"in a crash loop, {said}"
            lines.append(f"{self._name}-{number}: {said}")
        ready = self.fleet.ready > 0 and not self.fleet.ending
        return Readiness(ready, "\n".join([*lines, ""]))

    def _families(self) -> list[metrics.Family]:
        fleet = self.fleet
        pulses = {
            f"{self._name}-{number}": place.pulse
            for number, place in sorted(fleet.places.items())
            if place.pulse is not None
        }
        counts = dict.fromkeys([*(state.value for state in State), "quarantined"], 0)
        for place in fleet.places.values():
            counts["quarantined" if place.quarantined else place.state.value] += 1
        states: list[metrics.Row] = [({"state": name}, count) for name, count in counts.items()]
        return [
            *metrics.of_workers(pulses),
            metrics.Family("tenure_supervisor_processes", "gauge", "Processes, by state.", states),
            metrics.Family(
                "tenure_supervisor_processes_wanted",
                "gauge",
                "How many there are to be.",
                [({}, fleet.target)],
            ),
            metrics.Family(
                "tenure_supervisor_crashes_total", "counter", "Crashes.", [({}, fleet.crashes)]
            ),
            metrics.Family(
                "tenure_supervisor_restarts_total",
                "counter",
                "Processes started in place of others, for whatever reason.",
                [({}, fleet.restarts)],
            ),
        ]

    def _log(self, news: News, name: str) -> None:
        level = logging.ERROR if news.loud else logging.INFO
        _LOGGER.log(level, "%s: %s", name, news.text, extra={"action": news.event})


def _send(process: Process, number: signal.Signals) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        if number is signal.SIGKILL:
            # What it has started goes with it.
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def _now_ms() -> int:
    """Time that this machine was awake: who was asleep with it has missed nothing."""
    return time.monotonic_ns() // 1_000_000


def supervise(
    least: int,
    most: int,
    *,
    name: str,
    drain_timeout_s: float,
    make_command: MakeCommand,
    health: str | None = None,
    insecure: bool = False,
) -> Refusal | None:
    """What ``tenure worker --processes`` runs.

    Args:
        least: Worker processes at least.
        most: At most.
        name: Of all; empty: made from the host's name and the process id.
        drain_timeout_s: How long jobs may go on in a process that is asked to end.
        make_command: How to start one.
        health: Where probes are answered, for all of them; None: nowhere.
        insecure: Allow ``health`` a host that others can reach.

    Returns:
        Why none can start; None: it was asked to end, and has.

    Raises:
        Unusable: It cannot listen on ``health``.
    """
    fleet = Fleet(least, most, int(drain_timeout_s * 1000), random.Random())
    own_name = name or f"{socket.gethostname()}-{os.getpid()}"

    # Its workers can divide their control group only if nobody stays in there, and then they say
    # what came of it: this process does not know whether they have a use for that.
    take_over_for(wanted=True)

    async def run() -> Refusal | None:
        notifier = Notifier()
        supervisor = Supervisor(fleet, own_name, make_command, _announce, notifier)
        async with probe.listening(
            health, insecure, supervisor.report(), lambda at: _announce("health", {"address": at})
        ):
            with notifier.watched():
                return await supervisor.run()

    return asyncio.run(run())


def _announce(event: str, fields: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()
