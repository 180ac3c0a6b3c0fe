"""Middleware around submits: the order, what it may change, and what its errors mean."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest

from tenure.client import (
    AsyncClient,
    BatchFailed,
    Call,
    Middleware,
    Reason,
    Rejected,
    Submission,
    Unavailable,
)
from tenure.client.codec import decode_args
from tenure.client.middleware import Layer
from tenure.protocol.refusal import Refusal
from tenure.testing.loop import run_virtual
from tests.unit.client.fake_master import FakeCluster
from tests.unit.client.test_submitter import add

passed: list[str] = []


class Traced(Middleware):
    """Says when it is passed, in and out."""

    def __init__(self, name: str) -> None:
        self.name = name

    @contextmanager
    def on_submit(self, submission: Submission) -> Iterator[None]:
        passed.append(f"{self.name} in {len(submission.handles)}")
        try:
            yield
        finally:
            passed.append(f"{self.name} out {len(submission.handles)}")


class Idle(Middleware):
    """Overrides nothing."""


def play(
    cluster: FakeCluster,
    middleware: Sequence[Middleware],
    work: Callable[[AsyncClient], Awaitable[None]],
) -> None:
    """Runs a piece of work with a client that has middleware."""
    passed.clear()

    async def main() -> None:
        async with (
            asyncio.TaskGroup() as cluster.tasks,
            AsyncClient(
                ",".join(cluster.masters),
                middleware=middleware,
                transport=cluster,
                rng=random.Random(7),
            ) as client,
        ):
            await work(client)

    run_virtual(main, limit_s=600)


class Labels(Middleware):
    """Changes options and arguments."""

    @contextmanager
    def on_submit(self, submission: Submission) -> Iterator[None]:
        assert submission.name == "app.add"
        labels = {**submission.options.labels, "team": "media"}
        submission.job = submission.job.options(labels=labels)
        submission.calls[:] = [
            Call((call.args[0] * 10, *call.args[1:]), call.kwargs) for call in submission.calls
        ]
        yield


def test_the_first_is_the_outermost() -> None:
    """In by the order of the list, out by its reverse; handles are there on the way out."""

    async def work(client: AsyncClient) -> None:
        await client.submit(add, 1)
        await client.map(add, range(3))

    play(FakeCluster(), [Traced("a"), Idle(), Traced("b")], work)
    one = ["a in 0", "b in 0", "b out 1", "a out 1"]
    assert passed == [*one, *(said.replace("out 1", "out 3") for said in one)]


def test_options_and_arguments_may_be_changed() -> None:
    """Before they are checked and encoded, for a call and for each call of a batch."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        one = await client.submit(add.options(labels={"a": "b"}), 1, right=2)
        two, three = await client.submit_many(add, [(3, 4), (5,)])
        found = [cluster.jobs[handle.id] for handle in (one, two, three)]
        assert [decode_args(job.payload, "", add) for job in found] == [
            ([10], {"right": 2}),
            ([30, 4], {}),
            ([50], {}),
        ]
        assert dict(found[0].options.labels) == {"a": "b", "team": "media"}
        assert dict(found[1].options.labels) == {"team": "media"}

    play(cluster, [Labels()], work)


def test_an_error_on_the_way_in_submits_nothing() -> None:
    """Neither does an argument that a layer has spoilt; outer layers see the error."""
    cluster = FakeCluster()
    seen: list[str] = []

    class Watch(Middleware):
        """Sees errors pass."""

        @contextmanager
        def on_submit(self, submission: Submission) -> Iterator[None]:
            try:
                yield
            except Exception as error:
                seen.append(type(error).__name__)
                raise

    class Spoil(Middleware):
        """Makes the arguments wrong."""

        @contextmanager
        def on_submit(self, submission: Submission) -> Iterator[None]:
            if submission.calls[0].args[0] == 0:
                raise PermissionError("not zero")
            submission.calls[0] = Call(("text",), {})
            yield

    async def work(client: AsyncClient) -> None:
        with pytest.raises(PermissionError):
            await client.submit(add, 0)
        with pytest.raises(Rejected):
            await client.submit(add, 1)
        with pytest.raises(PermissionError):
            await client.map(add, [0, 1])

    play(cluster, [Watch(), Spoil()], work)
    assert cluster.jobs == {}
    assert seen == ["PermissionError", "Rejected", "PermissionError"]


def test_an_error_on_the_way_out_leaves_the_job_accepted() -> None:
    """The caller gets the error; the job exists."""
    cluster = FakeCluster()

    class Late(Middleware):
        """Fails too late."""

        @contextmanager
        def on_submit(self, submission: Submission) -> Iterator[None]:
            yield
            raise OSError("no disk")

    async def work(client: AsyncClient) -> None:
        with pytest.raises(OSError, match="no disk"):
            await client.submit(add, 1)

    play(cluster, [Late()], work)
    assert len(cluster.jobs) == 1


def test_no_layer_can_keep_a_refusal_to_itself() -> None:
    """There would be no handle to return, so the caller gets the error all the same."""
    cluster = FakeCluster()
    refusal = Refusal(reason=Reason.QUEUE_FULL, message="the queue is full")
    cluster.refuse_rows = lambda _: refusal
    swallowed: list[Exception] = []

    class Swallow(Middleware):
        """Says nothing of errors."""

        @contextmanager
        def on_submit(self, submission: Submission) -> Iterator[None]:
            try:
                yield
            except (Unavailable, BatchFailed) as error:
                swallowed.append(error)

    async def work(client: AsyncClient) -> None:
        with pytest.raises(Unavailable):
            await client.submit(add, 1)
        with pytest.raises(BatchFailed):
            await client.map(add, [1, 2])

    play(cluster, [Swallow()], work)
    assert len(swallowed) == 2


def test_what_is_no_middleware_is_refused() -> None:
    """By its place in the list, when the client is made."""
    with pytest.raises(Rejected) as caught:
        AsyncClient(middleware=[Idle(), print])  # type: ignore[list-item]
    assert caught.value.field == "middleware[1]"


def test_layers_may_be_async() -> None:
    """Both kinds nest in one order."""

    class Waiting(Traced):
        """Awaits on its way in."""

        def on_submit(self, submission: Submission) -> Layer:  # type: ignore[override]
            return self.waiting(submission)

        @asynccontextmanager
        async def waiting(self, submission: Submission) -> AsyncIterator[None]:
            async with asyncio.timeout(1):
                with super().on_submit(submission):
                    yield

    async def work(client: AsyncClient) -> None:
        await client.submit(add, 1)

    play(FakeCluster(), [Traced("a"), Waiting("b"), Traced("c")], work)
    assert passed == ["a in 0", "b in 0", "c in 0", "c out 1", "b out 1", "a out 1"]
