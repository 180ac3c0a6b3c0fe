"""An application with middleware, whose trace is its jobs' result."""

from collections.abc import Iterator
from contextlib import contextmanager

from tenure.client import Execution, Middleware, current_job, job


class Layer(Middleware):
    """Writes its name into the first argument and the result."""

    def __init__(self, name: str) -> None:
        self.name = name

    @contextmanager
    def on_run(self, execution: Execution) -> Iterator[None]:
        assert execution.context is current_job()
        execution.args[0] = [*execution.args[0], f"{self.name} in"]
        yield
        execution.result = [*execution.result, f"{self.name} out"]


MIDDLEWARE = [Layer("a"), Layer("b")]


@job(name="plain")
def plain(trace: list[str]) -> list[str]:
    """A plain function."""
    return [*trace, "plain"]


@job(name="coroutine")
async def coroutine(trace: list[str]) -> list[str]:
    """A coroutine function."""
    return [*trace, "coroutine"]


@job(name="in_child", executor="process")
def in_child(trace: list[str]) -> list[str]:
    """A plain function in a child."""
    return [*trace, "in_child"]
