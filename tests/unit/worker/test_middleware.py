"""Middleware around runs and after them: the order, errors, and nothing without any."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
import pytest

from tenure.client import Execution, Finish, JobContext, JobDef, Middleware, Permanent, job
from tenure.client.codec import encode_args
from tenure.protocol.errors import Rejected
from tenure.protocol.fence import Lease
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker import app
from tenure.worker.attempt import run_coroutine, run_function
from tenure.worker.executor import frame
from tenure.worker.held import AttemptResult, Terms
from tenure.worker.middleware import Application, coroutine_runner, function_runner
from tests.unit.worker.masters import TOKEN
from tests.unit.worker.rig import held
from tests.unit.worker.test_child import run_of, spawned

LAYERED = "tests.unit.worker.layered"
COMPLETED, FAILED = AttemptOutcome.COMPLETED, AttemptOutcome.FAILED
PERMANENT = AttemptOutcome.FAILED_PERMANENT


@job(name="add")
def add(left: int, right: int = 0) -> int:
    """A plain function."""
    return left + right


@job(name="add_async")
async def add_async(left: int, right: int = 0) -> int:
    """A coroutine function."""
    return left + right


@job(name="fail")
def fail() -> None:
    """Raises."""
    raise ValueError("by itself")


JOBS: dict[str, JobDef[..., Any]] = {one.name: one for one in (add, add_async, fail)}


def run(name: str, *args: Any, middleware: list[Middleware], **fields: Any) -> AttemptResult:
    """Runs a job of an application as an executor does, in a context of its own."""
    jobs = Application(JOBS, middleware)
    payload = fields.pop("payload", None)
    if payload is None:
        payload = encode_args(JOBS[name], args, {})
    attempt = held(terms=Terms(name, content_type=fields.pop("content_type", "")), payload=payload)
    context = JobContext(id="j", name=name, attempt=1, lease=Lease(TOKEN, 1, 0))
    own = contextvars.Context()
    if name.endswith("_async"):
        work = coroutine_runner(jobs)
        return own.run(asyncio.run, work(jobs, attempt, lambda: context))
    return own.run(function_runner(jobs), jobs, attempt, lambda: context)


def value_of(result: AttemptResult) -> Any:
    """A result, decoded."""
    assert result.fault is None
    return msgspec.msgpack.decode(result.result)


class Recorder(Middleware):
    """Keeps what it is told."""

    def __init__(self, told: list[tuple[str, str, Any]], name: str = "") -> None:
        self.told = told
        self.name = name

    def on_finish(self, finish: Finish) -> None:
        said = finish.result if finish.error is None else finish.error.type
        assert finish.context.name == finish.name
        self.told.append((self.name + finish.name, finish.outcome.name, said))


class AsyncRecorder(Recorder):
    """The same, async."""

    async def on_finish(self, finish: Finish) -> None:  # type: ignore[override]
        async with self.told_later():
            super().on_finish(finish)

    @asynccontextmanager
    async def told_later(self) -> AsyncIterator[None]:
        yield


@pytest.mark.parametrize("name", ["plain", "coroutine", "in_child"])
def test_the_first_is_the_outermost(name: str) -> None:
    """In by the order of MIDDLEWARE, out by its reverse; arguments and result may be changed."""
    jobs = app.load(LAYERED)
    attempt = held(terms=Terms(name), payload=encode_args(jobs[name], ([],), {}))
    context = JobContext(id="j", name=name, attempt=1, lease=Lease(TOKEN, 1, 0))
    own = contextvars.Context()
    if name == "coroutine":
        result = own.run(asyncio.run, coroutine_runner(jobs)(jobs, attempt, lambda: context))
    else:
        result = own.run(function_runner(jobs), jobs, attempt, lambda: context)
    assert value_of(result) == ["a in", "b in", name, "b out", "a out"]


def test_children_run_it_too() -> None:
    """A process job's child imports the application with its middleware."""
    with spawned(LAYERED) as child:
        assert child.heard() == [frame.Ready()]
        frame.send(child.jobs, run_of(1, "in_child", []))
        (answer,) = child.heard()
        assert isinstance(answer, frame.Ended)
        expected = ["a in", "b in", "in_child", "b out", "a out"]
        assert value_of(answer.as_result()) == expected


def test_without_middleware_nothing_is_wrapped() -> None:
    """The functions and the runners are the bare ones."""

    class Idle(Middleware):
        """Overrides nothing."""

    jobs = Application(JOBS, [Idle()])
    assert jobs == JOBS
    assert function_runner(jobs) is function_runner(JOBS) is run_function
    assert coroutine_runner(jobs) is coroutine_runner(JOBS) is run_coroutine


@pytest.mark.parametrize("name", ["add", "add_async"])
def test_an_error_is_the_attempts(name: str) -> None:
    """As if the function had raised it: it is retried, or not."""
    called: list[str] = []

    class Refuse(Middleware):
        """Lets nothing pass."""

        def __init__(self, error: Exception) -> None:
            self.error = error

        @contextmanager
        def on_run(self, execution: Execution) -> Iterator[None]:
            called.append(execution.options.queue)
            raise self.error
            yield

    assert run(name, 1, middleware=[Refuse(OSError("no db"))]).outcome is FAILED
    result = run(name, 1, middleware=[Refuse(Permanent("never"))])
    assert result.outcome is PERMANENT
    assert called == ["default", "default"]


def test_a_layer_may_turn_an_error_into_a_result() -> None:
    """It sees the function's error at its yield, and may keep it to itself."""

    class Rescue(Middleware):
        """Has a result of its own."""

        @contextmanager
        def on_run(self, execution: Execution) -> Iterator[None]:
            try:
                yield
            except ValueError:
                execution.result = None

    assert run("fail", middleware=[Rescue()]).outcome is COMPLETED
    assert run("fail", middleware=[]).outcome is FAILED


class Later(Middleware):
    """An async layer."""

    @asynccontextmanager
    async def around(self, execution: Execution) -> AsyncIterator[None]:
        async with asyncio.timeout(10):
            yield
        execution.result += 1

    def on_run(self, execution: Execution) -> Any:
        return self.around(execution)


def test_async_layers_surround_coroutines_only() -> None:
    """Around a plain function nothing could await: that fails for good, and says why."""
    assert value_of(run("add_async", 1, 2, middleware=[Later()])) == 4
    result = run("add", 1, 2, middleware=[Later()])
    assert result.outcome is PERMANENT
    assert result.fault is not None
    assert "only coroutine jobs can await" in result.fault.message


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("add", {}, ("add", "COMPLETED", 1)),
        ("add_async", {}, ("add_async", "COMPLETED", 1)),
        ("fail", {"payload": b""}, ("fail", "FAILED", "ValueError")),
        ("add", {"payload": b"x"}, ("add", "FAILED_PERMANENT", "INVALID_ARGUMENT")),
        ("gone", {"payload": b""}, ("gone", "FAILED", "UNKNOWN_JOB")),
        ("add", {"content_type": "a/b", "payload": b"x"}, ("add", "FAILED", "UNKNOWN_CODEC")),
    ],
)
def test_the_end_is_told_as_it_is_reported(
    name: str, fields: dict[str, Any], told: tuple[str, str, Any]
) -> None:
    """Outcome, result and error, also of what never came to run."""
    heard: list[tuple[str, str, Any]] = []
    run(name, 1, middleware=[Recorder(heard)], **fields)
    assert heard == [told]


def test_ends_are_told_from_the_inside_out() -> None:
    """The last one registered hears first; async ones are awaited for coroutine jobs."""
    heard: list[tuple[str, str, Any]] = []
    run("add_async", 1, middleware=[Recorder(heard, "a "), AsyncRecorder(heard, "b ")])
    assert [name for name, _, _ in heard] == ["b add_async", "a add_async"]


@pytest.mark.parametrize("name", ["add", "add_async"])
def test_an_error_at_the_end_changes_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the outcome stands, and the others are told."""
    heard: list[tuple[str, str, Any]] = []

    class Broken(Middleware):
        """Fails."""

        def on_finish(self, finish: Finish) -> None:
            raise RuntimeError("no metrics")

    assert value_of(run(name, 1, middleware=[Recorder(heard), Broken()])) == 1
    assert len(heard) == 1
    assert "Broken.on_finish" in caplog.text


def test_an_async_end_of_a_plain_function_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing there can await it; the outcome stands."""
    assert value_of(run("add", 1, middleware=[AsyncRecorder([])])) == 1
    assert "only coroutine jobs can await" in caplog.text


def test_a_given_up_attempt_ends_as_it_was_reported() -> None:
    """Whatever its code does in the end, the master was told something else long ago."""
    heard: list[tuple[str, str, Any]] = []
    jobs = Application(JOBS, [Recorder(heard)])
    attempt = held(terms=Terms("add"), payload=encode_args(add, (1,), {}))
    attempt.finish(AttemptResult(AttemptOutcome.TIMED_OUT), 5)
    context = JobContext(id="j", name="add", attempt=1, lease=Lease(TOKEN, 1, 0))
    contextvars.Context().run(function_runner(jobs), jobs, attempt, lambda: context)
    assert heard == [("add", "TIMED_OUT", None)]


@pytest.mark.parametrize("given", [7, [print], [Recorder]])
def test_what_is_no_middleware_does_not_load(
    given: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application is refused with the name of the list."""
    monkeypatch.setattr(f"{LAYERED}.MIDDLEWARE", given)
    with pytest.raises(Rejected, match="its MIDDLEWARE is no list of middleware"):
        app.load(LAYERED)
