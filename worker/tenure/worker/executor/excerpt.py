"""Of what is written to a stream its first and its last lines, in bounded memory.

```
 all bytes as they come: [ first 16 KiB | ....left out, their lines counted.... | last 48 KiB ]
```
The bounds are those of an attempt's log, too (``attempt_log``), lines that are empty included: of
what comes at one time it would hold no more.
"""

from typing import Final

HEAD_BYTES_MAX: Final = 16 * 1024
TAIL_BYTES_MAX: Final = 48 * 1024
#: What a log takes for a line besides its text, so that many empty ones are many bytes, too.
LINE_BYTES: Final = 64
HEAD_LINES_MAX: Final = HEAD_BYTES_MAX // LINE_BYTES
TAIL_LINES_MAX: Final = TAIL_BYTES_MAX // LINE_BYTES


class Excerpt:
    """What was written since the last ``take``. Bytes are looked at in bulk only."""

    __slots__ = ("_has_gap", "_head", "_lines", "_tail")

    def __init__(self) -> None:
        self._head = self._tail = b""
        #: Whether something was left out between the two, and how many lines have ended in all.
        self._has_gap, self._lines = False, 0

    def __bool__(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._head)

    def add(self, data: bytes) -> None:
        """Takes what was written next."""
        self._lines += data.count(b"\n")
        room = HEAD_BYTES_MAX - len(self._head)
        if room:
            self._head += data[:room]
            data = data[room:]
        tail = self._tail + data
        if len(tail) > TAIL_BYTES_MAX:
            least = len(tail) - TAIL_BYTES_MAX
            # From the beginning of a line on, if there is one.
            tail = tail[tail.find(b"\n", least) + 1 or least :]
            self._has_gap = True
        self._tail = tail

    def take(self) -> list[tuple[int | None, bytes]]:
        """All that is here: parts in order, each with how many ends of lines are missing before it.

        None: nothing is missing there.
        """
        whole = self._head + self._tail
        head, tail = (self._head, self._tail) if self._has_gap else (whole, whole)
        parts: list[tuple[int | None, bytes]] = [(None, whole)]
        if self._has_gap or whole.count(b"\n") > HEAD_LINES_MAX + TAIL_LINES_MAX:
            end, begin = _behind_first(head, HEAD_LINES_MAX), _before_last(tail, TAIL_LINES_MAX)
            lines = self._lines - head.count(b"\n", 0, end) - tail.count(b"\n", begin)
            parts = [(None, head[:end]), (lines, tail[begin:])]
        self._head = self._tail = b""
        self._has_gap, self._lines = False, 0
        return parts


def _behind_first(data: bytes, lines: int) -> int:
    """Where the first so many lines end."""
    parts = data.split(b"\n", lines)
    return len(data) if len(parts) <= lines else len(data) - len(parts[-1])


def _before_last(data: bytes, lines: int) -> int:
    """Where the last so many lines begin, one without an end not counted."""
    parts = data.rsplit(b"\n", lines + 1)
    return 0 if len(parts) <= lines + 1 else len(parts[0]) + 1
