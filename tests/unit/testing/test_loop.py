"""The virtual-time loop: time jumps, order is fixed, and what can never happen is reported."""

import asyncio
import contextvars
import random

import pytest

from tenure.testing.clock import WALL_ORIGIN_MS, SimClock
from tenure.testing.loop import Deadlock, TimeLimit, VirtualLoop, outside_loop, run_virtual
from tenure.testing.process import elapse

CLOCK = SimClock()


def test_time_jumps_to_the_next_timer() -> None:
    """Sleeps end in the order of their lengths, each at exactly its own time."""
    ended: list[tuple[str, float]] = []

    async def sleeper(name: str, delay_ms: int) -> None:
        await CLOCK.sleep(delay_ms)
        ended.append((name, asyncio.get_running_loop().time()))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper("day", 86_000_000))
            group.create_task(sleeper("blink", 1))
            group.create_task(sleeper("hour", 3_600_000))

    run_virtual(main)
    assert ended == [("blink", 0.001), ("hour", 3_600.0), ("day", 86_000.0)]


def test_timeouts_work() -> None:
    """``asyncio.timeout`` ends a wait at its virtual deadline."""

    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 5.0


def test_deadlock_names_the_tasks() -> None:
    """A program in which nothing can happen any more ends with a report of who waits where."""

    async def wait_for_nothing() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_nothing(), name="forlorn")

    with pytest.raises(Deadlock, match=r"forlorn: .*wait_for_nothing:\d+ > Event\.wait"):
        run_virtual(main)


def test_time_limit() -> None:
    """A program that never ends is stopped at the limit."""

    async def main() -> None:
        while True:
            await CLOCK.sleep(1_000)

    with pytest.raises(TimeLimit, match=r"within 60\.0 s"):
        run_virtual(main, limit_s=60.0)


def test_threads_are_refused() -> None:
    """Nothing may take real time."""

    async def main() -> None:
        await asyncio.to_thread(int)

    with pytest.raises(RuntimeError, match="no threads on virtual time"):
        run_virtual(main)


def test_same_program_same_order() -> None:
    """Two runs from one seed interleave alike, even where a group cancels its tasks."""

    async def worker(name: int, rng: random.Random, log: list[str]) -> None:
        try:
            for _ in range(20):
                await CLOCK.sleep(rng.randrange(1_000))
                log.append(f"{name} {asyncio.get_running_loop().time():.9f}")
                if rng.random() < 0.01:
                    raise RuntimeError(name)
        finally:
            log.append(f"{name} ends")

    async def main(seed: int) -> list[str]:
        rng, log = random.Random(seed), list[str]()
        try:
            async with asyncio.TaskGroup() as group:
                for name in range(50):
                    group.create_task(worker(name, rng, log))
        except* RuntimeError as failed:
            log.append(repr(failed.exceptions))
        return log

    for seed in range(5):
        assert run_virtual(lambda seed=seed: main(seed)) == run_virtual(
            lambda seed=seed: main(seed)
        )


def test_clock_follows_the_loop() -> None:
    """A sleep of n ms moves both clocks by n, and each machine's bends stay its own."""

    async def main() -> None:
        clock, bent = SimClock(), SimClock(wall_skew_ms=-250)
        for expected in range(100, 1_100, 100):
            await clock.sleep(100)
            assert clock.boot_ms() == expected
            assert clock.wall_ms() == WALL_ORIGIN_MS + expected
            assert bent.wall_ms() == WALL_ORIGIN_MS + expected - 250
        bent.boot_offset_ms += 5_000
        assert (clock.boot_ms(), bent.boot_ms()) == (1_000, 6_000)

    run_virtual(main)


def test_timers_go_on_after_a_leap_of_years() -> None:
    """A leap lets what was due happen late, once; and short sleeps still end a century later."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        woken: list[float] = []
        loop.call_later(5, lambda: woken.append(loop.time()))
        loop.leap(3.2e9)
        for _ in range(50):
            await elapse(0.0123)
        return [*woken, loop.time()]

    woken, end = run_virtual(main, limit_s=None)
    assert woken == 3.2e9
    assert end == pytest.approx(3.2e9 + 50 * 0.0123, abs=1e-3)


def test_the_network_is_refused_with_a_reason() -> None:
    """Sockets and processes are named, not left to ``NotImplementedError``."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match="no sockets"):
            await asyncio.open_connection("127.0.0.1", 1)
        with pytest.raises(RuntimeError, match="no sockets"):
            await asyncio.create_subprocess_exec("true")

    run_virtual(main)


def test_code_outside_the_loop_may_run_one_of_its_own() -> None:
    """Inside the block no loop runs; behind it the virtual one does again, also after an error."""

    def plain() -> None:
        asyncio.run(asyncio.sleep(0))
        asyncio.get_running_loop()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="no running event loop"), outside_loop():
            plain()
        assert asyncio.get_running_loop() is loop

    run_virtual(main)


def test_timers_are_found_by_what_was_set_where_they_were() -> None:
    """A timer counts while it waits, and only if the variable had a value in its context."""
    mark: contextvars.ContextVar[int] = contextvars.ContextVar("mark")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.call_later(60, list)
        assert not loop.has_timer(mark)
        mark.set(1)
        timer = loop.call_later(60, list)
        assert loop.has_timer(mark)
        timer.cancel()
        assert not loop.has_timer(mark)

    run_virtual(main)
