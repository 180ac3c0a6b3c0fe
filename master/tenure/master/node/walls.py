"""Compares clocks: this machine's wall clock with the other masters', and with the cluster's.

Nothing rests on a wall clock: terms run by CLOCK_BOOTTIME and start where the journal and most
masters are. But a master whose clock is wrong would be asked for `at` times and cron ticks by it if
it came to be alone, so an operator is told, and it prefers not to lead.
"""

from tenure.master.node.alarms import Alarms
from tenure.master.node.port import Clock
from tenure.master.node.roster import WALL_OFF_MS_MAX, Roster


class Walls:
    """One master's judgement of its own wall clock.

    Args:
        roster: Knows the others' wall clocks.
        clock: This machine's.
        alarms: Where a clock that is off is told of.
    """

    def __init__(self, roster: Roster, clock: Clock, alarms: Alarms) -> None:
        self._roster = roster
        self._clock = clock
        self._alarms = alarms

    @property
    def off(self) -> bool:
        """Whether this master had better not lead: its clock is not what the others' are."""
        return abs(self._roster.wall_off_ms()) > WALL_OFF_MS_MAX

    def look(self) -> None:
        """Compares with the other masters."""
        off_ms = self._roster.wall_off_ms()
        self._alarms.judge(
            "clock",
            f"this machine's clock is {_distance(off_ms)} the other masters'; set it right"
            " (docs/runbooks/clocks.md)"
            if abs(off_ms) > WALL_OFF_MS_MAX
            else None,
        )

    def compare(self, partition: int, term_ms: int) -> None:
        """Compares with the clock of a term that is led here, which began at the journal's end."""
        off_ms = self._clock.wall_ms() - term_ms
        self._alarms.judge(
            f"clock_of_partition_{partition}",
            f"this machine's clock is {_distance(off_ms)} the clock of partition {partition}, which"
            " its journal and most masters agree on (docs/runbooks/clocks.md)"
            if abs(off_ms) > WALL_OFF_MS_MAX
            else None,
        )

    def forget(self, partition: int) -> None:
        """The term has ended."""
        self._alarms.judge(f"clock_of_partition_{partition}", None)


def _distance(off_ms: int) -> str:
    return f"{abs(off_ms) / 1000:.1f} s {'ahead of' if off_ms > 0 else 'behind'}"
