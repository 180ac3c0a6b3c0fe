"""The event loop of user code, in a thread of its own, and the watch over it.

A job that blocks this loop delays other coroutine jobs, but neither heartbeats nor reports: those
live in the main thread's loop, which asks this one to turn every now and then. If it does not, the
watch says who blocks it, and where.
"""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from types import FrameType
from typing import Final, TypeVarTuple

from tenure.worker.held import HeldJob

A = TypeVarTuple("A")
_LOGGER: Final = logging.getLogger(__name__)
#: How long the end of the loop is waited for.
CLOSE_S: Final = 1.0
#: How often the loop is asked to turn, and how late it may be.
PROBE_MS: Final = 500
BLOCKED_MS: Final = 2_000
#: At so many looks in a row, one each ``PROBE_MS``, one has blocked the loop when it is given up
#: (60 s), and when the loop is given up on (2 s) if its code was given up before.
STUCK_LOOKS_MAX: Final = 120
STUCK_LOOKS_MIN: Final = 4
#: Of a stack, so many calls and so much text: the innermost.
STACK_CALLS_MAX: Final = 40
STACK_CHARS_MAX: Final = 4_096
#: Modules that call user code: what they were called by says nothing.
_CALLERS: Final = ("tenure.worker.", "asyncio.events", "asyncio.base_events")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlocked:
    """That the loop does not turn, and who keeps it from turning.

    Attributes:
        job_id: The job whose code runs; empty if the code is no job's own (a callback).
        name: That job's name.
        ms: For how long the loop has not turned.
        stack: Where the code was when that was noticed, the innermost call last.
    """

    job_id: str
    name: str
    ms: int
    stack: str

    @property
    def who(self) -> str:
        """For people."""
        return f"job {self.job_id} ({self.name})" if self.job_id else "a callback"


class LoopWatch:
    """Notices when something blocks the loop, and says once what, and where.

    Attributes:
        blocked: What blocks the loop now; None: it turns.
        by: The job whose code that is; None: no job's own, or it turns.
        looks: At how many looks in a row it was this one. Looks count, not time: in a process that
            was stopped for an hour nobody has blocked it.
        next_ms: When to look again; at once, the first time.
    """

    def __init__(self, loop: "JobLoop") -> None:
        self.blocked: LoopBlocked | None = None
        self.by: HeldJob | None = None
        self.looks = 0
        self.next_ms = 0
        self._loop = loop
        self._probed_ms: int | None = None
        #: At how many looks it had not turned since.
        self._unanswered = 0
        #: At how many of the last looks the attempt had a result whose code blocks it.
        self._ended = 0
        self._turns = 0

    def tick(self, now_ms: int) -> None:
        if now_ms < self.next_ms:
            return
        self.next_ms = now_ms + PROBE_MS
        if self._probed_ms is None or self._loop.turns != self._turns:
            self._turns = self._loop.turns
            self._probed_ms = now_ms
            self.blocked = self.by = None
            self.looks = self._unanswered = self._ended = 0
            self._loop.probe()
            return
        self._unanswered += 1
        if self._unanswered < BLOCKED_MS // PROBE_MS:
            return
        ms = now_ms - self._probed_ms
        job, known = self._loop.busy, self.blocked
        self._ended = self._ended + 1 if job is not None and job.result is not None else 0
        if known is not None and job is self.by:
            self.looks += 1
            self.blocked = replace(known, ms=ms)
            return
        self.by, self.looks = job, 1
        self.blocked = self._look(job, ms)
        if known is None:
            self._log(self.blocked)

    @property
    def is_stuck(self) -> bool:
        """Whether nothing more can be done for it: who blocks it was given up, or is a callback.

        Code that has just ended by itself has a result, too: then the loop turns by the next look.
        """
        if self.by is None:
            return self.looks >= STUCK_LOOKS_MAX
        return self._ended >= STUCK_LOOKS_MIN

    @property
    def hopeless(self) -> HeldJob | None:
        """A job that has blocked the loop for so long that it is to be given up.

        If it has a timeout, that says when it is.
        """
        job = self.by
        if job is None or job.result is not None or self.looks < STUCK_LOOKS_MAX:
            return None
        return job

    def _look(self, job: HeldJob | None, ms: int) -> LoopBlocked:
        frame = self._loop.frame()
        return LoopBlocked(
            job_id=job.job_id if job is not None else "",
            name=job.terms.name if job is not None else "",
            ms=ms,
            stack=_stack(frame) if frame is not None else "",
        )

    def _log(self, blocked: LoopBlocked) -> None:
        _LOGGER.warning(
            "%s has blocked the loop of async jobs for %.1f s: no other async job gets on; make it "
            "await, or make it a plain function; it is here:\n%s",
            blocked.who,
            blocked.ms / 1000,
            blocked.stack,
            extra={"action": "loop_blocked", "job_id": blocked.job_id},
        )


class JobLoop:
    """A thread with an event loop, for one or several executors.

    Attributes:
        busy: The job whose code runs in the loop at this moment. Written by the executors.
        turns: Rises with each turn that ``probe`` asked for.
        watch: Notices when it does not turn.
    """

    def __init__(self) -> None:
        self.busy: HeldJob | None = None
        self.turns = 0
        self.watch = LoopWatch(self)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._users: list[Mapping[HeldJob, asyncio.Task[None]]] = []
        self._closing = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tenure-async-jobs", daemon=True)

    def enter(self, tasks: Mapping[HeldJob, asyncio.Task[None]]) -> None:
        """One more uses the loop; the first starts its thread.

        Args:
            tasks: Its tasks that wait for something, at any time. The loop's end waits for them.
        """
        self._users.append(tasks)
        if len(self._users) == 1:
            self._thread.start()
            self._ready.wait()

    def leave(self, tasks: Mapping[HeldJob, asyncio.Task[None]]) -> None:
        """One that has cancelled its tasks uses it no more; the last ends the thread. Idempotent.

        Args:
            tasks: As it has entered with.
        """
        others = [known for known in self._users if known is not tasks]
        if others:
            self._users = others
            return
        self.call(self._closing.set)
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_S)

    def call(self, function: Callable[[*A], object], *args: *A) -> None:
        """Calls something in the loop, soon. From any thread."""
        if self.loop is not None:
            with suppress(RuntimeError):  # The loop is closed: nothing is left to tell it.
                self.loop.call_soon_threadsafe(function, *args)

    def probe(self) -> None:
        """Asks the loop to turn once and to count it."""
        self.call(self._turn)

    def frame(self) -> FrameType | None:
        """Where its thread is at this moment."""
        return sys._current_frames().get(self._thread.ident or 0)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ready.set()
        while not self._closing.is_set():
            with suppress(asyncio.CancelledError):  # By a job that cancels all tasks.
                await self._closing.wait()
        while tasks := [task for user in self._users for task in user.values()]:
            await asyncio.wait(tasks)

    def _turn(self) -> None:
        self.turns += 1


def _stack(innermost: FrameType) -> str:
    """The calls of user code, as a traceback shows them, without its lines of source.

    Those are read from files, and each such call waits for the interpreter's lock behind the very
    code that is looked at: seconds, in which the session would not say that its jobs run.
    """
    calls: list[tuple[FrameType, int]] = []
    for frame, line in islice(traceback.walk_stack(innermost), STACK_CALLS_MAX):
        if calls and frame.f_globals.get("__name__", "").startswith(_CALLERS):
            break
        calls.append((frame, line))
    text = "".join(
        f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}\n'
        for frame, line in calls[::-1]
    )
    return text[-STACK_CHARS_MAX:].rstrip()
