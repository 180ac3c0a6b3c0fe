"""What a job's attempts have logged and printed, as an iterator of lines."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tenure.client.errors import invalid
from tenure.client.router import RESEND, Router
from tenure.protocol.errors import Unavailable
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import LogStream
from tenure.v1 import common_pb2, jobs_pb2

STREAM_LOGS: Final = "/tenure.v1.JobService/StreamLogs"
#: What the contract has room for.
_ATTEMPT_MAX: Final = 2**32 - 1
_STREAMS: Final[dict[int, str]] = {
    LogStream.LOGGING: "log",
    LogStream.STDOUT: "stdout",
    LogStream.STDERR: "stderr",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One thing that an attempt of a job has said.

    Attributes:
        time: When, by its worker's clock.
        stream: ``log`` (a record of ``logging``), ``stdout`` or ``stderr``.
        level: Of a record, ``INFO`` and the like; empty of what was printed.
        text: A printed line, or a record's message with its traceback. What is longer than 4 KiB
            is cut and ends in ``[cut]``.
        attempt: Of which attempt of its run, from 1 on.
        run: Of which run: 0, then one more with each requeue.
        number: 1 for its attempt's first line.
        skipped: How many lines right before it were left out: of a long log the beginning and the
            end are kept.
    """

    time: datetime
    stream: str
    level: str
    text: str
    attempt: int
    run: int
    number: int
    skipped: int = 0


class _Place:
    """How far a reader has come. Leaves out what a new stream tells again."""

    def __init__(self, after: LogLine | None) -> None:
        self._run: int = -1 if after is None else after.run
        self._attempt: int = 0 if after is None else after.attempt
        self._number: int = 0 if after is None else after.number

    def mark(self, request: jobs_pb2.StreamLogsRequest) -> None:
        """Asks for what comes behind."""
        if self._run >= 0:
            request.after.run, request.after.attempt = self._run, self._attempt
            request.after.line = self._number

    def take(self, answer: jobs_pb2.StreamLogsResponse) -> list[LogLine]:
        """What is new in an answer."""
        place = (answer.run, answer.attempt)
        if place < (self._run, self._attempt):
            return []
        if place != (self._run, self._attempt):
            self._run, self._attempt, self._number = answer.run, answer.attempt, 0
        lines: list[LogLine] = []
        for wire in answer.lines:
            if wire.number > self._number:
                lines.append(_line(answer, wire, wire.number - self._number - 1))
                self._number = wire.number
        return lines


def _line(answer: jobs_pb2.StreamLogsResponse, wire: common_pb2.LogLine, skipped: int) -> LogLine:
    return LogLine(
        time=datetime.fromtimestamp(wire.time_ms / 1000, UTC),
        # A stream that this release does not know is shown as what most are.
        stream=_STREAMS.get(wire.stream, "log"),
        level=logging.getLevelName(wire.level) if wire.level else "",
        text=wire.text,
        attempt=answer.attempt,
        run=answer.run,
        number=wire.number,
        skipped=skipped,
    )


async def read_logs(
    router: Router,
    job_id: str,
    *,
    follow: bool,
    attempt: int | None,
    after: LogLine | None,
    timeout_s: float,
) -> AsyncGenerator[LogLine, None]:
    """One job's lines, each once, through failovers.

    Args:
        router: Finds leaders; the topology must be known.
        job_id: The job.
        follow: Go on until the job has ended.
        attempt: Only this one of the newest run; None: all.
        after: Begin behind this line.
        timeout_s: Who does not follow gives up when no leader has answered for so long.

    Raises:
        Rejected: NOT_FOUND, or RESULT_EXPIRED after the job's retention.
        Unavailable: No leader can be reached, or TOO_MANY_LOG_READERS.
    """
    if attempt is not None and not 1 <= attempt <= _ATTEMPT_MAX:
        raise invalid("attempt", f"from 1 on, got {attempt}")
    home = router.topology.home_of_id(job_id)
    place, failures = _Place(after), 0
    clock = asyncio.get_running_loop().time
    silent_s = clock()
    while True:
        address = ""
        try:
            address = await router.leader(home)
            stream = router.transport.stream(address, STREAM_LOGS, jobs_pb2.StreamLogsResponse)
            try:
                request = jobs_pb2.StreamLogsRequest(
                    job_id=job_id, follow=follow, attempt=attempt or 0
                )
                place.mark(request)
                await stream.send(request)
                await stream.close_sending()
                async for answer in stream:
                    router.answered(home, address)
                    failures, silent_s = 0, clock()
                    for line in place.take(answer):
                        yield line
                    if answer.done:
                        return
            finally:
                stream.cancel()
            raise Unavailable(
                f"expected all that job {job_id} has said, but the answer ended early",
                reason=Reason.UNREACHABLE,
            )
        except Unavailable as error:
            if error.reason not in RESEND or (not follow and clock() - silent_s >= timeout_s):
                raise
            router.lost(home, address, error)
            failures += 1
        await asyncio.sleep(router.topology.backoff_s(failures))
