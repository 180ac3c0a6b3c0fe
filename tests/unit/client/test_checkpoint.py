"""What a job saves: as it comes back, how large it may be, and loops that know how far they are."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tenure.client import Cancelled, JobContext, LeaseLost, Reason, Rejected, current_job
from tenure.protocol.fence import Lease, Token


class Attempts:
    """The attempts of one job: each begins with what the last one has saved."""

    def __init__(self) -> None:
        #: All that was saved, as it travels.
        self.saved: list[bytes] = [b""]
        self.wanted_back = False

    def begin(self, **settings: Callable[[], bool]) -> JobContext:
        """The next attempt's context."""
        return JobContext(
            id="i",
            name="n",
            attempt=1,
            lease=Lease(Token(1, 1), 1, 0),
            saved=self.saved[-1],
            on_checkpoint=self.saved.append,
            is_wanted_back=lambda: self.wanted_back,
            **settings,
        )


@pytest.mark.parametrize(
    "data", [0, 12.5, "text", b"bytes", [1, [2]], {"page": 7, "seen": ["a"]}, True]
)
def test_the_next_attempt_has_what_was_saved_last(data: object) -> None:
    """In value and type; what an attempt saves does not change what it began with."""
    attempts = Attempts()
    first = attempts.begin()
    assert first.last_checkpoint is None
    first.checkpoint("earlier")
    first.checkpoint(data)
    assert first.last_checkpoint is None
    found = attempts.begin().last_checkpoint
    assert found == data
    assert type(found) is type(data)


def test_each_look_has_a_value_of_its_own() -> None:
    """A job may change what it is given, and look again."""
    attempts = Attempts()
    attempts.begin().checkpoint([1])
    again = attempts.begin()
    again.last_checkpoint.append(2)
    assert again.last_checkpoint == [1]


def test_without_data_it_saves_nothing() -> None:
    """It is a point to stop at, as it always was."""
    attempts = Attempts()
    attempts.begin().checkpoint()
    assert attempts.saved == [b""]


def test_a_job_that_is_to_stop_saves_nothing() -> None:
    """It is told so instead: another may have begun with what is saved."""
    attempts = Attempts()
    with pytest.raises(Cancelled):
        attempts.begin(is_cancelled=lambda: True).checkpoint(1)
    with pytest.raises(LeaseLost):
        attempts.begin(is_lost=lambda: True).checkpoint(1)
    assert attempts.saved == [b""]


@pytest.mark.parametrize(
    ("data", "path"),
    [((1, 2), "data"), ({"a": [1, {2}]}, "data['a'][1]"), (object(), "data")],
)
def test_what_would_not_come_back_is_refused(data: object, path: str) -> None:
    """With the path of the value, before anything is saved."""
    attempts = Attempts()
    with pytest.raises(Rejected) as caught:
        attempts.begin().checkpoint(data)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.metadata["path"].startswith(path.split("[")[0])
    assert attempts.saved == [b""]


def test_too_much_is_refused() -> None:
    """64 KiB encoded are a checkpoint, more is what an object store is for."""
    attempts = Attempts()
    attempts.begin().checkpoint("x" * (64 * 1024 - 10))
    with pytest.raises(Rejected, match="object store") as caught:
        attempts.begin().checkpoint("x" * 64 * 1024)
    assert caught.value.reason is Reason.PAYLOAD_TOO_LARGE
    assert caught.value.metadata["limit"] == "65536"


def test_what_is_not_of_this_sdk_is_named() -> None:
    """A job that another SDK has begun says what it cannot read."""
    attempts = Attempts()
    attempts.saved.append(b"\xc1")
    me = attempts.begin()
    me.checkpoint()
    with pytest.raises(Rejected, match="checkpoint"):
        me.last_checkpoint  # noqa: B018


def test_outside_a_worker_nothing_is_kept() -> None:
    """A job's function called plainly runs through, with loops of any names; errors stay errors."""
    me = current_job()
    me.checkpoint([1])
    assert me.last_checkpoint is None
    assert [*me.iterate("abc")] == [*me.iterate("abc")] == ["a", "b", "c"]
    with pytest.raises(Rejected):
        me.checkpoint({1, 2})


class TestLoops:
    """``iterate``."""

    def test_the_next_attempt_goes_on_after_the_last_finished_item(self) -> None:
        """The item at which an attempt broke off comes again, those before it do not."""
        attempts, seen = Attempts(), list[int]()

        def run(me: JobContext, until: int) -> None:
            for item in me.iterate(range(10)):
                if item == until:
                    raise RuntimeError
                seen.append(item)

        for until in (3, 3, 7):
            with pytest.raises(RuntimeError):
                run(attempts.begin(), until)
        run(attempts.begin(), -1)
        assert seen == [*range(10)]
        run(attempts.begin(), -1)
        assert seen == [*range(10)]

    def test_any_items_will_do(self) -> None:
        """Those that a generator makes are made again and skipped."""

        def numbers() -> Iterator[int]:
            yield from range(4)

        attempts = Attempts()
        for item in attempts.begin().iterate(numbers()):
            if item == 2:
                break
        assert [*attempts.begin().iterate(numbers())] == [2, 3]

    def test_data_is_saved_with_the_item_that_it_belongs_to(self) -> None:
        """A sum over the items is right however often the loop is broken off."""
        attempts, rounds = Attempts(), 0
        while True:
            rounds += 1
            me = attempts.begin()
            total = me.last_checkpoint or 0
            for item in me.iterate(range(1, 11)):
                total += item
                me.checkpoint(total)
                if item % 3 == 0 and rounds < 20 and item > rounds:
                    break
            else:
                break
        assert rounds > 3
        assert total == 55

    def test_data_of_code_outside_a_loop_is_saved_at_once(self) -> None:
        """Before it, after it, and after it was left early."""
        attempts = Attempts()
        me = attempts.begin()
        me.checkpoint("before")
        for _ in me.iterate([1, 2, 3]):
            break
        me.checkpoint("amid")
        assert attempts.begin().last_checkpoint == "amid"
        me = attempts.begin()
        assert [*me.iterate([1, 2, 3])] == [1, 2, 3]
        me.checkpoint("after")
        assert attempts.begin().last_checkpoint == "after"

    def test_loops_have_cursors_of_their_own(self) -> None:
        """By their names; one within another, too."""
        attempts, seen = Attempts(), list[tuple[str, int]]()

        def run(me: JobContext, pages_max: int) -> None:
            pages = 0
            for book in me.iterate(["a", "b"], name="books"):
                for page in me.iterate(range(3), name=f"pages of {book}"):
                    pages += 1
                    if pages > pages_max:
                        raise RuntimeError
                    seen.append((book, page))

        with pytest.raises(RuntimeError):
            run(attempts.begin(), 2)
        with pytest.raises(RuntimeError):
            run(attempts.begin(), 2)
        run(attempts.begin(), 99)
        assert seen == [(book, page) for book in "ab" for page in range(3)]

    def test_one_name_is_for_one_loop(self) -> None:
        """A second one would begin where the first one is."""
        me = Attempts().begin()
        for _ in me.iterate([1]):
            pass
        with pytest.raises(Rejected, match="no other loop"):
            me.iterate([1])

    def test_a_drain_ends_it_between_two_items(self) -> None:
        """The item is finished and saved before; after the last one there is nothing to hand on."""
        attempts, seen = Attempts(), list[int]()

        def run(drain_at: int) -> None:
            attempts.wanted_back = False
            for item in attempts.begin().iterate(range(4)):
                seen.append(item)
                attempts.wanted_back = item == drain_at

        with pytest.raises(Cancelled):
            run(1)
        assert seen == [0, 1]
        run(3)
        assert seen == [0, 1, 2, 3]

    def test_each_item_is_a_point_to_stop_at(self) -> None:
        """A cancel ends the loop, and what was finished is saved."""
        attempts, stop = Attempts(), list[bool]()

        def run() -> None:
            for item in attempts.begin(is_cancelled=lambda: bool(stop)).iterate(range(4)):
                if item == 1:
                    stop.append(True)

        with pytest.raises(Cancelled):
            run()
        assert [*attempts.begin().iterate(range(4))] == [2, 3]

    def test_too_many_loops_are_refused(self) -> None:
        """Their cursors are part of the checkpoint."""
        me = Attempts().begin()

        def run() -> None:
            for number in range(700):
                assert [*me.iterate([1], name=f"{number} a loop with a long name {'x' * 90}")]

        with pytest.raises(Rejected) as caught:
            run()
        assert caught.value.reason is Reason.PAYLOAD_TOO_LARGE


class TestAsyncLoops:
    """``async for``."""

    def test_over_plain_items(self) -> None:
        """As the plain loop."""

        async def run(me: JobContext, until: int) -> list[int]:
            seen = []
            async for item in me.iterate(range(5)):
                if item == until:
                    break
                seen.append(item)
            return seen

        attempts = Attempts()
        assert asyncio.run(run(attempts.begin(), 2)) == [0, 1]
        assert asyncio.run(run(attempts.begin(), -1)) == [2, 3, 4]
        assert asyncio.run(run(attempts.begin(), -1)) == []

    def test_over_items_that_come_asynchronously(self) -> None:
        """Finished ones are awaited and skipped; a source that ends early ends the loop."""

        async def pages(count: int) -> AsyncIterator[int]:
            for number in range(count):
                await asyncio.sleep(0)
                yield number

        async def run(me: JobContext, until: int, count: int = 5) -> list[int]:
            seen = []
            async for item in me.iterate(pages(count)):
                if item == until:
                    raise RuntimeError
                seen.append(item)
                me.checkpoint({"seen": item})
            return seen

        attempts = Attempts()
        with pytest.raises(RuntimeError):
            asyncio.run(run(attempts.begin(), 2))
        assert attempts.begin().last_checkpoint == {"seen": 1}
        assert asyncio.run(run(attempts.begin(), -1)) == [2, 3, 4]
        assert asyncio.run(run(attempts.begin(), -1, count=3)) == []

    def test_a_plain_loop_over_them_is_refused(self) -> None:
        """With what to write instead."""

        async def pages() -> AsyncIterator[int]:
            yield 1

        items: Any = pages()
        with pytest.raises(TypeError, match="async for"):
            iter(Attempts().begin().iterate(items))
