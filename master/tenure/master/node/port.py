"""What the node needs from outside besides stores: time, chance and other masters."""

from typing import Protocol, TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


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


class Peers(Protocol):
    """Other masters."""

    async def unary(
        self, address: str, method: str, request: Message, response_type: type[M], timeout_s: float
    ) -> M:
        """One call.

        Args:
            address: ``HOST:PORT``.
            method: For example ``"/tenure.v1.PartitionService/Deliver"``.
            request: The message.
            response_type: Class of the answer.
            timeout_s: Deadline of the call.

        Raises:
            TenureError: What the master refused, or Unavailable when it cannot be reached.
        """
        ...
