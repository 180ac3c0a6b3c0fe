"""Slots by class of jobs: a pool has slots of its own, so a full one holds up no other.

Masters know nothing of pools, and need not: what one serves is registered as a worker by itself,
with the names of its jobs and its own credit. So no job is granted that has no slot, and order,
shares and limits hold as they do over several workers. All of them live in one process.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, get_args

from tenure.client.job import Executor, JobDef
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.worker.attempt import JobTable
from tenure.worker.middleware import Application

_LOGGER: Final = logging.getLogger(__name__)
#: The name of the pool of jobs that have none of their own; ``--slots`` says how large it is.
DEFAULT: Final = "default"
#: Executors are names of pools, too: of jobs that have no other.
_EXECUTORS: Final = frozenset(get_args(Executor))


class Pool(NamedTuple):
    """A class of jobs and its slots.

    Attributes:
        name: What it is called.
        slots: How many of its jobs run at once.
        jobs: Those that it serves.
    """

    name: str
    slots: int
    jobs: JobTable


def share_out(jobs: JobTable, slots: int, sizes: Mapping[str, int]) -> list[Pool]:
    """The pools that have slots and jobs, the default one first.

    Args:
        jobs: The application's jobs.
        slots: Of the default pool.
        sizes: Slots of the others, by name; 0: the worker serves none of its jobs.

    Raises:
        Rejected: INVALID_ARGUMENT: a pool is of no use, or no job is left to be served.
    """
    if not sizes:
        return [Pool(DEFAULT, slots, jobs)]
    _check(jobs, sizes)
    names: dict[str, list[str]] = {DEFAULT: []}
    for name, definition in jobs.items():
        names.setdefault(_pool_of(definition, sizes), []).append(name)
    pools = [
        Pool(pool, slots if pool == DEFAULT else sizes[pool], _part(jobs, members))
        for pool, members in names.items()
        if members and (pool == DEFAULT or sizes[pool])
    ]
    if not pools:
        raise _refused("at least one job to be served, but all their pools have 0 slots")
    return pools


def _pool_of(definition: JobDef[..., Any], sizes: Mapping[str, int]) -> str:
    if definition.pool in sizes:
        return definition.pool
    return definition.executor if definition.executor in sizes else DEFAULT


def _check(jobs: JobTable, sizes: Mapping[str, int]) -> None:
    if DEFAULT in sizes:
        raise _refused("the default pool to be sized by --slots, got --pool default=…")
    named = {definition.pool for definition in jobs.values()} - {""}
    for pool in sizes:
        if pool not in named | _EXECUTORS:
            known = ", ".join(sorted(named)) or "none"
            raise _refused(
                f"pools that jobs name with @job(pool=…), or executors, got {pool!r}; "
                f"named are: {known}"
            )
    for pool in sorted(named - sizes.keys()):
        _LOGGER.info(
            "jobs of pool %s have no slots of their own here: --pool %s=N gives them some",
            pool,
            pool,
            extra={"action": "pool"},
        )


def _part(jobs: JobTable, names: list[str]) -> JobTable:
    if isinstance(jobs, Application):
        return jobs.part(names)
    return {name: jobs[name] for name in names}


def _refused(expected: str) -> Rejected:
    return Rejected(f"expected {expected}", reason=Reason.INVALID_ARGUMENT, field="pools")
