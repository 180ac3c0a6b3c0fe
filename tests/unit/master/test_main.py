"""How a master's process ends when its store does."""

import asyncio
from typing import cast

import pytest

from tenure.master import main
from tenure.master.backend.errors import StoreIoError, StoreMismatch
from tenure.master.node.master import Master


class EndingMaster:
    """A master that a seat, or a task of its own, ends."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def run(self) -> None:
        """Ends in a group of a group, as tasks of tasks do."""

        async def seat() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._fail())

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(seat())

    async def _fail(self) -> None:
        raise self._error


def test_a_store_that_fails_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what the disk said, however deep it came from."""
    master = cast(Master, EndingMaster(StoreIoError("expected to sync, but EIO")))
    assert asyncio.run(main._run(master)) == main.EXIT_STORE_IO
    assert "but EIO" in caplog.text


def test_a_store_that_was_restored_meanwhile_ends_the_master_in_words() -> None:
    """No traceback: what is to be done, with the reason's exit code, as at the start."""
    master = cast(Master, EndingMaster(StoreMismatch("expected epoch 1; restart this master")))
    with pytest.raises(StoreMismatch, match="restart this master"):
        asyncio.run(main._run(master))
