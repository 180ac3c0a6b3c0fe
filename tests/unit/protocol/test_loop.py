"""The loop of a node's own messages."""

import asyncio
import importlib
import sys

import pytest
import uvloop

from tenure.protocol import loop


async def _kind() -> type[asyncio.AbstractEventLoop]:
    return type(asyncio.get_running_loop())


def test_uvloop_is_used_where_it_is_installed() -> None:
    """It costs less per message."""
    assert loop.run(_kind()) is uvloop.Loop


def test_asyncio_stands_in_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node runs without uvloop too."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "uvloop", None)
        importlib.reload(loop)
        assert not issubclass(loop.run(_kind()), uvloop.Loop)
    importlib.reload(loop)
    assert loop.run(_kind()) is uvloop.Loop
