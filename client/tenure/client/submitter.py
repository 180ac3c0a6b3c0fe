"""Concurrent submits become batches by themselves, and are sent again until their fate is known.

What waits while a request is on its way goes next, so one caller pays no delay and a thousand
callers share a request. An id is minted when its row is first sent and never changes once a leader
may have seen it: the same id is the same job, so sending again is safe.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from tenure.client.lane import Lane
from tenure.client.router import RESEND, Router
from tenure.client.scope import TaskScope
from tenure.client.topology import CLUSTER_TIME, Rng
from tenure.protocol import limits
from tenure.protocol.errors import TenureError, error_of, refusal_from_wire
from tenure.protocol.ids import mint
from tenure.protocol.refusal import Reason, Refusal
from tenure.v1 import common_pb2, jobs_pb2

#: Requests on their way at once; beyond the first only well-filled ones are sent.
IN_FLIGHT_MAX: Final = 4
PIPELINED_ROWS_MIN: Final = 256
PIPELINED_BYTES_MIN: Final = 64 * 1024
#: Rows that may wait in one lane before callers wait themselves.
ROWS_WAITING_MAX: Final = 20_000
#: A request without an answer for so long has met a leader that is stuck.
ACK_TIMEOUT_S: Final = 10.0
#: An id, its framing and the option's index.
ROW_OVERHEAD_BYTES: Final = 56
#: How often a row may get a new id because the clocks disagree.
REMINTS_MAX: Final = 3

_WRONG_TIME: Final = (Reason.REQUEST_TOO_OLD, Reason.ID_FROM_FUTURE)


class Ack:
    """What a caller waits for: all rows of one call."""

    __slots__ = ("future", "remaining")

    def __init__(self, future: asyncio.Future[None], remaining: int) -> None:
        self.future = future
        self.remaining = remaining


class Row:
    """One job on its way in.

    Attributes:
        options: Shared by all rows of the same definition; told apart by identity.
        payload: The arguments.
        key: Idempotency key, or empty.
        job_id: Empty until first sent; in the end the id of the job that exists.
        refusal: Why it was refused, in the end.
    """

    __slots__ = (
        "ack",
        "deadline_s",
        "done",
        "job_id",
        "key",
        "options",
        "payload",
        "refusal",
        "remints",
        "unanswered",
    )

    def __init__(self, options: common_pb2.JobOptions, payload: bytes, key: str) -> None:
        self.options = options
        self.payload = payload
        self.key = key
        self.job_id = ""
        self.refusal: Refusal | None = None
        self.done = False
        #: It was sent and the answer never came: a leader may have it.
        self.unanswered = False
        self.remints = 0
        self.deadline_s = 0.0
        self.ack: Ack | None = None

    def finish(self) -> None:
        """Its fate is known."""
        if self.done:
            return
        self.done = True
        ack = self.ack
        if ack is not None:
            ack.remaining -= 1
            if not ack.remaining and not ack.future.done():
                ack.future.set_result(None)

    def refuse(self, refusal: Refusal) -> None:
        """It is not accepted, or nobody knows."""
        if not self.done:
            self.refusal = refusal
            self.finish()

    @property
    def abandoned(self) -> bool:
        """Nobody waits any more."""
        return self.done or (self.ack is not None and self.ack.future.cancelled())


class _Flight:
    """One request on its way."""

    __slots__ = ("rows", "sent_s")

    def __init__(self, rows: list[Row], sent_s: float) -> None:
        self.rows = rows
        self.sent_s = sent_s


class SubmitLane(Lane[jobs_pb2.StreamSubmitsResponse]):
    """The submits of one partition."""

    method = "/tenure.v1.JobService/StreamSubmits"
    response_type = jobs_pb2.StreamSubmitsResponse

    def __init__(self, router: Router, partition: int, rng: Rng) -> None:
        super().__init__(router, partition)
        self._rng = rng
        self._waiting: deque[Row] = deque()
        self._waiting_bytes = 0
        self._flights: dict[int, _Flight] = {}
        self._number = 0
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, rows: Iterable[Row]) -> None:
        """Queues rows; waits while too many wait already."""
        for row in rows:
            while len(self._waiting) >= ROWS_WAITING_MAX:
                self._room.clear()
                self.wake()
                await self._room.wait()
            self._waiting.append(row)
            self._waiting_bytes += len(row.payload) + ROW_OVERHEAD_BYTES
        self.wake()

    def has_work(self) -> bool:
        return bool(self._waiting or self._flights)

    def take(self) -> jobs_pb2.StreamSubmitsRequest | None:
        if not self._waiting or len(self._flights) >= IN_FLIGHT_MAX:
            return None
        filled = (
            len(self._waiting) >= PIPELINED_ROWS_MIN or self._waiting_bytes >= PIPELINED_BYTES_MIN
        )
        if self._flights and not filled:
            return None
        self._number += 1
        message = jobs_pb2.StreamSubmitsRequest(number=self._number)
        rows = self._fill(message.request)
        if not rows:
            return None
        self._flights[self._number] = _Flight(rows, self._loop.time())
        if len(self._waiting) < ROWS_WAITING_MAX:
            self._room.set()
        return message

    def _fill(self, request: jobs_pb2.SubmitJobsRequest) -> list[Row]:
        """Moves rows from the queue into a request, up to its limits."""
        waiting = self._waiting
        rows: list[Row] = []
        # The messages live in the rows for as long as the table does, so no id is used twice.
        table: dict[int, int] = {}
        add = request.jobs.add
        size = 0
        now_ms = self.router.topology.cluster_ms(self._loop.time())
        while waiting and len(rows) < limits.BATCH_JOBS_MAX:
            row = waiting[0]
            row_bytes = len(row.payload) + ROW_OVERHEAD_BYTES
            grows = row_bytes + (3 * len(row.key) if row.key else 0)
            index = table.get(id(row.options))
            if index is None:
                grows += row.options.ByteSize()
            if rows and size + grows > limits.BATCH_BYTES_MAX:
                break
            waiting.popleft()
            self._waiting_bytes -= row_bytes
            if row.abandoned:
                continue
            if index is None:
                index = table[id(row.options)] = len(table)
                request.options.append(row.options)
            if not row.job_id:
                row.job_id = mint(self.partition, now_ms, self._rng.getrandbits(62))
            size += grows
            rows.append(row)
            # In place: a message built apart would be copied.
            spec = add()
            spec.job_id = row.job_id
            spec.options = index
            spec.payload = row.payload
            if row.key:
                spec.key = row.key
        return rows

    def receive(self, message: jobs_pb2.StreamSubmitsResponse) -> None:
        flight = self._flights.pop(message.number, None)
        if flight is None:
            return
        if message.WhichOneof("outcome") == "refusal":
            self._refused(flight.rows, refusal_from_wire(message.refusal))
            return
        response = message.response
        if not response.errors:
            for row, job_id in zip(flight.rows, response.job_ids, strict=True):
                row.job_id = job_id
                row.finish()
            return
        refused = {error.index: error.refusal for error in response.errors}
        again: list[Row] = []
        moved: Refusal | None = None
        for index, row in enumerate(flight.rows):
            if index not in refused:
                row.job_id = response.job_ids[index]
                row.finish()
                continue
            refusal = refusal_from_wire(refused[index])
            if refusal.reason in RESEND:
                moved = refusal
                row.unanswered |= refusal.reason is Reason.OUTCOME_UNKNOWN
                again.append(row)
            elif self._gets_new_id(row, refusal):
                again.append(row)
            else:
                row.refuse(refusal)
        self._put_back(again)
        if moved is not None:
            raise error_of(moved)

    def _refused(self, rows: list[Row], refusal: Refusal) -> None:
        """A whole request was refused."""
        if refusal.reason in RESEND:
            for row in rows:
                row.unanswered |= refusal.reason is Reason.OUTCOME_UNKNOWN
            self._put_back(rows)
            raise error_of(refusal)
        again = [row for row in rows if self._gets_new_id(row, refusal)]
        kept = set(map(id, again))
        for row in rows:
            if id(row) not in kept:
                row.refuse(refusal)
        self._put_back(again)

    def _gets_new_id(self, row: Row, refusal: Refusal) -> bool:
        """Whether the row may go again under an id minted by the leader's clock.

        Only an id that no leader can have accepted may be replaced: after an unanswered send the
        job may exist, and a second id would be a second job.
        """
        if refusal.reason not in _WRONG_TIME:
            return False
        leader_ms = refusal.metadata.get(CLUSTER_TIME, "")
        if leader_ms.isdecimal():
            self.router.topology.clock_seen(int(leader_ms), self._loop.time())
        if row.unanswered or row.remints >= REMINTS_MAX:
            return False
        row.job_id = ""
        row.remints += 1
        return True

    def broken(self) -> None:
        rows = [row for flight in self._flights.values() for row in flight.rows]
        self._flights.clear()
        for row in rows:
            row.unanswered = True
        self._put_back(rows)

    def _put_back(self, rows: Sequence[Row]) -> None:
        """Rows to be sent again go first, in their order."""
        kept = [row for row in rows if not row.abandoned]
        self._waiting.extendleft(reversed(kept))
        self._waiting_bytes += sum(len(row.payload) + ROW_OVERHEAD_BYTES for row in kept)

    def fail(self, error: TenureError) -> None:
        rows = [row for flight in self._flights.values() for row in flight.rows]
        rows += self._waiting
        self._flights.clear()
        self._waiting.clear()
        self._waiting_bytes = 0
        self._room.set()
        for row in rows:
            row.refuse(error.to_refusal() if not row.unanswered else _unknown(row))

    def overdue(self, now_s: float) -> bool:
        while self._waiting and self._waiting[0].deadline_s <= now_s:
            row = self._waiting.popleft()
            self._waiting_bytes -= len(row.payload) + ROW_OVERHEAD_BYTES
            row.refuse(_unknown(row) if row.unanswered else _unreached(row))
        stalled = False
        for flight in self._flights.values():
            stalled |= flight.sent_s + ACK_TIMEOUT_S <= now_s
            if flight.rows[0].deadline_s <= now_s:
                for row in flight.rows:
                    if row.deadline_s <= now_s:
                        row.refuse(_unknown(row))
        if len(self._waiting) < ROWS_WAITING_MAX:
            self._room.set()
        return stalled


class Submitter:
    """Hands rows to the lane of their partition."""

    def __init__(self, router: Router, scope: TaskScope, rng: Rng, timeout_s: float) -> None:
        """Args:
        router: Finds leaders.
        scope: Runs the lanes.
        rng: For job ids.
        timeout_s: How long a submit may take, failovers included.
        """
        self._router = router
        self._scope = scope
        self._rng = rng
        self._timeout_s = timeout_s
        self._lanes: dict[int, SubmitLane] = {}
        self._loop = asyncio.get_running_loop()

    async def submit(self, rows: Sequence[Row]) -> None:
        """Returns when the fate of every row is known: each has a job's id or a refusal.

        Rows of one partition are accepted in their order. Being cancelled withdraws what was not
        sent yet; the rest may or may not be accepted.
        """
        if not rows:
            return
        if not self._router.topology.partitions:
            await self._router.ready(self._timeout_s)
        ack = Ack(self._loop.create_future(), len(rows))
        deadline = self._loop.time() + self._timeout_s
        home = self._router.topology.home
        by_partition: dict[int, list[Row]] = {}
        for row in rows:
            row.ack = ack
            row.deadline_s = deadline
            partition = home(row.options.tenant, row.options.queue)
            by_partition.setdefault(partition, []).append(row)
        try:
            for partition, some in by_partition.items():
                await self._lane(partition).put(some)
            await ack.future
        except asyncio.CancelledError:
            ack.future.cancel()
            raise

    def _lane(self, partition: int) -> SubmitLane:
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = SubmitLane(self._router, partition, self._rng)
            self._scope.spawn(lane.run())
        return lane


def _unknown(row: Row) -> Refusal:
    return Refusal(
        reason=Reason.OUTCOME_UNKNOWN,
        message=(
            f"expected an answer for job {row.job_id}, but none came in time; it may have been "
            "accepted: ask for its state before submitting again"
        ),
        metadata={"job_id": row.job_id},
    )


def _unreached(row: Row) -> Refusal:
    name = row.options.name
    return Refusal(
        reason=Reason.UNREACHABLE,
        message=f"expected to submit {name}, but no leader took it in time; nothing was accepted",
        metadata={"job": name},
    )
