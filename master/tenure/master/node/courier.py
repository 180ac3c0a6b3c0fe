"""The courier: brings one partition's messages to the leaders of others, and crosses them off.

```
 outbox ──what has committed──► one request at a time for each target ──► its leader
    ▲                                      │ no answer, or no leader: the same again, later
    └── TrimOutbox ◄── taken_number ───────┘
```
It remembers nothing that the outbox does not: a successor begins with the oldest message again, and
the target knows by the numbers what it has taken.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from tenure.master.core.command import TrimOutbox
from tenure.master.core.effect import Deliver
from tenure.master.core.outbox import Numbered, payload_bytes
from tenure.master.node.partitions import MESSAGES_MAX, request_of, take
from tenure.master.node.port import Clock, Peers, Rng
from tenure.master.node.roster import Roster
from tenure.master.node.term import Term
from tenure.protocol.errors import LEADER_METADATA, TenureError
from tenure.v1 import partition_pb2

_log = logging.getLogger(__name__)

_METHOD: Final = "/tenure.v1.PartitionService/Deliver"
_BYTES_MAX: Final = 1024 * 1024
_TIMEOUT_S: Final = 5.0
_BACKOFF_MS: Final = 50
_BACKOFF_MS_MAX: Final = 2_000
#: Leaders that others named, followed one after the other.
_HINTS: Final = 2


class Courier:
    """Delivers the outbox of one term.

    Args:
        term: The term; it has begun, so all that its outbox holds has committed.
        roster: Who leads what.
        peers: Reaches other masters.
        clock: For pauses between tries.
        rng: Their jitter.
    """

    def __init__(self, *, term: Term, roster: Roster, peers: Peers, clock: Clock, rng: Rng) -> None:
        self._term = term
        self._roster = roster
        self._peers = peers
        self._clock = clock
        self._rng = rng
        #: By target: what has committed, and what is known to have been taken there.
        self._upto = term.partition.outbox_targets()
        self._taken: dict[int, int] = {}
        self._changed = asyncio.Event()
        self._wakes: dict[int, asyncio.Event] = {}
        term.deliver = self.notify
        self._changed.set()

    def notify(self, effect: Deliver) -> None:
        """More messages for a target have committed."""
        self._upto[effect.target] = effect.upto
        wake = self._wakes.get(effect.target)
        if wake is None:
            self._changed.set()
        else:
            wake.set()

    async def run(self) -> None:
        """Delivers until cancelled."""
        async with asyncio.TaskGroup() as rounds:
            while True:
                await self._changed.wait()
                self._changed.clear()
                for target in self._upto:
                    if target not in self._wakes:
                        self._wakes[target] = asyncio.Event()
                        rounds.create_task(self._serve(target))

    async def _serve(self, target: int) -> None:
        wake, failures = self._wakes[target], 0
        while True:
            rows = self._next(target)
            if not rows:
                await wake.wait()
                wake.clear()
                continue
            try:
                taken = await self._hand_over(target, rows)
            except TenureError as error:
                self._note(target, failures, error)
                failures += 1
                await self._clock.sleep(self._pause_ms(failures))
            else:
                failures = 0
                self._taken[target] = taken
                self._term.post(TrimOutbox(target=target, upto=taken))

    def _next(self, target: int) -> list[Numbered]:
        """The oldest messages that may leave, as many as go into one request."""
        after, upto = self._taken.get(target, 0), self._upto[target]
        rows: list[Numbered] = []
        size = 0
        for row in self._term.partition.outbox_after(target, after, MESSAGES_MAX):
            size += payload_bytes(row.message)
            if row.number > upto or (rows and size > _BYTES_MAX):
                break
            rows.append(row)
        return rows

    async def _hand_over(self, target: int, rows: Sequence[Numbered]) -> int:
        """Gives messages to whoever leads the target; returns how far they were taken."""
        term, roster = self._term, self._roster
        here = roster.terms.get(target)
        if here is not None:
            return await take(roster.term(target), term.number, term.token, rows)
        leader = roster.leaders.get(target)
        if leader is None or leader.candidate == roster.me:
            raise roster.not_leader(target)
        request = request_of(term.number, target, term.token, rows)
        address = leader.candidate.address
        for _ in range(_HINTS):
            try:
                return await self._send(address, request)
            except TenureError as error:
                hint = error.metadata.get(LEADER_METADATA)
                if not hint or hint in (address, roster.me.address):
                    raise
                address = hint
        return await self._send(address, request)

    async def _send(self, address: str, request: partition_pb2.DeliverRequest) -> int:
        response = await self._peers.unary(
            address, _METHOD, request, partition_pb2.DeliverResponse, _TIMEOUT_S
        )
        return response.taken_number

    def _pause_ms(self, failures: int) -> int:
        """Full jitter over a doubling span, so that many partitions do not ask in step."""
        span_ms = min(_BACKOFF_MS_MAX, _BACKOFF_MS << min(failures, 10))
        return 1 + int(span_ms * self._rng.random())

    def _note(self, target: int, failures: int, error: TenureError) -> None:
        # The first and then ever fewer: a partition may be without a leader for long.
        if failures & (failures - 1) == 0:
            _log.info(
                "Cannot deliver to partition %d: %s",
                target,
                error,
                extra={"action": "deliver", "partition": self._term.number},
            )
