"""What a type checker must conclude. Checked by ``test_typing``, never run."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, assert_type

from tenure.client import (
    AsyncClient,
    AsyncJob,
    AsyncJobHandle,
    Client,
    Job,
    JobHandle,
    Retry,
    job,
    named,
)


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
    assert_type(job_of_int, AsyncJob[[int], bytes])
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
    assert_type(client.get("id"), JobHandle[Any])
    assert_type(client.get("id", plain), JobHandle[float])


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


def handles_are_covariant(handle: JobHandle[bool]) -> JobHandle[int]:
    """A handle of a bool is one of an int."""
    return handle
