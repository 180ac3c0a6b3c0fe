"""A store for simulations: one ``SimStoreServer`` is what etcd is to a cluster of masters.

Each master opens a ``SimStore`` on it and has a ``Link`` of its own to it. The faults are there:
cut one way or both, slow, or with the answer of the next mutation lost, before or after the server
has applied it. The server itself can be full, and offices can be ended before their time.

Requests travel apart from their callers: what was sent is applied even if the caller was cancelled
or its master crashed meanwhile, as it is with a real network. So a deposed master's late writes are
tried here as well, and only the guards keep them out.
"""

import asyncio
import enum
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tenure.master.backend.errors import (
    CorruptJournal,
    OfficeLost,
    StoreFull,
    StoreMismatch,
    StoreUnavailable,
)
from tenure.master.backend.space import Space
from tenure.master.election.port import Candidate, Leader, Member
from tenure.master.journal import frame
from tenure.master.journal.port import HaltRecord, ReplayMark, SealedBatch, SnapshotRef
from tenure.protocol.errors import TenureError
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason
from tenure.testing.clock import SimClock

T = TypeVar("T")

OFFICE_TTL_MS: Final = 6_000
MEMBER_TTL_MS: Final = 10_000

_CALL_TIMEOUT_MS: Final = 1_200
_TRIES: Final = 3
_READ_BATCHES: Final = 16
_VACANCY_POLL_MS: Final = 50


class Fate(enum.Enum):
    """What becomes of a mutation whose answer is lost."""

    APPLIED = enum.auto()
    NOT_APPLIED = enum.auto()


class _NoAnswer(Exception):
    """A call's deadline passed."""


@dataclass(slots=True, eq=False)
class Link:
    """The way between one master and the server.

    Attributes:
        delay_ms: How long a message takes, each way.
        requests_cut: Nothing reaches the server.
        replies_cut: What is asked is done, but no answer comes back.
        crashed: The master is dead: no call returns any more. Cancel its tasks.
    """

    delay_ms: int = 1
    requests_cut: bool = False
    replies_cut: bool = False
    crashed: bool = False
    _fates: deque[Fate] = field(default_factory=deque)

    def cut(self) -> None:
        """Cuts both ways."""
        self.requests_cut = self.replies_cut = True

    def heal(self) -> None:
        """Ends every cut and what ``lose`` has planned."""
        self.requests_cut = self.replies_cut = False
        self._fates.clear()

    def lose(self, *fates: Fate) -> None:
        """Loses the answers of the next campaigns and writes to the journal, one each."""
        self._fates.extend(fates)

    async def call(self, transaction: Callable[[], T], *, mutates: bool) -> T:
        """Sends one request and waits for its answer.

        Raises:
            _NoAnswer: None came in time.
            TenureError: What the server refused.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        fate = self._fates.popleft() if mutates and self._fates else None

        def arrive() -> None:
            try:
                result = transaction()
            except TenureError as refused:
                reply(_settle_error, answer, refused)
            else:
                reply(_settle, answer, result)

        def reply(settle: Callable[..., None], *args: object) -> None:
            if not (self.replies_cut or self.crashed or fate is Fate.APPLIED):
                loop.call_later(self.delay_ms / 1000, settle, *args)

        if not (self.requests_cut or self.crashed or fate is Fate.NOT_APPLIED):
            loop.call_later(self.delay_ms / 1000, arrive)
        try:
            async with asyncio.timeout(None if self.crashed else _CALL_TIMEOUT_MS / 1000):
                return await answer
        except TimeoutError:
            if self.crashed:
                await loop.create_future()
            raise _NoAnswer from None

    async def resolve(
        self, action: str, transaction: Callable[[], T], *, mutates: bool = True
    ) -> T:
        """Sends the same request until it is answered, a few times; see ``call``.

        Raises:
            StoreUnavailable: No try was answered.
        """
        for _ in range(_TRIES):
            try:
                return await self.call(transaction, mutates=mutates)
            except _NoAnswer:
                continue
        raise unanswered(action)


def unanswered(action: str) -> StoreUnavailable:
    """The error of a call that got no answer."""
    return StoreUnavailable(
        f"expected to {action}, but the store does not answer",
        reason=Reason.STORE_UNAVAILABLE,
    )


@dataclass(slots=True, eq=False)
class _Office:
    """Who leads; ``ballot`` is the campaign that won it."""

    candidate: Candidate
    token: Token
    ballot: int
    expires_ms: int


@dataclass(slots=True, eq=False)
class SimPartition:
    """One partition as it is stored. Tests may damage what is in it.

    Attributes:
        batches: Bytes by number.
        slices: Bytes by snapshot id and index.
        pointer: Id and manifest of the published snapshot.
    """

    batches: dict[int, bytes] = field(default_factory=dict)
    slices: dict[str, dict[int, bytes]] = field(default_factory=dict)
    pointer: tuple[str, bytes] | None = None
    halted: HaltRecord | None = None
    mark: ReplayMark | None = None
    office: _Office | None = None


class SimStoreServer:
    """The server: state and transactions. Each transaction happens at one moment.

    Args:
        office_ttl_ms: An office's time to live without a keepalive.
        cluster_id: What the bootstrap record says.

    Attributes:
        full: Nothing that needs space is taken: no put, no lease.
        partitions: Empty until the first master opens it.
    """

    def __init__(
        self, *, office_ttl_ms: int = OFFICE_TTL_MS, cluster_id: str = "simulated"
    ) -> None:
        self.full = False
        self.epoch = 1
        self.cluster_id = cluster_id
        self.office_ttl_ms = office_ttl_ms
        self.partitions: list[SimPartition] = []
        self._members: dict[str, tuple[Member, int]] = {}
        self._clock = SimClock()
        self._revision = 0

    async def open(
        self, candidate: Candidate, *, wall_ms: int = 0, partitions: int | None = None
    ) -> "SimStore":
        """What ``open_store`` is to a real one.

        Raises:
            StoreMismatch: The store was made with another number of partitions.
        """
        if not self.partitions:
            for partition in range(partitions or 1):
                genesis = frame.genesis(partition, Token(self.epoch, 0), wall_ms)
                self.partitions.append(SimPartition(batches={genesis.number: genesis.data}))
        if partitions not in (None, len(self.partitions)):
            raise StoreMismatch(
                f"expected a store of {partitions} partitions, but it has {len(self.partitions)}",
                reason=Reason.STORE_MISMATCH,
            )
        return SimStore(self, candidate)

    def expire_office(self, partition: int) -> None:
        """Ends an office before its time, as if its keepalives had failed."""
        self.partitions[partition].office = None

    # ---- transactions ---------------------------------------------------------------------------

    def office(self, partition: int) -> _Office | None:
        """Who holds it at this moment."""
        state = self.partitions[partition]
        if state.office is not None and state.office.expires_ms <= self._clock.boot_ms():
            state.office = None
        return state.office

    def guard(self, partition: int, token: Token) -> SimPartition:
        """The partition, for a mutation under this token.

        Raises:
            OfficeLost: The token does not hold the office.
        """
        office = self.office(partition)
        if office is None or office.token != token:
            raise _lost(partition, token, "it does not hold it any more")
        return self.partitions[partition]

    def demand_space(self) -> None:
        """For what stores something.

        Raises:
            StoreFull: There is no space.
        """
        if self.full:
            raise StoreFull(
                "expected to write to the store, but there is no space left",
                reason=Reason.STORE_FULL,
            )

    def win(self, partition: int, candidate: Candidate, ballot: int) -> Token | None:
        """Gives the office to this ballot if it is free or already this ballot's."""
        held = self.office(partition)
        if held is not None:
            return held.token if held.ballot == ballot else None
        self.demand_space()
        token = Token(self.epoch, self.next_revision())
        self.partitions[partition].office = _Office(
            candidate, token, ballot, self._clock.boot_ms() + self.office_ttl_ms
        )
        return token

    def renew(self, partition: int, token: Token) -> None:
        """Starts the office's TTL anew."""
        self.guard(partition, token)
        office = self.office(partition)
        if office is not None:
            office.expires_ms = self._clock.boot_ms() + self.office_ttl_ms

    def resign(self, partition: int, token: Token) -> None:
        """Frees the office if it is still this token's."""
        office = self.office(partition)
        if office is not None and office.token == token:
            self.partitions[partition].office = None

    def next_revision(self) -> int:
        """A number above all before."""
        self._revision += 1
        return self._revision

    def put_member(self, member: Member) -> None:
        """Writes a member key; it lives for its TTL from now."""
        self.demand_space()
        until_ms = self._clock.boot_ms() + MEMBER_TTL_MS
        self._members[member.candidate.incarnation] = (member, until_ms)

    def drop_member(self, incarnation: str) -> None:
        """Deletes a member key."""
        self._members.pop(incarnation, None)

    def members(self) -> list[Member]:
        """Those whose keys live."""
        now_ms = self._clock.boot_ms()
        return [member for member, until_ms in self._members.values() if until_ms > now_ms]


class SimStore:
    """One master's handles; see ``store.Store``. Made by ``SimStoreServer.open``."""

    def __init__(self, server: SimStoreServer, candidate: Candidate) -> None:
        self.cluster_id = server.cluster_id
        self.partitions = len(server.partitions)
        self.epoch = server.epoch
        self.link = Link()
        self._server = server
        self._incarnation = candidate.incarnation
        numbers = range(self.partitions)
        self._elections = [SimElection(server, self.link, n, candidate) for n in numbers]
        self._journals = [SimJournal(server, self.link, n) for n in numbers]

    def election(self, partition: int) -> "SimElection":
        return self._elections[partition]

    def journal(self, partition: int) -> "SimJournal":
        return self._journals[partition]

    def reader(self, partition: int) -> "SimJournal":
        return SimJournal(self._server, self.link, partition)

    async def space(self) -> Space | None:
        return None

    async def tidy(self) -> None:
        """Keeps nothing that is superseded."""

    async def register(
        self, candidate: Candidate, version: str, wall_ms: int, workers: int = 0
    ) -> None:
        member = Member(candidate=candidate, version=version, wall_ms=wall_ms, workers=workers)
        await self.link.resolve(
            "write a member key", lambda: self._server.put_member(member), mutates=False
        )

    async def members(self) -> list[Member]:
        return await self.link.resolve("list the masters", self._server.members, mutates=False)

    def crash(self) -> None:
        """The master is dead: nothing it asked for is answered. Its tasks must be cancelled."""
        self.link.crashed = True

    async def close(self) -> None:
        if not self.link.crashed:
            self._server.drop_member(self._incarnation)


class SimOffice:
    """An office that was won; see ``election.port.Office``."""

    def __init__(self, server: SimStoreServer, link: Link, partition: int, token: Token) -> None:
        self.token = token
        self.ttl_ms: int | None = server.office_ttl_ms
        self._server = server
        self._link = link
        self._partition = partition

    async def renew(self) -> None:
        # One try: the caller counts from when it called.
        try:
            await self._link.call(
                lambda: self._server.renew(self._partition, self.token), mutates=False
            )
        except _NoAnswer:
            raise unanswered("renew an office") from None

    async def verify(self) -> None:
        await self._link.resolve(
            "verify an office",
            lambda: self._server.guard(self._partition, self.token),
            mutates=False,
        )

    async def resign(self) -> None:
        await self._link.resolve(
            "resign", lambda: self._server.resign(self._partition, self.token), mutates=False
        )


class SimElection:
    """The election of one partition; see ``election.port.Election``."""

    def __init__(
        self, server: SimStoreServer, link: Link, partition: int, candidate: Candidate
    ) -> None:
        self._server = server
        self._link = link
        self._partition = partition
        self._candidate = candidate
        #: The campaign whose outcome is unknown; a new one gets a ballot of its own.
        self._ballot: int | None = None

    async def campaign(self) -> SimOffice | None:
        ballot = self._ballot = self._ballot or self._server.next_revision()
        token = await self._link.resolve(
            "campaign", lambda: self._server.win(self._partition, self._candidate, ballot)
        )
        self._ballot = None
        if token is None:
            return None
        return SimOffice(self._server, self._link, self._partition, token)

    async def leader(self) -> Leader | None:
        def read() -> Leader | None:
            office = self._server.office(self._partition)
            if office is None:
                return None
            return Leader(candidate=office.candidate, token=office.token)

        return await self._link.resolve("read who leads", read, mutates=False)

    async def vacancy(self, timeout_ms: int) -> None:
        clock = SimClock()
        deadline_ms = clock.boot_ms() + timeout_ms
        while clock.boot_ms() < deadline_ms:
            if not self._link.requests_cut and self._server.office(self._partition) is None:
                return
            await clock.sleep(min(_VACANCY_POLL_MS, deadline_ms - clock.boot_ms()))


class SimJournal:
    """One partition's journal; see ``journal.port.Journal``."""

    pipeline_depth = 4

    def __init__(self, server: SimStoreServer, link: Link, partition: int) -> None:
        self._server = server
        self._link = link
        self._partition = partition
        #: The snapshot that was last read or published here.
        self._known: str | None = None
        #: Appends under way by number; each event is set when its append has ended.
        self._appending: dict[int, asyncio.Event] = {}

    async def append(self, token: Token, batch: SealedBatch) -> None:
        ended = self._appending[batch.number] = asyncio.Event()
        action = f"append batch {batch.number}"
        try:
            while not await self._link.resolve(action, lambda: self._append(token, batch)):
                predecessor = self._appending.get(batch.number - 1)
                if predecessor is None:
                    raise unanswered(f"{action} after {batch.number - 1}")
                await predecessor.wait()
        finally:
            if self._appending.get(batch.number) is ended:
                del self._appending[batch.number]
            ended.set()

    async def read(self, first: int) -> AsyncIterator[SealedBatch]:
        number = first
        while page := await self._page(number):
            for found, data in page:
                if found != number:
                    raise self._gap(number, found)
                number += 1
                yield SealedBatch(number=found, data=data)

    async def last_number(self) -> int:
        return await self._link.resolve(
            "find the last batch", lambda: max(self._state.batches), mutates=False
        )

    async def write_slice(self, token: Token, snapshot_id: str, index: int, data: bytes) -> None:
        def write() -> None:
            state = self._server.guard(self._partition, token)
            self._server.demand_space()
            state.slices.setdefault(snapshot_id, {})[index] = data

        await self._link.resolve(f"write slice {index}", write)

    async def publish_snapshot(self, token: Token, snapshot_id: str, manifest: bytes) -> None:
        def publish() -> None:
            state = self._server.guard(self._partition, token)
            pointer = (snapshot_id, manifest)
            if state.pointer == pointer:
                return
            if (state.pointer and state.pointer[0]) != self._known:
                raise _lost(self._partition, token, "another published since it last looked")
            self._server.demand_space()
            state.pointer = pointer
            state.slices = {snapshot_id: state.slices.get(snapshot_id, {})}

        await self._link.resolve(f"publish snapshot {snapshot_id}", publish)
        self._known = snapshot_id

    async def load_snapshot(self) -> SnapshotRef | None:
        def load() -> tuple[str, SnapshotRef] | None:
            if self._state.pointer is None:
                return None
            name, manifest = self._state.pointer
            slices = [data for _, data in sorted(self._state.slices[name].items())]
            return name, SnapshotRef(manifest=manifest, slices=slices)

        found = await self._link.resolve("load the snapshot", load, mutates=False)
        self._known = None if found is None else found[0]
        return None if found is None else found[1]

    async def truncate(self, token: Token, before: int) -> int:
        deleted: list[int] = []

        def delete() -> None:
            state = self._server.guard(self._partition, token)
            last = max(state.batches)
            for number in [n for n in state.batches if n < before and n != last]:
                del state.batches[number]
                deleted.append(number)

        await self._link.resolve(f"truncate before batch {before}", delete)
        return len(deleted)

    async def halt(self, token: Token, record: HaltRecord) -> None:
        def write() -> None:
            state = self._server.guard(self._partition, token)
            self._server.demand_space()
            state.halted = record

        await self._link.resolve("halt the partition", write)

    async def halted(self) -> HaltRecord | None:
        return await self._link.resolve(
            "read the halt record", lambda: self._state.halted, mutates=False
        )

    async def mark_replay(self, token: Token, mark: ReplayMark | None) -> None:
        def write() -> None:
            state = self._server.guard(self._partition, token)
            if mark is not None:
                self._server.demand_space()
            state.mark = mark

        await self._link.resolve("mark the replay", write)

    async def replay_mark(self) -> ReplayMark | None:
        return await self._link.resolve(
            "read the replay's mark", lambda: self._state.mark, mutates=False
        )

    async def log_bytes(self) -> int:
        return sum(map(len, self._state.batches.values()))

    @property
    def _state(self) -> SimPartition:
        return self._server.partitions[self._partition]

    def _append(self, token: Token, batch: SealedBatch) -> bool:
        """The transaction; False: the predecessor is not there."""
        batches = self._state.batches
        if batches.get(batch.number) == batch.data:
            return True
        self._server.guard(self._partition, token)
        if batch.number in batches:
            raise _lost(self._partition, token, f"another batch {batch.number} was written")
        if batch.number - 1 not in batches:
            if max(batches) >= batch.number:
                raise self._gap(batch.number - 1, max(batches))
            return False
        self._server.demand_space()
        batches[batch.number] = batch.data
        return True

    async def _page(self, first: int) -> list[tuple[int, bytes]]:
        def page() -> list[tuple[int, bytes]]:
            batches = self._state.batches
            numbers = sorted(number for number in batches if number >= first)
            return [(number, batches[number]) for number in numbers[:_READ_BATCHES]]

        return await self._link.resolve("read the journal", page, mutates=False)

    def _gap(self, missing: int, found: int) -> CorruptJournal:
        return CorruptJournal(
            f"expected batch {missing} of partition {self._partition} in the journal, but it is"
            f" missing while batch {found} is there",
            reason=Reason.STORE_CORRUPT,
            metadata={"partition": str(self._partition), "batch": str(missing)},
        )


def _settle(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _settle_error(answer: asyncio.Future[T], error: TenureError) -> None:
    if not answer.done():
        answer.set_exception(error)


def _lost(partition: int, token: Token, why: str) -> OfficeLost:
    return OfficeLost(
        f"expected to hold the office of partition {partition} under {token}, but {why}",
        reason=Reason.FENCED,
        metadata={"partition": str(partition), "token": str(token)},
    )
