"""Which running jobs of a partition somebody reads, and what is to be sent of their logs.

Nothing is sent of the others. A wish is answered at once with all that there is; from then on a job
says what is new a few times a second at most, and the rest just before its report.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from tenure.v1 import worker_pb2
from tenure.worker.held import HeldJob

#: A job's lines are sent this often at most.
PAUSE_MS: Final = 200
#: Text of one envelope; the rest goes with the next one.
CHUNK_BYTES_MAX: Final = 128 * 1024
#: Jobs of one partition that are read at one time; wishes beyond them are not heard.
TAPS_MAX: Final = 256


class _Tap(msgspec.Struct, gc=False, eq=False):
    """A job that somebody reads, from one line on."""

    job: HeldJob
    after: int
    #: Whether an answer is owed, even if there is nothing to say.
    asked: bool = True


class LogTaps:
    """The jobs of one partition that are read.

    Attributes:
        due: There is something to send.
    """

    def __init__(self) -> None:
        self.due = False
        #: By their keys, as the partition has them.
        self._taps: dict[int, _Tap] = {}
        self._sent_ms = 0

    def __len__(self) -> int:
        return len(self._taps)

    def wish(self, key: int, job: HeldJob | None, wish: worker_pb2.LogWish) -> None:
        """Somebody begins to read a job, perhaps anew, or nobody does any more."""
        if wish.stop or job is None:
            self._taps.pop(key, None)
            return
        tap = self._taps.get(key)
        if tap is not None:
            tap.after, tap.asked = min(tap.after, wish.after), True
        elif len(self._taps) < TAPS_MAX:
            self._taps[key] = _Tap(job, wish.after)
        self.due = True

    def clear(self) -> None:
        """Another master leads: it has wishes of its own."""
        self._taps.clear()
        self.due = False

    def tick(self, now_ms: int) -> None:
        """Lets what was said meanwhile be sent, if the last time is long enough ago."""
        if self._taps and now_ms - self._sent_ms >= PAUSE_MS:
            self.due = self.due or any(_has_news(tap) for tap in self._taps.values())

    def fill(
        self,
        add: Callable[[], worker_pb2.LogChunk],
        refer: Callable[[worker_pb2.LeaseRef, HeldJob], object],
        now_ms: int,
    ) -> int:
        """Writes what is due, and the rest of what jobs have said that have ended.

        Args:
            add: Adds a chunk to the message.
            refer: Fills in a lease.
            now_ms: The time.

        Returns:
            About how large it is.
        """
        due, self.due = self.due, False
        if due:
            self._sent_ms = now_ms
        size = 0
        for key, tap in list(self._taps.items()):
            ended = tap.job.result is not None
            if tap.asked or ended or (due and _has_news(tap)):
                if size >= CHUNK_BYTES_MAX:
                    self.due = True
                    break
                chunk = add()
                refer(chunk.lease, tap.job)
                size += _write(chunk, tap)
            if ended:
                del self._taps[key]
        return size


def _has_news(tap: _Tap) -> bool:
    log = tap.job.log
    return log is not None and log.count > tap.after


def _write(chunk: worker_pb2.LogChunk, tap: _Tap) -> int:
    """All that a job has said behind the last line that was sent; about how large it is."""
    chunk.after = tap.after
    tap.asked = False
    log, size = tap.job.log, 0
    for line in () if log is None else log.after(tap.after):
        line.write(chunk.lines.add())
        tap.after = line.number
        size += len(line.text)
    return size
