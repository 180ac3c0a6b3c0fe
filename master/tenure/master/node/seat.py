"""One partition's seat at one master: campaign, recover, lead, step down, and again.

```
 FOLLOWER ──office won──► RECOVERING ──TermOpened──► ADOPTING ──window──► SERVING ⇄ FROZEN | FULL
    ▲                         │                                             │
    └───────office lost───────┴──────────────◄──────────────────────────────┘
 HALTED: the journal cannot be read; nobody campaigns until an operator has cleared it
```
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tenure.master.backend.errors import (
    CorruptJournal,
    FormatTooNew,
    OfficeLost,
    StoreFull,
    StoreIoError,
    StoreUnavailable,
)
from tenure.master.core.config import PartitionConfig
from tenure.master.election.port import Election, Office
from tenure.master.journal.port import HaltRecord, Journal
from tenure.master.node.batch_runner import BatchRunner
from tenure.master.node.clock import TermClock
from tenure.master.node.collector import collect_dropped
from tenure.master.node.courier import Courier
from tenure.master.node.gate import CommitGate
from tenure.master.node.hub import WorkerHub
from tenure.master.node.keeper import Keeper
from tenure.master.node.port import Clock, Peers, Rng
from tenure.master.node.recovery import Replayed, recover
from tenure.master.node.replay import Replay, ReplayFailed
from tenure.master.node.roster import Roster
from tenure.master.node.sizes import LOG_SIZES, LogSizes
from tenure.master.node.snapshot import Snapshotter
from tenure.master.node.solitude import Solitude
from tenure.master.node.space import SpaceWatch
from tenure.master.node.standby import Standbys
from tenure.master.node.term import Term
from tenure.master.node.trace import Trace
from tenure.master.node.walls import Walls
from tenure.protocol.cancellation import pass_cancellation
from tenure.protocol.errors import first_of
from tenure.v1 import cluster_pb2

_log = logging.getLogger(__name__)

_RETRY_MS: Final = 300
_VACANCY_MS: Final = 2_000
#: A leader that was told nothing of its office looks by itself now and then.
_OFFICE_LOOK_MS: Final = 30_000
#: How long a master waits for each one that a partition prefers to it.
_RANK_DELAY_MS: Final = 150
#: It leaves the office to one that could lead at once for so long, 3 s: that one's loop may be slow
#: to hear of it. Whoever hands a partition over leaves it to the others for 2 s.
_YIELD_LOOK_MS: Final = 100
_UNREADY_LOOKS: Final = 30
_YIELD_LOOKS: Final = 20
_LEFT_POLL_MS: Final = 10
_HALTED_LOOK_MS: Final = 5_000
_SLEW_MS: Final = 2_000
#: A master whose clock is off waits so much longer.
_CLOCK_DELAY_MS: Final = 1_000
#: How often a leader looks whether workers reach it.
_LOOK_MS: Final = 1_000
#: A larger state is not hashed for a trace when a term begins: that would hold up its first grants.
_TRACED_JOBS_MAX: Final = 10_000
#: How long a new term has the loop for itself, at most.
_CALM_MS: Final = 1_000
#: A master that is told to end waits so long for a store that is full or away.
_HAND_OVER_MS: Final = 5_000
#: It leads on for at most so long, until another has the partition replayed: 24 s, so that all is
#: over within the 30 s after which Kubernetes kills. With fewer jobs than these a recovery from
#: nothing is as quick.
_HEIR_LOOK_MS: Final = 100
_HEIR_LOOKS: Final = 240
_COLD_JOBS_MAX: Final = 2_000

_Role = cluster_pb2.PartitionRole


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all seats of one master share."""

    roster: Roster
    hub: WorkerHub
    clock: Clock
    rng: Rng
    trace: Trace
    announce: Callable[[str, Mapping[str, object]], None]
    config: Callable[[int], PartitionConfig]
    space: SpaceWatch
    walls: Walls
    solitude: Solitude
    standbys: Standbys
    hear_wishes: Callable[[], Awaitable[None]]
    peers: Peers
    sizes: LogSizes = LOG_SIZES


class _SteppedDown(Exception):
    """The term was handed over in order."""


class Seat:
    """Runs for one partition's office and leads it when it has it.

    Args:
        partition: Its number.
        election: Its office.
        journal: Its log.
        around: What the master's seats share.
    """

    def __init__(
        self, *, partition: int, election: Election, journal: Journal, around: Surroundings
    ) -> None:
        self.partition = partition
        #: Whether another's term is known, and its end is waited for.
        self.watching = False
        self._election = election
        self._journal = journal
        self._around = around
        self._stopping = asyncio.Event()
        #: The term under way is to be handed over, whether or not another may follow.
        self._leaving = asyncio.Event()
        self._role = _Role.PARTITION_ROLE_FOLLOWER
        self._term: Term | None = None
        self._keeper: Keeper | None = None

    def stop(self) -> None:
        """Hands over and campaigns no more; ``run`` returns when that is done. Idempotent.

        A large partition is led until another master could lead it at once, or for 24 s.
        """
        self._stopping.set()

    def hand_over(self) -> bool:
        """Ends the term in order, if one is led here; the next one is won by who is quicker.

        Returns:
            Whether it could begin: not while the office cannot be proved, nor while the store has
            no space, for then nobody could win it.
        """
        term, keeper = self._term, self._keeper
        if term is None or keeper is None or keeper.frozen or term.gate.full or not term.open:
            return False
        self._leaving.set()
        return True

    async def left(self) -> None:
        """Waits until the term that is being handed over has ended."""
        while self._term is not None and self._leaving.is_set():
            await self._around.clock.sleep(_LEFT_POLL_MS)

    def status(self) -> cluster_pb2.PartitionStatus:
        """How the seat is; waits for nothing."""
        status = cluster_pb2.PartitionStatus(partition=self.partition, role=self._role)
        status.detail = self._around.roster.halted.get(self.partition, "")
        term, keeper = self._term, self._keeper
        if term is None or keeper is None:
            status.applied_seq = self._around.standbys.seqs().get(self.partition, 0)
            return status
        if keeper.frozen:
            status.role = _Role.PARTITION_ROLE_FROZEN
        elif term.gate.full:
            status.role = _Role.PARTITION_ROLE_FULL
        elif term.partition.window_open:
            status.role = _Role.PARTITION_ROLE_ADOPTING
        stats = term.partition.stats()
        status.token.epoch, status.token.revision = term.token
        status.applied_seq = term.partition.next_seq - 1
        status.committed_seq = term.gate.committed_seq
        status.batch_number = max(0, term.gate.committed_number)
        status.jobs = stats.jobs
        status.ready = stats.ready
        status.running = stats.running
        status.payload_bytes = stats.payload_bytes
        status.payload_bytes_max = self._around.config(self.partition).bytes_max
        return status

    async def run(self) -> None:
        """Campaigns and leads until stopped.

        Raises:
            StoreIoError: The process must exit.
        """
        while not self._stopping.is_set():
            pass_cancellation()
            if self._around.solitude.abstains() or not self._around.roster.knows_walls():
                await self._pause(_LOOK_MS)
                continue
            try:
                office, sent_ms = await self._campaign()
            except (StoreUnavailable, StoreFull) as error:
                _log.warning("Cannot campaign: %s", error, extra=self._extra("campaign"))
                await self._pause(_RETRY_MS)
                continue
            except CorruptJournal as damaged:
                _log.error("Cannot campaign: %s", damaged, extra=self._extra("campaign"))
                self._around.roster.halted[self.partition] = str(damaged)
                await self._rest_if_halted()
                continue
            if office is not None:
                await self._lead(office, sent_ms)
                collect_dropped()
                if self._leaving.is_set():
                    await self._yield(_YIELD_LOOKS, lambda: True)
                await self._rest_if_halted()

    async def _rest_if_halted(self) -> None:
        """Gives a journal that cannot be read time: the mark that says so may not be written."""
        if self.partition in self._around.roster.halted:
            self._role = _Role.PARTITION_ROLE_HALTED
            await self._pause(_HALTED_LOOK_MS)

    async def _campaign(self) -> tuple[Office | None, int]:
        """One try: for an office that is free, after those that should lead it rather.

        Returns:
            The office, if it was won; since when it may have been held (boot clock).
        """
        around, halts = self._around, self._around.roster.halted
        leader = await self._election.leader()
        if leader is not None and leader.candidate != around.roster.me:
            around.roster.leaders[self.partition] = leader
            # It can be read, then.
            halts.pop(self.partition, None)
            self._role = _Role.PARTITION_ROLE_FOLLOWER
            if not await self._vacated():
                return None, 0
            leader = None
        with around.standbys.at_rest():
            halted = await self._journal.halted()
            if halted is None:
                halts.pop(self.partition, None)
                self._role = _Role.PARTITION_ROLE_FOLLOWER
                if leader is None and await self._give_way():
                    return None, 0
                if self._stopping.is_set():
                    return None, 0
                sent_ms = around.clock.boot_ms()
                return await self._election.campaign(), sent_ms
        halts[self.partition] = halted.detail
        self._role = _Role.PARTITION_ROLE_HALTED
        await self._pause(_HALTED_LOOK_MS)
        return None, 0

    async def _vacated(self) -> bool:
        """Waits for the end of another's term, for a while; whether it was seen."""
        self.watching = True
        try:
            async with asyncio.TaskGroup() as tasks:
                vacancy = tasks.create_task(self._election.vacancy(_VACANCY_MS))
                stopped = tasks.create_task(self._stopping.wait())
                await asyncio.wait({vacancy, stopped}, return_when=asyncio.FIRST_COMPLETED)
                vacancy.cancel()
                stopped.cancel()
        finally:
            self.watching = False
        return not vacancy.cancelled() and vacancy.result()

    async def _give_way(self) -> bool:
        """Lets the masters that the partition prefers go first, so that masters share them out.

        Returns:
            Whether another was seen to lead it.
        """
        around, partition = self._around, self.partition
        # Who leads hands over right after an operator has said to whom.
        await around.hear_wishes()
        delay_ms = around.roster.rank(partition) * _RANK_DELAY_MS
        await self._pause(delay_ms + (_CLOCK_DELAY_MS if around.walls.off else 0))
        return await self._yield(_UNREADY_LOOKS, lambda: around.roster.yields(partition))

    async def _yield(self, looks: int, willing: Callable[[], bool]) -> bool:
        """Leaves the office to others while it is willing to, at most for so many looks.

        Returns:
            Whether another was seen to have it.
        """
        try:
            for _ in range(looks):
                if self._stopping.is_set() or not willing():
                    return False
                await self._pause(_YIELD_LOOK_MS)
                if await self._election.leader() is not None:
                    return True
        except StoreUnavailable as error:
            _log.info("Cannot see who leads: %s", error, extra=self._extra("yield"))
        return False

    async def _pause(self, ms: int) -> None:
        if self._stopping.is_set() or ms <= 0:
            return
        try:
            async with asyncio.timeout(ms / 1000):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _lead(self, office: Office, sent_ms: int) -> None:
        around = self._around
        keeper = Keeper(office, around.clock, sent_ms=sent_ms)
        self._role = _Role.PARTITION_ROLE_RECOVERING
        self._leaving.clear()
        number = str(office.token)
        replay = Replay(self._journal, office.token, self.partition)
        why, closed = "handed over", None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(keeper.run())
                tasks.create_task(self._limit_hand_over())
                tasks.create_task(self._leave_when_stopped())
                if office.ttl_ms is not None:
                    tasks.create_task(self._watch_office(office))
                await self._reign(tasks, office, keeper, replay)
        except* _SteppedDown:
            closed = self._term
            _log.info("Handed over", extra=self._extra("step_down"))
        except* OfficeLost as lost:
            why = "office lost"
            _log.warning("Lost the office: %s", first_of(lost), extra=self._extra("fenced"))
        except* StoreUnavailable as gone:
            why = "store unavailable"
            _log.warning("Gave up: %s", first_of(gone), extra=self._extra("unavailable"))
        except* FormatTooNew as newer:
            why = "format too new"
            _log.error("Campaigning no more: %s", first_of(newer), extra=self._extra("too_old"))
            around.roster.halted[self.partition] = str(first_of(newer))
            self.stop()
        except* ReplayFailed as failed:
            why, replay.under_way = "replay failed", False
            _log.error(
                "Gave up: %s", first_of(failed), exc_info=failed, extra=self._extra("replay")
            )
        except* CorruptJournal as corrupt:
            why, replay.under_way = "halted", False
            await self._halt(office, first_of(corrupt))
        finally:
            self._role = _Role.PARTITION_ROLE_FOLLOWER
            around.standbys.release(self.partition)
            self._end_term(office)
            around.announce("follower", {"partition": self.partition, "term": number, "why": why})
            if replay.under_way:
                # It has ended without having died: nobody shall count it.
                await replay.end()
            await self._resign(office)
        if closed is not None and closed.gate.committed_seq == closed.partition.next_seq - 1:
            # Not before: whoever is next waits for the office. A hand-over that was cut short has
            # applied what the journal will never have.
            end = closed.partition
            await around.trace.last_state(self.partition, end.next_seq - 1, end.state_hash)

    async def _watch_office(self, office: Office) -> None:
        """Hears of it when the office is taken away, though its lease lives on and is renewed.

        Whoever appends is told anyway. An idle leader would answer reads beside its successor.

        Raises:
            OfficeLost: It was.
        """
        while True:
            try:
                await self._election.vacancy(_OFFICE_LOOK_MS)
                await office.verify()
            except (StoreUnavailable, StoreFull):
                await self._around.clock.sleep(_RETRY_MS)

    async def _leave_when_stopped(self) -> None:
        """Ends the term for good, as soon as nobody is left without service for it."""
        await self._stopping.wait()
        for _ in range(_HEIR_LOOKS):
            if not self._awaits_heir():
                break
            await self._around.clock.sleep(_HEIR_LOOK_MS)
        self._leaving.set()

    def _awaits_heir(self) -> bool:
        """Whether others live, but none of them could lead at once what is served here.

        Or is about to be: who recovers a partition has the start of all others in that.
        """
        term, keeper = self._term, self._keeper
        if term is not None and keeper is not None:
            if keeper.frozen or term.gate.full:
                return False
            if term.partition.stats().jobs <= _COLD_JOBS_MAX:
                return False
        roster = self._around.roster
        others = [name for name in roster.heirs(self.partition) if name != roster.me.name]
        return bool(others) and not any(roster.is_ready(n, self.partition) for n in others)

    async def _limit_hand_over(self) -> None:
        """Ends the term without its TermClosed if the store does not take it in time.

        Raises:
            _SteppedDown: The time is over.
        """
        await self._leaving.wait()
        await self._around.clock.sleep(_HAND_OVER_MS)
        _log.warning(
            "The store did not take the end of the term; the next leader waits for the workers",
            extra=self._extra("hand_over"),
        )
        raise _SteppedDown

    async def _reign(
        self, tasks: asyncio.TaskGroup, office: Office, keeper: Keeper, replay: Replay
    ) -> None:
        around = self._around
        with around.standbys.at_rest():
            await replay.begin()
            config, standby = around.config(self.partition), around.standbys.take(self.partition)
            recovered = await recover(self._journal, config, replay, standby)
            term = await self._open_term(tasks, office, keeper, recovered)
            tasks.create_task(self._settle_in(term))
        courier = Courier(
            term=term,
            roster=around.roster,
            peers=around.peers,
            clock=around.clock,
            rng=around.rng,
        )
        tasks.create_task(courier.run())
        tasks.create_task(BatchRunner(term=term, clock=around.clock).run())
        owner = tasks.create_task(term.own())
        snapshotter = Snapshotter(
            term=term,
            journal=self._journal,
            clock=around.clock,
            log_bytes=recovered.log_bytes(),
            log_bytes_max=around.space.log_bytes_max,
            sizes=around.sizes,
        )
        tasks.create_task(snapshotter.run())
        tasks.create_task(self._slew(term))
        tasks.create_task(self._look_for_workers())
        await replay.end()
        await self._leaving.wait()
        owner.cancel()
        await term.close()
        raise _SteppedDown

    async def _open_term(
        self, tasks: asyncio.TaskGroup, office: Office, keeper: Keeper, recovered: Replayed
    ) -> Term:
        """Begins to serve what was recovered."""
        around, partition = self._around, recovered.partition
        clock = TermClock(
            around.clock, stamp_ms=partition.stamp_ms, walls_ms=around.roster.walls_ms()
        )
        term = self._make_term(office, keeper, recovered, clock)
        tasks.create_task(term.gate.run())
        # A job that waits by the journal may be out: first grants are journaled after they leave.
        stats = partition.stats()
        window = not recovered.closed and stats.running + stats.ready > 0
        self._term, self._keeper = term, keeper
        await term.begin(around.roster.me.incarnation, window=window)
        if stats.jobs <= _TRACED_JOBS_MAX:
            around.trace.state(self.partition, partition.next_seq - 1, partition.state_hash)
        around.roster.leaders.pop(self.partition, None)
        around.roster.terms[self.partition] = term
        self._role = _Role.PARTITION_ROLE_SERVING
        around.announce("leader", {"partition": self.partition, "term": str(office.token)})
        return term

    async def _settle_in(self, term: Term) -> None:
        """Keeps the loop free for a new term until it has granted something, a second at most."""
        with self._around.standbys.at_rest(), suppress(TimeoutError):
            async with asyncio.timeout(_CALM_MS / 1000):
                await term.granted.wait()

    def _make_term(
        self, office: Office, keeper: Keeper, recovered: Replayed, clock: TermClock
    ) -> Term:
        around, partition = self._around, recovered.partition
        gate = CommitGate(
            journal=self._journal,
            token=office.token,
            chain=recovered.chain,
            clock=around.clock,
            stamp=clock.now_ms,
            trace=around.trace,
            format_=lambda: partition.format,
            sizes=around.sizes,
        )
        return Term(
            partition=partition,
            changes=recovered.changes,
            gate=gate,
            keeper=keeper,
            token=office.token,
            clock=clock,
            rng=around.rng,
            hub=around.hub,
            announce=around.announce,
            intake=around.space.intake,
            bytes_max=lambda: around.config(self.partition).bytes_max,
        )

    async def _look_for_workers(self) -> None:
        """Hands over if workers reach other masters and not this one."""
        solitude = self._around.solitude
        while not (solitude.look() and self.hand_over()):
            await self._around.clock.sleep(_LOOK_MS)
        solitude.resign()
        _log.warning(
            "No worker reaches this master, but others; handing over",
            extra=self._extra("no_workers"),
        )

    async def _slew(self, term: Term) -> None:
        around = self._around
        while True:
            around.walls.compare(self.partition, term.clock.now_ms())
            await around.clock.sleep(_SLEW_MS)
            term.clock.slew(around.roster.walls_ms())

    def _end_term(self, office: Office) -> None:
        term, self._term, self._keeper = self._term, None, None
        if term is None:
            return
        roster = self._around.roster
        roster.terms.pop(self.partition, None)
        self._around.walls.forget(self.partition)
        self._around.hub.close_partition(self.partition, office.token, "")
        term.abandon(roster.not_leader(self.partition))

    async def _resign(self, office: Office) -> None:
        try:
            await office.resign()
        except (OfficeLost, StoreUnavailable, StoreFull, StoreIoError, CorruptJournal) as error:
            _log.info("Could not resign: %s", error, extra=self._extra("resign"))

    async def _halt(self, office: Office, error: BaseException) -> None:
        batch = int(getattr(error, "metadata", {}).get("batch", "0"))
        detail = str(error)
        _log.error("Halting the partition: %s", detail, extra=self._extra("halt"))
        self._around.roster.halted[self.partition] = detail
        self._around.announce("halted", {"partition": self.partition, "detail": detail})
        try:
            await self._journal.halt(office.token, HaltRecord(batch_number=batch, detail=detail))
        except (OfficeLost, StoreUnavailable, StoreFull, CorruptJournal) as refused:
            _log.warning("Could not write HALTED: %s", refused, extra=self._extra("halt"))

    def _extra(self, action: str) -> dict[str, object]:
        return {"action": action, "partition": self.partition}
