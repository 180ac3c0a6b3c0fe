"""The outbox: messages for other partitions, and how far those of other partitions were taken.

```
 source's core                      courier                      target's core
 OutboxAppended ──commit──► sends from the oldest one on ──► number ≤ mark? ──yes─► nothing
      ▲                                │    ▲                     │ no
 OutboxTrimmed ◄──── taken_number ─────┘    └─ again, if not      ▼
                                               answered      events, then InboxTaken ──commit──► ack
```
Both ends are journaled. A message is appended with the events that called for it and leaves only
when they have committed; it is sent until the target has said that it has committed its effect.
What comes twice is known by its number. So it is taken exactly once, whichever side dies when.

Numbers rise along one (source, target) and begin at the epoch of the term's token: in a cluster
that was restored from a backup they are higher than any that was given before.
"""

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from tenure.master.core.message import Message, SubmitFrom
from tenure.protocol.fence import NO_TOKEN, Token

#: Numbers of one epoch. Epochs are 1, or the seconds at which the cluster was set back: 32 bits. So
#: numbers have 63, what a journal and a message can carry, and one epoch's reach those of the next
#: second's after 2^31 messages a second. Once they had 40 bits and began higher: a line that is
#: there goes on where it is.
_EPOCH_BITS: Final = 31
#: Messages that may wait for one target; what is more waits in what it was derived from.
MESSAGES_MAX: Final = 10_000
#: Payloads that may wait with them: above this nothing is added.
BYTES_MAX: Final = 64 * 1024 * 1024


class Numbered(NamedTuple):
    """A message and its number."""

    number: int
    message: Message


def payload_bytes(message: Message) -> int:
    """What a message weighs beyond its ids and numbers."""
    return len(message.payload) if isinstance(message, SubmitFrom) else 0


class _Line:
    """The messages for one target that it is not known to have taken."""

    __slots__ = ("bytes", "messages", "next_number")

    def __init__(self) -> None:
        self.messages: deque[Numbered] = deque()
        #: Their payloads.
        self.bytes = 0
        #: Of the next message, unless the epoch has risen.
        self.next_number = 1

    def add(self, row: Numbered) -> None:
        self.messages.append(row)
        self.bytes += payload_bytes(row.message)
        self.next_number = max(self.next_number, row.number + 1)


class Mark(NamedTuple):
    """How far a source's messages were taken, and the newest token that they came with."""

    number: int
    token: Token


_NO_MARK: Final = Mark(0, NO_TOKEN)


class Outbox:
    """All messages of one partition on their way to others; persistent."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}

    def next_number(self, target: int, token: Token) -> int:
        """The number that the next message for a target gets in a term."""
        line = self._lines.get(target)
        return max(1 if line is None else line.next_number, (token.epoch << _EPOCH_BITS) + 1)

    def room(self, target: int) -> int:
        """How many more messages for a target may wait."""
        line = self._lines.get(target)
        if line is None:
            return MESSAGES_MAX
        return 0 if line.bytes >= BYTES_MAX else max(0, MESSAGES_MAX - len(line.messages))

    def extend(self, target: int, first_number: int, messages: list[Message]) -> None:
        """Adds messages with contiguous numbers; those that are there already are passed over."""
        line = self._line(target)
        for number, message in enumerate(messages, first_number):
            if number >= line.next_number:
                line.add(Numbered(number, message))

    def trim(self, target: int, upto: int) -> None:
        """Forgets messages that were taken."""
        line = self._line(target)
        while line.messages and line.messages[0].number <= upto:
            line.bytes -= payload_bytes(line.messages.popleft().message)

    def targets(self) -> list[int]:
        """Partitions for which messages wait."""
        return [target for target, line in self._lines.items() if line.messages]

    def waiting(self, target: int, after: int, count: int) -> list[Numbered]:
        """The oldest messages for a target with numbers above ``after``."""
        line = self._lines.get(target)
        if line is None:
            return []
        # Those up to `after` were taken, and their trim is on its way: few.
        return list(islice((row for row in line.messages if row.number > after), count))

    def last_number(self, target: int) -> int:
        """The number of the newest message for a target; 0: there never was one."""
        line = self._lines.get(target)
        return 0 if line is None else line.next_number - 1

    def lines(self) -> Iterator[tuple[int, int, list[Numbered]]]:
        """(target, next number, what waits) for each target that there ever was, in order."""
        for target, line in sorted(self._lines.items()):
            yield target, line.next_number, list(line.messages)

    def load(self, target: int, next_number: int, messages: list[Numbered]) -> None:
        """Takes over a part of a line from a snapshot; the parts come in order."""
        line = self._line(target)
        for row in messages:
            line.add(row)
        line.next_number = max(line.next_number, next_number)

    def _line(self, target: int) -> _Line:
        line = self._lines.get(target)
        if line is None:
            line = self._lines[target] = _Line()
        return line


class InboxMarks:
    """How far the messages of each source were taken; persistent."""

    def __init__(self) -> None:
        self._marks: dict[int, Mark] = {}

    def get(self, source: int) -> Mark:
        """A source's mark."""
        return self._marks.get(source, _NO_MARK)

    def raise_to(self, source: int, number: int, token: Token) -> None:
        """Notes what was taken; a mark never falls."""
        known = self.get(source)
        self._marks[source] = Mark(max(known.number, number), max(known.token, token))

    def rows(self) -> list[tuple[int, Mark]]:
        """All marks, by source."""
        return sorted(self._marks.items())
