"""Small ports for the node's tests: a journal and an office that do what they are told."""

import asyncio
import gc
from collections.abc import Callable

from tenure.master.backend.errors import OfficeLost, StoreUnavailable, TenureError
from tenure.master.core.event import JobsReadied
from tenure.master.core.state import State
from tenure.master.journal.frame import FORMAT, Chain
from tenure.master.journal.port import SealedBatch
from tenure.master.node.gate import CommitGate
from tenure.master.node.trace import Trace
from tenure.protocol.fence import Token
from tenure.testing.clock import SimClock

TOKEN = Token(1, 7)


def count_states() -> int:
    """How many partitions' states are in memory, those included that nobody uses any more."""
    return sum(isinstance(found, State) for found in gc.get_objects())


class HeldJournal:
    """Commits an append only when the test says so.

    Attributes:
        batches: What was appended, in order, each attempt once.
        errors: Raised by the next appends, first one first.
    """

    def __init__(self, pipeline_depth: int = 1) -> None:
        self.pipeline_depth = pipeline_depth
        self.batches: list[SealedBatch] = []
        self.errors: list[TenureError] = []
        self._waiting: dict[int, asyncio.Event] = {}

    async def append(self, token: Token, batch: SealedBatch) -> None:
        self.batches.append(batch)
        if self.errors:
            raise self.errors.pop(0)
        await self._waiting.setdefault(batch.number, asyncio.Event()).wait()

    async def commit(self, number: int) -> None:
        """Lets a batch commit and everything that follows from it happen."""
        self._waiting.setdefault(number, asyncio.Event()).set()
        await settle()


class FakeOffice:
    """An office whose answers the test chooses.

    Attributes:
        answers: False: the store does not answer.
        lost: The next call says that another holds it.
        verify_ms: How long the answer to a verification takes.
    """

    def __init__(self, ttl_ms: int | None = 6_000) -> None:
        self.token = TOKEN
        self.ttl_ms = ttl_ms
        self.answers = True
        self.lost = False
        self.verify_ms = 0
        self.renewals = 0
        self.verifications = 0

    async def renew(self) -> None:
        self._answer()
        self.renewals += 1

    async def verify(self) -> None:
        await SimClock().sleep(self.verify_ms)
        self._answer()
        self.verifications += 1

    async def resign(self) -> None:
        self.lost = True

    def _answer(self) -> None:
        if not self.answers:
            raise StoreUnavailable("no answer")
        if self.lost:
            raise OfficeLost("another holds it")


async def settle() -> None:
    """Lets everything that is ready run."""
    for _ in range(10):
        await asyncio.sleep(0)


def event(text: str = "x") -> JobsReadied:
    """Some durable event."""
    return JobsReadied(now_ms=1, job_ids=[text])  # type: ignore[list-item]


def make_gate(
    journal: HeldJournal, trace: Trace | None = None, format_: Callable[[], int] = lambda: FORMAT
) -> CommitGate:
    """A gate behind batch 0 of a new journal."""
    clock = SimClock()
    chain = Chain.start(0)
    chain.seal(token=TOKEN, stamp_ms=1, events=b"\x90", event_count=0)
    return CommitGate(
        journal=journal,  # type: ignore[arg-type]
        token=TOKEN,
        chain=chain,
        clock=clock,
        stamp=clock.wall_ms,
        trace=trace or Trace(None, clock),
        format_=format_,
    )
