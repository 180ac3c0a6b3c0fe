"""Batch handlers: which jobs a call is made for, and what comes of each."""

import asyncio
import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenure.client import Execution, Finish, JobContext, Middleware
from tenure.protocol.fence import NO_TOKEN, Lease
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker.executor.batch import Batches
from tenure.worker.executor.batch_call import Batch, coroutine_caller, function_caller
from tenure.worker.executor.patience import GRACE_MS
from tenure.worker.held import AttemptResult, HeldJob, Terms
from tenure.worker.middleware import Application
from tenure.worker.port import FactKind
from tests.unit.worker.batch_handlers import CALLS
from tests.unit.worker.executor.bench import JOBS, Bench, ShiftedClock, bench, until_exists
from tests.unit.worker.test_capture import listening

STARTED, ENDED, UNSTARTED = FactKind.STARTED, FactKind.ENDED, FactKind.UNSTARTED
ABANDONED, FREED = FactKind.ABANDONED, FactKind.FREED
COMPLETED, FAILED = AttemptOutcome.COMPLETED, AttemptOutcome.FAILED
PERMANENT = AttemptOutcome.FAILED_PERMANENT
CANCELLED, TIMED_OUT = AttemptOutcome.CANCELLED, AttemptOutcome.TIMED_OUT

BOTH = pytest.mark.parametrize("name", ["double_all", "double_all_async"])


@pytest.fixture
def calls(request: pytest.FixtureRequest) -> Iterator[str]:
    """What a test's calls are noted under."""
    yield request.node.name
    CALLS.pop(request.node.name, None)


def value_of(job: HeldJob) -> Any:
    """What an item came to, decoded."""
    assert job.result is not None
    assert job.result.fault is None, job.result.fault
    return msgspec.msgpack.decode(job.result.result)


def result_of(job: HeldJob) -> AttemptResult:
    """What an item came to."""
    assert job.result is not None
    return job.result


class TestCalls:
    """When calls are made, and of which items."""

    @BOTH
    def test_full_batch_is_one_call(self, name: str, calls: str) -> None:
        """As many items as fit are one call, at once, and each has its own result."""
        with bench(name) as pool:
            items = [pool.job(name, (calls, number)) for number in range(6)]
            pool.run(*items)
            assert [value_of(item) for item in items] == [0, 2, 4, 6, 8, 10]
        assert sorted(CALLS[calls]) == [[0, 1, 2], [3, 4, 5]]

    @BOTH
    def test_first_item_waits_for_others_as_long_as_it_is_told(self, name: str, calls: str) -> None:
        """What has come after ``linger_ms`` is the call, whoever came last."""
        with bench(name) as pool:
            pool.clock.stand()
            first, second = pool.job(name, (calls, 1)), pool.job(name, (calls, 2))
            pool.pool.run([first])
            pool.pass_time(999)
            pool.pool.run([second])
            assert not first.claimed
            pool.pass_time(1)
            pool.until(lambda: first.result and second.result)
        assert CALLS[calls] == [[1, 2]]

    def test_time_of_an_item_that_has_gone_is_not_its_followers(self, calls: str) -> None:
        """A batch that filled up leaves nothing behind that cuts the next one's time short."""
        with bench("double_all") as pool:
            pool.clock.stand()
            pool.pool.run([pool.job("double_all", (calls, 1))])
            pool.pass_time(600)
            full = [pool.job("double_all", (calls, number)) for number in (2, 3)]
            pool.run(*full)
            late = pool.job("double_all", (calls, 4))
            pool.pool.run([late])
            pool.pass_time(999)
            assert not late.claimed
            pool.pass_time(1)
            pool.until(lambda: late.result)
        assert CALLS[calls] == [[1, 2, 3], [4]]

    def test_without_linger_what_came_together_is_a_call(self, calls: str) -> None:
        """``linger_ms=0`` waits for nobody."""
        with bench("double_what_came") as pool:
            pool.run(*[pool.job("double_what_came", (calls, number)) for number in range(2)])
        assert CALLS[calls] == [[0, 1]]

    def test_call_takes_one_slot_and_what_came_while_it_waited(
        self, calls: str, tmp_path: Path
    ) -> None:
        """Slots bound calls, not items; which items a call has is settled when it begins."""
        started, release = tmp_path / "s", tmp_path / "r"
        with bench("deaf_all", "double_what_came", slots=1) as pool:
            pool.begin(pool.job("deaf_all", (str(started), str(release))), started)
            items = [pool.job("double_what_came", (calls, number)) for number in range(4)]
            for item in items:
                pool.pool.run([item])
            assert not any(item.claimed for item in items)
            release.touch()
            pool.until(lambda: all(item.result for item in items))
        assert CALLS[calls] == [[0, 1, 2], [3]]

    def test_jobs_of_other_kinds_keep_their_order(self, tmp_path: Path, calls: str) -> None:
        """A full batch stands in the queue where its last item came."""
        started, release = tmp_path / "s", tmp_path / "r"
        with bench("deaf", "double", "double_all", slots=1) as pool:
            pool.begin(pool.job("deaf", str(started), str(release)), started)
            items = [pool.job("double_all", (calls, number)) for number in range(3)]
            before, after = pool.job("double", 1), pool.job("double", 2)
            pool.pool.run([before, *items, after])
            release.touch()
            pool.until(lambda: ENDED in pool.kinds(after))
            order = [job for kind, job in pool.facts if kind is ENDED]
        assert order[1:] == [before, *items, after]

    def test_items_may_be_taken_back_until_the_call(self, calls: str) -> None:
        """One that was withdrawn, or whose lease is over, is not in it."""
        with bench("double_all", slots=1) as pool:
            pool.clock.stand()
            gone = pool.job("double_all", (calls, 1))
            late = pool.job("double_all", (calls, 2), expires_ms=pool.clock.boot_ms() + 500)
            runs = pool.job("double_all", (calls, 3))
            pool.pool.run([gone, late])
            pool.pass_time(600)
            assert gone.withdraw()
            pool.pool.run([runs])
            pool.until(lambda: runs.result)
            assert pool.kinds(gone) == []
            assert pool.kinds(late) == [UNSTARTED]
            assert CALLS[calls] == [[3]]
            only = pool.job("double_all", (calls, 4))
            pool.pool.run([only])
            assert only.withdraw()
            pool.pass_time(1_001)
            # The slot of the batch that had nobody left is free.
            again = [pool.job("double_all", (calls, number)) for number in (5, 6, 7)]
            pool.run(*again)
        assert CALLS[calls] == [[3], [5, 6, 7]]


class TestOutcomes:
    """What comes of each item."""

    @pytest.mark.parametrize("name", ["outcomes", "outcomes_async"])
    def test_each_item_has_its_own(self, name: str) -> None:
        """Values are results; exceptions mean what they mean when a single job raises them."""
        with bench(name) as pool:
            asked = ["value", "plain", "permanent", "later", "nonsense", "much"]
            items = [pool.job(name, kind) for kind in asked]
            results = dict(zip(asked, pool.run(*items), strict=True))
        assert value_of(items[0]) == "value"
        said = {kind: (r.outcome, r.fault.type) for kind, r in results.items() if r.fault}
        assert said == {
            "plain": (FAILED, "RuntimeError"),
            "permanent": (PERMANENT, "tenure.client.errors.Permanent"),
            "later": (FAILED, "tenure.client.errors.RetryLater"),
            "nonsense": (PERMANENT, "INVALID_ARGUMENT"),
            "much": (PERMANENT, "PAYLOAD_TOO_LARGE"),
        }
        fault = results["later"].fault
        assert fault is not None
        assert fault.retry_after_ms == 7_000

    def test_error_of_the_call_is_every_items(self) -> None:
        """Each is charged by its own policy, and shown the traceback."""
        with bench("raise_all") as pool:
            kind = "tests.unit.worker.applications.BadInput"
            items = [
                pool.job("raise_all", "a"),
                pool.job("raise_all", "b", non_retryable=frozenset({kind})),
            ]
            results = pool.run(*items)
        assert [result.outcome for result in results] == [FAILED, PERMANENT]
        for result in results:
            assert result.fault is not None
            assert (result.fault.type, result.fault.message) == (kind, "a b")
            assert "raise_all" in result.fault.traceback
            assert "batch_call" not in result.fault.traceback

    @pytest.mark.parametrize(
        ("shape", "got"),
        [
            ("short", "but it returned 1"),
            ("long", "but it returned 3"),
            ("none", "what is no list: NoneType"),
            ("text", "what is no list: str"),
        ],
    )
    def test_list_of_another_length_is_nobodys_result(self, shape: str, got: str) -> None:
        """Which outcome would be whose? It fails them for good, and says what was expected."""
        with bench("misshapen") as pool:
            results = pool.run(pool.job("misshapen", shape), pool.job("misshapen", shape))
        for result in results:
            assert result.outcome is PERMANENT
            assert result.fault is not None
            assert "a list of 2 outcomes" in result.fault.message
            assert got in result.fault.message

    @BOTH
    def test_item_that_does_not_decode_fails_alone(self, name: str, calls: str) -> None:
        """The others are called without it; the error says what is wrong with it."""
        with bench(name) as pool:
            wrong = msgspec.msgpack.encode(([[calls, "two"]], {}))
            items = [
                pool.job(name, (calls, 1)),
                pool.job(name, payload=wrong),
                pool.job(name, (calls, 3)),
            ]
            pool.run(*items)
        assert CALLS[calls] == [[1, 3]]
        assert (value_of(items[0]), value_of(items[2])) == (2, 6)
        assert result_of(items[1]).outcome is PERMANENT
        fault = result_of(items[1]).fault
        assert fault is not None
        assert "item[1]" in fault.message

    def test_call_of_nobody_is_not_made(self, calls: str) -> None:
        """When no item is left, the function is not called with an empty list."""
        with bench("double_all") as pool:
            results = pool.run(*[pool.job("double_all", payload=b"\xc1") for _ in range(3)])
        assert {result.outcome for result in results} == {PERMANENT}
        assert calls not in CALLS

    def test_items_may_be_named(self, calls: str) -> None:
        """Whoever submits by name calls the only argument ``item``."""
        with bench("double_all") as pool:
            payload = msgspec.msgpack.encode(([], {"item": [calls, 4]}))
            job = pool.job("double_all", payload=payload)
            pool.pool.run([job])
            pool.pass_time(1_001)
            pool.until(lambda: job.result)
        assert value_of(job) == 8


class TestStops:
    """Cancels and timeouts, item by item."""

    def test_contexts_are_the_items(self) -> None:
        """``current_batch()`` has them in order; the call itself is no job and holds no lease."""
        with bench("who_all") as pool:
            items = [pool.job("who_all", 1, attempt=2), pool.job("who_all", 2)]
            pool.run(*items)
        nobody = Lease(NO_TOKEN, 0, 0).fence
        assert [value_of(item) for item in items] == [
            [item.job_id, "who_all", str(item.attempt), item.lease.fence, "", "who_all", nobody]
            for item in items
        ]

    def test_what_a_call_says_is_in_the_log_of_each_item(self) -> None:
        """Nobody can tell which one a line is about."""
        with listening(), bench("who_all") as pool:
            items = [pool.job("who_all", number) for number in range(2)]
            pool.run(*items)
        for item in items:
            assert item.log is not None
            assert [line.text for line in item.log.after(0)] == ["2 items"]

    def test_cancelled_item_is_told_and_the_others_go_on(self, tmp_path: Path) -> None:
        """What its checkpoint raises, returned as its outcome, makes it CANCELLED."""
        with bench("heed_all") as pool:
            items = _begin_two(pool, "heed_all", tmp_path)
            pool.pool.stop(items[1], CANCELLED)
            pool.until(lambda: all(item.result for item in items))
        assert value_of(items[0]) == "done"
        assert result_of(items[1]).outcome is CANCELLED

    def test_call_ends_when_nobody_is_left_in_it(self, tmp_path: Path) -> None:
        """``current_job().checkpoint()`` raises when all items are told to stop, not before."""
        with bench("heed_call") as pool:
            items = _begin_two(pool, "heed_call", tmp_path)
            pool.pool.stop(items[0], CANCELLED)
            assert all(item.result is None for item in items)
            pool.pool.stop(items[1], CANCELLED)
            pool.until(lambda: all(ENDED in pool.kinds(item) for item in items))
            assert {kind for item in items for kind in pool.kinds(item)} == {STARTED, ENDED}
        assert {result_of(item).outcome for item in items} == {CANCELLED}

    def test_coroutine_is_cancelled_when_nobody_is_left_in_it(self, tmp_path: Path) -> None:
        """Cancelling one item leaves the task of all alone; cancelling all ends it."""
        name = "until_told_all_async"
        with bench(name) as pool:
            items = _begin_two(pool, name, tmp_path)
            pool.pool.stop(items[0], CANCELLED)
            pool.pass_time(GRACE_MS + 1)
            assert pool.outcome_after(items[0], ABANDONED) is CANCELLED
            assert items[1].result is None
            pool.pool.stop(items[1], CANCELLED)
            assert pool.outcome_after(items[1], ENDED) is CANCELLED
            pool.until(lambda: FREED in pool.kinds(items[0]))

    def test_slot_is_lost_with_the_last_item(self, tmp_path: Path) -> None:
        """A call that nobody waits for any more is one lost slot, however many it was for."""
        paths, release = [tmp_path / "a", tmp_path / "b"], tmp_path / "r"
        with bench("deaf_all", "double", slots=1) as pool:
            items = [
                pool.job("deaf_all", (str(path), str(release)), timeout_ms=timeout_ms)
                for path, timeout_ms in zip(paths, (1_000, 2_000), strict=True)
            ]
            pool.pool.run(items)
            until_exists(paths[1])
            pool.until(lambda: all(STARTED in pool.kinds(item) for item in items))
            pool.pass_time(1_001)
            assert pool.outcome_after(items[0], ABANDONED) is TIMED_OUT
            assert pool.pool.lost == 0
            pool.pass_time(1_001)
            assert pool.outcome_after(items[1], ABANDONED) is TIMED_OUT
            assert pool.pool.lost == 1
            assert pool.result("double", 2).outcome is COMPLETED
            release.touch()
            pool.until(lambda: all(FREED in pool.kinds(item) for item in items))
            assert pool.pool.lost == 0
            assert pool.result("double", 3).outcome is COMPLETED

    def test_timeout_is_each_items_own(self, tmp_path: Path) -> None:
        """It is given up at once; the other's value counts; the slot is kept until the end."""
        paths = [tmp_path / "a", tmp_path / "b"]
        release = tmp_path / "r"
        with bench("deaf_all", slots=1) as pool:
            items = [
                pool.job("deaf_all", (str(paths[0]), str(release)), timeout_ms=1_000),
                pool.job("deaf_all", (str(paths[1]), str(release))),
            ]
            pool.pool.run(items)
            pool.until(lambda: all(STARTED in pool.kinds(item) for item in items))
            pool.pass_time(1_001)
            assert pool.outcome_after(items[0], ABANDONED) is TIMED_OUT
            assert items[1].result is None
            release.touch()
            pool.until(lambda: items[1].result and FREED in pool.kinds(items[0]))
        assert value_of(items[1]) == "late"


def _begin_two(pool: Bench, name: str, folder: Path) -> list[HeldJob]:
    """Two items whose call has begun."""
    items = [pool.job(name, str(folder / "s")) for _ in range(2)]
    pool.pool.run(items[1:])
    pool.begin(items[0], folder / "s")
    pool.until(lambda: all(STARTED in pool.kinds(item) for item in items))
    # The one that came first is first in the call.
    return [items[1], items[0]]


class _Told(Middleware):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.runs: list[tuple[Any, Any]] = []
        self.ends: list[tuple[str, str, Any]] = []

    @contextmanager
    def on_run(self, execution: Execution) -> Iterator[None]:
        yield
        self.runs.append((execution.args, execution.result))

    def on_finish(self, finish: Finish) -> None:
        self.ends.append((finish.context.id, finish.outcome.name, finish.result))


@BOTH
def test_middleware_runs_around_calls_and_is_told_of_each_item(name: str, calls: str) -> None:
    """``on_run`` has the list of items and of outcomes, ``on_finish`` each item's own end."""
    told = _Told()
    jobs, clock = Application({name: JOBS[name]}, [told]), ShiftedClock()
    with bench(name) as pool:
        items = [pool.job(name, (calls, number)) for number in (1, 2)]
    batch = Batch(
        job_id="", partition=0, token=NO_TOKEN, seq=0, terms=Terms(name), expires_ms=0, items=items
    )
    own = contextvars.Context()
    if name.endswith("_async"):
        own.run(asyncio.run, coroutine_caller(jobs, clock)(jobs, batch, _never))
    else:
        own.run(function_caller(jobs, clock), jobs, batch, _never)
    assert told.runs == [([[(calls, 1), (calls, 2)]], [2, 4])]
    assert told.ends == [
        (items[0].job_id, "COMPLETED", 2),
        (items[1].job_id, "COMPLETED", 4),
    ]


def _never() -> JobContext:
    raise AssertionError("the context of a batch is its items' business")


def test_applications_without_batch_handlers_have_no_lines() -> None:
    """What others do not use costs them nothing."""
    with bench("double") as pool:
        assert pool.pool._batches is None
    with bench("double_all") as pool:
        assert isinstance(pool.pool._batches, Batches)
