"""The event loop that carries a node's own messages: uvloop where it is installed, else asyncio's.

User code never runs in it: jobs have a loop of asyncio's own.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_new_loop: Callable[[], asyncio.AbstractEventLoop]
try:
    from uvloop import new_event_loop as _new_loop
except ImportError:  # A platform that it is not made for, or an installation without the extra.
    _new_loop = asyncio.new_event_loop


def run(main: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.run``, in the faster loop."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)
