"""What type checkers must refuse: both say so where an ignore below is not needed. Never run."""

from datetime import timedelta

from tenure.client import (
    AsyncClient,
    AsyncJob,
    AsyncJobHandle,
    Client,
    Job,
    JobHandle,
    Retry,
    chord,
    group,
    job,
    result_of,
)


@job
def resize(url: str, width: int = 640) -> str:
    """A job."""
    return url


@job(queue="mail")
async def notify(user_id: int, text: str) -> bytes:
    """An async job."""
    return b""


def arguments(client: Client) -> None:
    """Wrong types, too few, too many, unknown names."""
    client.submit(resize, 5)  # type: ignore[arg-type]
    client.submit(resize)  # type: ignore[call-arg]
    client.submit(resize, "a", 1, 2)  # type: ignore[call-arg]
    client.submit(resize, "a", height=3)  # type: ignore[call-arg]
    client.submit(resize, "a", width="wide")  # type: ignore[arg-type]
    client.submit(resize.options(priority=1), None)  # type: ignore[arg-type]
    client.submit(notify, "1", "x")  # type: ignore[arg-type]
    client.submit(notify, 1)  # type: ignore[call-arg]
    client.map(resize, [1, 2])  # type: ignore[arg-type]
    resize(3)  # type: ignore[arg-type]


def no_jobs(client: Client) -> None:
    """What is not a job cannot be submitted."""
    client.submit(len, "a")  # type: ignore[arg-type]
    client.submit("app.jobs.resize", "a")  # type: ignore[arg-type]
    client.get("id", len)  # type: ignore[call-overload]


def options(client: Client) -> None:
    """Wrong names and values of settings."""
    resize.options(prio=3)  # type: ignore[call-arg]
    resize.options(priority="high")  # type: ignore[arg-type]
    resize.options(delay=30)  # type: ignore[arg-type]
    job(queues="media")  # type: ignore[call-overload]
    job(timeout=30)  # type: ignore[call-overload]
    job(executor="thread pool")  # type: ignore[call-overload]
    Retry(attempts=3)  # type: ignore[call-arg]
    Retry(backoff="exponentially")  # type: ignore[arg-type]
    Retry(base=timedelta(seconds=1), jitter=True)  # type: ignore[arg-type]
    client.count(state="FAILED")  # type: ignore[call-arg]
    Client("a:1", retries=3)  # type: ignore[call-arg]


def results(client: Client, of_int: JobHandle[int], of_job: Job[[str], int]) -> None:
    """Results of another type; handles are covariant, not contravariant."""
    number: int = client.submit(resize, "a").result()  # type: ignore[assignment]
    awaited: JobHandle[str] = client.submit(notify, 1, "a")  # type: ignore[arg-type]
    handle: JobHandle[bool] = of_int  # type: ignore[assignment]
    defined: Job[[str], bool] = of_job  # type: ignore[assignment]
    plain: Job[[int, str], bytes] = notify  # type: ignore[assignment]
    coroutine: AsyncJob[[str], str] = resize  # type: ignore[assignment]
    of_int.result("30")  # type: ignore[arg-type]
    of_int.result().upper()  # type: ignore[attr-defined]
    _ = (number, awaited, handle, defined, plain, coroutine)


async def async_client(client: AsyncClient, of_int: AsyncJobHandle[int]) -> None:
    """The async client refuses the same."""
    await client.submit(resize, 5)  # type: ignore[arg-type]
    await client.submit(notify, 1)  # type: ignore[call-arg]
    handle: AsyncJobHandle[bool] = of_int  # type: ignore[assignment]
    number: int = of_int.result()  # type: ignore[assignment]
    mixed: JobHandle[int] = of_int  # type: ignore[assignment]
    _ = (handle, number, mixed)


@job
def number() -> int:
    """Gives a number."""
    return 1


def flows(client: Client) -> None:
    """A result of another type than the next step's argument."""
    first = client.submit(number)
    client.submit(resize, result_of(first))  # type: ignore[arg-type]
    resize.bind(3)  # type: ignore[arg-type]
    chord([number.bind()], resize)  # type: ignore[arg-type]
    group([number])  # type: ignore[arg-type]
    with client.workflow("w") as workflow:
        workflow.add(notify, result_of(first))  # type: ignore[call-arg]


@job(batch=10)
def store(rows: list[int]) -> list[str]:
    """A batch handler."""
    return []


def batch_handlers(client: Client) -> None:
    """Lists where one item is meant, and the other way round; what cannot be a handler."""
    client.submit(store, [1, 2])  # type: ignore[arg-type]
    client.submit(store, "a")  # type: ignore[arg-type]
    client.submit(store, 1, 2)  # type: ignore[call-arg]
    store(1)  # type: ignore[arg-type]
    number: int = client.submit(store, 1).result()  # type: ignore[assignment]
    job(batch="many")  # type: ignore[call-overload]
    job(linger_ms=5)  # type: ignore[call-overload]
    job(batch=5, executor="process")  # type: ignore[call-overload]
    job(batch=5)(resize)  # type: ignore[arg-type]
    _ = number
