"""How masters share partitions out, and how they come back to it: one gentle hand-over at a time.

```
 a master joins or returns ──► shares unchanged for 6 s ───► the first misplaced partition's leader
                                     ▲                         hands over: TermClosed, resign
                                     └───── all have leaders for 2 s ◄──┘
```
All masters see the same members, so all come to the same shares, and to the same partition that is
next. Only who is to lead it is asked, whether it is there: its key tells of it for 10 s after its
death, and the others would leave it the office for 3 s. Whoever sees anything amiss does nothing.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tenure.master.node.port import Clock
from tenure.master.node.roster import Roster

_log = logging.getLogger(__name__)

_LOOK_MS: Final = 500
#: A master that comes and goes again moves nothing, nor do workers that dial all masters anew: each
#: master's key says so at another moment.
_SHARES_CALM_MS: Final = 6_000
#: Between two hand-overs: workers and clients have followed.
_LEADERS_CALM_MS: Final = 2_000
#: A master's key outlives it by up to 10 s, and its offices by up to 6: who takes those must not
#: hand them to the dead. All renew their keys within 3 s, and read the others' as often.
_SILENT_MS_MAX: Final = 5_000
#: Who should lead a partition gets it when it has replayed it; or then, if that takes longer.
_UNREADY_MS_MAX: Final = 30_000
#: A partition that did not stay where it was handed is tried again later and later.
_AGAIN_MS: Final = 5_000
_AGAIN_MS_MAX: Final = 300_000


@dataclass(slots=True)
class _Trial:
    """Hand-overs of one partition by this master."""

    next_ms: int
    wait_ms: int


class Balancer:
    """Hands over what others should lead, while the cluster is well.

    Args:
        roster: Members and leaders.
        clock: The machine's clocks.
        well: Whether nothing is amiss with this master and its store.
        answers: Whether the master of a name answers now.
        hand_over: Starts the hand-over of a partition; False: not now.
    """

    def __init__(
        self,
        roster: Roster,
        clock: Clock,
        *,
        well: Callable[[], bool],
        answers: Callable[[str], Awaitable[bool]],
        hand_over: Callable[[int], bool],
    ) -> None:
        self._roster = roster
        self._clock = clock
        self._well = well
        self._answers = answers
        self._hand_over = hand_over
        #: The members, and who should lead each partition.
        self._shares: tuple[Sequence[str], Sequence[str]] = ((), ())
        self._shares_since_ms = 0
        self._leaders: Sequence[str | None] = ()
        self._leaders_since_ms = 0
        self._trials: dict[int, _Trial] = {}

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            await self._clock.sleep(_LOOK_MS)
            await self.run_once(self._clock.boot_ms())

    async def run_once(self, now_ms: int) -> int | None:
        """One look. Returns the partition that is being handed over now."""
        roster = self._roster
        members = sorted(member.candidate.incarnation for member in roster.members)
        shares = (members, roster.shares())
        if shares != self._shares:
            self._shares, self._shares_since_ms = shares, now_ms
        leaders = [roster.leader_name(number) for number in range(roster.partitions)]
        if leaders != self._leaders:
            self._leaders, self._leaders_since_ms = leaders, now_ms
        calm = (
            self._well()
            and roster.silent_ms() <= _SILENT_MS_MAX
            and now_ms - self._shares_since_ms >= _SHARES_CALM_MS
            and now_ms - self._leaders_since_ms >= _LEADERS_CALM_MS
        )
        return await self._move(now_ms) if calm else None

    async def _move(self, now_ms: int) -> int | None:
        """Hands the first misplaced partition over, if it is led here."""
        roster = self._roster
        _, wanted = self._shares
        for number, leader in enumerate(self._leaders):
            if number in roster.halted:
                continue
            if leader is None:
                return None
            if leader != wanted[number]:
                mine = leader == roster.me.name and number in roster.terms
                ready = mine and self._is_ready(number, now_ms)
                return number if ready and await self._try(number, now_ms) else None
        return None

    def _is_ready(self, number: int, now_ms: int) -> bool:
        """Whether the partition's next leader could lead it at once, or had time to get there."""
        if self._roster.is_ready(self._shares[1][number], number):
            return True
        since_ms = max(self._shares_since_ms, self._leaders_since_ms)
        return now_ms - since_ms >= _UNREADY_MS_MAX

    async def _try(self, number: int, now_ms: int) -> bool:
        trial = self._trials.setdefault(number, _Trial(0, _AGAIN_MS))
        heir = self._shares[1][number]
        if now_ms < trial.next_ms or not await self._answers(heir) or not self._hand_over(number):
            return False
        if now_ms - trial.next_ms > _AGAIN_MS_MAX:
            trial.wait_ms = _AGAIN_MS
        trial.next_ms = now_ms + trial.wait_ms
        trial.wait_ms = min(2 * trial.wait_ms, _AGAIN_MS_MAX)
        _log.info(
            "Handing over to %s, so that the masters share the partitions",
            heir,
            extra={"action": "balance", "partition": number},
        )
        return True
