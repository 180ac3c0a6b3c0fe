"""Jobs are functions: their logic is tested by calling them, without a cluster."""

import asyncio

from app.jobs import notify, resize


def test_resize() -> None:
    """Outside a worker `current_job()` is inert."""
    assert resize("x") == "x?w=640"


def test_notify() -> None:
    """A coroutine job is a coroutine function."""
    asyncio.run(notify(1, "hi"))
