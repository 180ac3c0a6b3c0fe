"""What a journal says happened, in its own order, as plain facts that the checkers understand.

The checkers never see the product's events: ``journal_facts`` reads them from the journal's bytes,
and the tests of the checkers write facts by hand. Leases are fence texts: their text order is the
order in which leases were given out.
"""

from __future__ import annotations

from typing import NamedTuple


class Submitted(NamedTuple):
    """A job was accepted. ``content`` is the ``hash_of`` what was submitted."""

    seq: int
    job: str
    content: str
    max_attempts: int
    max_lost: int


class Granted(NamedTuple):
    """A lease was given to a worker."""

    seq: int
    job: str
    lease: str
    attempt: int


class Adopted(NamedTuple):
    """A lease whose grant was never journaled was proved by its worker, and stands."""

    seq: int
    job: str
    lease: str
    attempt: int


class Closed(NamedTuple):
    """A lease ended. ``charged`` is the budget it cost: ``attempt``, ``loss`` or nothing."""

    seq: int
    job: str
    lease: str
    charged: str


class Settled(NamedTuple):
    """A job became terminal; ``lease`` is empty when no report of a worker decided it."""

    seq: int
    job: str
    run: int
    lease: str
    state: str
    content: str


class TermBegan(NamedTuple):
    """A master took office; ``token`` is the first 24 digits of its leases' fences."""

    seq: int
    token: str


Fact = Submitted | Granted | Adopted | Closed | Settled | TermBegan

#: How many digits of a fence text are its token, and how many at the end its run.
TOKEN_DIGITS, RUN_DIGITS = 24, 8


def token_of(lease: str) -> str:
    """The office's part of a fence text."""
    return lease[:TOKEN_DIGITS]


def run_of(lease: str) -> str:
    """The run's part of a fence text: one more for each requeue."""
    return lease[-RUN_DIGITS:]
