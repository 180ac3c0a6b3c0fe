"""Calls of jobs on their way in: encoded, checked, and submitted with their callbacks.

A job and its callbacks are one request, which is taken whole or not at all, where all of them are
at home in one partition. Elsewhere, and where the job has a key and may exist already, its
callbacks follow when it was taken; one that is refused then is told of (``without_callback``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tenure.client.codec import encode_args
from tenure.client.errors import BatchFailed, invalid, without_callback
from tenure.client.handle import AsyncJobHandle
from tenure.client.job import JobDef
from tenure.client.parent_result import parents_of
from tenure.client.row import Member, Row
from tenure.protocol.errors import TenureError, error_of
from tenure.protocol.ids import partition_of

if TYPE_CHECKING:
    from tenure.client.client import AsyncClient
    from tenure.client.connection import Core

R = TypeVar("R")
#: Arguments, by position and by name.
Given = tuple[tuple[Any, ...], dict[str, Any]]


class _Family(NamedTuple):
    """A job and what is to run when it has ended, its callbacks' callbacks included."""

    members: list[Member]
    #: Where they are at home.
    homes: set[int]


async def send(
    client: AsyncClient, core: Core, job: JobDef[..., R], given: Given
) -> AsyncJobHandle[R]:
    """Submits one job.

    Raises:
        TenureError: It was refused; or nobody knows.
    """
    if job.has_callbacks:
        (outcome,) = await _send_families(client, core, job, [given], all_or_nothing=False)
        if isinstance(outcome, TenureError):
            raise outcome
        return outcome
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
        _check_parents(core, job, given)
    outcomes: Sequence[AsyncJobHandle[R] | TenureError]
    if job.has_callbacks:
        outcomes = await _send_families(client, core, job, given, all_or_nothing=all_or_nothing)
    else:
        payloads = [await _encoded(core, job, *call) for call in given]
        keys = job.row_keys(given) if job.has_row_keys else ()
        parents, own = [parents_of(*call) for call in given], job.settings
        rows = await core.submitter.submit(
            job.wire,
            own.key,
            payloads,
            keys,
            own.after,
            parents if any(parents) else (),
            whole=all_or_nothing,
        )
        outcomes = [_outcome(client, job, row) for row in rows]
    handles = [each for each in outcomes if not isinstance(each, TenureError)]
    errors = {i: each for i, each in enumerate(outcomes) if isinstance(each, TenureError)}
    if errors and all_or_nothing and not handles:
        raise next(iter(errors.values()))
    if errors:
        raise BatchFailed(handles, errors)
    return handles


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


def _check_parents(core: Core, job: JobDef[..., Any], given: Sequence[Given]) -> None:
    """Refuses parents elsewhere: whether they exist is known only when others have been taken."""
    home = core.router.topology.home(job.settings.tenant, job.settings.queue)
    for args, kwargs in given if len(given) > 1 else ():
        for parent in (*job.settings.after, *parents_of(args, kwargs)):
            if partition_of(parent) != home:
                raise invalid(
                    "after",
                    "jobs of queues in the same partition when several jobs are all or nothing, "
                    f"got {parent}",
                )


# Callbacks.


async def _send_families(
    client: AsyncClient,
    core: Core,
    job: JobDef[..., R],
    given: Sequence[Given],
    *,
    all_or_nothing: bool,
) -> Sequence[AsyncJobHandle[R] | TenureError]:
    """Submits jobs that have callbacks: each family as a whole, or all of them as one."""
    families = [await _family(core, job, call) for call in given]
    is_whole = not job.settings.key and all(len(family.homes) == 1 for family in families)
    if all_or_nothing and not is_whole:
        raise invalid(
            "on_success",
            "of a queue in the same partition, with a job that has no key, when they are all or "
            "nothing",
        )
    if not is_whole:
        return [await _send_in_turn(client, core, job, call) for call in given]
    wholes = [family.members for family in families]
    if all_or_nothing:
        wholes = [[member for members in wholes for member in members]] if wholes else []
    fates = {row.job_id: row for rows in await core.submitter.submit_wholes(wholes) for row in rows}
    return [_fate_of(client, job, family, fates) for family in families]


def _fate_of(
    client: AsyncClient, job: JobDef[..., R], family: _Family, fates: Mapping[str, Row]
) -> AsyncJobHandle[R] | TenureError:
    """What has become of a job and its callbacks."""
    own, *callbacks = [fates[member.job_id] for member in family.members]
    outcome = _outcome(client, job, own)
    refused = [row.refusal for row in callbacks if row.refusal is not None]
    if isinstance(outcome, TenureError) or not refused:
        return outcome
    # A callback's own parent, in another partition, was not there.
    return without_callback(own.job_id, error_of(refused[0]))


async def _family(core: Core, job: JobDef[..., Any], given: Given) -> _Family:
    """A job and its callbacks, with their ids; nothing is sent yet."""
    args, kwargs = given
    home = core.router.topology.home(job.settings.tenant, job.settings.queue)
    job_id = core.mint(home)
    payload = await _encoded(core, job, args, kwargs)
    parents = (*job.settings.after, *parents_of(args, kwargs))
    ((limit, sticky),) = job.row_keys((given,)) or [("", "")]
    member = Member(job_id, job.wire, payload, parents, limit_key=limit, sticky_key=sticky)
    family = _Family([member], {home})
    for callback, call in job.callbacks(job_id):
        own = await _family(core, callback, (call.args, call.kwargs))
        family.members.extend(own.members)
        family.homes.update(own.homes)
    return family


async def _send_in_turn(
    client: AsyncClient, core: Core, job: JobDef[..., R], given: Given
) -> AsyncJobHandle[R] | TenureError:
    """Submits a job, and then its callbacks, whose keys name it."""
    plain: JobDef[..., R] = job.options(on_success=None, on_failure=None)
    try:
        handle = await send(client, core, plain, given)
    except TenureError as error:
        return error
    for callback, call in job.callbacks(handle.id):
        keyed = callback.options(key=f"{handle.id}:{callback.settings.run_if}")
        try:
            await send(client, core, keyed, (call.args, call.kwargs))
        except TenureError as error:
            return without_callback(handle.id, error)
    return handle
