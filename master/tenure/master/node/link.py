"""One worker's stream as the master sees it: its credit, and the envelope that is filling up.

What terms want to tell a worker collects in envelopes; the writer task sends them one after the
other, so everything said while one is on its way travels together in the next.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from tenure.protocol.fence import Lease, Token
from tenure.protocol.token_wire import token_of, token_to_wire
from tenure.v1 import worker_pb2

_ENVELOPE_BYTES_MAX: Final = 256 * 1024


class WorkerLink:
    """A worker's stream.

    Args:
        session_id: Unique in this master process.
        hello: What the worker said of itself.
        connected_ms: When the stream began, on the master's boot clock.
    """

    def __init__(self, session_id: int, hello: worker_pb2.Hello, connected_ms: int = 0) -> None:
        self.session_id = session_id
        self.hello = hello
        self.connected_ms = connected_ms
        #: How the worker does, and when it told; None: it has not.
        self.vitals: worker_pb2.Vitals | None = None
        self.vitals_ms = 0
        #: Why it is in quarantine as the terms have been told, and whether an operator wants it.
        self.quarantine: tuple[str, bool] | None = None
        #: Set, and replaced, whenever there is news of the worker, or the stream is over.
        self._news = asyncio.Event()
        #: Cumulative: how many grants may have been sent in all, and how many were.
        self.credit_limit = 0
        self.granted = 0
        self._credit_number = 0
        #: Cumulative: grants decided on, and those of them that were sent or never will be.
        self._decided = 0
        self._settled = 0
        #: By the number of a limit that was not acknowledged yet: what was decided on before it.
        self._unacked: deque[tuple[int, int]] = deque()
        self._envelopes: deque[worker_pb2.SessionResponse] = deque()
        self._room = 0
        self._wake = asyncio.Event()
        self._closed = False

    @property
    def draining(self) -> bool:
        """Whether the worker says that it takes nothing."""
        vitals = self.vitals
        return vitals is not None and (vitals.drained or vitals.stopping)

    def take_vitals(self, vitals: worker_pb2.Vitals, now_ms: int) -> None:
        """The worker has told how it does."""
        self.vitals, self.vitals_ms = vitals, now_ms
        self.rouse()

    def rouse(self) -> None:
        """Wakes who waits for news of the worker."""
        self._news.set()
        self._news = asyncio.Event()

    async def news(self) -> None:
        """Waits until the worker tells how it does, or its stream is over."""
        await self._news.wait()

    @property
    def credit(self) -> int:
        """How many grants the worker would take now."""
        return self.credit_limit - self.granted

    def take_credit(self, limit: worker_pb2.CreditLimit) -> None:
        """Takes a new limit and acknowledges its number; older numbers than the last do nothing.

        The acknowledgement goes after all grants by older limits, some of which may still wait for
        their commit: a worker that takes no more ends when it has come.
        """
        if limit.number > self._credit_number:
            self._credit_number = limit.number
            self.credit_limit = limit.limit
            if self._unacked and self._unacked[-1][1] == self._decided:
                # They wait for the same grants: the newer number stands for both.
                self._unacked.pop()
            self._unacked.append((limit.number, self._decided))
            self._acknowledge()

    def spend(self, grants: int) -> None:
        """Grants were decided on."""
        self.granted += grants
        self._decided += grants

    def refund(self, grants: int) -> None:
        """Grants that were decided on will never be sent."""
        self.granted -= grants
        self.settle(grants)

    def settle(self, grants: int) -> None:
        """Grants that were decided on are on their way."""
        self._settled += grants
        self._acknowledge()

    def _acknowledge(self) -> None:
        while self._unacked and self._unacked[0][1] <= self._settled:
            self.envelope().credit_acked = self._unacked.popleft()[0]

    def envelope(self, size: int = 0) -> worker_pb2.SessionResponse:
        """The envelope to add ``size`` bytes to; it will be sent as soon as the writer is free."""
        if not self._envelopes or self._room < size:
            self._envelopes.append(worker_pb2.SessionResponse())
            self._room = _ENVELOPE_BYTES_MAX
        self._room -= size
        self._wake.set()
        return self._envelopes[-1]

    def instruction(
        self, partition: int, token: Token, size: int = 0
    ) -> worker_pb2.PartitionInstruction:
        """A part of the envelope that speaks for one partition."""
        envelope = self.envelope(size)
        parts, wire = envelope.instructions, token_to_wire(token)
        if parts:
            last = parts[-1]
            # The part may be of an earlier term, if the peer is slow to read.
            same = last.partition == partition and last.token == wire
            if same and not last.HasField("assignment"):
                return last
        return parts.add(partition=partition, token=wire)

    def close(self) -> None:
        """Ends the stream after what is queued has been sent. Idempotent."""
        self._closed = True
        self._wake.set()

    async def write(self, send: Callable[[worker_pb2.SessionResponse], Awaitable[None]]) -> None:
        """Sends envelopes until closed: the stream's one writer."""
        while True:
            while self._envelopes:
                await send(self._envelopes.popleft())
            if self._closed:
                return
            self._wake.clear()
            await self._wake.wait()


def lease_ref(
    ref: worker_pb2.LeaseRef, job_id: str, lease: Lease, token: Token
) -> worker_pb2.LeaseRef:
    """Fills in a lease's reference; the token is left out when it is the message's own."""
    ref.job_id, ref.seq = job_id, lease.seq
    if lease.run:
        ref.run = lease.run
    if lease.token != token:
        ref.token.epoch, ref.token.revision = lease.token
    return ref


def lease_of(ref: worker_pb2.LeaseRef, token: Token) -> Lease:
    """The lease that a reference names."""
    if ref.HasField("token"):
        return Lease(token_of(ref.token), ref.seq, ref.run)
    return Lease(token, ref.seq, ref.run)
