"""Slices of a search, by the time that its looks take."""

import asyncio

from tenure.master.node.pace import Pace
from tenure.testing.loop import run_virtual


async def search(looks: int, cost_us: int) -> list[int]:
    """Looks at so many; returns how long others waited for each of their turns, microseconds."""
    now_us = 0
    waits: list[int] = []

    async def work() -> None:
        nonlocal now_us
        pace = Pace(lambda: now_us // 1_000)
        left = looks
        while left > 0:
            now_us += cost_us * pace.looks
            left -= pace.looks
            await pace.rest()

    async with asyncio.TaskGroup() as tasks:
        searching = tasks.create_task(work())
        last_us = 0
        while not searching.done():
            await asyncio.sleep(0)
            waits.append(now_us - last_us)
            last_us = now_us
    return waits


def test_dear_looks_hold_nobody_up() -> None:
    """However much a look costs, others wait for few of them: never 20 ms, unless one takes it."""
    for cost_us in (1, 10, 100, 1_000, 4_000, 30_000):
        waits = run_virtual(lambda cost_us=cost_us: search(3_000, cost_us))
        assert max(waits) <= max(20_000, cost_us)


def test_cheap_looks_need_few_turns() -> None:
    """A million cheap ones are not looked at one by one; where time stands still, they end too."""
    assert len(run_virtual(lambda: search(1_000_000, 0))) < 250


def test_looks_that_become_dear_are_slowed_down() -> None:
    """The number of looks follows what they cost: it falls as it has grown."""

    async def main() -> list[int]:
        now_ms, seen = 0, []
        pace = Pace(lambda: now_ms)
        for _ in range(5):
            await pace.rest()
        for _ in range(6):
            seen.append(pace.looks)
            now_ms += 10
            await pace.rest()
        return seen

    assert run_virtual(main) == [1_024, 256, 64, 16, 4, 1]
