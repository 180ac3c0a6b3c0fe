"""What a journal says happened, in its own order, as plain facts that the checkers understand.

The checkers never see the product's events: ``journal_facts`` reads them from the journal's bytes,
and the tests of the checkers write facts by hand. Leases are fence texts: their text order is the
order in which leases were given out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Submitted(NamedTuple):
    """A job was accepted. ``content`` is the ``hash_of`` what was submitted; times are the term's.

    ``pending`` is whether it was due at once; ``key`` is empty if it has none. ``apart`` is whether
    something may hold it up, or send it elsewhere, while others of its queue go: a limit key, a
    sticky key, labels, a pause or a breaker of its job type, slots that its queue reserves.
    """

    seq: int
    job: str
    content: str
    max_attempts: int
    max_lost: int
    at_ms: int = 0
    tenant: str = ""
    queue: str = ""
    name: str = ""
    priority: int = 0
    ready_ms: int = 0
    pending: bool = True
    key: str = ""
    key_window_ms: int = 0
    apart: bool = False


class Readied(NamedTuple):
    """A job's delay or backoff was over."""

    seq: int
    job: str
    at_ms: int = 0


class Granted(NamedTuple):
    """A lease was given to a worker; ``holder`` is the worker's incarnation."""

    seq: int
    job: str
    lease: str
    attempt: int
    at_ms: int = 0
    holder: str = ""


class Adopted(NamedTuple):
    """A lease whose grant was never journaled was proved by its worker, and stands."""

    seq: int
    job: str
    lease: str
    attempt: int


class Closed(NamedTuple):
    """A lease ended. ``charged`` is the budget it cost: ``attempt``, ``loss`` or nothing.

    ``expired`` is whether its time was over; ``at_ms`` is when that was decided, in term time.
    """

    seq: int
    job: str
    lease: str
    charged: str
    expired: bool = False
    at_ms: int = 0


class Waits(NamedTuple):
    """A job whose attempt ended waits again: for a worker if ``pending``, else for its time."""

    seq: int
    job: str
    ready_ms: int
    pending: bool


class Boosted(NamedTuple):
    """A job that waits got another place: for a worker if ``pending``, else for its time."""

    seq: int
    job: str
    priority: int
    ready_ms: int
    pending: bool


class Freed(NamedTuple):
    """A job's parents let it run: it waits for a worker if ``pending``, else for its time."""

    seq: int
    job: str
    ready_ms: int
    pending: bool
    at_ms: int = 0


class CancelAsked(NamedTuple):
    """A running job was asked to stop."""

    seq: int
    job: str


class Settled(NamedTuple):
    """A job became terminal; ``lease`` is empty when no report of a worker decided it."""

    seq: int
    job: str
    run: int
    lease: str
    state: str
    content: str


class Requeued(NamedTuple):
    """A job that had failed or was cancelled got a new run; not ``pending``: its parents first."""

    seq: int
    job: str
    run: int
    at_ms: int = 0
    pending: bool = True


class Withdrawn(NamedTuple):
    """A job that was not acknowledged was taken out again: a parent of it does not exist."""

    seq: int
    job: str


class Purged(NamedTuple):
    """A job was forgotten."""

    seq: int
    job: str


class TermBegan(NamedTuple):
    """A master took office; ``token`` is the first 24 digits of its leases' fences."""

    seq: int
    token: str
    incarnation: str = ""
    at_ms: int = 0


#: Facts about one job.
JobFact = (
    Submitted
    | Readied
    | Granted
    | Adopted
    | Closed
    | Waits
    | Boosted
    | Freed
    | Withdrawn
    | CancelAsked
    | Settled
    | Requeued
    | Purged
)
Fact = JobFact | TermBegan


def lives_of(facts: Iterable[Fact]) -> dict[str, list[JobFact]]:
    """The facts of each job, in order."""
    lives: dict[str, list[JobFact]] = {}
    for fact in facts:
        if not isinstance(fact, TermBegan):
            lives.setdefault(fact.job, []).append(fact)
    return lives


#: How many digits of a fence text are its token, and how many at the end its run.
TOKEN_DIGITS, RUN_DIGITS = 24, 8


def token_of(lease: str) -> str:
    """The office's part of a fence text."""
    return lease[:TOKEN_DIGITS]


def run_of(lease: str) -> str:
    """The run's part of a fence text: one more for each requeue."""
    return lease[-RUN_DIGITS:]
