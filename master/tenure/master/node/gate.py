"""The commit gate: group commit in front, and nothing out before what it rests on is durable.

```
 decide → apply → add(event)                      hold(seq, release)
                      │                                  │
                 pending events ── seal ──► in flight ── committed_seq ──► releases with seq ≤ it
                      (one batch; while the previous one commits, the next one fills)
```
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tenure.master.backend.errors import StoreFull, StoreUnavailable
from tenure.master.core.event import DurableEvent
from tenure.master.journal.codec import encode_event, join_events
from tenure.master.journal.frame import FORMAT, Chain
from tenure.master.journal.port import Journal, SealedBatch
from tenure.master.node.port import Clock
from tenure.master.node.sizes import LOG_SIZES, LogSizes
from tenure.master.node.trace import Trace
from tenure.protocol.fence import Token

#: No event is added to a batch that it would carry beyond this.
_BATCH_BYTES_MAX: Final = 448 * 1024
_RETRY_FULL_MS: Final = 200
_RETRY_UNKNOWN_MS: Final = 100


@dataclass(slots=True, kw_only=True)
class _InFlight:
    batch: SealedBatch
    last_seq: int
    sent_ms: int
    committed: bool = False


class CommitGate:
    """Appends one term's events to its journal and releases what waited for them, in order.

    Args:
        journal: Where batches go.
        token: The term's token.
        chain: The open end of the journal, as recovery left it.
        clock: For retries and for telling whether a batch is stuck.
        stamp: Gives the term clock's time when a batch is sealed.
        trace: Told of every append.
        format_: Gives the format that has a place for what was added.
        sizes: Of its batches.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        token: Token,
        chain: Chain,
        clock: Clock,
        stamp: Callable[[], int],
        trace: Trace,
        format_: Callable[[], int] = lambda: FORMAT,
        sizes: LogSizes = LOG_SIZES,
    ) -> None:
        self._journal = journal
        self._token = token
        self.chain = chain
        self._clock = clock
        self._stamp = stamp
        self._trace = trace
        self._format = format_
        self._batch_bytes = sizes.batch_bytes
        #: The events of each decision, which go into one batch if they fit into any.
        self._pending: deque[list[bytes]] = deque()
        self._pending_bytes = 0
        self._in_flight: deque[_InFlight] = deque()
        self._held: deque[tuple[int, Callable[[], None]]] = deque()
        self._wake = asyncio.Event()
        self._sealed_seq = (chain.next_seq or 1) - 1
        #: The last event that is durable.
        self.committed_seq = self._sealed_seq
        #: Number of the last committed batch.
        self.committed_number = chain.number - 1
        #: Bytes sealed since the last snapshot began.
        self.log_bytes = 0
        #: The store has no space: refuse new work until the held batch gets in.
        self.full = False
        #: Called after each commit, when what waited for it has been released.
        self.on_commit: Callable[[], None] = lambda: None
        #: Called when the store is found to have no space.
        self.on_full: Callable[[], None] = lambda: None

    def add(self, *events: DurableEvent) -> None:
        """Takes the events of one decision, just applied; they go into the next batch together.

        Only those that are too large for any batch together are torn apart.
        """
        data = [encode_event(event) for event in events]
        size = sum(map(len, data))
        if size <= _BATCH_BYTES_MAX:
            self._pending.append(data)
        else:
            self._pending += [[piece] for piece in data]
        self._pending_bytes += size
        self._wake.set()

    def hold(self, seq: int, release: Callable[[], None]) -> None:
        """Calls ``release`` when all up to ``seq`` has committed; at once if it has.

        Seqs never fall from call to call, so releases keep their order.
        """
        if seq <= self.committed_seq and not self._held:
            release()
        else:
            self._held.append((seq, release))

    async def settled(self, seq: int) -> None:
        """Returns when all up to ``seq`` has committed."""
        if seq > self.committed_seq:
            done = asyncio.get_running_loop().create_future()
            self.notify(seq, done)
            await done

    def notify(self, seq: int, done: "asyncio.Future[None]") -> None:
        """Settles the future when all up to ``seq`` has committed."""
        # A reader may wait for less than the last held seq: keep the deque ordered by waiting for
        # the last one; what is read then is committed all the more.
        last = self._held[-1][0] if self._held else seq
        self._held.append((max(seq, last), lambda: None if done.done() else done.set_result(None)))

    def stuck_ms(self) -> int:
        """How long the oldest batch has been on its way for another reason than space; 0: none."""
        if not self._in_flight or self.full:
            return 0
        return self._clock.boot_ms() - self._in_flight[0].sent_ms

    async def run(self) -> None:
        """Commits until cancelled. Ends by raising OfficeLost or StoreIoError."""
        async with asyncio.TaskGroup() as appends:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._may_seal():
                    flight = self._seal()
                    self._in_flight.append(flight)
                    appends.create_task(self._append(flight))

    def _may_seal(self) -> bool:
        if not self._pending:
            return False
        flights = len(self._in_flight)
        if flights == 0:
            return True
        return self._pending_bytes >= self._batch_bytes and flights < self._journal.pipeline_depth

    def _seal(self) -> _InFlight:
        events = list(self._take())
        self._sealed_seq += len(events)
        batch = self.chain.seal(
            token=self._token,
            stamp_ms=self._stamp(),
            events=join_events(events),
            event_count=len(events),
            format_=self._format(),
        )
        self.log_bytes += len(batch.data)
        return _InFlight(batch=batch, last_seq=self._sealed_seq, sent_ms=self._clock.boot_ms())

    def _take(self) -> Iterator[bytes]:
        room = _BATCH_BYTES_MAX
        while self._pending:
            size = sum(map(len, self._pending[0]))
            if size > room and room < _BATCH_BYTES_MAX:
                return
            room -= size
            self._pending_bytes -= size
            yield from self._pending.popleft()

    async def _append(self, flight: _InFlight) -> None:
        self._trace.append_sent(self.chain.partition, flight.batch.number, flight.last_seq)
        while True:
            try:
                await self._journal.append(self._token, flight.batch)
                break
            except StoreFull:
                if not self.full:
                    self.full = True
                    self.on_full()
                await self._clock.sleep(_RETRY_FULL_MS)
            except StoreUnavailable:
                await self._clock.sleep(_RETRY_UNKNOWN_MS)
        self._trace.append_committed(self.chain.partition, flight.batch.number, flight.last_seq)
        flight.committed = True
        self.full = False
        self._release()

    def _release(self) -> None:
        flights = self._in_flight
        while flights and flights[0].committed:
            flight = flights.popleft()
            self.committed_seq = flight.last_seq
            self.committed_number = flight.batch.number
        held, committed_seq = self._held, self.committed_seq
        while held and held[0][0] <= committed_seq:
            held.popleft()[1]()
        self.on_commit()
        if self._pending:
            self._wake.set()
