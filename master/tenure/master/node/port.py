"""What the node needs from outside besides stores: time and chance."""

from typing import Protocol


class Clock(Protocol):
    """Time. Both clocks are integers in milliseconds."""

    def boot_ms(self) -> int:
        """CLOCK_BOOTTIME: never jumps, counts suspends."""

    def wall_ms(self) -> int:
        """UTC since the Unix epoch; may jump."""

    async def sleep(self, ms: int) -> None:
        """Sleeps on the boot clock."""


class Rng(Protocol):
    """Randomness (``random.Random`` fits)."""

    def random(self) -> float:
        """Uniform in [0, 1)."""

    def getrandbits(self, k: int, /) -> int:
        """k random bits."""
