"""Jobs that hurt: each does to its process what user code does, sooner or later."""

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from tenure.client import Command, Limits, Retry, job

#: Told from one run: what an attempt came to is what the job came to.
ONCE = Retry(max_attempts=1, max_lost=1)
SOON = timedelta(seconds=1)
#: Long enough for others to show how they do meanwhile.
BLOCKED = timedelta(seconds=8)
FORKS = 40
#: A user who has nothing.
NOBODY = 65534


@job(name="torture.ping")
async def ping() -> float:
    """What everybody else does."""
    return time.time()


@job(name="torture.pong")
def pong() -> float:
    """The same for those that do not share the loop."""
    return time.time()


@job(name="torture.swallow", retry=ONCE, timeout=SOON)
async def swallow() -> None:
    """Does not let itself be cancelled."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


@job(name="torture.block", retry=ONCE, timeout=BLOCKED)
async def block() -> None:
    """Waits for ever, and does not await it."""
    threading.Event().wait()


@job(name="torture.leave", executor="process", retry=ONCE)
def leave() -> None:
    """Ends its process without a word."""
    os._exit(17)


@job(name="torture.segfault", executor="process", retry=ONCE)
def segfault() -> None:
    """Reads where nothing is."""
    ctypes.string_at(0)


@job(name="torture.overflow", executor="process", retry=ONCE)
def overflow() -> None:
    """Goes deeper than its stack, through C, where Python does not count."""
    sys.setrecursionlimit(10_000_000)
    kind = ctypes.CFUNCTYPE(ctypes.c_int)

    def deeper() -> int:
        return deep()

    deep = kind(deeper)
    deep()


@job(name="torture.kill", executor="process", retry=ONCE)
def kill() -> None:
    """Dies as when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


@job(name="torture.halt", executor="process", retry=ONCE, timeout=SOON)
def halt() -> None:
    """Is stopped, with all threads of its process."""
    os.kill(os.getpid(), signal.SIGSTOP)


@job(name="torture.spin", executor="process", retry=ONCE, timeout=SOON)
def spin(note: str) -> None:
    """Computes for ever, and says since when."""
    Path(note).write_text(f"{os.getpid()} {time.time()}")
    while True:
        pass


@job(name="torture.burn", executor="process", retry=ONCE, limits=Limits(cpu=SOON))
def burn() -> None:
    """Computes for ever."""
    while True:
        pass


@job(name="torture.hog", executor="process", retry=ONCE, limits=Limits(memory="64MiB"))
def hog() -> None:
    """Takes all memory there is."""
    held: list[bytes] = []
    while True:
        held.append(b"x" * (16 << 20))


@job(name="torture.breed", executor="process", retry=ONCE, timeout=SOON)
def breed(note: str) -> None:
    """Forks, and its children do nothing."""
    Path(note).write_text(f"{os.getpgrp()}")
    for _ in range(FORKS):
        if os.fork() == 0:
            signal.pause()
    signal.pause()


@job(name="torture.bomb", executor="process", retry=ONCE, limits=Limits(processes=FORKS))
def bomb(note: str) -> None:
    """Forks for as long as it may."""
    Path(note).write_text(f"{os.getpgrp()}")
    if os.geteuid() == 0:  # Root may, for ever.
        os.setresuid(NOBODY, NOBODY, NOBODY)
    while True:
        if os.fork() == 0:
            signal.pause()


@job(name="torture.recurse", executor="process", retry=ONCE)
def recurse() -> int:
    """Calls itself for ever."""
    return recurse() + 1


@job(name="torture.babble", executor="process", retry=ONCE)
def babble() -> None:
    """Writes much more than anybody reads."""
    for _ in range(2_000):
        sys.stdout.write("blah " * 200 + "\n")


@job(name="torture.riddle", executor="process", retry=ONCE)
def riddle() -> object:
    """Gives back what nobody can encode."""
    return threading.Lock()


@job(name="torture.slam", executor="process", retry=ONCE)
def slam() -> None:
    """Scribbles over its worker's sockets."""
    for number in range(3, 1024):
        try:
            os.write(number, b"\xff\xff\xff\xff nonsense")
        except OSError:
            continue


@job(name="torture.leak", executor="process", retry=ONCE)
def leak() -> None:
    """Keeps what it had."""
    LEAKED.append(b"x" * (8 << 20))


@job(name="torture.yes", retry=ONCE)
def yes() -> Command[str]:
    """Never stops talking."""
    return Command("yes")


@job(name="torture.stubborn", retry=ONCE, timeout=SOON)
def stubborn() -> Command[None]:
    """Does not listen, and has a program of its own that does not either."""
    inner = 'sh -c "trap : TERM; while true; do sleep 0.1; done" & '
    return Command("sh", "-c", inner + "trap : TERM; while true; do sleep 0.1; done")


@job(name="torture.absent", retry=ONCE)
def absent() -> Command[str]:
    """Is not there."""
    return Command("/no/such/program-4711")


@job(name="torture.dangle", retry=ONCE)
def dangle() -> None:
    """Leaves a thread behind that never ends, and that Python waits for at its exit."""
    ThreadPoolExecutor(1).submit(threading.Event().wait)


@job(name="torture.stay", executor="process", retry=ONCE)
def stay(note: str) -> None:
    """Starts a program, says which, and waits."""
    child = os.fork()
    if child == 0:
        signal.pause()
    Path(note).write_text(f"{os.getpid()} {child}")
    signal.pause()


@job(name="torture.stay_command", retry=ONCE)
def stay_command(note: str) -> Command[str]:
    """The same as a command."""
    text = f"sleep 600 & echo $$ $! > {note}.part; mv {note}.part {note}; wait"
    return Command("sh", "-c", text)


#: What ``leak`` keeps.
LEAKED: list[bytes] = []
