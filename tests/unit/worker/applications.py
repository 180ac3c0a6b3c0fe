"""The jobs that worker tests run: an application as a user would write it."""

import asyncio
import contextvars
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from tenure.client import Limits, Permanent, RetryLater, current_job, job

_TRACE = contextvars.ContextVar("trace", default="clean")
#: A user who has nothing.
NOBODY = 65534
#: Memory that jobs have kept.
HOARD: list[bytes] = []
#: Tasks that jobs have kept.
KEPT: list[asyncio.Task[object]] = []
#: The same, by what does not keep them.
KEPT_WEAKLY: weakref.WeakSet[asyncio.Task[object]] = weakref.WeakSet()


def _pause() -> None:
    """Lets the others have the processor for a moment, without giving the loop a turn."""
    threading.Event().wait(0.005)


async def _wait(seconds: float) -> None:
    """Lets the loop turn."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await over.wait()


class BadInput(Exception):
    """An error of the application's own."""


@job(name="double")
def double(number: int) -> int:
    """A plain function."""
    return 2 * number


@job(name="double_async")
async def double_async(number: int) -> int:
    """A coroutine function."""
    await _wait(0)
    return 2 * number


@job(name="double_in_child", executor="process")
def double_in_child(number: int) -> int:
    """A plain function in a child."""
    return 2 * number


@job(name="who")
def who() -> list[str]:
    """What a job knows of itself."""
    me = current_job()
    return [me.id, me.name, str(me.attempt), me.fence]


@job(name="who_in_child", executor="process")
def who_in_child() -> list[str]:
    """The same in a child."""
    me = current_job()
    return [me.id, me.name, str(me.attempt), me.fence]


@job(name="fail")
def fail(kind: str) -> None:
    """Raises what is asked for."""
    raise {
        "plain": RuntimeError("no luck"),
        "permanent": Permanent("never"),
        "later": RetryLater(timedelta(seconds=7)),
        "listed": BadInput("unusable"),
        "os": OSError("disk on fire"),
        "exit": SystemExit(3),
        "long": ValueError("x" * 10_000),
    }[kind]


@job(name="give_back_too_much")
def give_back_too_much() -> bytes:
    """Its result is over the limit."""
    return b"x" * (300 * 1024)


@job(name="give_back_nonsense")
def give_back_nonsense() -> object:
    """Its result cannot be encoded."""
    return threading.Lock()


@job(name="leave_trace")
def leave_trace() -> str:
    """Sets a context variable, and gives back what it found."""
    before = _TRACE.get()
    _TRACE.set("dirty")
    return before


@job(name="leave_trace_async")
async def leave_trace_async() -> str:
    """The same in the loop."""
    before = _TRACE.get()
    _TRACE.set("dirty")
    return before


@job(name="carry_trace_async")
async def carry_trace_async(number: int) -> list[str]:
    """Its own variable and context after waits, in its own code and in a task that it starts."""
    _TRACE.set(str(number))

    async def look() -> str:
        await _wait(0)
        return _TRACE.get()

    async with asyncio.TaskGroup() as group:
        seen = group.create_task(look())
    await _wait(0)
    return [_TRACE.get(), seen.result(), current_job().id]


@job(name="task_name")
async def task_name() -> str:
    """In which task it runs."""
    return _task().get_name()


@job(name="wait_in_task")
async def wait_in_task() -> str:
    """The same, after all that was to happen in this turn of the loop and the next."""
    for _ in range(2):
        await _wait(0)
    return _task().get_name()


@job(name="misuse_task")
async def misuse_task(how: str) -> str:
    """Does with its task what may reach whoever runs in it later."""
    task = _task()
    match how:
        case "keep":
            KEPT.append(task)
        case "cancel":
            task.cancel()
        case "take back":
            task.cancel()
            task.uncancel()
        case "cancel soon":
            asyncio.get_running_loop().call_soon(task.cancel)
        case "cancel and wait":
            task.cancel()
            await _wait(0)
        case "cancel all":
            for other in asyncio.all_tasks() - {task}:
                other.cancel()
        case "keep weakly":
            KEPT_WEAKLY.add(task)
        case "time out":
            async with asyncio.timeout(0):
                await _wait(60)
        case "fail in a group":
            async with asyncio.TaskGroup() as group:
                group.create_task(_fail())
                await _wait(60)
    return "unharmed"


async def _fail() -> None:
    raise RuntimeError("no luck")


def _task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise AssertionError("a job runs in a task")
    return task


@job(name="meet")
async def meet(here: str, number: int) -> str:
    """Waits until so many have come."""
    folder = Path(here)
    (folder / current_job().id).touch()
    while len(list(folder.iterdir())) < number:
        await _wait(0.001)
    return "met"


def _count_on(count: int, failing_at: int, gate: Path) -> list[list[int]]:
    """What earlier attempts have counted, and this one; with a gate items wait, and take time."""
    me = current_job()
    before: list[int] = me.last_checkpoint or []
    mine: list[int] = []
    for number in me.iterate(range(count)):
        if number == failing_at:
            raise RuntimeError("as it was told to")
        if gate.name == "go":
            gate.with_suffix(".waiting").touch()
            while not gate.exists():
                _pause()
            _pause()
        mine.append(number)
        me.checkpoint([*before, *mine])
    return [before, mine]


@job(name="count_on")
def count_on(count: int, failing_at: int, gate: str) -> list[list[int]]:
    """Counts, and goes on where the last attempt has ended."""
    return _count_on(count, failing_at, Path(gate))


@job(name="count_on_async")
async def count_on_async(count: int, failing_at: int, gate: str) -> list[list[int]]:
    """The same in the loop; a gate blocks it."""
    return _count_on(count, failing_at, Path(gate))


@job(name="count_on_in_child", executor="process")
def count_on_in_child(count: int, failing_at: int, gate: str) -> list[list[int]]:
    """The same in a child, which ends where it is to fail."""
    if failing_at >= 0 and gate.endswith("kill"):
        me = current_job()
        for number in me.iterate(range(count)):
            if number == failing_at:
                os._exit(9)
            me.checkpoint([*range(number + 1)])
    return _count_on(count, failing_at, Path(gate))


@job(name="until_told")
def until_told(started: str) -> str:
    """Runs until it is told to stop."""
    Path(started).touch()
    while True:
        current_job().checkpoint()
        _pause()


@job(name="until_told_async")
async def until_told_async(started: str) -> str:
    """Waits until it is cancelled."""
    Path(started).touch()
    await asyncio.Event().wait()
    return "never"


@job(name="until_told_in_child", executor="process")
def until_told_in_child(started: str) -> str:
    """Runs until it is told to stop."""
    Path(started).touch()
    while True:
        current_job().progress(50)
        _pause()


@job(name="deaf")
def deaf(started: str, release: str) -> str:
    """Never asks whether it should stop."""
    Path(started).touch()
    while not Path(release).exists():
        _pause()
    return "late"


@job(name="deaf_cpu", pool="cpu")
def deaf_cpu(started: str, release: str) -> str:
    """The same, of a class of its own."""
    return deaf(started, release)


@job(name="double_io", pool="io")
def double_io(number: int) -> int:
    """A plain function of another class."""
    return 2 * number


@job(name="loop_here")
async def loop_here() -> int:
    """Which loop it runs in."""
    return id(asyncio.get_running_loop())


@job(name="loop_here_io", pool="io")
async def loop_here_io() -> int:
    """The same of another class."""
    return id(asyncio.get_running_loop())


@job(name="deaf_in_child", executor="process")
def deaf_in_child(started: str) -> None:
    """Never asks whether it should stop."""
    Path(started).touch()
    threading.Event().wait(600)


@job(name="parent_in_child", executor="process")
def parent_in_child(started: str) -> None:
    """Starts a program of its own, and waits for it."""
    program = subprocess.Popen(["sleep", "600"])
    Path(started).write_text(str(program.pid))
    program.wait()


@job(name="stubborn_async")
async def stubborn_async(started: str, release: str) -> str:
    """Goes on when it is cancelled."""
    Path(started).touch()
    while not Path(release).exists():
        try:
            await _wait(0.005)
        except asyncio.CancelledError:
            continue
    return "late"


@job(name="block_loop")
async def block_loop(started: str, release: str) -> str:
    """Blocks its loop."""
    Path(started).touch()
    while not Path(release).exists():
        _pause()  # what an async job must not do
    return "unblocked"


@job(name="block_loop_later")
async def block_loop_later(started: str, release: str) -> str:
    """Waits a little, and then blocks its loop."""
    await _wait(0)
    return await block_loop(started, release)


@job(name="compute")
def compute(started: str, release: str) -> None:
    """Computes without ever waiting, and ends with LeaseLost if its lease is lost."""
    Path(started).touch()
    while not Path(release).exists():
        sum(range(20_000))
        current_job().checkpoint()


@job(name="compute_async")
async def compute_async(started: str, release: str) -> None:
    """The same in the loop, which it blocks."""
    compute(started, release)


@job(name="block_by_callback")
async def block_by_callback(started: str, release: str) -> None:
    """Its callback blocks the loop, not its own code."""

    def _block() -> None:
        Path(started).touch()
        while not Path(release).exists():
            _pause()

    asyncio.get_running_loop().call_soon(_block)
    await _wait(0.01)


@job(name="crash_in_child", executor="process")
def crash_in_child() -> None:
    """Ends its process behind our back."""
    os._exit(17)


@job(name="abort_in_child", executor="process")
def abort_in_child() -> None:
    """Dies of a signal."""
    os.abort()


@job(name="babble_in_child", executor="process")
def babble_in_child() -> None:
    """Writes nonsense into whatever descriptors it has inherited."""
    for number in range(3, 64):
        try:
            os.write(number, b"\xff\xff\xff\xff nonsense")
        except OSError:
            continue
    threading.Event().wait(600)


@job(name="print_in_child", executor="process")
def print_in_child() -> str:
    """Prints."""
    sys.stdout.write("not for the worker's stdout")
    return "printed"


@job(name="segfault_in_child", executor="process")
def segfault_in_child() -> None:
    """Reads where nothing is."""
    ctypes.string_at(0)


@job(name="kill_itself_in_child", executor="process")
def kill_itself_in_child() -> None:
    """Dies as if memory had run out."""
    os.kill(os.getpid(), signal.SIGKILL)


@job(name="say_and_crash_in_child", executor="process")
def say_and_crash_in_child() -> None:
    """Says something on the level of C, much of it, and dies."""
    os.write(2, b"x" * 100_000 + b"\nthat was all\n")
    os._exit(17)


@job(name="fork_and_crash_in_child", executor="process")
def fork_and_crash_in_child(note: str) -> None:
    """Leaves behind a copy of its process, with all that this one had open."""
    forked = os.fork()
    if forked == 0:
        signal.pause()
    Path(note).write_text(str(forked))
    os._exit(17)


@job(name="stop_itself_in_child", executor="process")
def stop_itself_in_child(started: str) -> None:
    """Is stopped, and with it all of its process."""
    Path(started).touch()
    os.kill(os.getpid(), signal.SIGSTOP)


@job(name="slam_in_child", executor="process")
def slam_in_child() -> None:
    """Closes what is not its own."""
    os.closerange(3, 256)


@job(name="length_in_child", executor="process")
def length_in_child(text: str) -> int:
    """How long its argument is."""
    return len(text)


@job(name="where_in_child", executor="process")
def where_in_child() -> int:
    """In which process it runs."""
    return os.getpid()


@job(name="recurse_in_child", executor="process")
def recurse_in_child(depth: int = 0) -> int:
    """Calls itself for ever."""
    return recurse_in_child(depth + 1) + 1


@job(name="grow_in_child", executor="process")
def grow_in_child(mib: int) -> int:
    """Keeps so much memory for good."""
    HOARD.append(b"x" * (mib << 20))
    return os.getpid()


@job(name="unless_first_in_child", executor="process")
def unless_first_in_child(started: str, mark: str) -> int:
    """Does nothing, but in the run that finds no mark yet: that one is stopped for good."""
    if not Path(mark).exists():
        Path(mark).touch()
        stop_itself_in_child(started)
    return os.getpid()


@job(name="note_run_in_child", executor="process")
def note_run_in_child(path: str, line: str, crash: bool = False) -> None:
    """Leaves a line for each run, and dies of it."""
    with Path(path).open("a") as file:
        file.write(f"{line}\n")
    if crash:
        os.abort()


@job(name="grasp_in_child", limits=Limits(memory="64MiB"), executor="process")
def grasp_in_child(mib: int) -> int:
    """Takes so much memory for a moment."""
    return len(b"x" * (mib << 20)) >> 20


@job(name="burn_in_child", limits=Limits(cpu=timedelta(seconds=1)), executor="process")
def burn_in_child() -> None:
    """Computes for ever."""
    while True:
        pass


@job(name="open_in_child", limits=Limits(files=20), executor="process")
def open_in_child(count: int) -> int:
    """Has so many files open at once."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(Path(os.devnull).open())
    return count


@job(name="nice_in_child", limits=Limits(nice=7), executor="process")
def nice_in_child(drop: bool) -> tuple[int, int]:
    """How nice it is; may give up the right to be less so."""
    if drop:
        os.setresuid(NOBODY, NOBODY, NOBODY)
    return os.getpriority(os.PRIO_PROCESS, 0), os.getpid()


@job(name="dangle_in_child", limits=Limits(nice=7), executor="process")
def dangle_in_child() -> int:
    """Leaves a thread behind that Python waits for, in a child that is to run nothing more."""
    threading.Thread(target=threading.Event().wait).start()
    os.setresuid(NOBODY, NOBODY, NOBODY)
    return os.getpid()


@job(name="bomb_in_child", limits=Limits(processes=30), executor="process")
def bomb_in_child(started: str) -> int:
    """Forks until it may not, as one who is not root."""
    os.setresuid(NOBODY, NOBODY, NOBODY)
    for number in range(1_000):
        try:
            if os.fork() == 0:
                signal.pause()
        except BlockingIOError:
            return number
    return 1_000


@job(name="note_run")
def note_run(path: str) -> None:
    """Leaves a line for each run."""
    with Path(path).open("a") as file:
        file.write("ran\n")


@job(name="talk_in_child", executor="process")
def talk_in_child(release: str) -> None:
    """Says something, waits, and says more."""
    sys.stdout.write("a line\n")
    logging.getLogger("app").info("a record")
    while not Path(release).exists():
        _pause()
    sys.stderr.write("last words")


@job(name="edge_in_child", executor="process")
def edge_in_child(release: str) -> None:
    """Says something, waits, and dies."""
    sys.stdout.write("on the edge\n")
    while not Path(release).exists():
        _pause()
    os._exit(17)


@job(name="say_in_child", executor="process")
def say_in_child(text: str) -> None:
    """Says it."""
    sys.stdout.write(f"{text}\n")
