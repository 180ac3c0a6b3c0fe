"""How an unknown outcome is resolved: the same bytes again, on the next endpoint, for a while.

Only calls that are safe to repeat come here: reads, and transactions whose compares make a second
application impossible or harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenure.master.backend.errors import StoreFull, StoreIoError, StoreUnavailable
from tenure.master.backend.etcd.errors import (
    EtcdError,
    LeaseNotFound,
    NoSpace,
    OutcomeUnknown,
    Unavailable,
)
from tenure.protocol.refusal import Reason

#: No new try starts after this. It covers a frozen member and an election of etcd's own; beyond it
#: the caller must decide, who knows how long it may still lead.
BUDGET_S = 5.0
_FIRST_PAUSE_S = 0.02
_PAUSE_MAX_S = 0.5

_T = TypeVar("_T")


async def resolve(call: Callable[[], Awaitable[_T]], action: str) -> _T:
    """Repeat ``call`` until it is answered.

    Args:
        call: makes one try; must be safe to repeat.
        action: for messages, for example "append batch 7".

    Raises:
        StoreUnavailable: no answer within ``BUDGET_S``: the outcome is unknown.
        EtcdError: any other failure, as it is.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + BUDGET_S
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await call()
        except (Unavailable, OutcomeUnknown) as error:
            if loop.time() + pause_s >= deadline:
                raise unavailable(action, error) from error
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_MAX_S)


def unavailable(action: str, error: EtcdError) -> StoreUnavailable:
    """Etcd did not answer, or cannot do it now."""
    return StoreUnavailable(
        f"expected to {action}, but etcd did not do it: {error}",
        reason=Reason.STORE_UNAVAILABLE,
    )


def failed(action: str, error: EtcdError) -> StoreFull | StoreIoError | StoreUnavailable:
    """The store's error for one of the client's that no caller handles by itself."""
    match error:
        case Unavailable() | OutcomeUnknown():
            return unavailable(action, error)
        case NoSpace():
            return StoreFull(
                f"expected to {action}, but etcd is over its quota; free space (docs: compact,"
                f" defragment each member, disarm) or raise --quota-backend-bytes",
                reason=Reason.STORE_FULL,
            )
        case LeaseNotFound():
            return StoreUnavailable(
                f"expected to {action}, but the lease has ended", reason=Reason.STORE_UNAVAILABLE
            )
        case _:
            return StoreIoError(
                f"expected to {action}, but etcd refused: {error}", reason=Reason.STORE_IO
            )
