"""What a master's process is like."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def rare_collector() -> Iterator[None]:
    """The collector comes when it is told to: to a master it hardly ever comes by itself."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()
