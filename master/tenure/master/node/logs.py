"""StreamLogs: what a job's attempts have said, and what the running one says.

```
 ended attempts: what is kept ─► the running one: its worker's lines ─► it has ended: the rest of
                                    (nothing is asked of others)        what is kept ─► the next one
```
A reader is told no line twice: it stands behind one line, and all that comes is compared with that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tenure.master.core.record import JobRecord
from tenure.master.node.jobs import JobApi
from tenure.master.node.log_taps import LogTaps
from tenure.master.node.term import Term
from tenure.master.node.translate import log_lines
from tenure.protocol.vocabulary import TERMINAL, JobState
from tenure.v1 import common_pb2, jobs_pb2

#: How often a reader looks what has become of its job.
_LOOK_MS: Final = 200
#: How long the worker of a running job is waited for by who does not follow.
_ANSWER_MS: Final = 2_000
#: Lines of one message; each has 4 KiB at most.
_LINES_MAX: Final = 200

Send = Callable[[jobs_pb2.StreamLogsResponse], Awaitable[None]]


class LogApi:
    """What jobs have said, for clients.

    Args:
        jobs: Finds them.
        taps: Brings what running ones say.
    """

    def __init__(self, *, jobs: JobApi, taps: LogTaps) -> None:
        self._jobs = jobs
        self._taps = taps

    async def stream_logs(self, request: jobs_pb2.StreamLogsRequest, send: Send) -> None:
        """What a job's attempts have said."""
        term, read = self._jobs.reader(request.job_id)
        await _Reading(term, request, read=read, send=send, taps=self._taps).run()


class _Reading:
    """One reader of one job's logs.

    Args:
        term: Of the job's partition.
        request: What it wants.
        read: Reads the job's record as it has committed.
        send: Tells the reader.
        taps: Brings what running jobs say.
    """

    def __init__(
        self,
        term: Term,
        request: jobs_pb2.StreamLogsRequest,
        *,
        read: Callable[[], Awaitable[JobRecord]],
        send: Send,
        taps: LogTaps,
    ) -> None:
        self._term = term
        self._only = request.attempt
        self._follow = request.follow
        self._read = read
        self._send = send
        self._taps = taps
        after = request.after
        #: The attempt that it has come to, by run and number, and the last line known of it.
        self._place = (after.run, after.attempt)
        self._line = after.line

    async def run(self) -> None:
        """Tells all there is, and what comes.

        Raises:
            TenureError: The job is unknown, or the leader cannot go on.
        """
        while True:
            record = await self._read()
            await self._tell_kept(record)
            if self._is_over(record):
                break
            if record.state is JobState.RUNNING and self._wants(record.run, record.attempt):
                if not await self._tell_running(record):
                    break
            elif self._follow:
                await asyncio.sleep(_LOOK_MS / 1000)
            else:
                break
        await self._send(jobs_pb2.StreamLogsResponse(done=True))

    def _is_over(self, record: JobRecord) -> bool:
        """Whether nothing can come any more."""
        if record.state in TERMINAL:
            return True
        return bool(self._only) and self._only < record.attempt

    def _wants(self, run: int, attempt: int) -> bool:
        return not self._only or attempt == self._only

    async def _tell_kept(self, record: JobRecord) -> None:
        """What is kept of attempts that have ended."""
        logs = record.logs
        # Of an attempt that was judged before its worker's word came, that may not be durable yet.
        await self._term.readable(self._term.partition.next_seq - 1)
        for log in logs:
            newest = log.run == record.run or not self._only
            if newest and self._wants(log.run, log.attempt):
                await self._tell(log.run, log.attempt, log_lines(log.lines))

    async def _tell_running(self, record: JobRecord) -> bool:
        """What the running attempt says. False: that was all, for who does not follow."""
        lease, run, attempt = record.lease, record.run, record.attempt
        if lease is None:
            return self._follow
        line = self._line if self._place == (run, attempt) else 0
        waited_ms = 0
        with self._taps.reading(self._term, record.job_id, lease, line) as reader:
            while True:
                lines = await reader.next(_LOOK_MS / 1000)
                await self._tell(run, attempt, lines)
                if not self._follow:
                    waited_ms += _LOOK_MS
                    if reader.told or waited_ms >= _ANSWER_MS:
                        return False
                record = await self._read()
                if record.lease != lease or record.state is not JobState.RUNNING:
                    return True

    async def _tell(self, run: int, attempt: int, lines: Sequence[common_pb2.LogLine]) -> None:
        """Tells those lines of an attempt that are behind the place that was reached."""
        place = (run, attempt)
        if place < self._place:
            return
        known = self._line if place == self._place else 0
        new = [line for line in lines if line.number > known]
        for start in range(0, len(new), _LINES_MAX):
            some = new[start : start + _LINES_MAX]
            self._place, self._line = place, some[-1].number
            await self._send(jobs_pb2.StreamLogsResponse(run=run, attempt=attempt, lines=some))
