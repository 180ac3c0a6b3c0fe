"""What happened and is not journaled: the volatile events that ``apply`` takes.

They change what a term knows of sessions, leases and turns. They have no seq, and are gone after a
failover: workers say it all again.
"""

from typing import NamedTuple

import msgspec

from tenure.master.core.command import HeldRow, LeaseRow, ReportRow
from tenure.master.core.postponed import LookedAt
from tenure.master.core.timetable import ScheduleName
from tenure.protocol.ids import JobId


class SessionOpened(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A worker's stream was opened; it takes over what older streams of its incarnation held."""

    now_ms: int
    session_id: int
    incarnation: str
    worker: str
    job_names: frozenset[str]
    queues: frozenset[str]
    slots: int
    labels: tuple[tuple[str, str], ...]


class SessionClosed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A stream ended; the leases stay with the incarnation."""

    session_id: int


class SessionDrained(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A session gets nothing more."""

    session_id: int


class SessionUndrained(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A session that got nothing takes work again."""

    session_id: int


class SessionMarked(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A session's worker is in quarantine."""

    session_id: int
    since_ms: int
    #: An operator wants it.
    by_hand: bool


class SessionUnmarked(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A session's worker is in quarantine no more."""

    session_id: int


class LeasesDeclared(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A worker listed every lease it holds: grants may go to it, its leases are renewed."""

    now_ms: int
    session_id: int
    rows: list[HeldRow]


class LeasesRenewed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A heartbeat renewed all leases of a session and told how its jobs do."""

    now_ms: int
    session_id: int
    last_assignment: int
    rows: list[HeldRow]


class ClaimsReturned(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Leases were handed back that their worker had claimed while the window is open."""

    session_id: int
    rows: list[LeaseRow]


class HeldSent(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Grants that had waited for their commit were sent as this assignment."""

    now_ms: int
    session_id: int
    number: int
    first_lease_seq: int


class AssignmentAccepted(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Assignments up to this number have arrived."""

    now_ms: int
    session_id: int
    number: int


class LeasesStarted(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Jobs started under their leases."""

    now_ms: int
    rows: list[LeaseRow]


class ReportsKept(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Reports came while the window was open; they are judged at its end."""

    session_id: int
    rows: list[ReportRow]


class TakeBacksAsked(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Unstarted leases were asked back; only the worker's answer or the deadline closes them."""

    rows: list[LeaseRow]


class WindowClosed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The claims were judged; leases that nobody claimed are withheld for one lease TTL."""

    now_ms: int


class Turn(NamedTuple):
    """Jobs of a queue that were taken in a row by those with one skill."""

    #: Any session with the skill.
    session_id: int
    tenant: str
    queue: str
    jobs: int


class TurnsTaken(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Queues gave jobs, in this order: it counts for their shares."""

    turns: list[Turn]


class KeysRelieved(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """So many crowded limit keys were looked at, the first ones.

    It comes before all other events of its decision: what those make ready may crowd a key anew.
    """

    keys: int


class TimersFired(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """All timers up to these marks were looked at; each waits for its next time, if it has one."""

    now_ms: int
    #: (due, tie-break) of the last entry looked at; None: none was.
    job_mark: tuple[int, int] | None
    holder_mark: tuple[int, int] | None
    #: Finished jobs whose time is over and that are kept for a child.
    parked: list[JobId] = []
    schedule_mark: tuple[int, int] | None = None
    #: Schedules that could not submit their jobs; they are looked at again a little later.
    held: tuple[ScheduleName, ...] = ()
    #: Of gates that waited for a token.
    refill_mark: tuple[int, int] | None = None
    #: (tenant, job name, time): up to when retries of a job type were put off for its budget.
    put_off: tuple[tuple[str, str, int], ...] = ()
    #: Retries that might have come earlier.
    hurried: tuple[LookedAt, ...] = ()


class LeasesRestarted(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Every lease's TTL starts anew."""

    now_ms: int


class DeadlinesPushed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Every lease deadline moved by a gap in which nothing could be heard."""

    gap_ms: int


VolatileEvent = (
    SessionOpened
    | SessionClosed
    | SessionDrained
    | SessionUndrained
    | SessionMarked
    | SessionUnmarked
    | LeasesDeclared
    | LeasesRenewed
    | ClaimsReturned
    | HeldSent
    | AssignmentAccepted
    | LeasesStarted
    | ReportsKept
    | TakeBacksAsked
    | WindowClosed
    | TurnsTaken
    | KeysRelieved
    | TimersFired
    | LeasesRestarted
    | DeadlinesPushed
)
