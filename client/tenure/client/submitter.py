"""Concurrent submits become batches by themselves, and are sent again until their fate is known.

What waits while a request is on its way goes next, so one caller pays no delay and a thousand
callers share a request. An id is minted when its row is first sent and never changes once a leader
may have seen it: the same id is the same job, so sending again is safe.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from tenure.client.errors import invalid
from tenure.client.lane import Lane, closed
from tenure.client.router import RESEND, Router
from tenure.client.row import Call, Load, Member, Row
from tenure.client.scope import TaskScope
from tenure.client.topology import CLUSTER_TIME, Rng
from tenure.protocol import limits
from tenure.protocol.errors import (
    WAITED_FOR_METADATA,
    TenureError,
    error_of,
    refusal_from_wire,
)
from tenure.protocol.ids import mint_many, partition_of
from tenure.protocol.refusal import Reason, Refusal
from tenure.v1 import common_pb2, jobs_pb2

#: Requests on their way at once; beyond the first only well-filled ones are sent.
IN_FLIGHT_MAX: Final = 4
PIPELINED_ROWS_MIN: Final = 256
PIPELINED_BYTES_MIN: Final = 64 * 1024
#: A request without an answer for so long has met a leader that is stuck.
ACK_TIMEOUT_S: Final = 10.0
#: How often a row may get a new id because the clocks disagree.
REMINTS_MAX: Final = 3

_WRONG_TIME: Final = (Reason.REQUEST_TOO_OLD, Reason.ID_FROM_FUTURE)


class _Flight(NamedTuple):
    """One request on its way."""

    rows: list[Row]
    sent_s: float


class _Late(NamedTuple):
    """Rows of a request that are not acknowledged yet, and the ids of their jobs, by index."""

    rows: dict[int, tuple[Row, str]]
    sent_s: float


class SubmitLane(Lane[jobs_pb2.StreamSubmitsResponse]):
    """The submits of one partition: one queue, in the order of the calls and of their deadlines.

    Its length needs no limit of its own. A row's caller holds the row for as long as it waits, and
    is woken by nothing but the row's fate; what a caller has withdrawn is not kept.
    """

    method = "/tenure.v1.JobService/StreamSubmits"
    response_type = jobs_pb2.StreamSubmitsResponse

    def __init__(self, router: Router, partition: int, rng: Rng) -> None:
        super().__init__(router, partition)
        self._rng = rng
        self._waiting: deque[Row] = deque()
        self._waiting_bytes = 0
        #: Rows withdrawn since those that wait were last looked through.
        self._withdrawn = 0
        self._flights: dict[int, _Flight] = {}
        #: What was answered in part: it holds up nothing that comes after it.
        self._late: dict[int, _Late] = {}
        self._number = 0

    def put(self, rows: Sequence[Row]) -> None:
        """Queues rows behind those that wait."""
        if self.over:
            for row in rows:
                row.refuse(closed().to_refusal())
            return
        self._waiting.extend(rows)
        self._waiting_bytes += _payload_bytes(rows)
        self.wake()

    def withdraw(self, call: Call) -> None:
        """Sends no more of a call's rows: nobody waits for it any more."""
        call.answered.cancel()
        self._withdrawn += call.open_rows
        # Looking for each call's rows would be quadratic. Once half of what waits may be such rows,
        # one look costs no more than they did.
        if 2 * self._withdrawn > len(self._waiting):
            self._withdrawn = 0
            self._waiting = deque([row for row in self._waiting if not row.abandoned])
            self._waiting_bytes = _payload_bytes(self._waiting)

    def has_work(self) -> bool:
        return bool(self._waiting or self._flights or self._late)

    def take(self) -> jobs_pb2.StreamSubmitsRequest | None:
        if not self._waiting or len(self._flights) >= IN_FLIGHT_MAX:
            return None
        filled = (
            len(self._waiting) >= PIPELINED_ROWS_MIN or self._waiting_bytes >= PIPELINED_BYTES_MIN
        )
        if self._flights and not filled and self._waiting[0].call.whole is None:
            return None
        rows = self._next_rows()
        if not rows:
            return None
        self._number += 1
        message = jobs_pb2.StreamSubmitsRequest(number=self._number, in_parts=True)
        message.request.all_or_nothing = rows[0].call.whole is not None
        self._fill(message.request, rows)
        self._flights[self._number] = _Flight(rows, self._loop.time())
        return message

    def _next_rows(self) -> list[Row]:
        """Takes rows off the queue, as many as one request may carry, and none beside a whole."""
        waiting = self._waiting
        rows: list[Row] = []
        load = Load()
        call: Call | None = None
        abandoned = False
        while waiting:
            row = waiting[0]
            own = row.call
            if own is not call:
                if rows and own.whole is not rows[0].call.whole:
                    break
                call = own
                abandoned = own.answered.cancelled()
            if not abandoned:
                fits = load.add(row, own.options, own.key, own.parents)
                # A whole was measured when it was put in: it is never parted.
                if not fits and rows and own.whole is None:
                    break
                rows.append(row)
            waiting.popleft()
            self._waiting_bytes -= len(row.payload)
        return rows

    def _fill(self, request: jobs_pb2.SubmitJobsRequest, rows: Sequence[Row]) -> None:
        """Writes rows into a request; those that have no id get one."""
        fresh = [row for row in rows if not row.job_id]
        now_ms = self.router.topology.cluster_ms(self._loop.time())
        ids = mint_many(self.partition, now_ms, len(fresh), self._rng.getrandbits)
        for row, job_id in zip(fresh, ids, strict=True):
            row.job_id = job_id
        # The messages live in the rows for as long as the table does, so no id is used twice.
        table: dict[int, int] = {}
        add = request.jobs.add
        call: Call | None = None
        index, key = 0, ""
        parents: Sequence[str] = ()
        for row in rows:
            if row.call is not call:
                call = row.call
                key, parents = call.key, call.parents
                index = table.setdefault(id(call.options), len(table))
                if index == len(request.options):
                    request.options.append(call.options)
            # In place, and only what differs from a new message: that is the cheapest way.
            spec = add()
            spec.job_id = row.job_id
            spec.payload = row.payload
            if index:
                spec.options = index
            if key:
                spec.key = key
            if row.limit_key:
                spec.limit_key = row.limit_key
            if row.sticky_key:
                spec.sticky_key = row.sticky_key
            if parents:
                spec.parents.extend(parents)
            if row.parents:
                spec.parents.extend(row.parents)
            if row.workflow_id:
                spec.workflow_id = row.workflow_id

    def receive(self, message: jobs_pb2.StreamSubmitsResponse) -> None:
        outcome = message.WhichOneof("outcome")
        if outcome == "late":
            self._told_late(message.number, message.late.jobs)
            return
        flight = self._flights.pop(message.number, None)
        if flight is None:
            return
        if outcome == "refusal":
            self._refused(flight.rows, refusal_from_wire(message.refusal))
            return
        response = message.response
        if not response.errors and not response.late:
            for row, job_id in zip(flight.rows, response.job_ids, strict=True):
                row.accept(job_id)
            return
        late = {index: (flight.rows[index], response.job_ids[index]) for index in response.late}
        if late:
            self._late[message.number] = _Late(late, flight.sent_s)
        refused = {error.index: error.refusal for error in response.errors}
        again: list[Row] = []
        moved: Refusal | None = None
        for index, row in enumerate(flight.rows):
            if index in late:
                continue
            if index not in refused:
                row.accept(response.job_ids[index])
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

    def _told_late(self, number: int, jobs: Iterable[jobs_pb2.LateJob]) -> None:
        """Some rows of a request that was answered in part are accepted or refused now."""
        late = self._late.get(number)
        if late is None:
            return
        again: list[Row] = []
        for job in jobs:
            row, job_id = late.rows.pop(job.index)
            if not job.HasField("refusal"):
                row.accept(job_id)
                continue
            refusal = refusal_from_wire(job.refusal)
            if refusal.reason in RESEND:
                # The leader is well: it is a parent's partition that is silent.
                row.unanswered |= refusal.reason is Reason.OUTCOME_UNKNOWN
                again.append(row)
            else:
                row.refuse(refusal)
        if not late.rows:
            del self._late[number]
        self._put_back(again)

    def _refused(self, rows: list[Row], refusal: Refusal) -> None:
        """A whole request was refused."""
        if refusal.reason in RESEND:
            for row in rows:
                row.unanswered |= refusal.reason is Reason.OUTCOME_UNKNOWN
            self._put_back(rows)
            if WAITED_FOR_METADATA in refusal.metadata:
                # The leader is well, and has taken its time: others' requests are on this stream.
                return
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
        rows = [row for late in self._late.values() for row, _ in late.rows.values()]
        rows += [row for flight in self._flights.values() for row in flight.rows]
        self._late.clear()
        self._flights.clear()
        for row in rows:
            row.unanswered = True
        self._put_back(rows)

    def _put_back(self, rows: Sequence[Row]) -> None:
        """Rows to be sent again go first, in their order."""
        kept = [row for row in rows if not row.abandoned]
        self._waiting.extendleft(reversed(kept))
        self._waiting_bytes += _payload_bytes(kept)

    def fail(self, error: TenureError) -> None:
        # What is on its way may be accepted yet.
        self.broken()
        rows = [*self._waiting]
        self._waiting.clear()
        self._waiting_bytes = 0
        for row in rows:
            row.refuse(error.to_refusal() if not row.unanswered else _unknown(row))

    def overdue(self, now_s: float) -> bool:
        while self._waiting and self._waiting[0].call.deadline_s <= now_s:
            row = self._waiting.popleft()
            self._waiting_bytes -= len(row.payload)
            row.refuse(_unknown(row) if row.unanswered else _unreached(row))
        stalled = False
        for flight in self._flights.values():
            stalled |= flight.sent_s + ACK_TIMEOUT_S <= now_s
            if flight.rows[0].call.deadline_s <= now_s:
                for row in flight.rows:
                    if row.call.deadline_s <= now_s:
                        row.refuse(_unknown(row))
        for late in self._late.values():
            stalled |= late.sent_s + ACK_TIMEOUT_S <= now_s
            for row, _ in late.rows.values():
                if row.call.deadline_s <= now_s:
                    row.refuse(_unknown(row))
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

    async def submit(
        self,
        options: common_pb2.JobOptions,
        key: str,
        payloads: Sequence[bytes],
        row_keys: Sequence[tuple[str, str]] = (),
        parents: Sequence[str] = (),
        row_parents: Sequence[Sequence[str]] = (),
        *,
        whole: bool = False,
    ) -> Sequence[Row]:
        """Returns when the fate of every row is known: each has a job's id or a refusal.

        Rows are accepted in their order. Being cancelled withdraws what was not sent yet; the rest
        may or may not be accepted.

        Args:
            options: Of all rows; shared, never changed.
            key: Idempotency key of all rows, or empty.
            payloads: The arguments, one for each row.
            row_keys: Limit key and sticky key of each row; empty: none has any.
            parents: Jobs that must have ended before any of the rows may run.
            row_parents: The same of each row; empty: none has any of its own.
            whole: Whether all rows are taken or none.

        Raises:
            Rejected: More rows than can be taken as a whole.
        """
        if not payloads:
            return []
        topology = self._router.topology
        if not topology.partitions:
            await self._router.ready(self._timeout_s)
        deadline_s = self._loop.time() + self._timeout_s
        answered = self._loop.create_future()
        group = object() if whole else None
        call = Call(options, key, deadline_s, answered, len(payloads), parents, group)
        if row_keys:
            each = zip(payloads, row_keys, strict=True)
            rows = [Row(call, payload, limit, sticky) for payload, (limit, sticky) in each]
        else:
            rows = [Row(call, payload) for payload in payloads]
        for row, own in zip(rows, row_parents, strict=False):
            row.parents = own
        if whole:
            _check_whole(rows)
        lane = self._lane(topology.home(options.tenant, options.queue))
        lane.put(rows)
        try:
            await call.answered
        except asyncio.CancelledError:
            lane.withdraw(call)
            raise
        return rows

    async def submit_members(self, members: Iterable[Member]) -> Sequence[Row]:
        """Submits jobs that have their ids, and name each other as parents; parents come first.

        The rest as ``submit``. A partition is asked for a parent elsewhere, so that must be there
        before: what waits for one goes in a later wave.
        """
        waves: list[dict[int, list[Row]]] = []
        wave_of: dict[str, int] = {}
        rows: list[Row] = []
        for member in members:
            home = partition_of(member.job_id)
            wave = 0
            for parent in member.parents:
                if parent in wave_of:
                    wave = max(wave, wave_of[parent] + (partition_of(parent) != home))
            wave_of[member.job_id] = wave
            while len(waves) <= wave:
                waves.append({})
            rows.append(self._add(member, waves[wave].setdefault(home, []), None))
        for lanes in waves:
            await self._send_wave(lanes)
        return rows

    async def submit_whole(self, members: Sequence[Member]) -> Sequence[Row]:
        """Submits jobs of one partition that have their ids: all of them or none.

        The rest as ``submit``.

        Raises:
            Rejected: They are more than can be taken as a whole; nothing was sent.
        """
        if not members:
            return []
        rows: list[Row] = []
        whole = object()
        for member in members:
            self._add(member, rows, whole)
        _check_whole(rows)
        await self._send_wave({partition_of(members[0].job_id): rows})
        return rows

    def _add(self, member: Member, rows: list[Row], whole: object | None) -> Row:
        """Appends a job to the rows of its lane; neighbours with the same options share a call."""
        call = rows[-1].call if rows else None
        if call is None or call.options is not member.options:
            answered = self._loop.create_future()
            call = Call(member.options, "", 0, answered, 0, whole=whole)
        row = Row(
            call,
            member.payload,
            member.limit_key,
            member.sticky_key,
            member.job_id,
            # Others name it by its id: it gets no other.
            remints=REMINTS_MAX,
            parents=member.parents,
            workflow_id=member.workflow_id,
        )
        call.open_rows += 1
        rows.append(row)
        return row

    async def _send_wave(self, lanes: Mapping[int, Sequence[Row]]) -> None:
        """Returns when the fate of all of these rows is known."""
        calls: dict[Call, SubmitLane] = {}
        deadline_s = self._loop.time() + self._timeout_s
        for home, rows in lanes.items():
            lane = self._lane(home)
            for row in rows:
                row.call.deadline_s = deadline_s
                calls[row.call] = lane
            lane.put(rows)
        try:
            for call in calls:
                await call.answered
        except asyncio.CancelledError:
            for call, lane in calls.items():
                lane.withdraw(call)
            raise

    def _lane(self, partition: int) -> SubmitLane:
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = SubmitLane(self._router, partition, self._rng)
            self._scope.spawn(lane.run())
        return lane


def _check_whole(rows: Sequence[Row]) -> None:
    """Refuses what no request can carry: it cannot be split.

    Raises:
        Rejected: There are too many rows or bytes; ``field`` is ``calls``.
    """
    load = Load()
    each = [load.add(row, row.call.options, row.call.key, row.call.parents) for row in rows]
    if not all(each):
        raise invalid(
            "calls",
            f"at most {limits.BATCH_JOBS_MAX} jobs and {limits.BATCH_BYTES_MAX} bytes where they "
            f"are all or nothing, got {load.rows} jobs and {load.size} bytes",
        )


def outdated(rows: Sequence[Row]) -> bool:
    """Whether a whole was refused for the age of its ids only, and no leader may have it."""
    return bool(rows) and all(
        row.refusal is not None and row.refusal.reason in _WRONG_TIME and not row.unanswered
        for row in rows
    )


def _payload_bytes(rows: Iterable[Row]) -> int:
    return sum([len(row.payload) for row in rows])


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
    name = row.call.options.name
    return Refusal(
        reason=Reason.UNREACHABLE,
        message=f"expected to submit {name}, but no leader took it in time; nothing was accepted",
        metadata={"job": name},
    )
