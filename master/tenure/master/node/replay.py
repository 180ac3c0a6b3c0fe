"""Counts the recoveries that a journal has killed: the fourth crash in one place halts.

A replay that crashes its process (a bug, no memory) would crash every master, one after the other.
So each recovery leaves a mark in the store, and takes it away when its term is open. Who finds a
mark knows that a recovery has died, and goes on more carefully::

    1st recovery   marks that it has begun                             ✗
    2nd            marks each stretch before it is replayed            ✗ in the one from event 7,170
    3rd            marks each event of that stretch, too               ✗ at event 7,173
    4th            the same; only if it dies there, too,               ✗ at event 7,173
    5th            replays nothing: HALTED, naming event 7,173

Two that die in one stretch may have been killed, or cut from the store, at two moments of a healthy
replay; two that die at one event have died of it. A recovery that is cut from the store cannot take
its mark away, and is counted like one that has died.

A mark takes as long as the replay of a thousand events, so a stretch has about as many.

A recovery that gets past the place where the former one died begins to count anew, and so does one
that dies before it, or when all is replayed and the term is to be opened: masters that are killed
again and again, wherever they happen to be, halt nothing. Before the first event a snapshot is
loaded, which is one place.
"""

import logging
from typing import Final

from tenure.master.backend.errors import CorruptJournal, OfficeLost, StoreFull, StoreUnavailable
from tenure.master.journal.port import Journal, ReplayMark
from tenure.protocol.errors import TenureError
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason

_log = logging.getLogger(__name__)

#: So many recoveries may die in one place.
CRASHES_MAX: Final = 4
#: After so many, each event of the place has its mark.
_NAMING_CRASHES: Final = 2
_STRETCH_EVENTS: Final = 1024


class ReplayFailed(TenureError):
    """An event could not be applied; the process lives, and others of its partitions with it."""


class Replay:
    """One recovery's marks.

    Args:
        journal: Where they are kept.
        token: The office's.
        partition: Its number.
        stretch_events: How many events have one mark, about: batches are not divided.
    """

    def __init__(
        self,
        journal: Journal,
        token: Token,
        partition: int,
        *,
        stretch_events: int = _STRETCH_EVENTS,
    ) -> None:
        self._journal = journal
        self._stretch_events = stretch_events
        #: The stretch that was marked last, and whether a recovery is thought to have died there.
        self._marked = (-1, False)
        self._token = token
        self._partition = partition
        #: From the first mark until ``end``.
        self.under_way = False
        #: Whether one has died before it, so that each stretch is marked.
        self._careful = False
        #: Recoveries that have died before this one, in one place.
        self._crashes = 0
        #: Where the last one died: it had begun with this event; 0: not known.
        self._suspect = 0

    async def begin(self) -> None:
        """Notes that a recovery has begun.

        Raises:
            CorruptJournal: It would be the next one to die.
            OfficeLost: The office is another's.
        """
        mark = await self._journal.replay_mark()
        if mark is not None:
            self._careful, self._crashes, self._suspect = True, mark.crashes + 1, mark.seq
            _log.warning(
                "A recovery has died before; this one goes on carefully",
                extra={
                    "action": "replay_crashed",
                    "partition": self._partition,
                    "crashes": self._crashes,
                    "seq": mark.seq,
                },
            )
        if self._crashes >= CRASHES_MAX:
            raise self._sick()
        self.under_way = True
        # Until the first batch, a snapshot is loaded: no place where one has died amid the events.
        await self._write(self._count(False), 0)

    async def enter_batch(self, first_seq: int, next_seq: int) -> bool:
        """Call before a batch is replayed; whether each of its events is to be marked, too."""
        if not self._careful:
            return False
        stretch, sick = (seq // self._stretch_events for seq in (first_seq, self._suspect))
        if 0 < self._suspect < first_seq and sick < stretch:
            self._crashes = self._suspect = 0
        suspected = self._suspect > 0 and (stretch == sick or first_seq <= self._suspect < next_seq)
        if self._marked != (stretch, suspected):
            self._marked = (stretch, suspected)
            await self._write(self._count(suspected), first_seq)
        return suspected and self._crashes >= _NAMING_CRASHES

    async def enter_event(self, seq: int) -> None:
        """Call before an event is replayed, where ``enter_batch`` has said so."""
        await self._write(self._crashes, seq)

    async def leave(self) -> None:
        """Call when all is replayed: who dies from now on does not die of the journal."""
        if self._careful:
            self._crashes = self._suspect = 0
            await self._write(0, 0)

    async def fail(self, seq: int, error: Exception) -> ReplayFailed:
        """Notes that an event could not be applied; the exception to raise."""
        suspected = not self._suspect or self._suspect <= seq
        await self._write(self._count(suspected), seq)
        return ReplayFailed(
            f"expected to replay event {seq} of partition {self._partition}, but {error!r}",
            reason=Reason.INTERNAL,
            metadata={"partition": str(self._partition), "seq": str(seq)},
        )

    async def end(self) -> None:
        """The term is open, or the recovery has ended without having been killed."""
        self.under_way = False
        try:
            await self._journal.mark_replay(self._token, None)
        except (OfficeLost, StoreUnavailable, StoreFull) as error:
            _log.info("The replay's mark stays: %s", error, extra={"action": "replay_mark"})

    def _count(self, suspected: bool) -> int:
        """How many have died here; where nobody has, this one would be the first."""
        return self._crashes if suspected or not self._suspect else 0

    async def _write(self, crashes: int, seq: int) -> None:
        if seq != self._suspect:
            # Near the place where the last one died is not that place.
            crashes = min(crashes, _NAMING_CRASHES)
        try:
            await self._journal.mark_replay(self._token, ReplayMark(crashes=crashes, seq=seq))
        except StoreFull as error:
            # Rather no mark than no leader.
            _log.warning("Could not mark the replay: %s", error, extra={"action": "replay_mark"})

    def _sick(self) -> CorruptJournal:
        where = f"at event {self._suspect}" if self._suspect else "before the first event"
        return CorruptJournal(
            f"expected to replay the journal of partition {self._partition}, but {self._crashes}"
            f" masters in a row have died {where}; look into their logs, upgrade or go back to a"
            " release that can replay it, then run `tenure cluster clear-halt`",
            reason=Reason.STORE_CORRUPT,
            metadata={"partition": str(self._partition), "seq": str(self._suspect)},
        )
