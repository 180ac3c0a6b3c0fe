"""S8: nothing is told before the batch that it rests on has committed.

What clients and workers saw is compared with the moments at which batches committed: an
acknowledged submit, cancel, requeue or purge, a terminal state that was read, and a start, which
rests on its job's submit and, unless it is the job's first lease, on its own grant too. (A job that
its parents have failed has had none, and may be requeued all the same.)

Where the moments come from decides how they may be used. A store that tells when each change was
made (the simulated etcd) gives them exactly. A master's trace tells when it *heard* of a commit,
which is before it tells anybody; but another master may have recovered the batch, and may have told
of it before the first one heard (it was paused). So the moment is the earlier one of hearing and of
the sending of a later term's first batch: until then nobody else could tell (``told_after``).

That a crash and a replay still have it is S1: the jobs that are looked for are the journal's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import floor, inf
from typing import Any

from tests.oracles.facts import (
    Adopted,
    CancelAsked,
    Granted,
    JobFact,
    Purged,
    Requeued,
    Settled,
    Submitted,
)
from tests.oracles.history import CANCEL, GET, PURGE, REQUEUE, RESULT, START, SUBMIT, Row
from tests.oracles.journal_facts import Extents
from tests.oracles.verdict import Violation

_TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


class CommitTimes:
    """When each seq of one partition had committed, as far as that is known.

    Args:
        extents: Which batch holds it.
        committed_ms: By batch number.
    """

    def __init__(self, extents: Extents, committed_ms: Mapping[int, float]) -> None:
        self._extents = extents
        self._committed_ms = committed_ms

    def of(self, seq: int) -> float:
        """Boot clock ms; minus infinity if it is not known."""
        committed_ms = self._committed_ms.get(self._extents.number(seq))
        # Clocks are read in whole milliseconds here and with fractions there.
        return -inf if committed_ms is None else floor(committed_ms)

    def __bool__(self) -> bool:
        return bool(self._committed_ms)


def told_after(trace: Iterable[Mapping[str, Any]], term_batches: Iterable[int]) -> dict[int, float]:
    """By batch number: before this moment nobody could be told of it, by the masters' traces.

    Args:
        trace: The rows of all processes about one partition; what counts are ``append_sent`` and
            ``append_committed``.
        term_batches: The numbers of the batches with which terms begin.
    """
    sent: dict[int, float] = {}
    heard: dict[int, float] = {}
    for row in trace:
        known = {"append_sent": sent, "append_committed": heard}.get(row["event"])
        if known is not None:
            number, at_ms = row["number"], float(row["boot_ms"])
            known[number] = min(at_ms, known.get(number, inf))
    bounds: dict[int, float] = {}
    later = inf
    openings = set(term_batches)
    for number in sorted(sent | heard, reverse=True):
        bound = min(heard.get(number, inf), later)
        if bound < inf:
            bounds[number] = bound
        if number in openings:
            later = min(later, sent.get(number, inf))
    return bounds


def check_commits(
    rows: Iterable[Row], lives: Mapping[str, Sequence[JobFact]], times: CommitTimes
) -> list[Violation]:
    """Rows of jobs that are not in ``lives`` are passed over: they are other partitions'."""
    if not times:
        return []
    violations: list[Violation] = []
    for row in rows:
        if row.type != "ok" or row.job not in lives:
            continue
        rests_on = _RESTS_ON.get(row.f)
        if rests_on is None:
            continue
        for what, seqs in rests_on(row, lives[row.job]):
            committed_ms = min((times.of(seq) for seq in seqs), default=inf)
            if row.boottime < committed_ms:
                when = "never committed"
                if committed_ms < inf:
                    when = f"committed {committed_ms - row.boottime:.1f} ms later"
                detail = f"{row.process} saw its {row.f} ok, but {what} {when}"
                violations.append(Violation("S8", row.job, detail))
    return violations


#: What a row rests on, and the seqs of which one must have committed.
_Rests = list[tuple[str, list[int]]]


def _submit(row: Row, life: Sequence[JobFact]) -> _Rests:
    return [("the submit", [fact.seq for fact in life if isinstance(fact, Submitted)])]


def _start(row: Row, life: Sequence[JobFact]) -> _Rests:
    rests = _submit(row, life)
    leases = [fact.lease for fact in life if isinstance(fact, Granted | Adopted)]
    if row.attempt > 1 or min(leases, default=row.lease) < row.lease:
        grants = [fact.seq for fact in life if isinstance(fact, Granted) if fact.lease == row.lease]
        rests.append((f"the grant of attempt {row.attempt}", grants))
    return rests


def _read(row: Row, life: Sequence[JobFact]) -> _Rests:
    if row.state not in _TERMINAL:
        return _submit(row, life)
    ends = [
        fact.seq
        for fact in life
        if isinstance(fact, Settled) and fact.state == row.state
        if row.f == GET or fact.content == row.hash
    ]
    return [(f"its being {row.state}", ends)]


def _cancel(row: Row, life: Sequence[JobFact]) -> _Rests:
    cancels = [
        fact.seq
        for fact in life
        if isinstance(fact, CancelAsked)
        or (isinstance(fact, Settled) and fact.state == "CANCELLED")
    ]
    return [("the cancel", cancels)]


def _requeue(row: Row, life: Sequence[JobFact]) -> _Rests:
    return [("the requeue", [fact.seq for fact in life if isinstance(fact, Requeued)])]


def _purge(row: Row, life: Sequence[JobFact]) -> _Rests:
    return [("the purge", [fact.seq for fact in life if isinstance(fact, Purged)])]


_RESTS_ON = {
    SUBMIT: _submit,
    RESULT: _read,
    GET: _read,
    CANCEL: _cancel,
    REQUEUE: _requeue,
    PURGE: _purge,
    START: _start,
}
