"""The jobs of random runs: what they do is in their arguments, and what they see in the ledger.

All return their first argument, but for those that return what others have come to (``HANDED``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from tenure.client import (
    AsyncJob,
    Cancelled,
    Permanent,
    Retry,
    RetryLater,
    current_job,
    job,
)
from tenure.client.context import listener
from tenure.protocol.vocabulary import LogStream
from tenure.testing.process import Process, current_process, elapse
from tests.oracles.history import DEFY, END, QUIT, SAVE, START, hash_of
from tests.simulation.ledger import Ledger
from tests.simulation.parcels import forwarder

#: Retries come at once and losses are no poison: a run has many of both.
PATIENT: Final = Retry(max_attempts=4, max_lost=10, backoff="none")
#: A job looks so often whether it should stop (the oracles' ``reaction_ms`` is longer).
_LOOK_S: Final = 1.5
#: Jobs of these manners go on when they are asked to stop; those that are deaf do not even look.
_HEEDLESS: Final = ("deaf", "stubborn")
#: How long a step takes of a job that saves how far it is.
_STEP_S: Final = 0.7


class Works:
    """The jobs, each of which records its start and its end.

    Attributes:
        ledger: Where to.
        wrong: What jobs were handed that was not what it should have been.
        echo: Returns its argument after a while, perhaps after some failures.
        act: Behaves as its arguments say.
        tick: What schedules run.
        inherit: Compares the results of its parents with what they should be.
        relay: Returns the result of a parent, or of several, joined.
        fold: The same, of results that come one by one.
        forward: Takes and returns a typed value.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.wrong: list[str] = []
        #: Kills the worker whose job asks for it; set when there is a cluster.
        self.crash: Callable[[Process], None] = lambda _: None

        @job(name="echo", retry=PATIENT)
        async def echo(text: str, hold_s: float = 0.0, failures: int = 0) -> str:
            return await self._run(text, hold_s, "fail", failures)

        @job(name="act", retry=PATIENT)
        async def act(text: str, hold_s: float, manner: str, times: int = 0) -> str:
            return await self._run(text, hold_s, manner, times)

        @job(name="tick", retry=PATIENT)
        async def tick(text: str, hold_s: float) -> str:
            return await self._run(text, hold_s, "", 0)

        @job(name="inherit", retry=PATIENT)
        async def inherit(text: str, found: list[str], expected: list[str]) -> str:
            if found != expected:
                self.wrong.append(f"{current_job().id} was handed {found}, not {expected}")
            return await self._run(text, 0.0, "", 0)

        @job(name="relay", retry=PATIENT)
        async def relay(found: str | list[str], hold_s: float = 0.2) -> str:
            text = found if isinstance(found, str) else " + ".join(found)
            return await self._run(text, hold_s, "", 0, handed=True)

        @job(name="fold", retry=PATIENT)
        async def fold(found: AsyncIterator[str]) -> str:
            text = " + ".join([each async for each in found])
            return await self._run(text, 0.0, "", 0, handed=True)

        self.echo: AsyncJob[..., str] = echo
        self.act: AsyncJob[..., str] = act
        self.tick: AsyncJob[..., str] = tick
        self.inherit: AsyncJob[..., str] = inherit
        self.relay: AsyncJob[..., str] = relay
        self.fold: AsyncJob[..., str] = fold
        self.forward = forwarder(ledger)

    @property
    def all(self) -> Sequence[AsyncJob[..., Any]]:
        """What workers serve."""
        plain = (self.echo, self.act, self.tick, self.inherit, self.relay, self.fold)
        return *plain, self.forward

    async def _run(
        self, text: str, hold_s: float, manner: str, times: int, *, handed: bool = False
    ) -> str:
        content = hash_of(text)
        # What was handed to it is no part of what was submitted.
        found = current_job().last_checkpoint
        saved = "" if found is None else hash_of(found)
        self.ledger.observe(START, hash="" if handed else content, saved=saved)
        try:
            if manner == "climb":
                await self._climb(hold_s)
            else:
                await self._hold(hold_s, manner)
            self._end(manner, times)
            if manner == "poison" and current_job().attempt <= times:
                await self._die()
        except BaseException:
            self.ledger.observe(QUIT)
            raise
        self.ledger.observe(END, hash=content)
        return text

    async def _hold(self, hold_s: float, manner: str) -> None:
        """Takes its time, and looks now and then whether it should stop."""
        left_s, defying = hold_s, False
        while left_s > 0:
            step_s = min(left_s, _LOOK_S)
            try:
                await elapse(step_s)
                if manner == "progress":
                    current_job().progress(100 * (1 - left_s / hold_s))
                    _say(f"{left_s:.1f} s left")
                elif manner != "deaf":
                    current_job().checkpoint()
            except (Cancelled, asyncio.CancelledError):
                # A heedless one goes on, unless its whole process ends.
                process = current_process()
                if manner not in _HEEDLESS or process is None or process.killed:
                    raise
                if not defying:
                    defying = True
                    self.ledger.observe(DEFY)
            left_s -= step_s

    async def _climb(self, hold_s: float) -> None:
        """Takes its time in steps, and saves how far it is; the next attempt goes on there."""
        me = current_job()
        _, next_step = me.last_checkpoint or ("", 0)
        async for step in me.iterate(range(int(hold_s / _STEP_S))):
            if step != next_step:
                self.wrong.append(f"{me.id} is to do step {step}, and had saved {next_step}")
            next_step = step + 1
            await elapse(_STEP_S)
            state = [me.fence, next_step]
            self.ledger.observe(SAVE, hash=hash_of(state))
            me.checkpoint(state)

    @staticmethod
    def _end(manner: str, times: int) -> None:
        """Fails, if that is its manner."""
        me = current_job()
        if me.attempt > times:
            return
        match manner:
            case "fail":
                raise RuntimeError("as it was told to")
            case "later":
                raise RetryLater(timedelta(seconds=0.5 * me.attempt))
            case "permanent" if int(me.fence[-8:], 16) == 0:
                raise Permanent("until it is requeued")

    async def _die(self) -> None:
        process = current_process()
        if process is not None:
            self.crash(process)
        await elapse(3600)


def _say(text: str) -> None:
    listen = listener()
    if listen is not None:
        listen(LogStream.LOGGING, logging.INFO, text)
