"""What a partition wants done outside: effects, replies and the decision that carries them.

Effects are released by the shell in order, each after the commit that it waits for: by default the
highest seq applied when it was computed, its own decision's events included. The one exception is a
``SendAssignment`` with ``write_ahead=False`` (first grants): it waits for nothing, as its jobs were
committed when they were picked. One that waits is overtaken by those: it has no number, and is not
sent but given back (``SendHeld``) when it has committed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from tenure.master.core.bulk import BatchRecord
from tenure.master.core.event import Event
from tenure.master.core.record import JobRecord
from tenure.master.core.settings import AnySettings
from tenure.master.core.timetable import ScheduleRecord
from tenure.master.core.workflows import WorkflowRecord
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.refusal import Refusal
from tenure.protocol.vocabulary import JobState, Verdict


class GrantRow(msgspec.Struct, frozen=True, gc=False):
    """One job in an assignment. Id, policy, payload and run are the record's (they do not change).

    Attributes:
        lease_seq: The new lease; its token is the term's.
        attempt: 1 for the first attempt of a run.
        deadline_ms: When the whole job must have ended; 0: never.
    """

    record: JobRecord
    lease_seq: int
    attempt: int
    deadline_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendAssignment:
    """Grant jobs to a session.

    Attributes:
        number: Of the assignment; 0: it gets one when it is sent.
        write_ahead: ``SendHeld`` these rows when this has committed, instead of sending them.
    """

    session_id: int
    number: int
    rows: list[GrantRow]
    write_ahead: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SendVerdicts:
    """Answer a worker's reports."""

    session_id: int
    rows: list[tuple[JobId, Lease, Verdict]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCheckpointAcks:
    """Tell a worker that what jobs saved is durable: (job, lease, number)."""

    session_id: int
    rows: list[tuple[JobId, Lease, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRevokes:
    """Tell a worker that leases are lost, or ask for unstarted ones (``unless_started``)."""

    session_id: int
    rows: list[tuple[JobId, Lease]]
    unless_started: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SendQuarantine:
    """Tell a worker that it gets no work, and why; or that it gets some again."""

    session_id: int
    reason: str
    lifted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCancels:
    """Ask a worker to stop jobs."""

    session_id: int
    rows: list[tuple[JobId, Lease]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendHeartbeatAck:
    """Acknowledge a heartbeat: its leases are renewed."""

    session_id: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifySettled:
    """These jobs became terminal: waiters may have their results."""

    records: list[JobRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Something an operator or an audit wants to see: a line on the master's stdout.

    Attributes:
        event: adopted | expired | suspect | taken_back | poisoned | window_closed | quarantined |
            released.
        counts: For example ``{"leases": 12, "closed": 1}``.
    """

    event: str
    counts: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Messages for another partition may leave, all up to this number."""

    target: int
    upto: int


Effect = (
    SendAssignment
    | SendVerdicts
    | SendCheckpointAcks
    | SendRevokes
    | SendQuarantine
    | SendCancels
    | SendHeartbeatAck
    | NotifySettled
    | Announce
    | Deliver
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitReply:
    """What became of a submit's rows.

    Attributes:
        job_ids: One a row: its id, or the id that its key already names; "" if refused.
        existing: Indexes of rows that existed before.
        refusals: (index, why) of refused rows.
        unsettled: Rows of which it is not known yet whether all their parents exist, or that are
            on their way to another partition: the submit is answered when it is known, or when
            they are there (``Partition.drain_answers``).
    """

    job_ids: list[str]
    existing: list[int]
    refusals: list[tuple[int, Refusal]]
    unsettled: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """How far a source's messages have been taken, the one that is answered included."""

    number: int


class JobVerdict(NamedTuple):
    """What became of one job of a batched command: its state (None if purged), or a refusal."""

    job_id: str
    state: JobState | None
    refusal: Refusal | None


Reply = (
    BatchRecord
    | WorkflowRecord
    | ScheduleRecord
    | SubmitReply
    | list[JobVerdict]
    | AnySettings
    | Taken
    | None
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a command comes to: events to apply in order, then effects and a reply to release."""

    events: tuple[Event, ...] = ()
    effects: tuple[Effect, ...] = ()
    reply: Reply = None
