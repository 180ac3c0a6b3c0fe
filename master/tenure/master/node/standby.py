"""Standbys: partitions that others lead, kept replayed, so that leading them takes no recovery.

```
 OFF ──preferred successor──► LOADING ──snapshot, then batches to the end──► FOLLOWING ⟲ polls
  ▲                              │                                               │
  ├──cut under its hands, damaged, any error: what it has is dropped─────────────┤
  └──the office is won: the term goes on from what it has ◄──────────────────────┘
```
For each partition one master follows: the first, in the order in which masters campaign, that does
not lead it; and until that one is ready, who followed before. A standby only reads. It judges
nothing: damage that it meets is the business of the next leader, who reads the same under the
office. What it has is at any moment between two turns of the loop a whole beginning of the journal,
so it can be taken over at any moment. One partition is loaded after the other, so that the first is
ready soon; those whose leader is to end, and waits for it, come first and without a pause.

An event whose replay kills the process would kill it again and again, and cost other partitions
their leader each time. So a master's key says what it follows. One that starts while the key of its
former self is still there has died while it followed that; from the second death in a row on it
waits before it follows it again, for 1, 4, then 16 minutes, and nobody follows instead. Recoveries
that die are counted on their own (``node.replay``).
"""

import asyncio
import enum
import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from tenure.master.backend.errors import CorruptJournal, FormatTooNew, StoreUnavailable
from tenure.master.core.config import PartitionConfig
from tenure.master.election.port import Member
from tenure.master.journal.port import Journal
from tenure.master.node.collector import collect_dropped
from tenure.master.node.port import Clock
from tenure.master.node.recovery import TURN_BYTES, Replayed
from tenure.master.node.roster import Roster
from tenure.protocol.cancellation import pass_cancellation

_log = logging.getLogger(__name__)

#: How often it is looked at who should follow what; and for how long it must have been so.
_LOOK_MS: Final = 1_000
_STEADY_MS: Final = 3_000
#: Between two looks for new batches: at first, and at most when there are none.
_POLL_MS: Final = 500
_IDLE_MS: Final = 1_000
_RETRY_MS: Final = 5_000
_RETRY_MS_MAX: Final = 60_000
#: While it catches up it leaves the loop to others, for so long after so many bytes.
_REST_BYTES: Final = 256 * 1024
_REST_MS: Final = 10
_HALF_MS_MAX: Final = 100
#: Who has followed for so long has not died of what it follows.
_SOUND_MS: Final = 60_000
#: How long to wait after so many deaths in a row; after more as after the last.
_WAITS_MS: Final = (0, 0, 60_000, 240_000, 960_000)


class Pace(enum.Enum):
    """How a standby may use the loop now."""

    REST = enum.auto()
    #: A leader that is to end waits for it, and this master leads something else soon.
    HALF = enum.auto()
    STEADY = enum.auto()
    #: A leader that is to end waits for it.
    HASTE = enum.auto()


class Standby:
    """Follows one partition.

    Args:
        config: The partition's.
        journal: An adapter that nobody else reads through.
        clock: For its pauses.
        pace: How it may use the loop now.

    Attributes:
        replayed: What it has; None: nothing yet.
        loading: Whether it is about to read all that there is.
        caught_up: Whether that is all that there was when it looked last.
    """

    def __init__(
        self,
        config: PartitionConfig,
        journal: Journal,
        clock: Clock,
        *,
        pace: Callable[[], Pace] = lambda: Pace.STEADY,
    ) -> None:
        self.replayed: Replayed | None = None
        self.loading = False
        self.caught_up = False
        self._config = config
        self._journal = journal
        self._clock = clock
        self._pace = pace
        self._retry_ms = _RETRY_MS
        #: Bytes that were read since the others had a turn, and since it rested.
        self._unturned = 0
        self._unrested = 0
        #: When they last had one (boot clock).
        self._turned_ms = 0

    async def run(self) -> None:
        """Follows until cancelled; no error ends it."""
        while True:
            pass_cancellation()
            try:
                await self._follow()
            except StoreUnavailable as error:
                _log.info("Cannot follow: %s", error, extra=self._extra("standby_waits"))
            except CorruptJournal as error:
                # The leader's truncation looks like this, too.
                _log.info("Following anew: %s", error, extra=self._extra("standby_anew"))
            except FormatTooNew as error:
                # So it will be until this master is another release, too.
                _log.warning("Cannot follow: %s", error, extra=self._extra("standby_too_old"))
            except Exception:  # noqa: BLE001  (whatever it is: no term of this process suffers)
                _log.exception("Cannot follow", extra=self._extra("standby_failed"))
            self.replayed, self.loading, self.caught_up = None, False, False
            await self._clock.sleep(self._retry_ms)
            collect_dropped()
            self._retry_ms = min(2 * self._retry_ms, _RETRY_MS_MAX)

    async def _follow(self) -> None:
        journal = self._journal
        if await journal.halted() is not None or await journal.replay_mark() is not None:
            # What a recovery may have died of would end this process, and others it leads.
            return
        self.loading = True
        await self._rest(TURN_BYTES)
        replayed = Replayed(self._config)
        await replayed.load(journal, self._rest)
        self.replayed = replayed
        await self._read_on(replayed)
        for _ in replayed.partition.finish_replay_in_steps():
            await self._rest(TURN_BYTES)
        extra = {**self._extra("standby"), "seq": replayed.partition.next_seq - 1}
        _log.info("Following, to lead at once if need be", extra=extra)
        self.loading, self.caught_up = False, True
        pause_ms = _POLL_MS
        while True:
            await self._clock.sleep(pause_ms)
            pause_ms = _POLL_MS if await self._poll(replayed) else _IDLE_MS

    async def _poll(self, replayed: Replayed) -> bool:
        """Whether there was something new."""
        try:
            found = await self._read_on(replayed)
        except StoreUnavailable:
            # What it has stays a beginning of the journal; who takes it over proves that anyway.
            return False
        self._retry_ms = _RETRY_MS
        if found:
            replayed.partition.pass_time()
        return found

    async def _read_on(self, replayed: Replayed) -> bool:
        found = False
        async for sealed in self._journal.read(replayed.chain.number):
            replayed.replay(sealed)
            found = True
            await self._rest(len(sealed.data))
        return found

    async def _rest(self, size: int) -> None:
        self._unturned += size
        self._unrested += size
        if self._unturned >= TURN_BYTES:
            pace = self._pace()
            if pace is Pace.HALF:
                # As long as it has worked: half of the loop's time is the others'.
                worked_ms = self._clock.boot_ms() - self._turned_ms
                await self._pause(min(max(worked_ms, _REST_MS), _HALF_MS_MAX))
            elif pace is Pace.STEADY and self._unrested >= _REST_BYTES:
                await self._pause(_REST_MS)
            else:
                self._unturned = 0
                await asyncio.sleep(0)
        while self._pace() is Pace.REST:
            await self._pause(_REST_MS)
        if self._unturned == 0:
            self._turned_ms = self._clock.boot_ms()

    async def _pause(self, ms: int) -> None:
        self._unturned = self._unrested = 0
        await self._clock.sleep(ms)

    def _extra(self, action: str) -> dict[str, object]:
        return {"action": action, "partition": self._config.partition}


class Standbys:
    """All that one master follows.

    Args:
        roster: Who leads what, and who would be next.
        clock: For its pauses.
        reader: A journal's adapter for a standby alone, by partition.
        config: A partition's.
    """

    def __init__(
        self,
        roster: Roster,
        clock: Clock,
        *,
        reader: Callable[[int], Journal],
        config: Callable[[int], PartitionConfig],
    ) -> None:
        self._roster = roster
        self._clock = clock
        self._reader = reader
        self._config = config
        self._running: dict[int, tuple[Standby, asyncio.Task[None]]] = {}
        #: By partition: since when another is wanted than there is (boot clock).
        self._since_ms: dict[int, int] = {}
        #: Partitions whose leaders are to end, and wait for who has them replayed.
        self._awaited: set[int] = set()
        #: Partitions whose office this master has.
        self._taken: set[int] = set()
        #: By partition: how many processes of this name have died in a row while they followed it,
        #: and when that may be forgotten or tried again (boot clock).
        self._deaths: dict[int, tuple[int, int]] = {}
        self._ended = False
        #: How many seats of this master are about to lead.
        self._hurries = 0
        #: Whether a standby has ended since dropped ones were collected.
        self._has_dropped = False

    async def run(self) -> None:
        """Follows what this master should, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                pass_cancellation()
                await self._clock.sleep(_LOOK_MS)
                self._review(tasks)

    def take(self, partition: int) -> Replayed | None:
        """Ends following a partition, which this master leads now; what was replayed of it."""
        self._taken.add(partition)
        return self._end(partition)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Nothing is replayed meanwhile: a term that begins needs the loop.

        What a leader that is to end waits for goes on, at half its pace.
        """
        self._hurries += 1
        try:
            yield
        finally:
            self._hurries -= 1

    def _pace(self, partition: int) -> Pace:
        awaited, hurried = partition in self._awaited, self._hurries > 0 or self._is_expected()
        # While a leader waits, what nobody waits for would only keep cores and the store busy.
        if not awaited and (hurried or self._awaited):
            return Pace.REST
        loading = [number for number, (standby, _) in self._running.items() if standby.loading]
        if partition in loading:
            # One after the other, as they were begun: so each is ready earlier than beside others.
            first = min(loading, key=lambda number: number not in self._awaited)
            if partition != first:
                return Pace.REST
        if not awaited:
            return Pace.STEADY
        return Pace.HALF if hurried else Pace.HASTE

    def _is_expected(self) -> bool:
        """Whether a leader that is to end is about to hand over to this master.

        It does so as soon as it hears that this one could lead: the loop must be able to turn.
        """
        return any(
            standby.caught_up and number in self._awaited
            for number, (standby, _) in self._running.items()
        )

    def release(self, partition: int) -> None:
        """This master leads it no more."""
        self._taken.discard(partition)

    def end(self) -> None:
        """Follows nothing more: this master is to end, and is nobody's successor. Idempotent."""
        self._ended = True
        for number in list(self._running):
            self._end(number)

    def inherit(self, members: Iterable[Member]) -> None:
        """Learns of what a process of this name has died, if it has and its key is still there."""
        me, now_ms = self._roster.me, self._clock.boot_ms()
        for member in members:
            if member.candidate.name == me.name and member.candidate != me:
                for number, deaths in member.following.items():
                    wait_ms = _WAITS_MS[min(deaths + 1, len(_WAITS_MS) - 1)]
                    self._deaths[number] = (deaths + 1, now_ms + wait_ms)

    def deaths(self) -> dict[int, int]:
        """By partition that is followed, or soon will be: how many have died of it, perhaps."""
        return {
            number: self._deaths.get(number, (0, 0))[0]
            for number in (*self._running, *self._since_ms)
        }

    def seqs(self) -> dict[int, int]:
        """By partition that is followed: the last event replayed."""
        return {
            number: standby.replayed.partition.next_seq - 1
            for number, (standby, _) in self._running.items()
            if standby.replayed is not None
        }

    def caught_up(self) -> list[int]:
        """Partitions that this master could lead at once."""
        return [number for number, (standby, _) in self._running.items() if standby.caught_up]

    def _review(self, tasks: asyncio.TaskGroup) -> None:
        if self._ended:
            return
        if self._has_dropped and not self._hurries:
            self._has_dropped = False
            collect_dropped()
        now_ms, leaders = self._clock.boot_ms(), self._roster.leaders
        self._awaited = {
            n for n, leader in leaders.items() if self._roster.is_ending(leader.candidate)
        }
        for number, wanted in self._wanted().items():
            steady_ms = 0 if number in self._awaited else _STEADY_MS
            if wanted is (number in self._running):
                self._since_ms.pop(number, None)
            elif now_ms - self._since_ms.setdefault(number, now_ms) < steady_ms:
                continue
            elif wanted:
                standby = Standby(
                    self._config(number),
                    self._reader(number),
                    self._clock,
                    pace=functools.partial(self._pace, number),
                )
                self._running[number] = (standby, tasks.create_task(standby.run()))
            else:
                self._end(number)

    def _wanted(self) -> dict[int, bool]:
        """Whether to follow a partition that another leads; nobody leads it: all is left as it is.

        So a store that is full or away, or a vacancy, does not take away what will be needed.
        """
        roster = self._roster
        leaders = {
            number: leader.candidate.name
            for number, leader in roster.leaders.items()
            if leader.candidate != roster.me and number not in self._taken
        }
        return {
            number: number not in roster.halted and self._should_follow(number, name)
            for number, name in roster.successors(leaders).items()
        }

    def _should_follow(self, partition: int, successor: str) -> bool:
        """Whether this master is the successor, or stands in for one that is not ready yet.

        So some master has it replayed while masters come and go.
        """
        if successor == self._roster.me.name:
            # What is awaited is about to be replayed by somebody in any case.
            return partition in self._awaited or not self._shuns(partition)
        return partition in self._running and not self._roster.is_ready(successor, partition)

    def _shuns(self, partition: int) -> bool:
        """Whether it waits, because too many have died of a partition; forgets it in the end."""
        deaths, until_ms = self._deaths.get(partition, (0, 0))
        over_ms = self._clock.boot_ms() - until_ms
        if deaths and over_ms >= _STEADY_MS + _SOUND_MS:
            del self._deaths[partition]
        return over_ms < 0

    def _end(self, partition: int) -> Replayed | None:
        self._since_ms.pop(partition, None)
        standby, task = self._running.pop(partition, (None, None))
        if standby is None or task is None:
            return None
        # It changes nothing any more: cancelled, it does not run on from where it waits.
        task.cancel()
        self._has_dropped = True
        return standby.replayed
