"""Who reads what running jobs say, and which workers are asked for it.

A worker sends a job's lines only while somebody reads them. Each reader asks for all behind the
last line that it knows; what comes is given to all readers of the job, and each takes what follows
on what it has. So nothing is kept here, and what a slow reader misses it asks for again.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tenure.master.node.hub import WorkerHub
from tenure.master.node.link import WorkerLink, lease_of, lease_ref
from tenure.master.node.term import Term
from tenure.protocol.errors import Unavailable
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Reason
from tenure.v1 import common_pb2, worker_pb2

#: Readers of running jobs that a master has at one time.
READERS_MAX: Final = 100
#: Lines that wait for one reader; those beyond are asked for again.
_WAITING_MAX: Final = 4_000
_RETRY_MS: Final = 5_000

#: Partition, job, lease.
_Key = tuple[int, str, Lease]


class LogReader:
    """Somebody who reads what a job says under one lease.

    Attributes:
        line: The last line that is known.
        told: The worker has answered.
    """

    def __init__(self, taps: "LogTaps", term: Term, job_id: JobId, lease: Lease, line: int) -> None:
        self.line = line
        self.told = False
        self._taps = taps
        self._term = term
        self._job_id = job_id
        self._lease = lease
        #: The stream over which the job's lines were asked for; None: they were not.
        self._asked: int | None = None
        self._chunks: deque[worker_pb2.LogChunk] = deque()
        self._waiting = 0
        self._news = asyncio.Event()

    @property
    def key(self) -> _Key:
        """What it reads."""
        return self._term.number, self._job_id, self._lease

    async def next(self, timeout_s: float) -> list[common_pb2.LogLine]:
        """The lines that follow, as soon as there are some, or none when the time is over."""
        self._ask()
        if not self._chunks:
            self._news.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                return []
        lines: list[common_pb2.LogLine] = []
        while self._chunks:
            chunk = self._chunks.popleft()
            self._waiting -= len(chunk.lines)
            if chunk.after > self.line:
                # Another reader knew more than this one, whose own answer is to come.
                continue
            self.told = True
            for line in chunk.lines:
                if line.number > self.line:
                    self.line = line.number
                    lines.append(line)
        return lines

    def take(self, chunk: worker_pb2.LogChunk) -> None:
        """The worker has said something."""
        if self._waiting + len(chunk.lines) > _WAITING_MAX and self._chunks:
            # Too slow: it asks again, for what the worker has then.
            self._chunks.clear()
            self._waiting = 0
            self._asked = None
        else:
            self._chunks.append(chunk)
            self._waiting += len(chunk.lines)
        self._news.set()

    def _ask(self) -> None:
        """Asks the job's worker, unless it was asked over the stream that it has now."""
        session_id = self._term.partition.session_of(self._job_id)
        if session_id is not None and session_id != self._asked:
            self._asked = session_id
            self._taps.wish(self._term, self._job_id, self._lease, session_id, self.line)

    def stop(self) -> None:
        """The worker need not say more: nobody else reads the job."""
        if self._asked is not None:
            self._taps.wish(self._term, self._job_id, self._lease, self._asked, None)


class LogTaps:
    """The readers of one master."""

    def __init__(self, hub: WorkerHub) -> None:
        self._hub = hub
        self._readers: dict[_Key, list[LogReader]] = {}
        self._count = 0

    @contextmanager
    def reading(self, term: Term, job_id: JobId, lease: Lease, line: int) -> Iterator[LogReader]:
        """Somebody reads a running job behind a line, for as long as the block lasts.

        Raises:
            Unavailable: TOO_MANY_LOG_READERS.
        """
        if self._count >= READERS_MAX:
            raise Unavailable(
                f"expected at most {READERS_MAX} readers of running jobs' logs at one time; try "
                "again later, or read the job's log when it has ended",
                reason=Reason.TOO_MANY_LOG_READERS,
                metadata={"limit": str(READERS_MAX)},
                retry_after_ms=_RETRY_MS,
            )
        reader = LogReader(self, term, job_id, lease, line)
        self._count += 1
        self._readers.setdefault(reader.key, []).append(reader)
        try:
            yield reader
        finally:
            self._count -= 1
            left = self._readers[reader.key]
            left.remove(reader)
            if not left:
                del self._readers[reader.key]
                reader.stop()

    def take(self, term: Term, update: worker_pb2.PartitionUpdate) -> None:
        """A worker has said what jobs say."""
        for chunk in update.logs:
            lease = lease_of(chunk.lease, term.token)
            for reader in self._readers.get((term.number, chunk.lease.job_id, lease), ()):
                reader.take(chunk)

    def wish(
        self, term: Term, job_id: JobId, lease: Lease, session_id: int, after: int | None
    ) -> None:
        """Asks a worker for all behind a line; None: for no more."""
        link: WorkerLink | None = self._hub.get(session_id)
        if link is None:
            return
        wish = link.instruction(term.number, term.token).logs.add()
        lease_ref(wish.lease, job_id, lease, term.token)
        if after is None:
            wish.stop = True
        else:
            wish.after = after
