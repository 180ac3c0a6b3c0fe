"""An event loop on virtual time: it never waits, and the same program runs the same way each time.

    async def main() -> None:
        await asyncio.sleep(3_600)

    run_virtual(main)  # returns at once, with an hour gone on the loop's clock

When nothing is ready, the clock jumps to the next timer. When there is no timer either, nothing can
ever happen again, and ``Deadlock`` says which tasks wait for what. There are no threads, sockets or
pipes: what a simulation needs from outside it must bring as a simulated adapter.

Tasks hash by the order of their creation, not by address, so that sets of them (a task group
cancels its children out of one) are walked in the same order in each run.
"""

import asyncio
import contextvars
import itertools
import math
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# asyncio compares times as floats; a nanosecond is far below anything that is scheduled.
_RESOLUTION_S: Final = 1e-9


class Deadlock(RuntimeError):
    """Nothing is ready and nothing is scheduled, but the program has not ended."""


class TimeLimit(RuntimeError):
    """The program still runs at the virtual time when it should have ended."""


class _NoSelector:
    """In a selector's place: where a real one would wait, the clock jumps."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout_s: float | None) -> list[object]:
        if timeout_s is None:
            self._loop.report_deadlock()
        elif timeout_s > 0:
            self._loop.advance(timeout_s)
        return []


class _SerialTask(asyncio.Task[T]):
    """A task whose place in a set does not depend on its address."""

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        serial: int,
        loop: asyncio.AbstractEventLoop,
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        self._serial = serial
        super().__init__(coroutine, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self._serial


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop; ``time()`` starts at 0.

    Args:
        limit_s: Virtual time at which ``TimeLimit`` is raised; None: never.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        super().__init__()
        self._now_s = 0.0
        self._limit_s = limit_s
        self._selector = _NoSelector(self)
        self._clock_resolution = _RESOLUTION_S
        self._serials = itertools.count(1)
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now_s

    def advance(self, timeout_s: float) -> None:
        """For the selector: the next timer is due in ``timeout_s``."""
        self._now_s += timeout_s
        if self._limit_s is not None and self._now_s > self._limit_s:
            raise TimeLimit(
                f"expected the program to end within {self._limit_s} s of virtual time, but it"
                f" still runs:\n{self._describe_tasks()}"
            )

    def leap(self, seconds: float) -> None:
        """Lets so much time pass at once: what is due within it happens at its end, and late."""
        self._now_s += seconds
        # After some months a nanosecond is less than floats can tell apart.
        self._clock_resolution = max(_RESOLUTION_S, 4 * math.ulp(self._now_s))

    def report_deadlock(self) -> NoReturn:
        """For the selector: nothing will ever happen again."""
        raise Deadlock(
            f"expected something to be scheduled at {self._now_s:.3f} s of virtual time, but all"
            f" tasks wait for each other:\n{self._describe_tasks()}"
        )

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], object], *args: *Ts
    ) -> NoReturn:
        """Refused: what a thread does takes real time."""
        raise RuntimeError(
            f"expected no threads on virtual time, but {func!r} asks for one; simulate it"
        )

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        serial = next(self._serials)
        return _SerialTask(
            coroutine,  # type: ignore[arg-type]
            serial=serial,
            loop=loop,
            name=name or f"task-{serial}",
            context=context,
        )

    def _describe_tasks(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=hash)
        return "\n".join(f"  {task.get_name()}: {_place(task)}" for task in tasks)

    # What BaseEventLoop leaves to its subclasses.

    def _process_events(self, event_list: list[object]) -> None:
        """There are none: nothing is read or written."""

    def _write_to_self(self) -> None:
        """Nothing has to be woken: there are no other threads."""


def run_virtual(
    main: Callable[[], Coroutine[Any, Any, T]], *, limit_s: float | None = 86_400.0
) -> T:
    """Runs a program from start to end on a new virtual loop, like ``asyncio.run``.

    Args:
        main: The program.
        limit_s: How much virtual time it may take.

    Raises:
        Deadlock: It waits for something that can never happen.
        TimeLimit: It takes too much virtual time.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(limit_s)) as runner:
        return runner.run(main())


def _place(task: asyncio.Task[Any]) -> str:
    """Where a task waits: the coroutines it is in, outermost first."""
    awaitable: Any = task.get_coro()
    places = []
    while getattr(awaitable, "cr_frame", None) is not None:
        frame = awaitable.cr_frame
        places.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        awaitable = awaitable.cr_await
    return " > ".join(places) or "not started"
