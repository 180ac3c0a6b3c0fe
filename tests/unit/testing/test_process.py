"""Simulated processes: a frozen one does nothing, a killed one ends whatever it does on its way."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from tenure.protocol.errors import Unavailable
from tenure.protocol.refusal import Reason
from tenure.testing.process import Process, elapse, run_processes


@asynccontextmanager
async def started(program: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[Process]:
    """A process with a program; what is left of it at the end is killed."""
    process = Process("p")
    async with asyncio.TaskGroup() as group:
        process.start(group, program)
        yield process
        process.kill()


async def ticking(ticks: list[float]) -> None:
    """Notes the time each second."""
    while True:
        await elapse(1)
        ticks.append(asyncio.get_running_loop().time())


def test_a_frozen_process_stands_still_and_catches_up() -> None:
    """Timers that come due while it is frozen run when it is thawed, late, and once."""
    ticks: list[float] = []

    async def main() -> None:
        async with started(lambda: ticking(ticks)) as process:
            await elapse(2.5)
            process.freeze()
            await elapse(10)
            process.thaw()
            await elapse(1.25)

    run_processes(main)
    assert ticks == [1, 2, 12.5, 13.5]


def test_what_is_cancelled_while_frozen_does_not_run() -> None:
    """A timer of a frozen process that is cancelled before the thaw never fires."""
    fired: list[str] = []

    async def program(timers: list[asyncio.TimerHandle]) -> None:
        timers.append(asyncio.get_running_loop().call_later(1, fired.append, "late"))
        await asyncio.Event().wait()

    async def main() -> None:
        timers: list[asyncio.TimerHandle] = []
        async with started(lambda: program(timers)) as process:
            await elapse(0.5)
            process.freeze()
            await elapse(1)
            timers[0].cancel()
            process.thaw()
            await elapse(1)

    run_processes(main)
    assert fired == []


def test_others_go_on_while_one_is_frozen() -> None:
    """A message to a frozen process waits; those who sent it do not."""
    seen: list[tuple[str, float]] = []

    async def reader(name: str, inbox: asyncio.Queue[str]) -> None:
        while True:
            await inbox.get()
            seen.append((name, asyncio.get_running_loop().time()))

    async def main() -> None:
        inboxes: dict[str, asyncio.Queue[str]] = {
            "frozen": asyncio.Queue(),
            "lively": asyncio.Queue(),
        }
        async with (
            started(lambda: reader("frozen", inboxes["frozen"])) as frozen,
            started(lambda: reader("lively", inboxes["lively"])),
        ):
            await elapse(1)
            frozen.freeze()
            for inbox in inboxes.values():
                inbox.put_nowait("hello")
            await elapse(1)
            frozen.thaw()
            await elapse(1)

    run_processes(main)
    assert seen == [("lively", 1), ("frozen", 2)]


def test_kill_ends_a_process_that_cleans_up_for_ever() -> None:
    """A task that awaits something hopeless in its ``finally`` is cancelled again."""

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    async def program() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(stubborn())
            group.create_task(stubborn())

    async def main() -> bool:
        async with started(program) as process:
            await elapse(1)
            process.freeze()
            process.kill()
            await elapse(1)
            return process.ended

    assert run_processes(main)


def test_what_exits_takes_along_what_does_not_end() -> None:
    """Its program returns: the process has ended, with its status, and no code of it goes on."""
    ticks: list[float] = []

    async def heedless() -> None:
        try:
            await ticking(ticks)
        finally:
            await asyncio.Event().wait()

    async def program(process: list[Process]) -> None:
        process[0].spawn(heedless(), "heedless")
        await elapse(2.5)
        process[0].exit(75)

    async def main() -> None:
        given: list[Process] = []
        async with started(lambda: program(given)) as process:
            given.append(process)
            await elapse(2)
            assert process.status is None
            await elapse(1)
            assert process.ended
            assert (process.ended_s, process.status) == (2.5, 75)
            process.freeze()
            process.kill()
            assert process.status is None
            await elapse(3)

    run_processes(main)
    assert ticks == [1, 2]


def test_an_ended_process_takes_nothing_more() -> None:
    """``spawn`` runs a task inside, until the program has returned; that ends the task too."""
    seen: list[str] = []

    async def note(text: str) -> None:
        try:
            seen.append(text)
            await asyncio.Event().wait()
        finally:
            seen.append(f"end of {text}")

    async def main() -> None:
        async with started(lambda: elapse(2)) as process:
            await elapse(1)
            assert process.spawn(note("first"), "first") is not None
            await elapse(2)
            assert process.spawn(note("second"), "second") is None

    run_processes(main)
    assert seen == ["first", "end of first"]


def test_timers_do_not_count_the_time_their_machine_has_slept() -> None:
    """Suspended, a process has as long to wait after it as it had before, due or not meanwhile."""
    ticks: list[float] = []

    async def main() -> None:
        async with started(lambda: ticking(ticks)) as process:
            await elapse(2.25)
            process.suspend()
            await elapse(0.5)
            process.thaw()
            await elapse(1)
            process.suspend()
            await elapse(10)
            process.thaw()
            await elapse(1)

    run_processes(main)
    assert ticks == [1, 2, 3.5, 14.5]


def test_a_process_that_ends_by_an_error_of_ours_has_exited() -> None:
    """What ``main`` would print and exit with is kept; any other error is the whole program's."""

    async def program() -> None:
        raise Unavailable("expected a store, but there is none", reason=Reason.STORE_UNAVAILABLE)

    async def main() -> Process:
        async with started(program) as process:
            await process.join()
        return process

    process = run_processes(main)
    assert process.ended
    assert process.error is not None
    assert process.error.reason is Reason.STORE_UNAVAILABLE
