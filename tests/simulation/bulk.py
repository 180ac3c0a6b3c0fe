"""What users do to many jobs at once: batches by a filter, queues that are emptied.

Nobody else's jobs are touched: each user's have a label or a queue of their own. What a batch does
has no row in the history; the reasons that it gives are in the journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

from tenure.client import AsyncJobHandle, Batch, BatchState, Rejected, TenureError
from tenure.testing.process import elapse
from tests.simulation.load import Visit, script

T = TypeVar("T")

_PATIENCE_S: Final = 20.0
_NOW: Final = timedelta(0)


async def _heard(call: Callable[[], Awaitable[T]]) -> T | None:
    """The answer, if there is one."""
    try:
        return await call()
    except (TenureError, TimeoutError):
        return None


async def _crew(visit: Visit, manner: str, **more: Any) -> Sequence[AsyncJobHandle[Any]]:
    """Some jobs with a label of this user."""
    labels = {"crew": f"u{visit.number}"}
    handles: list[AsyncJobHandle[Any]] = []
    for _ in range(visit.rng.randint(1, 2)):
        job = visit.works.act.options(**{**visit.options(), "labels": labels, **more})
        size = visit.rng.randint(1, 4)
        calls = [(visit.text(), visit.hold_s() / 8, manner, 9) for _ in range(size)]
        handles += await visit.desk.submit_many(job, calls)
    return handles


async def _do(visit: Visit, kind: Any, narrower: str = "", **more: Any) -> None:
    """A batch over the crew, counted before at times, stopped at times, and waited for."""
    batches, rng = visit.client.batches, visit.rng
    text = f"labels.crew = u{visit.number}{narrower}"
    if rng.random() < 0.3:
        await _heard(lambda: batches.create(kind, text, dry_run=True, **more))
    made = await _heard(lambda: batches.create(kind, text, **more))
    if made is None:
        return
    if rng.random() < 0.2:
        await _heard(lambda: batches.cancel(made.id))
    done = await _heard(lambda: batches.wait(made.id, timeout=_PATIENCE_S))
    if done is not None:
        _check(done)


def _check(batch: Batch) -> None:
    """A batch does no more than there was, and is over when it says so."""
    over = batch.state in (BatchState.DONE, BatchState.CANCELLED)
    if not over or batch.changed + batch.refused > batch.matched:
        raise RuntimeError(f"expected a batch to do what it has matched, but got {batch}")


@script(5, "batches")
async def cancel_crew(visit: Visit) -> None:
    """Jobs that wait or run are cancelled together, after they were boosted together."""
    handles = await _crew(visit, "", delay=timedelta(seconds=visit.rng.choice((0, 0, 6, 20))))

    async def change() -> None:
        await elapse(visit.rng.uniform(0, 4))
        if visit.rng.random() < 0.5:
            await _do(
                visit, "boost", **visit.rng.choice(({"priority": 0}, {"delay": timedelta(0)}))
            )
        if visit.rng.random() < 0.7:
            await _do(visit, "cancel", reason="enough")

    await visit.see_all(handles, change())


@script(5, "batches")
async def revive_crew(visit: Visit) -> None:
    """Dead letters are requeued together, and forgotten together when they have ended."""
    handles = await _crew(visit, "permanent")
    await visit.see_all(handles)
    await _do(visit, "requeue", visit.rng.choice(("", " AND state = FAILED")))
    await visit.see_all([visit.handle(each.id) for each in handles])
    if visit.rng.random() < 0.5:
        await _do(visit, "purge")
        for handle in handles:
            await visit.desk.get(handle.id)


@script(4, "batches")
async def revive_family(visit: Visit) -> None:
    """A tree whose root has failed is requeued together, children in other partitions with it."""
    rng, act, labels = visit.rng, visit.works.act, {"crew": f"u{visit.number}"}
    options = {**visit.options(), "labels": labels}
    family = [await visit.submit(visit.hold_s() / 8, "permanent", 9, **options)]
    for _ in range(rng.randint(1, 6)):
        child = await visit.desk.submit(
            act,
            *(visit.text(), visit.hold_s() / 8, "", 0),
            **rng.choice((options, {**visit.options(), "labels": labels})),
            after=rng.sample(family, rng.randint(1, min(2, len(family)))),
            run_if=rng.choice(("all_succeeded", "all_succeeded", "always")),
        )
        if child is None:
            break
        family.append(child)
    await visit.see_all(family)
    for _ in range(rng.randint(1, 2)):
        await _do(visit, "requeue", rng.choice(("", " AND state = FAILED")))
    await visit.see_all([visit.handle(each.id) for each in family])


@script(3, "batches")
async def empty_queue(visit: Visit) -> None:
    """A queue is purged while its jobs wait and run."""
    queue = f"own-{visit.number}"
    handles = await _crew(visit, "", queue=queue, tenant="default")

    async def purge() -> None:
        await elapse(visit.rng.uniform(0, 5))
        await _heard(lambda: visit.client.queues.purge(queue))

    await visit.see_all(handles, purge())


@script(1, "batches")
async def ask_for_nonsense(visit: Visit) -> None:
    """Batches that are refused."""
    create = visit.client.batches.create
    wrong: list[Callable[[], Awaitable[Batch]]] = [
        lambda: create("cancel", " "),
        lambda: create("boost", "name = act"),
        lambda: create("requeue", "nme = act"),
        lambda: visit.client.batches.get("no id"),
    ]
    for call in visit.rng.sample(wrong, 2):
        try:
            answer = await call()
        except Rejected:
            continue
        except TenureError:
            continue
        raise RuntimeError(f"expected a refusal, but got {answer}")


@script(4, "conflicts")
async def contend_for_key(visit: Visit) -> None:
    """Several submits of one key, each with its own wish as to what a taken one comes to."""
    rng = visit.rng
    delay = rng.choice((None, None, timedelta(seconds=4)))
    options = {**visit.options(), "key": f"key of {visit.number}", "delay": delay}
    if rng.random() < 0.4:
        options["key_window"] = timedelta(seconds=rng.choice((2, 10)))
    text, handles = visit.text(), []
    for _ in range(rng.randint(2, 4)):
        handle = await visit.desk.submit(
            visit.works.act,
            *(text, visit.hold_s() / 4, "", 0),
            **options,
            key_conflict=rng.choice(("return", "reject", "replace", "replace")),
        )
        if handle is not None:
            handles.append(handle)
        await elapse(rng.choice((0, rng.uniform(0, 4))))
    await visit.see_all(handles)
