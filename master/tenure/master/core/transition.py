"""The transition table: which move takes a job from which state to which. There is no other.

```
            SCHEDULE          READY               GRANT, ADOPT        COMPLETE
 (none) ──┬────────► SCHEDULED ───► PENDING ──────────────► RUNNING ─────────► COMPLETED
          │ SUBMIT                  ▲  ▲  ▲                  │ │ │ └─ STOP ───► CANCELLED
          └─────────────────────────┘  │  └──── RELEASE ─────┘ │ └─── FAIL ───► FAILED
                                 READY │          RETRY        │
                                    RETRYING ◄─────────────────┘
 (none) ── BLOCK ──► BLOCKED ── FREE ──► PENDING    DEFER ──► SCHEDULED    FAIL_WITH ──► FAILED
 CANCELLED, FAILED ── REBLOCK ──► BLOCKED     BLOCKED ── WITHDRAW ──► (none)
 queued ── CANCEL ──► CANCELLED     queued ── EXPIRE ──► FAILED     terminal ── PURGE ──► (none)
 CANCELLED, FAILED ── REQUEUE ──► PENDING     PENDING, RETRYING ── COMPLETE (late) ──► COMPLETED
```
Deciders ask ``sources`` whether a move is open to a job; appliers set what the events say. A test
walks the full product of states and moves, and the stateful test checks every step against it.
"""

from enum import Enum, unique
from typing import Final

from tenure.protocol.vocabulary import TERMINAL, JobState

_S = JobState


@unique
class Move(Enum):
    """What can happen to a job; the comment says who does it."""

    SUBMIT = "submit"  #: a client; due at once
    SCHEDULE = "schedule"  #: a client; due later
    POSTPONE = "postpone"  #: a boost of a job that is due
    READY = "ready"  #: its timer
    GRANT = "grant"  #: dispatch
    ADOPT = "adopt"  #: a worker that proves a newer lease than the journal knows
    COMPLETE = "complete"  #: a report with a result, also a late one
    RETRY = "retry"  #: a failure or a loss that the budgets allow
    RELEASE = "release"  #: a worker that hands it back, or a grant that never arrived
    FAIL = "fail"  #: an attempt that ended for good
    STOP = "stop"  #: an attempt that ended after a cancel was asked for
    REQUEST_CANCEL = "request_cancel"  #: a client, of a running job
    CANCEL = "cancel"  #: a client, of a queued job
    BLOCK = "block"  #: a client, of a job with parents
    FREE = "free"  #: its parents, when all have ended as it wants
    DEFER = "defer"  #: the same, of a job that is due later
    FAIL_WITH = "fail_with"  #: a parent that failed
    WITHDRAW = "withdraw"  #: a parent elsewhere that does not exist: nobody was told of the job
    EXPIRE = "expire"  #: the schedule timeout or the deadline of a queued job
    REQUEUE = "requeue"  #: an operator
    REBLOCK = "reblock"  #: the same, of a job that its parents have not let run yet
    PURGE = "purge"  #: retention, or an operator


#: States in which a job waits without a lease.
QUEUED: Final = frozenset({_S.SCHEDULED, _S.BLOCKED, _S.PENDING, _S.RETRYING})
#: States from which a job can still run.
OPEN: Final = QUEUED | {_S.RUNNING}

#: (move, from) → to. None is a job that the partition does not know (yet, or any more).
TABLE: Final[dict[tuple[Move, JobState | None], JobState | None]] = {
    (Move.SUBMIT, None): _S.PENDING,
    (Move.SCHEDULE, None): _S.SCHEDULED,
    (Move.POSTPONE, _S.PENDING): _S.SCHEDULED,
    (Move.BLOCK, None): _S.BLOCKED,
    (Move.FREE, _S.BLOCKED): _S.PENDING,
    (Move.DEFER, _S.BLOCKED): _S.SCHEDULED,
    (Move.FAIL_WITH, _S.BLOCKED): _S.FAILED,
    (Move.WITHDRAW, _S.BLOCKED): None,
    (Move.READY, _S.SCHEDULED): _S.PENDING,
    (Move.READY, _S.RETRYING): _S.PENDING,
    (Move.GRANT, _S.PENDING): _S.RUNNING,
    (Move.ADOPT, _S.SCHEDULED): _S.RUNNING,
    (Move.ADOPT, _S.PENDING): _S.RUNNING,
    (Move.ADOPT, _S.RUNNING): _S.RUNNING,
    (Move.ADOPT, _S.RETRYING): _S.RUNNING,
    (Move.COMPLETE, _S.PENDING): _S.COMPLETED,
    (Move.COMPLETE, _S.RUNNING): _S.COMPLETED,
    (Move.COMPLETE, _S.RETRYING): _S.COMPLETED,
    (Move.RETRY, _S.RUNNING): _S.RETRYING,
    (Move.RELEASE, _S.RUNNING): _S.PENDING,
    (Move.FAIL, _S.RUNNING): _S.FAILED,
    (Move.STOP, _S.RUNNING): _S.CANCELLED,
    (Move.REQUEST_CANCEL, _S.RUNNING): _S.RUNNING,
    (Move.CANCEL, _S.SCHEDULED): _S.CANCELLED,
    (Move.CANCEL, _S.BLOCKED): _S.CANCELLED,
    (Move.CANCEL, _S.PENDING): _S.CANCELLED,
    (Move.CANCEL, _S.RETRYING): _S.CANCELLED,
    (Move.EXPIRE, _S.SCHEDULED): _S.FAILED,
    (Move.EXPIRE, _S.PENDING): _S.FAILED,
    (Move.EXPIRE, _S.RETRYING): _S.FAILED,
    (Move.REQUEUE, _S.FAILED): _S.PENDING,
    (Move.REQUEUE, _S.CANCELLED): _S.PENDING,
    (Move.REBLOCK, _S.FAILED): _S.BLOCKED,
    (Move.REBLOCK, _S.CANCELLED): _S.BLOCKED,
    (Move.PURGE, _S.COMPLETED): None,
    (Move.PURGE, _S.FAILED): None,
    (Move.PURGE, _S.CANCELLED): None,
}


def sources(move: Move) -> frozenset[JobState]:
    """The states in which the move is open to a job that exists."""
    return frozenset(state for (by, state) in TABLE if by is move and state is not None)


__all__ = ["Move", "OPEN", "QUEUED", "TABLE", "TERMINAL", "sources"]
