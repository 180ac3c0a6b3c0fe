"""What a type checker must refuse: each ignore below has to be needed. Never run."""

from tenure.client import Client, JobHandle, job


@job
def resize(url: str, width: int = 640) -> str:
    """A job."""
    return url


def mistakes(client: Client, of_int: JobHandle[int]) -> None:
    """One mistake a line."""
    client.submit(resize, 5)  # type: ignore[arg-type]
    client.submit(resize)  # type: ignore[call-arg]
    client.submit(resize, "a", height=3)  # type: ignore[call-arg]
    client.submit(resize, "a", width="wide")  # type: ignore[arg-type]
    client.submit(resize.options(prio=3), "a")  # type: ignore[call-arg]
    client.submit(len, "a")  # type: ignore[arg-type]
    client.map(resize, [1, 2])  # type: ignore[arg-type]
    number: int = client.submit(resize, "a").result()  # type: ignore[assignment]
    handle: JobHandle[bool] = of_int  # type: ignore[assignment]
    resize(3)  # type: ignore[arg-type]
    _ = (number, handle)
