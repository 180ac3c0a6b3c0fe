"""What waits for a term's owner loop, in order and bounded."""

from collections import deque
from collections.abc import Callable
from typing import Final

from tenure.master.core.command import (
    CloseSession,
    Command,
    DrainSession,
    MarkSession,
    OpenSession,
    UndrainSession,
)
from tenure.master.core.effect import Reply
from tenure.protocol.errors import TenureError

#: Gets a command's reply, or the error that it ended in.
Answer = Callable[[Reply | TenureError], None]

#: Posted commands kept, as while frozen; more are refused.
_COMMANDS_MAX: Final = 10_000
#: Payloads and results kept with them; a few hundred full batches.
_BYTES_MAX: Final = 64 * 1024 * 1024
#: Nobody says these a second time; there are as many as streams come and go.
_NEVER_REFUSED: Final = frozenset(
    {OpenSession, CloseSession, DrainSession, UndrainSession, MarkSession}
)


def ignore(_: Reply | TenureError) -> None:
    """For commands whose effects are their answer."""


class Inbox:
    """Commands with who waits for their answers."""

    def __init__(self) -> None:
        self._entries: deque[tuple[Command, Answer, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, command: Command, answer: Answer, size: int) -> bool:
        """Adds a command of so many bytes at the end; False: there is no room for it."""
        full = len(self._entries) >= _COMMANDS_MAX or self._bytes + size > _BYTES_MAX
        if full and type(command) not in _NEVER_REFUSED:
            return False
        self._entries.append((command, answer, size))
        self._bytes += size
        return True

    def put_first(self, command: Command) -> None:
        """Adds a command of the term's own before all that waits."""
        self._entries.appendleft((command, ignore, 0))

    def take(self) -> tuple[Command, Answer]:
        """The next command and its answer."""
        command, answer, size = self._entries.popleft()
        self._bytes -= size
        return command, answer

    def refuse(self, error: TenureError) -> None:
        """Ends everything that waits."""
        while self._entries:
            self.take()[1](error)

    def refuse_asked(self, error: TenureError) -> None:
        """Ends what somebody waits for an answer to; the rest stays, in order."""
        for _ in range(len(self._entries)):
            command, answer, size = self._entries.popleft()
            if answer is ignore:
                self._entries.append((command, answer, size))
            else:
                self._bytes -= size
                answer(error)
