"""What a type checker must conclude. Checked by ``test_typing``, never run."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar, assert_type

from tenure.client import (
    AsyncBatchJob,
    AsyncClient,
    AsyncJob,
    AsyncJobHandle,
    AsyncStartedFlow,
    AttemptOutcome,
    BatchJob,
    Call,
    Chain,
    Chord,
    Client,
    Command,
    Execution,
    Finish,
    Group,
    Job,
    JobContext,
    JobDef,
    JobEvent,
    JobHandle,
    JobState,
    Limits,
    Middleware,
    RemoteError,
    Retry,
    StartedFlow,
    Step,
    Submission,
    chain,
    chord,
    current_batch,
    current_job,
    group,
    job,
    named,
    register_codec,
    result_of,
    results_of,
)

P = ParamSpec("P")
R = TypeVar("R")


@job
def plain(x: int, y: str = "") -> float:
    """A plain job."""
    return 0.5


@job(queue="media", retry=Retry(max_attempts=5), timeout=timedelta(minutes=5))
def tuned(url: str, width: int = 640) -> str:
    """A plain job with settings."""
    return url


@job
async def bare_async(x: int) -> bytes:
    """An async job."""
    return b""


@job(queue="mail")
async def tuned_async(user_id: int, text: str) -> None:
    """An async job with settings."""


def direct_calls() -> None:
    """A definition is called like its function."""
    assert_type(plain(1), float)
    assert_type(tuned("a", width=3), str)


async def direct_async_calls() -> None:
    """An async one gives a coroutine of the function's result, and no coroutine of one."""
    assert_type(await bare_async(1), bytes)


def kinds() -> None:
    """Definitions keep the parameters' types; options keep the definition's."""
    job_of_int: AsyncJob[[int], bytes] = bare_async
    assert_type([job_of_int(1)], list[Coroutine[Any, Any, bytes]])
    assert_type(plain.options(priority=1)(1), float)
    assert_type(named("app.elsewhere"), Job[..., Any])


def plain_client(client: Client) -> None:
    """Handles carry the result's type, for plain and async jobs alike."""
    handle = client.submit(tuned, "s3://a.png", width=320)
    assert_type(handle, JobHandle[str])
    assert_type(handle.result(timeout=30), str)
    assert_type(client.submit(bare_async, 1), JobHandle[bytes])
    assert_type(client.submit(tuned_async, 1, "x"), JobHandle[None])
    assert_type(client.submit(tuned.options(key="k"), "a"), JobHandle[str])
    assert_type(client.map(tuned, ["a", "b"]), Sequence[JobHandle[str]])
    assert_type(client.map(bare_async, range(3)), Sequence[JobHandle[bytes]])
    for done in client.as_completed(client.map(plain, [1, 2])):
        assert_type(done.result(), float)
    found = client.get("id")
    assert_type(found, JobHandle[Any])
    assert_type(client.get("id", plain), JobHandle[float])
    assert_type(client.wait_any([handle, handle]), JobHandle[str] | None)
    assert_type(client.wait_all([handle, client.submit(bare_async, 1)], timeout=1), bool)
    assert_type(client.watch(cursor="0:1"), Iterator[JobEvent])
    assert_type(client.count(), dict[JobState, int])


def plain_handle(handle: JobHandle[str]) -> None:
    """What a handle has beside its result."""
    assert_type(handle.id, str)
    assert_type(handle.name, str)
    assert_type(handle.status(), JobState)
    assert_type(handle.wait(timeout=1), bool)
    assert_type(handle.progress(), float)
    assert_type(handle.events(), Iterator[JobEvent])
    assert_type(handle.cancel("enough"), JobState)
    assert_type(handle.requeue(), JobState)


async def async_client(client: AsyncClient) -> None:
    """The async client's types are the same, awaited."""
    handle = await client.submit(tuned, "s3://a.png")
    assert_type(handle, AsyncJobHandle[str])
    assert_type(await handle.result(), str)
    assert_type(await client.submit(bare_async, 1), AsyncJobHandle[bytes])
    assert_type(await client.map(tuned, ["a"]), Sequence[AsyncJobHandle[str]])
    async for done in client.as_completed(await client.map(plain, [1, 2])):
        assert_type(await done.result(), float)
    assert_type(await client.get("id", plain), AsyncJobHandle[float])


async def async_handle(handle: AsyncJobHandle[str]) -> None:
    """The same, awaited."""
    assert_type(await handle.status(), JobState)
    assert_type(await handle.wait(timeout=1), bool)
    assert_type(await handle.progress(), float)
    assert_type(handle.events(), AsyncIterator[JobEvent])
    assert_type(await handle.cancel("enough"), JobState)
    assert_type(await handle.requeue(), JobState)


def parameters_pass_through(client: Client, defined: JobDef[P, R]) -> Callable[P, R]:
    """Users' own generic code keeps parameters and result: ParamSpec end to end."""

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        handle = client.submit(defined.options(priority=1), *args, **kwargs)
        assert_type(handle, JobHandle[R])
        return handle.result()

    return call


def wrapped(client: Client) -> None:
    """What such code makes of a job takes and returns what the job does."""
    assert_type(parameters_pass_through(client, plain)(1, y="a"), float)
    assert_type(parameters_pass_through(client, bare_async)(1), bytes)


def handles_are_covariant(handle: JobHandle[bool]) -> JobHandle[int]:
    """A handle of a bool is one of an int."""
    return handle


def async_handles_are_covariant(handle: AsyncJobHandle[bool]) -> AsyncJobHandle[int]:
    """The same of the async client."""
    return handle


def definitions_are_covariant(defined: Job[[str], bool]) -> JobDef[[str], int]:
    """A job that returns a bool is one that returns an int."""
    return defined


class Sealed:
    """A codec of a user's own."""

    content_type = "application/vnd.t.sealed"
    version = 2

    def encode(self, data: object) -> bytes:
        return b""

    def decode(self, payload: bytes) -> object:
        return None


class Timing(Middleware):
    """Middleware of a user's own: plain, async, and either."""

    @contextmanager
    def on_submit(self, submission: Submission) -> Generator[None]:
        submission.job = submission.job.options(priority=1)
        submission.calls[0] = Call((1,), {})
        yield
        assert_type([handle.id for handle in submission.handles], list[str])

    @asynccontextmanager
    async def on_run(self, execution: Execution) -> AsyncGenerator[None]:
        assert_type(execution.context.attempt, int)
        yield

    async def on_finish(self, finish: Finish) -> None:
        assert_type(finish.outcome, AttemptOutcome)
        assert_type(finish.error, RemoteError | None)


def with_codecs_and_middleware() -> None:
    """Neither changes what a job takes and returns."""
    assert_type(plain.options(codec=Sealed())(1), float)
    assert_type(plain.options(codec="application/json")(1), float)
    assert_type(named("app.elsewhere", codec=Sealed()), Job[..., Any])
    assert_type(register_codec(Sealed()), str)
    assert_type(Client(middleware=[Timing()]), Client)
    assert_type(AsyncClient(middleware=(Timing(),)), AsyncClient)


def mixed(client: Client) -> None:
    """Handles of several jobs have what their results have in common."""
    handles: list[JobHandle[float | str]] = [client.submit(plain, 1), client.submit(tuned, "a")]
    for done in client.as_completed(handles):
        assert_type(done.result(), float | str)


def the_running_job() -> None:
    """What a job sees of itself."""
    me = current_job()
    assert_type(me.id, str)
    assert_type(me.fence, str)
    assert_type(me.cancelled, bool)
    assert_type(me.deadline, datetime | None)


@job
def total(numbers: list[float]) -> int:
    """Takes all results of a group."""
    return len(numbers)


@job
def streamed(numbers: Iterator[float], scale: int = 1) -> bytes:
    """Takes them one by one."""
    return b""


@job
def told(number: float) -> str:
    """Takes one result."""
    return ""


def flows(client: Client) -> None:
    """Results go from step to step with their types."""
    assert_type(plain.bind(1, y="b"), Step[float])
    assert_type(chain(plain.bind(1), told), Chain[str])
    assert_type(chain(plain.bind(1), told, tuned), Chain[str])
    parts = group([plain.bind(n) for n in range(3)])
    assert_type(parts, Group[float])
    assert_type(chord(parts, total), Chord[int])
    assert_type(chord([plain.bind(1)], streamed), Chord[bytes])
    assert_type(client.start(chain(plain.bind(1), told)).result(), str)
    assert_type(client.start(parts).result(), list[float])
    with client.workflow("w") as workflow:
        first = workflow.add(plain, 1)
        assert_type(first, JobHandle[float])
        assert_type(result_of(first), float)
        assert_type(results_of([first]), list[float])
        assert_type(workflow.add(told, result_of(first)), JobHandle[str])
        assert_type(workflow.map(plain, [1, 2]), list[JobHandle[float]])
        assert_type(workflow.put(chain(plain.bind(1), told)), StartedFlow[str])
    assert_type(client.submit(told, result_of(first)), JobHandle[str])
    client.submit(plain.options(on_success=told, on_failure=tuned.bind("a")), 1)


async def async_flows(client: AsyncClient) -> None:
    """The same with the async client."""
    started = await client.start(chain(bare_async.bind(1), streamed_bytes))
    assert_type(started, AsyncStartedFlow[int])
    assert_type(await started.result(), int)
    async with client.workflow("w") as workflow:
        first = workflow.add(plain, 1)
        assert_type(first, AsyncJobHandle[float])
        assert_type(result_of(first), float)
        assert_type(workflow.add(told, result_of(first)), AsyncJobHandle[str])


@job
def streamed_bytes(data: bytes) -> int:
    """Takes one result."""
    return 0


@job(name="rows", limits=Limits(memory="1GiB"))
def rows(path: str) -> Command[str]:
    """Text."""
    return Command("wc", "-l", path)


@job
def picture(path: str, width: int = 3) -> Command[bytes]:
    """Bytes."""
    return Command("convert", path, "-resize", width, "-")


@job(executor="command")
def quiet() -> Command[None]:
    """Nothing."""
    return Command("true", env={"A": "b"}, stdin="")


def commands(client: Client) -> None:
    """A command is a job that gives its stdout."""
    assert_type(rows("a"), str)
    assert_type(client.submit(rows, "a"), JobHandle[str])
    assert_type(client.submit(picture, "a", width=2).result(), bytes)
    assert_type(client.submit(quiet).result(), None)
    client.submit(picture, 3)  # type: ignore[arg-type]


@job(batch=100, linger_ms=20)
def store(rows: list[int]) -> list[str]:
    """A batch handler."""
    return []


@job(batch=100, queue="rows")
def store_or_not(rows: list[int]) -> list[str | Exception]:
    """Some of its items may fail."""
    return []


@job(batch=100, executor="async")
async def store_async(rows: list[tuple[int, str]]) -> list[float | Exception | None]:
    """The same of coroutines."""
    return []


def batch_handlers(client: Client) -> None:
    """A submit has one item and one result; a call has lists; errors are no results."""
    assert_type(store, BatchJob[int, str])
    assert_type(store_or_not, BatchJob[int, str])
    assert_type(store_async, AsyncBatchJob[tuple[int, str], float | None])
    assert_type(client.submit(store, 1), JobHandle[str])
    assert_type(client.submit(store_or_not.options(priority=1), 1), JobHandle[str])
    assert_type(client.map(store_async, [(1, "a")]), Sequence[JobHandle[float | None]])
    assert_type(store([1, 2]), Sequence[str | Exception])
    assert_type(current_batch(), Sequence[JobContext])
    assert_type(chain(plain.bind(1), told, shout), Chain[bytes])


@job(batch=10)
def shout(texts: list[str]) -> list[bytes]:
    """Takes one result at a time from others, many at once from its worker."""
    return []


async def direct_batch_call() -> None:
    """The same, awaited."""
    assert_type(await store_async([(1, "a")]), Sequence[float | Exception | None])
