"""What one attempt says, in bounded memory: its beginning and its end, line by line.

```
 lines 1 to n, as long as they fit ─► the beginning, kept
 all that come later               ─► the end: the oldest make room
```
Lines are numbered as they come, so whoever reads sees from the numbers what was left out.
"""

import threading
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from tenure.protocol.limits import ATTEMPT_LOG_BYTES_MAX, CUT, LOG_LINE_BYTES_MAX
from tenure.protocol.text import cut
from tenure.protocol.vocabulary import LogStream
from tenure.v1 import common_pb2
from tenure.worker.executor.excerpt import HEAD_BYTES_MAX, LINE_BYTES, TAIL_BYTES_MAX

#: Lines that are begun and not ended; with more of them the oldest is as good as ended.
PARTS_MAX: Final = 16
#: Of what is kept when it has ended, so much is the beginning.
KEPT_HEAD_BYTES_MAX: Final = 4 * 1024
#: What a line takes beside its own bytes in a JobLog: its tag and its length.
_FIELD_BYTES: Final = 4


class Line(NamedTuple):
    """One line, as the contract has it."""

    number: int
    time_ms: int
    stream: LogStream
    level: int
    text: str

    def write(self, wire: common_pb2.LogLine) -> None:
        """Fills in a message."""
        wire.number, wire.time_ms = self.number, self.time_ms
        wire.stream = self.stream  # type: ignore[assignment]
        wire.level, wire.text = self.level, self.text


class AttemptLog:
    """The lines of one attempt. Thread-safe: a job may have many threads.

    Attributes:
        count: How many lines there were.
    """

    __slots__ = (
        "_head",
        "_head_room",
        "_lock",
        "_parts",
        "_sealed",
        "_tail",
        "_tail_room",
        "count",
    )

    def __init__(self) -> None:
        self.count = 0
        # Reentrant: what is collected as garbage here may have something to say.
        self._lock = threading.RLock()
        self._head: list[Line] = []
        self._head_room = HEAD_BYTES_MAX
        self._tail: deque[tuple[Line, int]] = deque()
        self._tail_room = TAIL_BYTES_MAX
        #: What was written without the end of its line, by stream and thread, and since when.
        self._parts: dict[tuple[LogStream, int], tuple[int, str]] = {}
        self._sealed: bytes | None = None

    def record(self, time_ms: int, level: int, text: str) -> None:
        """Takes a record of a logging library, whole."""
        with self._lock:
            self._add(time_ms, LogStream.LOGGING, level, text)

    def write(self, time_ms: int, stream: LogStream, text: str) -> None:
        """Takes what was written to a stream: lines, or parts of them."""
        *ended, rest = text.split("\n")
        # ``print`` writes its arguments one by one: two threads do not share a line.
        key = (stream, threading.get_ident())
        with self._lock:
            if self._sealed is not None:
                return
            for line in ended:
                begun_ms, begun = self._parts.pop(key, (time_ms, ""))
                self._add(begun_ms, stream, 0, begun + line)
            if rest:
                begun_ms, begun = self._parts.get(key, (time_ms, ""))
                # One character more than fits tells that it was cut.
                self._parts[key] = begun_ms, (begun + rest)[: LOG_LINE_BYTES_MAX + 1]
                if len(self._parts) > PARTS_MAX:
                    self._end_part(next(iter(self._parts)))

    def skip(self, stream: LogStream, lines: int) -> None:
        """Of what is written to a stream so many ends of lines are left out at this place."""
        key = (stream, threading.get_ident())
        with self._lock:
            if self._sealed is not None:
                return
            if key in self._parts:
                begun_ms, begun = self._parts[key]
                self._parts[key] = begun_ms, begun + CUT
                self._end_part(key)
                lines -= 1
            self.count += max(0, lines)

    def extend(self, lines: Iterable[Line]) -> None:
        """Takes what another log of the same attempt holds behind this one's last line."""
        with self._lock:
            for line in lines:
                if self._sealed is None and line.number > self.count:
                    self.count = line.number
                    self._keep(line)

    def end_lines(self) -> None:
        """What was written without the end of its line is a line now."""
        with self._lock:
            for key in [*self._parts]:
                self._end_part(key)

    def after(self, number: int) -> list[Line]:
        """The lines behind one that are still there."""
        with self._lock:
            lines = [line for line in self._head if line.number > number]
            lines += [line for line, _ in self._tail if line.number > number]
        return lines

    def seal(self) -> bytes:
        """Ends it: what is to be kept of it, a JobLog. Nothing is taken any more."""
        with self._lock:
            if self._sealed is None:
                self.end_lines()
                self._sealed = _kept(self.after(0))
                self._head.clear()
                self._tail.clear()
            return self._sealed

    def _end_part(self, key: tuple[LogStream, int]) -> None:
        """What was written is a line, although nobody has ended it."""
        begun_ms, begun = self._parts.pop(key)
        self._add(begun_ms, key[0], 0, begun)

    def _add(self, time_ms: int, stream: LogStream, level: int, text: str) -> None:
        if self._sealed is not None:
            return
        self.count += 1
        text = cut(text.rstrip("\r\n"), LOG_LINE_BYTES_MAX)
        self._keep(Line(self.count, time_ms, stream, level, text))

    def _keep(self, line: Line) -> None:
        size = len(line.text.encode()) + LINE_BYTES
        if size <= self._head_room:
            self._head_room -= size
            self._head.append(line)
            return
        # Shorter ones that come later are not for the beginning, either.
        self._head_room = 0
        self._tail.append((line, size))
        self._tail_room -= size
        while self._tail_room < 0:
            self._tail_room += self._tail.popleft()[1]


def _kept(lines: list[Line]) -> bytes:
    """The first and the last lines, as many as are kept."""
    wires = []
    for line in lines:
        wire = common_pb2.LogLine()
        line.write(wire)
        wires.append(wire)
    sizes = [wire.ByteSize() + _FIELD_BYTES for wire in wires]
    if sum(sizes) > ATTEMPT_LOG_BYTES_MAX:
        first, last = 0, len(wires)
        head, room = KEPT_HEAD_BYTES_MAX, ATTEMPT_LOG_BYTES_MAX
        while sizes[first] <= head:
            head -= sizes[first]
            room -= sizes[first]
            first += 1
        while last > first and sizes[last - 1] <= room:
            last -= 1
            room -= sizes[last]
        del wires[first:last]
    return common_pb2.JobLog(lines=wires).SerializeToString()
