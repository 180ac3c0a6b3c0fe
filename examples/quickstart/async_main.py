"""The same as `main.py` in async code: the names are the same, awaited."""

import asyncio
from datetime import timedelta

from app.jobs import notify, resize

from tenure.client import AsyncClient


async def main() -> None:
    """Submits one job, one for later, and several at once."""
    async with AsyncClient() as c:
        h = await c.submit(resize, "s3://a.png", width=320)
        print(h.id, await h.result(timeout=30))

        late = notify.options(delay=timedelta(hours=1), key="welcome-42", priority=2)
        first = await c.submit(late, 42, "hi")
        again = await c.submit(late, 42, "hi")
        print(again.id == first.id, (await again.status()).name)

        async for done in c.as_completed(await c.map(resize, ["a", "b", "c"])):
            print(await done.result())


if __name__ == "__main__":
    asyncio.run(main())
