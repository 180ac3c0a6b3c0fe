"""A client that plans, and does what else is not done to the jobs of ``load``, as a process.

``python -m tests.chaos.planner --address A[,B] --name planner --queues a,b,c,d``, a queue of each
partition. Until a line ``stop`` on stdin several users do at once what they do: keep schedules that
tick every few seconds, build workflows, submit jobs that wait for others, fill limit keys, and
change limits, rates and pauses. Others, a few calls a second, share idempotency keys, read, list,
requeue and purge jobs of several tenants, have long jobs that save how far they are, and cancel
some that go on all the same. In the end it takes back what would go on or hold jobs up, waits until
no job of its queues is open, prints ``drained`` and ends. Its JSON lines count what it has seen.

Whoever is started again under its name first takes back what its former self has left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

from tenure.client import (
    AsyncClient,
    AsyncJobHandle,
    AsyncWorkflow,
    JobDef,
    RateLimit,
    Reason,
    Rejected,
    TenureError,
    cron,
)
from tenure.protocol.vocabulary import TERMINAL
from tests.chaos import app
from tests.oracles.history import Fields, Recorder
from tests.simulation.ledger import Desk, asked_of

T = TypeVar("T")

_RESULT_TIMEOUT_S: Final = 150.0
#: A result that did not come is asked for again.
_READS_MAX: Final = 3
_AGAIN_S: Final = 1.0
#: A workflow that nobody seals ends by itself.
_SEAL_WITHIN: Final = timedelta(seconds=30)
#: With seconds: a run has many ticks of each.
_CALENDARS: Final = ("*/2 * * * * *", "*/3 * * * * *", "*/5 * * * * *", "1,2,17,40 * * * * *")
_OVERLAPS: Final = ("allow", "allow", "buffer_one", "skip", "cancel_other")
_MISFIRES: Final = ("fire_all", "fire_all", "fire_once", "skip")
_RUN_IFS: Final = ("all_succeeded", "all_succeeded", "any_failed", "always")
_LIMIT_KEYS: Final = ("red", "green", "blue")
#: Few, so that they meet; the others are the only ones whose jobs are listed: those are few.
_KEYS: Final = ("red", "green", "blue")
_TENANTS: Final = ("default", "acme", "globex")
_OTHERS: Final = _TENANTS[1:]
_CONFLICTS: Final = ("return", "return", "reject", "replace")
#: A list goes through all jobs that its partitions keep: each tenth second or so there is one.
_LISTED: Final = 0.25
#: What is listed again and again is kept for so long only.
_KEPT: Final = timedelta(seconds=60)
#: How its queues are run that nobody has changed.
_FREE: Final[dict[str, Any]] = {
    "paused": False,
    "concurrency": 0,
    "key_concurrency": 0,
    "key_strategy": "queue",
    "rate": None,
    "key_rate": None,
}


class Planner:
    """One run of the client.

    Args:
        client: Who asks.
        recorder: Its history.
        queues: One of each partition.
        rng: Of what it does.
        step_s: How long a step takes of its long jobs.
    """

    def __init__(
        self,
        client: AsyncClient,
        recorder: Recorder,
        queues: Sequence[str],
        rng: Random,
        *,
        step_s: float = 0.6,
    ) -> None:
        self.stopping = asyncio.Event()
        self._client = client
        self._desk = Desk(recorder, client)  # type: ignore[arg-type] - it writes the same rows
        self._name = f"{recorder.process}-{recorder.incarnation[:8]}"
        self._queues = queues
        self._rng = rng
        self._step_s = step_s
        self._texts = count(1)
        self._seen: Counter[str] = Counter()

    async def run(self) -> None:
        """Does all of it until it is told to stop, and leaves nothing behind."""
        await self._take_back()
        async with asyncio.TaskGroup() as group:
            for number in range(len(self._queues)):
                group.create_task(self._keep_schedule(number))
            for users, script in (
                (3, self._build_workflow),
                (2, self._bear_children),
                (3, self._fill_keys),
                (1, self._tune),
                (2, self._share_key),
                (2, self._look_after),
                (2, self._climb),
                (1, self._change_mind),
            ):
                for _ in range(users):
                    group.create_task(self._again_and_again(script))
        await self._take_back()
        await self._await_calm()
        self.say("drained")

    def say(self, event: str) -> None:
        """One line on stdout."""
        print(json.dumps({"event": event, **self._seen}), flush=True)  # noqa: T201 - as in load

    # What users do.

    async def _again_and_again(self, script: Callable[[], Awaitable[None]]) -> None:
        while not self.stopping.is_set():
            try:
                await script()
            except TenureError:
                # What it has begun is in the history; somebody else goes on.
                await asyncio.sleep(_AGAIN_S)

    async def _keep_schedule(self, number: int) -> None:
        """A schedule, perhaps of another partition than its jobs', and what is done to it."""
        rng, desk, schedules = self._rng, self._desk, self._client.schedules
        name = f"{self._name}-{number}"
        job = app.echo.options(queue=self._queues[number])
        call = (self._text(), rng.uniform(0, 1))
        while not self.stopping.is_set():
            calendar = cron(
                rng.choice(_CALENDARS),
                misfire=rng.choice(_MISFIRES),
                overlap=rng.choice(_OVERLAPS),
            )
            if not await desk.put(name, calendar, job, *call):
                await asyncio.sleep(_AGAIN_S)
                continue
            self._count("schedules")
            await self._pause(rng.uniform(5, 15))
            try:
                match rng.randrange(4):
                    case 0:
                        await schedules.pause(name)
                        await self._pause(rng.uniform(0, 5))
                        await schedules.resume(name)
                    case 1:
                        handle = await desk.trigger(name, "default")
                        if handle is not None:
                            await self._see(handle)
                    case 2:
                        await self._delete(name)
                    case _:
                        await schedules.get(name, upcoming=3)
            except TenureError:
                continue

    async def _build_workflow(self) -> None:
        """Members in all partitions, in parts; sealed, and sometimes cancelled."""
        rng = self._rng
        name = f"flow-{rng.randrange(100)}"
        workflow = await self._client.workflow(name, seal_within=_SEAL_WITHIN).open()
        members: list[AsyncJobHandle[Any]] = []
        for _ in range(rng.randint(1, 3)):
            members += await self._flush(workflow, members)
        if not await self._desk.seal(workflow):
            return
        self._count("workflows")
        if rng.random() < 0.15:
            await self._pause(rng.uniform(0, 3))
            await workflow.cancel("enough")
        await self._see(*members)

    async def _flush(
        self, workflow: AsyncWorkflow, parents: Sequence[AsyncJobHandle[Any]]
    ) -> Sequence[AsyncJobHandle[Any]]:
        """Some more members, which wait for earlier ones; those that were taken for certain."""
        rng = self._rng
        asked: dict[str, Fields] = {}
        for _ in range(rng.randint(1, 4)):
            job = self._job(run_if=rng.choice(_RUN_IFS))
            if parents:
                after = rng.sample(list(parents), rng.randint(1, min(3, len(parents))))
                job = job.options(after=after, on_parent_failure=rng.choice(("fail", "ignore")))
            call = self._call()
            handle = workflow.add(job, *call)
            asked[handle.id] = asked_of(job, call, workflow.id)
        return await self._desk.flush(workflow, asked)

    async def _bear_children(self) -> None:
        """Jobs after others, in any partitions, whatever becomes of those."""
        rng = self._rng
        family: list[AsyncJobHandle[Any]] = []
        for _ in range(rng.randint(2, 5)):
            job = self._job(run_if=rng.choice(_RUN_IFS))
            if family:
                job = job.options(after=rng.sample(family, rng.randint(1, min(2, len(family)))))
            handle = await self._submit(job, *self._call())
            if handle is None:
                break
            family.append(handle)
        if family and rng.random() < 0.2:
            await self._desk.cancel(rng.choice(family).id)
        await self._see(*family)

    async def _fill_keys(self) -> None:
        """More jobs of a limit key than may run at once."""
        rng = self._rng
        job = self._job(limit_key=rng.choice(_LIMIT_KEYS))
        calls = [self._call() for _ in range(rng.randint(2, 12))]
        handles = await self._desk.submit_many(job, calls)
        self._count("acked", len(handles))
        await self._see(*handles)

    async def _tune(self) -> None:
        """A queue gets other limits, or stands still for a while."""
        rng, queue = self._rng, self._rng.choice(self._queues)
        match rng.randrange(5):
            case 0:
                await self._client.queues.pause(queue)
                self._count("pauses")
                await self._pause(rng.uniform(1, 5))
                await self._client.queues.resume(queue)
            case 1:
                await self._client.queues.set(queue, concurrency=rng.choice((0, 5, 20)))
            case 2:
                strategy = rng.choice(("queue", "queue", "cancel_newest", "cancel_in_progress"))
                most = rng.choice((0, 1, 2, 4))
                await self._client.queues.set(queue, key_concurrency=most, key_strategy=strategy)
            case 3:
                rate = rng.choice((None, RateLimit(count=20), RateLimit(count=50, burst=5)))
                await self._client.queues.set(queue, rate=rate)
            case _:
                rate = rng.choice((None, RateLimit(count=5, burst=2)))
                await self._client.queues.set(queue, key_rate=rate)
        await self._pause(rng.uniform(1, 6))

    async def _share_key(self) -> None:
        """Some submits of one key, at once or one after the other, each with a wish of its own."""
        rng = self._rng
        job = self._kept(app.flaky, _TENANTS).options(
            key=rng.choice(_KEYS), key_window=timedelta(seconds=rng.choice((2, 10)))
        )

        async def bring(after_s: float) -> None:
            await self._pause(after_s)
            wished = job.options(key_conflict=rng.choice(_CONFLICTS))
            handle = await self._submit(wished, *self._call())
            if handle is not None:
                await self._see(handle)

        async with asyncio.TaskGroup() as group:
            for _ in range(rng.randint(2, 4)):
                group.create_task(bring(rng.choice((0, 0, rng.uniform(0, 5)))))
        await self._pause(rng.uniform(0, 2))

    async def _look_after(self) -> None:
        """A job that is read and listed, requeued with other arguments if it fails, and purged."""
        rng, desk = self._rng, self._desk
        job = self._kept(app.flaky, _OTHERS)
        failures = rng.choice((0, 9))
        handle = await self._submit(job, self._text(), rng.uniform(0, 0.5), failures)
        if handle is None:
            return
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(self._read(handle))
            await self._pause(rng.uniform(0, 3))
            await desk.get(handle.id)
            if rng.random() < _LISTED:
                await desk.list(tenant=job.settings.tenant)
        if reading.result() == "FAILED":
            other = app.flaky.bind(self._text(), rng.uniform(0, 0.5), 0)
            await desk.requeue(handle.id, rng.choice((None, other)))
            await self._see(AsyncJobHandle(self._client, handle.id, job.name, job))
        await desk.purge(handle.id)
        await desk.get(handle.id)
        await self._pause(rng.uniform(0, 4))

    async def _climb(self) -> None:
        """A job of many steps: whoever is lost amid them, it goes on behind the last one saved."""
        job = self._kept(app.climb, _TENANTS)
        steps = self._rng.randint(3, 20)
        handle = await self._submit(job, self._text(), steps, self._step_s)
        if handle is not None:
            await self._see(handle)
        await self._pause(self._rng.uniform(0, 2))

    async def _change_mind(self) -> None:
        """A job is cancelled that goes on, at times for longer than its worker waits."""
        rng = self._rng
        job = self._kept(app.defy, _TENANTS)
        handle = await self._submit(job, self._text(), rng.uniform(2, 10))
        if handle is None:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._see(handle))
            await self._pause(rng.uniform(0.5, 2))
            await self._desk.cancel(handle.id)
        await self._pause(rng.uniform(0, 4))

    # What they have in common.

    def _kept(self, job: JobDef[..., Any], tenants: Sequence[str]) -> Any:
        """Of one of some tenants, and not kept for long."""
        rng = self._rng
        queue, tenant = rng.choice(self._queues), rng.choice(tenants)
        return job.options(queue=queue, tenant=tenant, result_ttl=_KEPT)

    def _job(self, **options: Any) -> Any:
        return app.flaky.options(queue=self._rng.choice(self._queues), **options)

    def _call(self) -> tuple[str, float, int]:
        """What no other job is about, how long it takes, and how often it fails at first."""
        failures = self._rng.choice((0, 0, 0, 0, 1, 9))
        return self._text(), self._rng.uniform(0, 2), failures

    def _text(self) -> str:
        return f"{self._name}/{next(self._texts):06d}"

    async def _submit(
        self, job: JobDef[..., Any], *arguments: object
    ) -> AsyncJobHandle[Any] | None:
        """As a user of ``Desk``; counts what was taken."""
        handle = await self._desk.submit(job, *arguments)
        if handle is not None:
            self._count("acked")
        return handle

    async def _see(self, *handles: AsyncJobHandle[Any]) -> None:
        """Reads results, as long as it takes; what never comes is left open in the history."""
        async with asyncio.TaskGroup() as group:
            for handle in handles:
                group.create_task(self._read(handle))

    async def _read(self, handle: AsyncJobHandle[Any]) -> str:
        """How it has ended; empty: nobody said so in time."""
        for _ in range(_READS_MAX):
            try:
                async with asyncio.timeout(_RESULT_TIMEOUT_S):
                    state = await self._desk.result(handle)
            except (TenureError, TimeoutError):
                continue
            self._count("completed")
            self.say("completed")
            return state
        return ""

    async def _pause(self, seconds: float) -> None:
        """Lets time pass; less if it has to end."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return

    def _count(self, what: str, by: int = 1) -> None:
        self._seen[what] += by

    # Beginning and end.

    async def _take_back(self) -> None:
        """Deletes all schedules, and lets the queues run as if nobody had changed them."""
        for schedule in await _insist(self._client.schedules.list):
            await _insist(lambda name=schedule.name: self._delete(name))
        for queue in self._queues:
            await _insist(lambda name=queue: self._client.queues.set(name, **_FREE))

    async def _delete(self, name: str) -> None:
        try:
            await self._client.schedules.delete(name)
        except Rejected as error:
            # An earlier try may have been heard.
            if error.reason is not Reason.NOT_FOUND:
                raise

    async def _await_calm(self) -> None:
        """Waits until no job of its queues is open, ticks and those of its former selves too."""
        for queue in self._queues:
            jobs, calm = f"queue = {queue}", False
            while not calm:
                await asyncio.sleep(_AGAIN_S)
                counts = await _insist(lambda jobs=jobs: self._client.count(filter=jobs))
                calm = TERMINAL.issuperset(counts)


async def _insist(call: Callable[[], Awaitable[T]]) -> T:
    """Calls until there is an answer.

    Raises:
        Rejected: It is a refusal.
    """
    while True:
        try:
            return await call()
        except Rejected:
            raise
        except TenureError:
            await asyncio.sleep(_AGAIN_S)


async def main() -> None:
    """Parses the flags, plans, obeys stdin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--queues", required=True, help="one of each partition")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with Recorder(Path(os.environ["CHAOS_HISTORY"]), flags.name) as recorder:
        async with AsyncClient(flags.address) as client:
            planner = Planner(client, recorder, flags.queues.split(","), Random(flags.seed))
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), planner.stopping.set)
            await planner.run()


if __name__ == "__main__":
    asyncio.run(main())
