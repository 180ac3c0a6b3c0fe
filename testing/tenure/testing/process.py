"""Simulated processes on one loop: each can stand still like one that got SIGSTOP, or be killed.

A process is known by a context variable: tasks, timers and callbacks that its code starts inherit
the context, and so belong to it. While it is frozen, whatever of it is due waits; when it is thawed
all of that runs at once, in order, as after SIGCONT. The code inside notices nothing but the time.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar, TypeVarTuple

from tenure.protocol.errors import TenureError
from tenure.testing.loop import VirtualLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Process:
    """One simulated process: tasks in a group of its own.

    Args:
        name: For people.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        #: Tells it from its predecessors on the same node; the program may know a better one.
        self.incarnation = name
        #: When it ended or was killed, by the loop's time; None: it lives.
        self.ended_s: float | None = None
        #: Whether it stands still.
        self.frozen = False
        #: Whether it was killed, or has exited: it only unwinds.
        self.killed = False
        #: The status that it has exited with; None: it has not, or says nothing of it.
        self.status: int | None = None
        #: What it has ended by, if not in order: an exit with a message, as an operator sees it.
        self.error: TenureError | None = None
        #: How long its machine has been suspended: its timers do not count that time.
        self.slept_s = 0.0
        self._suspended_s: float | None = None
        self._due: list[asyncio.Handle] = []
        #: Its tasks that have not ended, in the order of their creation.
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._group: asyncio.TaskGroup | None = None
        self._context = contextvars.copy_context()
        self._context.run(_PROCESS.set, self)
        loop = asyncio.get_running_loop()
        if isinstance(loop, ProcessLoop):
            loop.enter(self)

    def start(
        self, group: asyncio.TaskGroup, main: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Runs a program as this process until it returns or is killed."""
        group.create_task(self._run(main), name=self.name, context=self._context)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
        """Starts one more task inside; None if the process has ended."""
        if self._group is None or self.killed:
            work.close()
            return None
        return self._group.create_task(work, name=name, context=self._context.copy())

    def freeze(self) -> None:
        """Nothing of it runs from now on, unless it unwinds. Idempotent."""
        self.frozen = not self.killed

    def thaw(self) -> None:
        """It goes on, first with what was due meanwhile, in order. Idempotent."""
        if self._suspended_s is not None:
            self.slept_s += asyncio.get_running_loop().time() - self._suspended_s
            self._suspended_s = None
        self.frozen = False
        due, self._due = self._due, []
        if due:
            loop = asyncio.get_running_loop()
            if isinstance(loop, ProcessLoop):
                for step in due:
                    loop.run_again(step)

    def suspend(self) -> None:
        """Its machine falls asleep: as frozen, and its timers stand still until it is thawed.

        Its boot clock goes on, as CLOCK_BOOTTIME does. Idempotent.
        """
        if self._suspended_s is None:
            self._suspended_s = asyncio.get_running_loop().time()
            self.freeze()

    def kill(self) -> None:
        """Ends it. Idempotent.

        Something has to unwind its tasks, so they are cancelled, as often as they ask for one more
        await on their way out. Cut it off from network and store first, so that nothing that they
        still do has an effect.
        """
        self._end()
        self.killed = True
        self.status = None
        self.thaw()
        self._unwind()

    def exit(self, status: int) -> None:
        """Its program is about to return: whatever else it runs ends with it, as by ``kill``.

        A process that has threads which never end exits all the same.
        """
        self._end()
        self.killed = True
        self.status = status
        self._unwind(asyncio.current_task())

    def _end(self) -> None:
        if self.ended_s is None:
            self.ended_s = asyncio.get_running_loop().time()

    def _unwind(self, main: asyncio.Task[Any] | None = None) -> None:
        """Cancels all that is left, but for the main program if that ends by itself."""
        left = [task for task in self._tasks if task is not main]
        if left:
            for task in left:
                task.cancel()
            loop = asyncio.get_running_loop()
            loop.call_soon(self._unwind, main, context=contextvars.Context())

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left."""
        return not self._tasks

    async def join(self) -> None:
        """Waits until nothing of it is left."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def defer(self, step: asyncio.Handle) -> None:
        """For the loop: something of this process is due while it is frozen."""
        self._due.append(step)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """For the loop: a task was created inside."""
        self._tasks[task] = None
        task.add_done_callback(self._forget, context=contextvars.Context())

    def _forget(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]

    async def _run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await main()
                raise _Exited
        except* _Exited:
            pass
        except* TenureError as errors:
            self.error = _first(errors)
        finally:
            self._group = None
            self._end()


class _Exited(Exception):
    """The program has returned: ends what it has left running."""


def _first(errors: BaseExceptionGroup[TenureError]) -> TenureError:
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if not isinstance(first, TenureError):
        raise TypeError(f"expected a group of Tenure's errors, but it has {first!r}")
    return first


_PROCESS: Final[contextvars.ContextVar[Process]] = contextvars.ContextVar("process")


def all_processes() -> list[Process]:
    """Every process that there has been on the running loop, in the order of their creation."""
    loop = asyncio.get_running_loop()
    return list(loop.processes) if isinstance(loop, ProcessLoop) else []


def current_process() -> Process | None:
    """The process that the running code belongs to."""
    return _PROCESS.get(None)


class _Step(asyncio.Handle):
    """A callback of a process: while that is frozen, it waits."""

    __slots__ = ("_process",)

    def __init__(
        self,
        process: Process,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
    ) -> None:
        super().__init__(callback, args, loop, context)
        self._process = process

    def _run(self) -> None:
        if self._process.frozen:
            self._process.defer(self)
        else:
            super()._run()


class _TimedStep(asyncio.TimerHandle):
    """A timer of a process: late by what the process's machine has slept since it was set."""

    __slots__ = ("_due_s", "_process", "_slept_s")

    def __init__(
        self,
        when: float,
        process: Process,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._due_s = when
        self._process = process
        self._slept_s = process.slept_s

    def when(self) -> float:
        return self._due_s

    def _run(self) -> None:
        process = self._process
        if process.frozen:
            process.defer(self)
        elif self._slept_s < process.slept_s:
            self._due_s += process.slept_s - self._slept_s
            self._slept_s = process.slept_s
            loop = asyncio.get_running_loop()
            if isinstance(loop, ProcessLoop):
                loop.set_timer(self)
        else:
            super()._run()


class ProcessLoop(VirtualLoop):
    """A virtual-time loop that knows processes: frozen ones stand still.

    Attributes:
        processes: All there have been, in the order of their creation.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        super().__init__(limit_s)
        self.processes: list[Process] = []

    def enter(self, process: Process) -> None:
        """For a new process: it gets a number."""
        self.processes.append(process)
        process.incarnation = f"{process.name}#{len(self.processes)}"

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        owner = contextvars.copy_context() if context is None else context
        process = owner.get(_PROCESS)
        if process is None:
            return super().call_soon(callback, *args, context=owner)
        step = _Step(process, callback, args, self, owner)
        self._ready.append(step)
        return step

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        owner = contextvars.copy_context() if context is None else context
        process = owner.get(_PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=owner)
        step = _TimedStep(when, process, callback, args, self, owner)
        self.set_timer(step)
        return step

    def run_again(self, handle: asyncio.Handle) -> None:
        """What was due while its process stood still runs now."""
        self._ready.append(handle)

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        owner = contextvars.copy_context() if context is None else context
        task = super()._make_task(loop, coroutine, name=name, context=owner)
        process = owner.get(_PROCESS)
        if process is not None:
            process.adopt(task)
        return task


def run_processes(
    main: Callable[[], Coroutine[Any, Any, T]], *, limit_s: float | None = 86_400.0
) -> T:
    """As ``loop.run_virtual``, with processes.

    Args:
        main: The program around the processes; it belongs to none.
        limit_s: How much virtual time it may take.

    Raises:
        Deadlock: It waits for something that can never happen.
        TimeLimit: It takes too much virtual time.
    """
    with asyncio.Runner(loop_factory=lambda: ProcessLoop(limit_s)) as runner:
        return runner.run(main())


async def elapse(seconds: float) -> None:
    """Lets virtual time pass. Takes none.

    Raises:
        RuntimeError: The loop lives in real time.
    """
    if not isinstance(asyncio.get_running_loop(), VirtualLoop):
        raise RuntimeError("expected a loop on virtual time; await an event instead")
    await asyncio.sleep(seconds)
