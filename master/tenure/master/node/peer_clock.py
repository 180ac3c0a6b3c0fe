"""What a master knows of another one's clocks: bounds that no delay can falsify.

A member key says what its master's wall clock showed when it was written; nobody knows how long
that was on its way. So a reading is no value but two bounds, both by the reader's boot clock:

1. *At least*: the wall has gone on since it was written, so now it shows no less.
2. *At most*: the key also says what its writer had last heard of the reader's boot clock. The wall
   was written after that, so when the reader's boot clock showed it, the wall showed no more.

That is the exchange of four stamps of NTP (RFC 5905, section 8), with the store as the network. All
readings hold at once, so the highest lower and the lowest upper bound count; a delay only widens
them. Who has not heard of the reader yet gives no upper bound. (A release that says nothing of boot
clocks never does: its key is taken to be no older than it commonly can be.)

A wall within the bounds is as right as the other one, as far as anybody can tell. So what counts of
the other clock is the point within its bounds that is nearest to the reader's own: it lies between
the two clocks, whatever the delays.
"""

from collections import deque
from typing import Final, NamedTuple

from tenure.master.election.port import Member

#: What a member key is old at most, unless etcd was away: twice its time to live, since etcd lets a
#: lease live anew when its leader changes.
KEY_AGE_MS_MAX: Final = 20_000
#: Who lives has read our key by then, and we have read its answer, if the store is well.
_ANSWERED_MS: Final = 6_000
#: So many readings count, unless they contradict newer ones: then the wall has jumped.
_READINGS: Final = 8


class _Reading(NamedTuple):
    """How far a wall clock is ahead of this machine's boot clock."""

    least_ms: int
    most_ms: int | None


class PeerClock:
    """One other master's clocks, as this one knows them.

    Args:
        me: This master's incarnation.
        boot_ms: This machine's boot clock when the two met.
    """

    def __init__(self, me: str, boot_ms: int) -> None:
        self._me = me
        self._met_ms = boot_ms
        self._readings: deque[_Reading] = deque(maxlen=_READINGS)
        #: How far its boot clock is ahead of this machine's, at least.
        self._boot_leads_ms: deque[int] = deque(maxlen=_READINGS)
        self._last: tuple[int, int | None] | None = None

    @property
    def readings(self) -> int:
        """How many there are; of one alone nobody knows how old it was."""
        return len(self._readings)

    def read(self, member: Member, boot_ms: int) -> None:
        """Takes what a member key says.

        Args:
            member: The key.
            boot_ms: This machine's boot clock after the key was read.
        """
        said = member.wall_ms, member.boot_ms
        if said == self._last:
            return
        self._last = said
        heard_ms = member.heard_ms.get(self._me)
        least_ms = member.wall_ms - boot_ms
        # Clocks drift: a bound may be beyond the other one by a hair.
        most_ms = None if heard_ms is None else max(least_ms, member.wall_ms - heard_ms)
        self._readings.append(_Reading(least_ms, most_ms))
        if member.boot_ms is not None:
            self._boot_leads_ms.append(member.boot_ms - boot_ms)

    def silent_ms(self, boot_ms: int) -> int:
        """How long ago the newest key was written, at least; 0 if it does not say."""
        if self._last is None or self._last[1] is None:
            return 0
        return boot_ms + max(self._boot_leads_ms) - self._last[1]

    def boot_ms(self, boot_ms: int) -> int | None:
        """What its boot clock shows at least; None: it has not said."""
        leads_ms = self._boot_leads_ms
        return boot_ms + max(leads_ms) if leads_ms else None

    def doubts(self, wall_ms: int, boot_ms: int) -> bool:
        """Whether this machine's wall is ahead, or the key very old: an answer may tell soon."""
        least_ms, most_ms = self._bounds()
        if most_ms is not None or boot_ms >= self._met_ms + _ANSWERED_MS:
            return False
        return wall_ms > boot_ms + least_ms + KEY_AGE_MS_MAX

    def nearest_ms(self, wall_ms: int, boot_ms: int) -> int:
        """Of all that its wall clock may show now, what is nearest to this machine's.

        Args:
            wall_ms: This machine's wall clock.
            boot_ms: This machine's boot clock, read with it.
        """
        least_ms, most_ms = self._bounds()
        if most_ms is not None:
            wall_ms = min(boot_ms + most_ms, wall_ms)
        return max(boot_ms + least_ms, wall_ms)

    def _bounds(self) -> tuple[int, int | None]:
        least_ms, most_ms = self._readings[-1]
        for reading in reversed(self._readings):
            higher_ms = max(least_ms, reading.least_ms)
            ends_ms = [end for end in (most_ms, reading.most_ms) if end is not None]
            lower_ms = min(ends_ms, default=None)
            if lower_ms is not None and higher_ms > lower_ms:
                # The wall has jumped since: older readings are of another clock.
                break
            least_ms, most_ms = higher_ms, lower_ms
        if most_ms is None and not self._boot_leads_ms:
            most_ms = least_ms + KEY_AGE_MS_MAX
        return least_ms, most_ms
