"""What waits for a term's owner loop, in order and bounded."""

from collections import deque
from collections.abc import Callable
from typing import Final

from tenure.master.core.command import CloseSession, Command, OpenSession
from tenure.master.core.effect import Reply
from tenure.protocol.errors import TenureError

#: Gets a command's reply, or the error that it ended in.
Answer = Callable[[Reply | TenureError], None]

#: Posted commands kept while frozen; more are refused.
_COMMANDS_MAX: Final = 10_000
#: Nobody says these a second time; there are as many as streams come and go.
_NEVER_REFUSED: Final = frozenset({OpenSession, CloseSession})


def ignore(_: Reply | TenureError) -> None:
    """For commands whose effects are their answer."""


class Inbox:
    """Commands with who waits for their answers."""

    def __init__(self) -> None:
        self._entries: deque[tuple[Command, Answer]] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, command: Command, answer: Answer) -> bool:
        """Adds a command at the end; False: there is no room for it."""
        if len(self._entries) >= _COMMANDS_MAX and type(command) not in _NEVER_REFUSED:
            return False
        self._entries.append((command, answer))
        return True

    def put_first(self, command: Command) -> None:
        """Adds a command of the term's own before all that waits."""
        self._entries.appendleft((command, ignore))

    def take(self) -> tuple[Command, Answer]:
        """The next command and its answer."""
        return self._entries.popleft()

    def refuse(self, error: TenureError) -> None:
        """Ends everything that waits."""
        while self._entries:
            self.take()[1](error)

    def refuse_asked(self, error: TenureError) -> None:
        """Ends what somebody waits for an answer to; the rest stays, in order."""
        for _ in range(len(self._entries)):
            entry = self._entries.popleft()
            if entry[1] is ignore:
                self._entries.append(entry)
            else:
                entry[1](error)
