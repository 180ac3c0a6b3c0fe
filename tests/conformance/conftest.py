"""Runs the suite over every adapter: coroutine tests run on the loop of their bench."""

import inspect
from pathlib import Path

import pytest

from tests.conformance.bench import BENCHES, Bench, FillableBench, SimBench, SqliteBench


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """Each store, one test at a time."""
    return BENCHES[request.param](tmp_path)


@pytest.fixture(params=sorted(name for name in BENCHES if name != "sqlite"))
def shared_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    """Each store that several masters may have open at once."""
    return BENCHES[request.param](tmp_path)


@pytest.fixture(params=["sqlite", "sim"])
def fillable_bench(request: pytest.FixtureRequest, tmp_path: Path) -> FillableBench:
    """Each store that can be made full without a cluster of its own."""
    return {"sqlite": SqliteBench, "sim": SimBench}[request.param](tmp_path)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a coroutine test on its bench's loop; leaves plain functions to pytest."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
    (used,) = (value for value in arguments.values() if isinstance(value, Bench))
    used.run(lambda: test(**arguments))
    return True
