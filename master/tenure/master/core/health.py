"""Which workers fail at what others do well, and get nothing for a while.

A worker whose disk is full, whose driver is broken or whose release is wrong fails each job that
it gets, and is free for the next one sooner than anybody else: one of them empties a queue. So it
is put into *quarantine* when, of its last ``ENDS`` attempts within ``WINDOW_MS``, so many have
failed as the configuration says, and

- they were of ``JOBS_MIN`` different jobs and of two names, or of all names that it runs: it is not
  one job that fails again and again;
- another worker has completed a job of each of these names within ``WINDOW_MS``: it is not they;
- all that it runs others run, too, who are neither drained nor in quarantine: it is not the last.

An error of the category SYSTEM, and a lost attempt, count as two: no job asks for them.

```
 well ──sick──► in quarantine ──PROBE_MS──► tried with one job ──success──► well
                      ▲                              │
                      └────────────failure───────────┘
```
All of this is volatile: it begins anew with each term, but for the mark itself. The worker is told
of it and tells all masters (see ``worker/arbiter.py``), who take it over.
"""

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from tenure.master.core.command import MarkSession
from tenure.master.core.effect import Announce, Effect, SendQuarantine
from tenure.master.core.record import JobRecord
from tenure.master.core.session import Session
from tenure.master.core.volatile import SessionMarked, SessionUnmarked, VolatileEvent
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory

if TYPE_CHECKING:
    from tenure.master.core.state import State

ENDS: Final = 20
WINDOW_MS: Final = 300_000
JOBS_MIN: Final = 5
NAMES_MIN: Final = 2
PROBE_MS: Final = 60_000

#: What its worker may be to blame for.
FAILURES: Final = frozenset(
    {
        AttemptOutcome.FAILED,
        AttemptOutcome.FAILED_PERMANENT,
        AttemptOutcome.TIMED_OUT,
        AttemptOutcome.LOST,
    }
)


class Failure(NamedTuple):
    """One attempt that failed."""

    at_ms: int
    job_id: JobId
    name: str


class Mark:
    """A worker's quarantine."""

    __slots__ = ("by_hand", "passed", "probe_ms")

    def __init__(self, event: SessionMarked) -> None:
        #: An operator wants it: it is not tried.
        self.by_hand = event.by_hand
        #: When it may be tried with one job.
        self.probe_ms = event.since_ms + PROBE_MS
        #: Whether that has succeeded.
        self.passed = False


class Health:
    """How workers have done lately, by their incarnations. Costs nothing while nothing fails.

    Args:
        failures: So many put a worker into quarantine; 0: none do.
    """

    def __init__(self, failures: int) -> None:
        self._failures = failures
        #: The last ends of those that have failed lately, from their first failure on; None: well.
        self.suspects: dict[str, deque[Failure | None]] = {}
        self.marks: dict[str, Mark] = {}
        #: By job name: the two that completed one last, while there are suspects.
        self._completed: dict[str, dict[str, int]] = {}

    @property
    def watching(self) -> bool:
        """Whether successes are of interest."""
        return bool(self.suspects or self.marks)

    def failed(
        self, incarnation: str, record: JobRecord, category: ErrorCategory | None, now_ms: int
    ) -> None:
        """An attempt has failed, or was lost if there is no error."""
        mark = self.marks.get(incarnation)
        if mark is not None:
            mark.probe_ms = now_ms + PROBE_MS
        if mark is not None or not self._failures:
            return
        ends = self.suspects.setdefault(incarnation, deque(maxlen=ENDS))
        failure = Failure(now_ms, record.job_id, record.policy.name)
        ends.append(failure)
        if category is None or category is ErrorCategory.SYSTEM:
            ends.append(failure)

    def completed(self, records: Iterable[JobRecord], now_ms: int) -> None:
        """Attempts have succeeded."""
        for record in records:
            incarnation = record.incarnation
            last = self._completed.setdefault(record.policy.name, {})
            last.pop(incarnation, None)
            last[incarnation] = now_ms
            if len(last) > 2:
                del last[next(iter(last))]
            ends = self.suspects.get(incarnation)
            if ends is not None:
                ends.append(None)
                since_ms = now_ms - WINDOW_MS
                if all(end is None or end.at_ms < since_ms for end in ends):
                    self._clear(incarnation)
            mark = self.marks.get(incarnation)
            if mark is not None and not mark.by_hand and record.granted_ms >= mark.probe_ms:
                mark.passed = True

    def mark(self, incarnation: str, event: SessionMarked) -> None:
        """A worker is in quarantine from now on."""
        known = self.marks.get(incarnation)
        if known is None or known.by_hand is not event.by_hand:
            self.marks[incarnation] = Mark(event)
        self._clear(incarnation)

    def forget(self, incarnation: str) -> None:
        """A worker begins anew, or is gone."""
        self.marks.pop(incarnation, None)
        self._clear(incarnation)

    def sickness(self, session: Session, now_ms: int) -> str:
        """Why a worker should get nothing; empty: it may."""
        incarnation = session.incarnation
        ends = self.suspects.get(incarnation)
        if ends is None:
            return ""
        since_ms = now_ms - WINDOW_MS
        failed = [end for end in ends if end is not None and end.at_ms >= since_ms]
        fair = [end for end in failed if self._others_complete(end.name, incarnation, since_ms)]
        jobs = len({end.job_id for end in fair})
        names = len({end.name for end in fair})
        if len(fair) < self._failures or jobs < JOBS_MIN:
            return ""
        if names < min(NAMES_MIN, len(session.job_names)):
            return ""
        return (
            f"{jobs} jobs of {names} names have failed there lately that other workers complete, "
            f"the last one of {fair[-1].name}"
        )

    def _others_complete(self, name: str, incarnation: str, since_ms: int) -> bool:
        last = self._completed.get(name, {})
        return any(who != incarnation and at_ms >= since_ms for who, at_ms in last.items())

    def _clear(self, incarnation: str) -> None:
        self.suspects.pop(incarnation, None)
        if not self.suspects:
            self._completed.clear()


def judge(
    state: "State", session: Session | None, now_ms: int
) -> tuple[list[VolatileEvent], list[Effect]]:
    """What becomes of a worker that was just heard of, by how it has done."""
    health = state.health
    if session is None:
        return [], []
    session_id = session.session_id
    mark = health.marks.get(session.incarnation)
    if mark is not None:
        if not mark.passed:
            return [], []
        return [SessionUnmarked(session_id=session_id)], [
            SendQuarantine(session_id=session_id, reason="", lifted=True),
            Announce(event="released", counts={"workers": 1}),
        ]
    why = health.sickness(session, now_ms)
    if not why or is_last(state, session):
        return [], []
    return [SessionMarked(session_id=session_id, since_ms=now_ms, by_hand=False)], [
        SendQuarantine(session_id=session_id, reason=why, lifted=False),
        Announce(event="quarantined", counts={"workers": 1}),
    ]


def allowance(state: "State", session: Session, credit: int, now_ms: int) -> int:
    """How many of so many jobs a worker may be given."""
    mark = state.health.marks.get(session.incarnation)
    if mark is None:
        return credit
    if mark.by_hand:
        return 0
    if is_last(state, session):
        return credit
    return 1 if now_ms >= mark.probe_ms and not session.holder.leases else 0


def is_last(state: "State", session: Session) -> bool:
    """Whether some job that a worker runs is run by nobody else who gets work."""
    marks = state.health.marks
    others = [
        other
        for other in state.sessions.values()
        if other.incarnation != session.incarnation
        and other.holder.session is other
        and not other.draining
        and other.incarnation not in marks
        and (not other.queues or (session.queues and session.queues <= other.queues))
    ]
    return any(not any(name in other.job_names for other in others) for name in session.job_names)


def marked(command: MarkSession, now_ms: int) -> SessionMarked | SessionUnmarked:
    """What comes of a worker's word that it is in quarantine, or is not."""
    if command.reason is None:
        return SessionUnmarked(session_id=command.session_id)
    return SessionMarked(
        session_id=command.session_id,
        since_ms=now_ms - command.for_ms,
        by_hand=command.by_hand,
    )


def apply_marked(state: "State", event: SessionMarked) -> None:
    """Gives the worker nothing more; nobody waits for it."""
    session = state.sessions.get(event.session_id)
    if session is not None:
        state.health.mark(session.incarnation, event)
        state.lanes.free(session.incarnation)


def apply_unmarked(state: "State", event: SessionUnmarked) -> None:
    """It gets work again, and what it did before is forgotten."""
    session = state.sessions.get(event.session_id)
    if session is not None:
        state.health.forget(session.incarnation)
