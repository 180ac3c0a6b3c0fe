"""Calls of jobs on their way in: encoded, checked, and submitted with their callbacks.

A job that is submitted by itself and its callbacks are one request, which is taken whole or not at
all, if that can be: they are at home in one partition, as is all that they wait for; the job has no
key, and so cannot exist already; and one request can carry them. Otherwise, and with those of a
map, the callbacks follow when the job was taken; one that is refused then is told of
(``without_callback``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from tenure.client.codec import encode_args
from tenure.client.errors import BatchFailed, invalid, without_callback
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import JobDef
from tenure.client.parent_result import parents_of
from tenure.client.row import Member, Row, fit_together
from tenure.client.submitter import REMINTS_MAX, outdated
from tenure.protocol import limits
from tenure.protocol.errors import TenureError, error_of
from tenure.protocol.ids import partition_of
from tenure.protocol.refusal import Refusal

if TYPE_CHECKING:
    from tenure.client.client import AsyncClient
    from tenure.client.connection import Core

R = TypeVar("R")
#: Arguments, by position and by name.
Given = tuple[tuple[Any, ...], dict[str, Any]]


#: A job and what is to run when it has ended, its callbacks' callbacks included.
_Family = Sequence[Member]


async def send(
    client: AsyncClient, core: Core, job: JobDef[..., R], given: Given
) -> AsyncJobHandle[R]:
    """Submits one job.

    Raises:
        TenureError: It was refused; or nobody knows.
    """
    if job.has_callbacks:
        family = await _family(core, job, given)
        if job.settings.key or [*_strangers(family)] or not fit_together(family):
            return await _send_in_turn(client, core, job, given)
        (handle,) = await _send_families(client, core, job, [given], [family])
        return handle
    args, kwargs = given
    payload = await _encoded(core, job, args, kwargs)
    keys = job.row_keys((given,))
    parents = (*job.settings.after, *parents_of(args, kwargs))
    (row,) = await core.submitter.submit(job.wire, job.settings.key, (payload,), keys, parents)
    if row.refusal is not None:
        raise error_of(row.refusal)
    return AsyncJobHandle(client, row.job_id, job.name, job)


async def send_many(
    client: AsyncClient,
    core: Core,
    job: JobDef[..., R],
    given: Sequence[Given],
    *,
    all_or_nothing: bool,
) -> Sequence[AsyncJobHandle[R]]:
    """Submits one job for each call.

    Raises:
        BatchFailed: Some were refused.
        TenureError: All were, if ``all_or_nothing``.
    """
    if all_or_nothing:
        return await _send_whole(client, core, job, given)
    if job.has_callbacks and given:
        # A callback that cannot be encoded is refused before anything is sent.
        await _family(core, job, given[0])
    outcomes: Sequence[AsyncJobHandle[R] | TenureError] = [
        _outcome(client, job, row) for row in await _send_rows(core, job, given)
    ]
    if job.has_callbacks:
        outcomes = await _send_callbacks(client, core, job, outcomes)
    handles = [each for each in outcomes if not isinstance(each, TenureError)]
    errors = {i: each for i, each in enumerate(outcomes) if isinstance(each, TenureError)}
    if errors:
        raise BatchFailed(handles, errors)
    return handles


async def _send_rows(
    core: Core, job: JobDef[..., Any], given: Sequence[Given], *, whole: bool = False
) -> Sequence[Row]:
    """Submits one job for each call, without callbacks."""
    payloads = [await _encoded(core, job, *call) for call in given]
    keys = job.row_keys(given) if job.has_row_keys else ()
    parents, own = [parents_of(*call) for call in given], job.settings
    row_parents = parents if any(parents) else ()
    return await core.submitter.submit(
        job.wire, own.key, payloads, keys, own.after, row_parents, whole=whole
    )


def _outcome(client: AsyncClient, job: JobDef[..., R], row: Row) -> AsyncJobHandle[R] | TenureError:
    if row.refusal is not None:
        return error_of(row.refusal)
    return AsyncJobHandle(client, row.job_id, job.name, job)


async def _encoded(
    core: Core, job: JobDef[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bytes:
    payload = encode_args(job, args, kwargs)
    if job.signature.stands_in:
        await core.published.check(job.name, args, kwargs)
    return payload


# All or nothing.


async def _send_whole(
    client: AsyncClient, core: Core, job: JobDef[..., R], given: Sequence[Given]
) -> Sequence[AsyncJobHandle[R]]:
    """Submits one job for each call, all of them or none, with their callbacks.

    Raises:
        TenureError: None was taken; or nobody knows. ``index`` in its metadata is that of the call.
    """
    if job.has_callbacks:
        families = [await _family(core, job, call) for call in given]
        members = [member for family in families for member in family]
        home = core.router.topology.home(job.settings.tenant, job.settings.queue)
        if job.settings.key or any(partition_of(each.job_id) != home for each in members):
            raise invalid(
                "on_success",
                "of a queue in the same partition, with a job that has no key, when they are all "
                "or nothing",
            )
        _check_parents(_strangers(members))
        return await _send_families(client, core, job, given, families)
    if len(given) > 1:
        home = core.router.topology.home(job.settings.tenant, job.settings.queue)
        parents = (parent for call in given for parent in (*job.settings.after, *parents_of(*call)))
        _check_parents(parent for parent in parents if partition_of(parent) != home)
    # One by itself is whole in any case, and may wait for jobs elsewhere.
    rows = await _send_rows(core, job, given, whole=len(given) > 1)
    told = {"index": "0"} if len(given) == 1 else {}
    for row in rows:
        if row.refusal is not None:
            raise error_of(replace(row.refusal, metadata={**row.refusal.metadata, **told}))
    return [AsyncJobHandle(client, row.job_id, job.name, job) for row in rows]


def _strangers(members: Sequence[Member]) -> Iterator[str]:
    """Members, and what members wait for, that are at home elsewhere than the first of them."""
    home = partition_of(members[0].job_id) if members else 0
    for member in members:
        for job_id in (member.job_id, *member.parents):
            if partition_of(job_id) != home:
                yield job_id


def _check_parents(elsewhere: Iterator[str]) -> None:
    """Refuses parents elsewhere: whether they exist is known only when others have been taken."""
    for parent in elsewhere:
        raise invalid(
            "after",
            "jobs of queues in the same partition when several jobs are all or nothing, got "
            f"{parent}",
        )


async def _send_families(
    client: AsyncClient,
    core: Core,
    job: JobDef[..., R],
    given: Sequence[Given],
    families: Sequence[_Family],
) -> Sequence[AsyncJobHandle[R]]:
    """Submits jobs and their callbacks in one request.

    Raises:
        TenureError: None was taken; or nobody knows.
    """
    rows: Sequence[Row] = ()
    for again in range(REMINTS_MAX + 1):
        if again:
            # By the leader's clock, which the refusal has told.
            families = [await _family(core, job, call) for call in given]
        rows = await core.submitter.submit_whole([each for family in families for each in family])
        if not outdated(rows):
            break
    for row in rows:
        if row.refusal is not None:
            raise error_of(_of_call(row.refusal, families))
    return [AsyncJobHandle(client, own.job_id, job.name, job) for own, *_ in families]


def _of_call(refusal: Refusal, families: Sequence[_Family]) -> Refusal:
    """A refusal of one member, with the index of the call that it belongs to."""
    member = refusal.metadata.get("index", "")
    if not member.isdecimal():
        return refusal
    calls = [call for call, family in enumerate(families) for _ in family]
    return replace(refusal, metadata={**refusal.metadata, "index": str(calls[int(member)])})


# Callbacks.


async def _family(core: Core, job: JobDef[..., Any], given: Given) -> _Family:
    """A job and its callbacks, with their ids; nothing is sent yet."""
    args, kwargs = given
    job_id = core.mint(core.router.topology.home(job.settings.tenant, job.settings.queue))
    payload = await _encoded(core, job, args, kwargs)
    parents = (*job.settings.after, *parents_of(args, kwargs))
    ((limit, sticky),) = job.row_keys((given,)) or [("", "")]
    members = [Member(job_id, job.wire, payload, parents, limit_key=limit, sticky_key=sticky)]
    for callback, call in job.callbacks(job_id):
        members += await _family(core, callback, (call.args, call.kwargs))
    return members


async def _send_in_turn(
    client: AsyncClient, core: Core, job: JobDef[..., R], given: Given
) -> AsyncJobHandle[R]:
    """Submits a job, and then its callbacks.

    Raises:
        TenureError: One was refused; or nobody knows.
    """
    plain: JobDef[..., R] = job.options(on_success=None, on_failure=None)
    handle = await send(client, core, plain, given)
    await _call_back(client, core, job, handle)
    return handle


async def _send_callbacks(
    client: AsyncClient,
    core: Core,
    job: JobDef[..., R],
    outcomes: Sequence[AsyncJobHandle[R] | TenureError],
) -> Sequence[AsyncJobHandle[R] | TenureError]:
    """Submits the callbacks of jobs that were taken, those of some jobs at a time."""
    told = [*outcomes]
    taken = [(i, each) for i, each in enumerate(told) if not isinstance(each, TenureError)]
    for start in range(0, len(taken), limits.BATCH_JOBS_MAX):
        some = taken[start : start + limits.BATCH_JOBS_MAX]
        sent = [_call_back(client, core, job, handle) for _, handle in some]
        ends = await asyncio.gather(*sent, return_exceptions=True)
        for (index, _), end in zip(some, ends, strict=True):
            if isinstance(end, TenureError):
                told[index] = end
            elif end is not None:
                raise end
    return told


async def _call_back(
    client: AsyncClient, core: Core, job: JobDef[..., Any], handle: AsyncJobHandle[Any]
) -> None:
    """Submits a job's callbacks; their keys name the job.

    Raises:
        Unavailable: One was refused; the job is there all the same.
    """
    for callback, call in job.callbacks(handle.id):
        keyed = callback.options(key=f"{handle.id}:{callback.settings.run_if}")
        try:
            await send(client, core, keyed, (call.args, call.kwargs))
        except TenureError as error:
            raise without_callback(handle.id, error) from error
