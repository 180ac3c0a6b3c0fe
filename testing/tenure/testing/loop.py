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
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# asyncio compares times as floats; a nanosecond is far below anything that is scheduled.
_RESOLUTION_S: Final = 1e-9


class Deadlock(RuntimeError):
    """Nothing is ready and nothing is scheduled, but the program has not ended."""


class TimeLimit(RuntimeError):
    """The program still runs at the virtual time when it should have ended."""


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

    It does what asyncio's own loop does between two looks at its selector, with less: simulations
    spend most of their time here. Timers that are due at the same time run in the order in which
    they were set.

    Args:
        limit_s: Virtual time at which ``TimeLimit`` is raised; None: never.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        super().__init__()
        self._now_s = 0.0
        self._limit_s = math.inf if limit_s is None else limit_s
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_set = 0
        self._serials = itertools.count(1)
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now_s

    # Asked for each handle. ``bool()`` is False, and takes no call of Python's own.
    get_debug = bool

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self.set_timer(timer)
        return timer

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        # There are no threads: it is the same.
        return self.call_soon(callback, *args, context=context)

    def set_timer(self, timer: asyncio.TimerHandle) -> None:
        """It runs at its time, unless it is cancelled before."""
        self._timers_set += 1
        heapq.heappush(self._timers, (timer.when(), self._timers_set, timer))

    def _run_once(self) -> None:
        """All that is ready now; if nothing is, the clock jumps to the next timer first."""
        ready, timers = self._ready, self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not ready:
            if not timers:
                self._report_deadlock()
            self._jump(timers[0][0])
        due_s = self._now_s + _RESOLUTION_S
        while timers and timers[0][0] <= due_s:
            ready.append(heapq.heappop(timers)[2])
        # What these make ready runs in the next turn, as asyncio has it.
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def leap(self, seconds: float) -> None:
        """Lets so much time pass at once: what is due within it happens at its end, and late."""
        self._now_s += seconds

    def _jump(self, when_s: float) -> None:
        self._now_s = max(self._now_s, when_s)
        if self._now_s > self._limit_s:
            raise TimeLimit(
                f"expected the program to end within {self._limit_s} s of virtual time, but it"
                f" still runs:\n{self._describe_tasks()}"
            )

    def _report_deadlock(self) -> NoReturn:
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

    def _refuse_network(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(
            "expected no sockets, pipes or processes on virtual time: what they wait for takes real"
            " time; put a fake in the place of what talks to them"
        )

    create_connection = create_datagram_endpoint = create_server = _refuse_network
    create_unix_connection = create_unix_server = connect_accepted_socket = _refuse_network
    connect_read_pipe = connect_write_pipe = subprocess_exec = subprocess_shell = _refuse_network
    sock_accept = sock_connect = sock_recv = sock_recv_into = sock_sendall = _refuse_network
    getaddrinfo = getnameinfo = _refuse_network

    def has_timer(self, mark: contextvars.ContextVar[Any]) -> bool:
        """Whether a timer waits that was set where a context variable has a value."""
        return any(
            not timer.cancelled() and mark in timer._context  # type: ignore[attr-defined]
            for _, _, timer in self._timers
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
        return "\n".join(f"  {task.get_name()}: {place_of(task)}" for task in tasks)

    # What asyncio calls on loops.

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over at its time."""

    def _process_events(self, event_list: list[object]) -> None:
        """There are none: nothing is read or written."""

    def _write_to_self(self) -> None:
        """Nothing has to be woken: there are no other threads."""


@contextmanager
def outside_loop() -> Iterator[None]:
    """The code inside finds no running loop, as in a thread of its own: it may run one itself."""
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)


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


def place_of(task: asyncio.Task[Any]) -> str:
    """Where a task waits: the coroutines it is in, outermost first."""
    awaitable: Any = task.get_coro()
    places = []
    while getattr(awaitable, "cr_frame", None) is not None:
        frame = awaitable.cr_frame
        places.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        awaitable = awaitable.cr_await
    return " > ".join(places) or "not started"
