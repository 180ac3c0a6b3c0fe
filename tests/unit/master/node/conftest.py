"""What a master's process is like."""

import gc
from collections.abc import Iterator

import pytest

from tenure.master.node.collector import calm_collector


@pytest.fixture
def rare_collector() -> Iterator[None]:
    """The collector comes when it is told to: to a master it hardly ever comes by itself."""
    thresholds = gc.get_threshold()
    calm_collector()
    gc.disable()
    yield
    gc.enable()
    gc.set_threshold(*thresholds)
    gc.unfreeze()
