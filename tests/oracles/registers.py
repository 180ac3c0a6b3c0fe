"""S18: each job is a linearizable register: submit, cancel, complete, read.

A job's state is open (scheduled, waiting, running or retrying: reads do not tell those apart here,
RUNNING and progress are best effort), or COMPLETED with a result, FAILED, CANCELLED; before that
there is none, and after a purge none again. Every call of a client takes effect at one moment
between its beginning and its end; a call of unknown outcome at any moment after its beginning, or
never. What happens inside the cluster needs no call: an open job may complete with a result that
some worker has come to by then, may fail, and may be cancelled once that was asked for.

The search is Wing and Gong's, with Lowe's memory of where it has been: it looks for an order of
the calls that respects real time and that the register explains. Histories of one job are tiny.

Some of what happens inside is the journal's to say: that a job was forgotten, that it was cancelled
for a reason other than a client's word about it (its limit key, its parents, a batch, its
workflow), and that it got more new runs than clients' calls on it account for (likewise).

What a client's own retries may do is allowed for: a refused cancel, requeue or purge may have taken
effect in an earlier try, so it counts as one of unknown outcome, beside what its refusal shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple

from tests.oracles.facts import CancelAsked, JobFact, Purged, Requeued, Settled, Submitted
from tests.oracles.history import (
    CANCEL,
    END,
    GET,
    LIST,
    NONE,
    PURGE,
    REQUEUE,
    RESULT,
    SUBMIT,
    Row,
)
from tests.oracles.verdict import Violation

#: (state, result's hash if COMPLETED).
State = tuple[str, str]

_ABSENT: Final[State] = (NONE, "")
_GONE: Final[State] = (NONE, "purged")
_OPEN: Final[State] = ("OPEN", "")
_ASKED: Final[State] = ("OPEN", "cancel asked")
_FAILED: Final[State] = ("FAILED", "")
_CANCELLED: Final[State] = ("CANCELLED", "")
_TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
_READ: Final = "read"
#: Longer histories are not searched: the cost may grow without bound.
CALLS_MAX: Final = 40


class Call(NamedTuple):
    """One call on a job: what, between when and when, and what it was answered.

    ``until_ms`` is infinity if nobody knows whether it took effect.
    """

    f: str
    since_ms: float
    until_ms: float
    state: str = ""
    hash: str = ""


class Moves(NamedTuple):
    """What the cluster may have done to a job that nobody's call on it says."""

    purged: bool = False
    cancelled: bool = False
    requeued: bool = False


_NO_MOVES: Final = Moves()


def moves_of(life: Iterable[JobFact], calls: Iterable[Call]) -> Moves:
    """What the journal says of that."""
    purged = cancelled = False
    runs = 0
    for fact in life:
        match fact:
            case Purged():
                purged = True
            case CancelAsked():
                cancelled |= bool(fact.reason)
            case Settled():
                cancelled |= fact.state == "CANCELLED" and bool(fact.reason or fact.outcomes)
            case Requeued():
                runs += 1
            case _:
                pass
    asked = sum(call.f == REQUEUE and call.until_ms < inf for call in calls) if runs else 0
    return Moves(purged, cancelled, runs > asked)


def check_registers(rows: Sequence[Row], lives: Mapping[str, Sequence[JobFact]]) -> list[Violation]:
    """Search an order for the calls on each job whose submit is in the history.

    Args:
        rows: The history.
        lives: The journal's facts by job: for which job an unanswered submit asked, and whether a
            job was ever forgotten.
    """
    calls, ends = _calls(rows, lives)
    violations = []
    for job, found in calls.items():
        if not any(call.f == SUBMIT for call in found) or len(found) > CALLS_MAX:
            continue
        moves = moves_of(lives.get(job, ()), found)
        if not is_linearizable(found, ends.get(job, {}), moves):
            violations.append(Violation("S18", job, f"no order explains {_told(found)}"))
    return violations


def is_linearizable(
    calls: Sequence[Call], ends: Mapping[str, float], moves: Moves = _NO_MOVES
) -> bool:
    """Whether the calls on one job have an order that the register explains.

    Args:
        calls: All of them.
        ends: By hash: when a worker first came to that result.
        moves: What the cluster has done to the job by itself.
    """
    everything = (1 << len(calls)) - 1
    awaited = sum(1 << index for index, call in enumerate(calls) if call.until_ms < inf)
    seen: set[tuple[int, State]] = set()
    stack: list[tuple[int, State]] = [(everything, _ABSENT)]
    while stack:
        left, state = stack.pop()
        if not left & awaited:
            return True
        if (left, state) in seen:
            continue
        seen.add((left, state))
        pending = [(index, call) for index, call in enumerate(calls) if left >> index & 1]
        # Whatever comes next began before the first of the others ended.
        limit_ms = min(call.until_ms for _, call in pending)
        for index, call in pending:
            if call.since_ms > limit_ms:
                continue
            rest = left & ~(1 << index)
            for before in _reached(state, ends, limit_ms, moves):
                stack += [(rest, after) for after in _step(call, before)]
    return False


def _reached(
    state: State, ends: Mapping[str, float], limit_ms: float, moves: Moves
) -> Iterator[State]:
    """The states that the cluster may have brought the job to by itself."""
    yield state
    if moves.requeued and state in (_FAILED, _CANCELLED):
        yield from _reached(_OPEN, ends, limit_ms, moves._replace(requeued=False))
        return
    if state[0] == "OPEN":
        yield _FAILED
        if state == _ASKED or moves.cancelled:
            yield _CANCELLED
        for content, at_ms in ends.items():
            if at_ms <= limit_ms:
                yield ("COMPLETED", content)
        if moves.requeued:
            # It has ended badly, and was open again, and may have ended once more.
            yield _OPEN
    if moves.purged and state[0] != NONE:
        yield _GONE


def _step(call: Call, state: State) -> list[State]:
    """The states after a call, if it can have taken effect in this one with its answer."""
    name, content = state
    match call.f:
        case "submit":
            return [_OPEN if state == _ABSENT else state]
        case "read":
            if call.state in _TERMINAL:
                fits = name == call.state and call.hash in ("", content)
            else:
                fits = name == (NONE if call.state == NONE else "OPEN")
            return [state] if fits else []
        case "cancel":
            if name == "OPEN":
                asked, done = [_ASKED], [_CANCELLED]
                return {"RUNNING": asked, "CANCELLED": done}.get(call.state, asked + done)
            return [state] if state == _CANCELLED else []
        case "requeue":
            return [_OPEN] if state in (_FAILED, _CANCELLED) else []
        case "purge":
            return [_GONE] if name in _TERMINAL else []
    return []


_Ends = dict[str, dict[str, float]]


def _calls(
    rows: Sequence[Row], lives: Mapping[str, Sequence[JobFact]]
) -> tuple[dict[str, list[Call]], _Ends]:
    """The calls on each job, and when workers came to its results."""
    asked = {life[0].content: job for job, life in lives.items() if isinstance(life[0], Submitted)}
    begun: dict[tuple[str, str, int], float] = {}
    calls: dict[str, list[Call]] = {}
    ends: _Ends = {}
    for row in rows:
        name = (row.process, row.incarnation, row.call)
        if row.type == "invoke":
            begun[name] = row.boottime
        elif row.f == END:
            ends.setdefault(row.job, {}).setdefault(row.hash, row.boottime)
        elif name in begun:
            for named, call in _calls_of(row, begun[name]):
                # A submit that was not answered asked for whichever job has its content.
                for job in [named] if named else asked.get(row.hash, ()):
                    calls.setdefault(job, []).append(call)
    return calls, ends


def _calls_of(row: Row, since_ms: float) -> Iterable[tuple[str, Call]]:
    """What one ended call says about jobs."""
    f, answered, until_ms = row.f, row.type == "ok", row.boottime
    if f == LIST:
        if answered:
            for job, state in row.seen:
                yield job, Call(_READ, since_ms, until_ms, state)
    elif f in (RESULT, GET):
        if answered:
            content = row.hash if f == RESULT else ""
            yield row.job, Call(_READ, since_ms, until_ms, row.state, content)
        elif f == GET and row.type == "fail" and row.state == NONE:
            yield row.job, Call(_READ, since_ms, until_ms, NONE)
    elif f == SUBMIT:
        if row.type != "fail":
            yield row.job, Call(SUBMIT, since_ms, until_ms if answered else inf)
    elif f in (CANCEL, REQUEUE, PURGE):
        yield (
            row.job,
            Call(f, since_ms, until_ms if answered else inf, row.state if answered else ""),
        )
        if row.type == "fail" and row.state:
            state = row.state
            yield row.job, Call(_READ, since_ms, until_ms, state)


def _told(calls: Iterable[Call]) -> str:
    """The calls, for people."""
    return "; ".join(
        f"{call.f} {call.state} [{call.since_ms:.1f}, {call.until_ms:.1f}]".replace("  ", " ")
        for call in sorted(calls, key=lambda call: call.since_ms)
    )
