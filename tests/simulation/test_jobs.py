"""One job's life through the SDK, in a cluster on virtual time: what its user sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tenure.client import (
    AsyncClient,
    FailureReason,
    JobCancelled,
    JobFailed,
    JobState,
    Permanent,
    Reason,
    Rejected,
    Retry,
    RetryLater,
    cron,
    current_job,
    job,
    named,
)
from tenure.protocol.fence import parse_fence
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.process import elapse, run_processes
from tenure.testing.virtual import VirtualCluster
from tenure.v1 import jobs_pb2

#: What jobs have left behind.
TOLD: list[str] = []
ONCE = Retry(max_attempts=1)


class Missing(KeyError):
    """An error of a user's own."""


@job(name="greet", retry=ONCE)
async def greet(name: str, times: int = 1) -> str:
    """Knows everybody but nobody."""
    if name == "nobody":
        raise ValueError(f"who is {name}?")
    return f"hello {name}" * times


@job(name="tell")
async def tell(text: str) -> None:
    """Leaves a trace."""
    TOLD.append(text)


@job(name="fail", retry=Retry(max_attempts=3, backoff="fixed", jitter="none"))
async def fail(kind: str) -> int:
    """Fails in its first attempt, in one way or another."""
    attempt = current_job().attempt
    if attempt == 1:
        await elapse(2)
        match kind:
            case "permanent":
                raise Permanent("hopeless")
            case "later":
                raise RetryLater(timedelta(minutes=5), "busy")
            case "system":
                raise OSError("no disk")
            case "missing":
                raise Missing("no such line")
            case _:
                raise LookupError("not there yet")
    return attempt


@job(name="work", retry=ONCE)
async def work(seconds: float, every: float = 0.0, *, deaf: bool = False) -> str:
    """Takes its time, and says every so often how far it is; a deaf one hears no cancel."""
    left, steps = seconds, 0
    while left > 0:
        try:
            await elapse(min(left, every or left))
        except asyncio.CancelledError:
            if not deaf:
                TOLD.append("stopped")
                raise
        left -= every or left
        if every:
            steps += 1
            current_job().progress(min(steps * 100 * every / seconds, 100))
    return "done"


def play(test: Callable[[AsyncClient], Awaitable[None]]) -> None:
    """Runs a test with a client of a small cluster."""
    in_cluster(lambda cluster: test(cluster.client()))


def in_cluster(test: Callable[[SimCluster], Awaitable[None]]) -> None:
    """Runs a test in a small cluster."""

    async def main() -> None:
        TOLD.clear()
        jobs = [greet, tell, fail, work]
        async with simulated_cluster(
            seed=3, jobs=jobs, masters=1, workers=1, store="sqlite"
        ) as cluster:
            await test(cluster)

    run_processes(main, limit_s=20_000)


async def found(client: AsyncClient, name: str) -> jobs_pb2.Job:
    """The only job of a name, when it has ended."""
    (listed,) = [each async for each in client.list(name=name)]
    await (await client.get(listed.job_id)).wait(60)
    return await client.describe(listed.job_id)


@pytest.mark.parametrize(
    ("callback", "name", "state", "told"),
    [
        ("on_success", "you", JobState.COMPLETED, ["hello you"]),
        ("on_success", "nobody", JobState.FAILED, []),
        ("on_failure", "you", JobState.CANCELLED, []),
        ("on_failure", "nobody", JobState.COMPLETED, ["ID"]),
    ],
)
def test_callbacks_run_by_how_their_job_ended(
    callback: str, name: str, state: JobState, told: list[str]
) -> None:
    """With its result, or with its id; the one that was not called for has ended, too."""

    async def test(client: AsyncClient) -> None:
        handle = await client.submit(greet.options(**{callback: tell}), name)  # type: ignore[arg-type]
        called = await found(client, "tell")
        assert called.state == state
        assert [text.replace(handle.id, "ID") for text in TOLD] == told
        if state is JobState.FAILED:
            assert called.failure_reason == FailureReason.DEPENDENCY
        if state is JobState.CANCELLED:
            assert called.cancel_reason == "not needed"

    play(test)


def test_callbacks_have_arguments_of_their_own_and_mind_a_cancel() -> None:
    """A bound one is called as it was bound; for a failure's callback a cancel is a failure."""

    async def test(client: AsyncClient) -> None:
        later = greet.options(
            delay=timedelta(hours=1), on_success=tell, on_failure=tell.bind("called off")
        )
        handle = await client.submit(later, "you")
        assert await handle.cancel() is JobState.CANCELLED
        await elapse(5)
        assert TOLD == ["called off"]
        assert await client.count(name="tell") == {JobState.COMPLETED: 1, JobState.FAILED: 1}

    play(test)


def test_a_dead_letter_is_run_again_with_other_arguments() -> None:
    """They are the job's from then on; its budget is fresh and its history is kept."""

    async def test(client: AsyncClient) -> None:
        handle = await client.submit(greet, "nobody")
        with pytest.raises(JobFailed, match="who is nobody"):
            await handle.result(60)
        assert await handle.requeue(greet.bind("you", times=2)) is JobState.PENDING
        assert await handle.result(60) == "hello youhello you"
        job = await client.describe(handle.id, with_payload=True)
        assert (job.run, job.attempts_charged) == (1, 0)
        assert [attempt.run for attempt in job.attempts] == [0, 1]
        assert [attempt.outcome for attempt in job.attempts] == [
            AttemptOutcome.FAILED,
            AttemptOutcome.COMPLETED,
        ]
        assert b"you" in job.payload

    play(test)


def test_other_arguments_must_be_the_jobs() -> None:
    """Those of another job, and those that its function does not take, are refused by name."""

    async def test(client: AsyncClient) -> None:
        handle = await client.submit(greet, "nobody")
        await handle.wait(60)
        with pytest.raises(Rejected, match="of job greet") as refused:
            await handle.requeue(tell.bind("you"))
        assert refused.value.field == "step"
        with pytest.raises(Rejected) as refused:
            await handle.requeue(greet.bind(7))  # type: ignore[arg-type]
        assert refused.value.field == "name"
        large = named("greet").bind("x" * 200_000)
        assert await handle.requeue(large) is JobState.PENDING
        await handle.wait(60)
        with pytest.raises(Rejected) as refused:
            await handle.requeue(greet.bind("you"))
        assert refused.value.reason is Reason.WRONG_STATE

    play(test)


def test_the_timeline_has_each_attempt() -> None:
    """Worker, fence, times, outcome and error; what a job of several attempts says in the end."""

    async def test(client: AsyncClient) -> None:
        handle = await client.submit(fail, "soon")
        assert await handle.result(60) == 2
        job = await client.describe(handle.id)
        first, second = job.attempts
        assert [attempt.number for attempt in job.attempts] == [1, 2]
        assert {attempt.worker for attempt in job.attempts} == {"w1"}
        assert parse_fence(first.fence) < parse_fence(second.fence)
        for attempt in job.attempts:
            times = (
                attempt.granted_at,
                attempt.accepted_at,
                attempt.started_at,
                attempt.ended_at,
            )
            granted_ms, accepted_ms, started_ms, ended_ms = (t.ToMilliseconds() for t in times)
            assert 0 < granted_ms <= accepted_ms <= started_ms <= ended_ms
        ran_ms = first.ended_at.ToMilliseconds() - first.started_at.ToMilliseconds()
        # The cluster's clock is slewed a little.
        assert 1_950 < ran_ms < 2_500
        assert (first.outcome, second.outcome) == (AttemptOutcome.FAILED, AttemptOutcome.COMPLETED)
        assert not second.HasField("error")
        error = first.error
        assert (error.type, error.message) == ("LookupError", "not there yet")
        assert error.category == ErrorCategory.TRANSIENT
        assert "test_jobs.py" in error.traceback

    play(test)


def test_a_running_job_says_how_far_it_is() -> None:
    """When its attempt was granted, accepted and started, and the last progress that was told."""

    async def test(client: AsyncClient) -> None:
        handle = await client.submit(work, 100, 10)
        assert await handle.progress() == 0
        await elapse(58)
        assert 40 <= await handle.progress() <= 50
        for found in (await client.describe(handle.id), *[each async for each in client.list()]):
            (attempt,) = found.attempts
            times = (attempt.granted_at, attempt.accepted_at, attempt.started_at)
            granted_ms, accepted_ms, started_ms = (each.ToMilliseconds() for each in times)
            assert 0 < granted_ms <= accepted_ms <= started_ms
            assert not attempt.HasField("ended_at")
            assert 40 <= found.progress <= 50
        assert await handle.result(120) == "done"
        assert await handle.progress() == 0

    play(test)


@pytest.mark.parametrize(
    ("kind", "attempts", "waits_s", "category"),
    [
        ("soon", 2, 1, ErrorCategory.TRANSIENT),
        ("later", 2, 300, ErrorCategory.TRANSIENT),
        ("system", 2, 20, ErrorCategory.SYSTEM),
        ("permanent", 1, 0, ErrorCategory.PERMANENT),
        ("missing", 1, 0, ErrorCategory.PERMANENT),
    ],
)
def test_what_is_raised_says_if_and_when_to_try_again(
    kind: str, attempts: int, waits_s: int, category: ErrorCategory
) -> None:
    """TRANSIENT by the policy, SYSTEM by its own base, RetryLater by its wish, PERMANENT never; and
    so are those of a listed class, or of a subclass of one.
    """
    retry = Retry(
        max_attempts=3,
        backoff="fixed",
        jitter="none",
        system_base=timedelta(seconds=20),
        non_retryable=(KeyError, "app.Unknown"),
    )

    async def test(client: AsyncClient) -> None:
        handle = await client.submit(fail.options(retry=retry), kind)
        await handle.wait(600)
        job = await client.describe(handle.id)
        assert len(job.attempts) == attempts
        assert job.attempts[0].error.category == category
        if attempts == 1:
            assert (job.state, job.failure_reason) == (JobState.FAILED, FailureReason.PERMANENT)
            return
        first, second = job.attempts
        waited_ms = second.granted_at.ToMilliseconds() - first.ended_at.ToMilliseconds()
        # The cluster's clock is slewed a little.
        assert waits_s * 990 <= waited_ms < waits_s * 1_000 + 500
        assert job.state == JobState.COMPLETED

    play(test)


@pytest.mark.parametrize("kept_for", [timedelta(minutes=5), timedelta(hours=5)])
def test_a_result_is_kept_as_long_as_its_job_says(kept_for: timedelta) -> None:
    """Shorter or longer than the cluster's hour; then it is RESULT_EXPIRED, not unknown."""
    with VirtualCluster() as cluster:
        handle = cluster.client.submit(greet.options(result_ttl=kept_for), "you")
        assert handle.result(60) == "hello you"
        cluster.advance(kept_for - timedelta(seconds=10))
        assert cluster.client.get(handle.id).result(60) == "hello you"
        cluster.advance(timedelta(seconds=20))
        with pytest.raises(Rejected) as refused:
            cluster.client.describe(handle.id)
        assert refused.value.reason is Reason.RESULT_EXPIRED


@pytest.mark.parametrize("limit_s", [2, 30])
def test_a_job_that_says_how_far_it_is_is_left_alone(limit_s: int) -> None:
    """However short its heartbeat timeout is and however seldom workers tell; a silent one ends."""
    limited = work.options(heartbeat_timeout=timedelta(seconds=limit_s))

    async def test(client: AsyncClient) -> None:
        talking = await client.submit(limited, 100, every=1)
        silent = await client.submit(limited, 1_000)
        with pytest.raises(JobFailed) as failed:
            await silent.result(limit_s + 20)
        assert failed.value.failure_reason is FailureReason.TIMED_OUT
        assert f"its heartbeat timeout of {limit_s}000 ms" in str(failed.value)
        assert await talking.result(120) == "done"

    play(test)


def test_a_timeout_ends_the_attempt_in_its_worker_first() -> None:
    """The worker stops it at its limit, and says so before the master would."""

    async def test(client: AsyncClient) -> None:
        handle = await client.submit(work.options(timeout=timedelta(seconds=10)), 100)
        with pytest.raises(JobFailed) as failed:
            await handle.result(60)
        assert failed.value.failure_reason is FailureReason.TIMED_OUT
        (attempt,) = (await client.describe(handle.id)).attempts
        ran_ms = attempt.ended_at.ToMilliseconds() - attempt.started_at.ToMilliseconds()
        assert 9_900 < ran_ms < 10_500
        assert TOLD == ["stopped"]

    play(test)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_cancel_asks_and_a_result_that_comes_first_stands(deaf: bool) -> None:
    """A running job is told; one that ends in time all the same has its result, and no reason."""

    async def test(client: AsyncClient) -> None:
        handle = await client.submit(work, 6, deaf=deaf)
        await elapse(1)
        assert await handle.cancel("enough") is JobState.RUNNING
        if deaf:
            assert await handle.result(60) == "done"
            assert await handle.status() is JobState.COMPLETED
        else:
            with pytest.raises(JobCancelled, match="enough"):
                await handle.result(60)
            assert TOLD == ["stopped"]

    play(test)


def test_workers_publish_what_their_jobs_take() -> None:
    """Who knows a job by its name only is refused what it does not take, with the path; what it
    takes is run. What nobody is there to say is accepted, and the worker fails it for good.
    """

    async def test(cluster: SimCluster) -> None:
        client = cluster.client()
        handle = await client.submit(named("greet"), "you", times=2)
        assert await handle.result(60) == "hello youhello you"
        with pytest.raises(Rejected) as refused:
            await client.submit(named("greet"), "you", times="two")
        assert (refused.value.reason, refused.value.field) == (Reason.INVALID_ARGUMENT, "times")
        with pytest.raises(Rejected) as refused:
            await client.submit_many(named("greet"), [("you",), ()])
        assert refused.value.field == "name"
        with pytest.raises(Rejected) as refused:
            await client.schedules.create("daily", cron("@daily"), named("greet"), "you", 1.5)
        assert refused.value.field == "times"
        with pytest.raises(Rejected) as refused:
            async with client.workflow("greetings") as workflow:
                workflow.add(named("greet"), "you", name="me")
        assert refused.value.field == "name"
        worker = cluster.workers["w1"]
        worker.kill()
        await elapse(60)
        unheard = await client.submit(named("greet"), "you", times="two")
        cluster.start(worker)
        with pytest.raises(JobFailed, match="times") as failed:
            await unheard.result(60)
        assert failed.value.failure_reason is FailureReason.PERMANENT
        assert failed.value.attempts == 1

    in_cluster(test)
