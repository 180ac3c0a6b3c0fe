"""A job of typed arguments, and the middleware around all jobs: what plain text does not meet.

As all jobs of a run it returns its first argument. That has its fields in the order of their names:
so its hash is that of the map that is in the journal.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final, NamedTuple

import msgspec

from tenure.client import AsyncJob, Execution, Finish, Middleware, Retry, Submission, job
from tenure.testing.process import elapse
from tests.oracles.history import END, QUIT, START, hash_of
from tests.simulation.ledger import Ledger

#: Jobs that return what others have come to, not their first argument.
HANDED: Final = frozenset({"relay", "fold"})
#: When all parcels were sent: no clock is asked.
_SENT: Final = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


class Speed(enum.Enum):
    """How fast a parcel goes."""

    EXPRESS = "express"
    SLOW = "slow"


class Size(NamedTuple):
    """In centimetres."""

    height: float
    width: float


class Sender(msgspec.Struct):
    """Whose parcel it is."""

    name: str
    number: uuid.UUID


@dataclass
class Parcel:
    """A value with parts of most of the types that survive the way."""

    due: date
    grams: list[int]
    hold_s: float
    lasts: timedelta
    notes: dict[str, str]
    opens: time
    price: Decimal
    seal: bytes
    sender: Sender
    sent: datetime
    size: Size
    speed: Speed
    stamps: set[int]
    text: str


def parcel(rng: Random, text: str, hold_s: float) -> Parcel:
    """Any parcel."""
    return Parcel(
        due=_SENT.date(),
        grams=[rng.randrange(1_000) for _ in range(rng.randrange(4))],
        hold_s=hold_s,
        lasts=timedelta(minutes=rng.randrange(1, 90)),
        notes={f"on {number}": "fragile" for number in range(rng.randrange(3))},
        opens=_SENT.timetz(),
        price=Decimal(rng.randrange(10_000)) / 100,
        seal=rng.randbytes(4),
        sender=Sender("sender", uuid.UUID(int=rng.getrandbits(128))),
        sent=_SENT + timedelta(seconds=rng.randrange(1_000)),
        size=Size(rng.uniform(1, 100), 30.0),
        speed=rng.choice(list(Speed)),
        stamps=set(range(rng.randrange(3))),
        text=text,
    )


def forwarder(ledger: Ledger) -> AsyncJob[..., Parcel]:
    """The job that takes a parcel and returns it, and records its start and its end."""

    @job(name="forward", retry=Retry(max_attempts=4, max_lost=10, backoff="none"))
    async def forward(parcel: Parcel) -> Parcel:
        content = hash_of(parcel)
        ledger.observe(START, hash=content)
        try:
            await elapse(parcel.hold_s)
        except BaseException:
            ledger.observe(QUIT)
            raise
        ledger.observe(END, hash=content)
        return parcel

    return forward


class Clerk(Middleware):
    """Stands around every submit, run and end, and changes nothing."""

    @asynccontextmanager
    async def on_submit(self, submission: Submission) -> AsyncIterator[Any]:
        """Says that a clerk has seen it."""
        submission.job = submission.job.options(labels={"seen": submission.name})
        yield submission
        if len(submission.handles) != len(submission.calls):
            raise RuntimeError(f"expected a handle a call, but got {submission.handles}")

    @contextmanager
    def on_run(self, execution: Execution) -> Iterator[Execution]:
        """Holds the result to what the run is about."""
        yield execution
        if execution.name not in HANDED and execution.result != execution.args[0]:
            raise RuntimeError(f"expected job {execution.context.id} to return its argument")

    async def on_finish(self, finish: Finish) -> None:
        """Looks at what will be reported."""
        if finish.error is None and finish.result is None:
            raise RuntimeError(f"expected a result of job {finish.context.id}")
