"""Facts from a journal's bytes, decoded here by position: the product's event types are not used.

A batch's body is a msgpack array of events, each an array whose first entry names it. A grant's
run is not written out: it follows from the events before, so it is tracked here too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self

import msgspec

from tenure.v1.journal_pb2 import JournalBatch
from tests.oracles.facts import (
    Adopted,
    Boosted,
    CancelAsked,
    Closed,
    Fact,
    Freed,
    Granted,
    Purged,
    Readied,
    Requeued,
    Saved,
    Settled,
    Submitted,
    TermBegan,
    Waits,
    Withdrawn,
)
from tests.oracles.history import hash_of
from tests.oracles.journal_rules import OUTCOMES, READERS, content_of, outcomes_of

#: How many batches a master has on their way at most.
IN_FLIGHT_MAX: Final = 4
_MAYBE_CUT_BYTES: Final = 96 * 1024

_PENDING = 3
_COMPLETED = 1
_NO_OVERRIDE = 1
_STATES = {6: "COMPLETED", 7: "FAILED", 8: "CANCELLED"}
_CONFLICTS = {1: "RETURN", 2: "REJECT", 3: "REPLACE"}
_RUN_IFS = {1: "ALL_SUCCEEDED", 2: "ANY_FAILED", 3: "ALWAYS"}
_PARENT_FAILURES = {1: "FAIL", 2: "IGNORE", 3: "HOLD"}
_REASONS = {
    1: "EXHAUSTED",
    2: "PERMANENT",
    3: "TIMED_OUT",
    4: "EXPIRED",
    5: "POISON",
    6: "LOST",
    7: "DEPENDENCY",
}
_ENDS = {
    1: "COMPLETED",
    2: "FAILED",
    3: "FAILED_PERMANENT",
    4: "TIMED_OUT",
    5: "LOST",
    6: "RELEASED",
    7: "CANCELLED",
}
#: The fault of an attempt whose worker was not heard of for its lease.
_EXPIRED = "tenure.LeaseExpired"
_decode = msgspec.msgpack.Decoder().decode


def journal_facts(batches: Iterable[bytes]) -> list[Fact]:
    """All that one partition's batches say, in order."""
    reader = _Reader()
    for data in batches:
        batch = JournalBatch.FromString(data)
        for seq, event in enumerate(_decode(batch.events), batch.first_seq):
            reader.read(seq, event)
    return reader.told()


class Extents:
    """Which batch holds a seq, and what had committed when a batch's events were decided.

    Masters keep at most ``IN_FLIGHT_MAX`` batches on their way, so when a batch was sealed, the one
    so many before it had committed. What is in batch b was decided after batch b-1 was sealed,
    unless that one was so large that it may have left something behind (a batch is cut at 512 KiB,
    an event has at most 400 KiB).

    Args:
        firsts: The first seq of each batch, rising.
        numbers: Their numbers.
        sizes: Their sizes in bytes.
    """

    def __init__(self, firsts: Sequence[int], numbers: Sequence[int], sizes: Sequence[int]) -> None:
        self._firsts = firsts
        self._numbers = numbers
        self._committed: list[int] = []
        uncut = -1
        for size in sizes:
            self._committed.append(uncut - IN_FLIGHT_MAX)
            if size < _MAYBE_CUT_BYTES:
                uncut = len(self._committed) - 1

    @classmethod
    def of_batches(cls, batches: Iterable[bytes]) -> Self:
        """Those of one partition's batches, in order."""
        firsts, numbers, sizes = [], [], []
        for data in batches:
            batch = JournalBatch.FromString(data)
            firsts.append(batch.first_seq)
            numbers.append(batch.number)
            sizes.append(len(data))
        return cls(firsts, numbers, sizes)

    def index(self, seq: int) -> int:
        """The place of the batch that holds a seq; -1: none does."""
        return bisect_right(self._firsts, seq) - 1

    def number(self, seq: int) -> int:
        """The number of the batch that holds a seq; -1: none does."""
        index = self.index(seq)
        return -1 if index < 0 else self._numbers[index]

    def committed(self, index: int) -> int:
        """The place of the last batch that had surely committed when this one's were decided."""
        return self._committed[index]


def fence(lease: list[Any]) -> str:
    """The fence text of ``[[epoch, revision], seq, run]``."""
    (epoch, revision), seq, run = lease
    return f"{epoch:08x}{revision:016x}{seq:016x}{run:08x}"


#: How rows of a submit and of a requeue end, and a policy's rules, where an older release wrote
#: none.
_KEYS: Final = ("", "", (), "")
_RULES: Final = (1, (), (), 1, 1)
_REQUEUED: Final = (_PENDING, None)


def _padded(row: list[Any], defaults: Sequence[Any]) -> list[Any]:
    """A row that may be of a release which had fewer fields."""
    return [*row, *defaults[len(row) :]]


class _Reader:
    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self._runs: dict[str, int] = {}
        self._open: set[str] = set()
        self._charged: dict[str, tuple[int, int]] = {}
        #: Why running jobs were asked to stop.
        self._asked: dict[str, str] = {}
        #: (tenant, queue) with reserved slots, and (tenant, job name) that were held up at times.
        self._reserving: set[tuple[str, str]] = set()
        self._held_types: set[tuple[str, str]] = set()
        self._readers: dict[str, Callable[[int, list[Any]], None]] = {
            "term_opened": self._term_opened,
            "jobs_submitted": self._submitted,
            "jobs_readied": self._readied,
            "jobs_granted": self._granted,
            "leases_adopted": self._adopted,
            "jobs_completed": self._completed,
            "attempts_ended": self._ended,
            "checkpoints_saved": self._saved,
            "cancels_requested": self._cancel_asked,
            "jobs_cancelled": self._cancelled,
            "jobs_expired": self._expired,
            "jobs_requeued": self._requeued,
            "jobs_purged": self._purged,
            "jobs_boosted": self._boosted,
            "dependents_resolved": self._resolved,
            "jobs_withdrawn": self._withdrawn,
            "settings_changed": self._settings_changed,
        }

    def read(self, seq: int, event: list[Any]) -> None:
        """Take one event; those that concern no checker are passed over."""
        name = event[0]
        reader = self._readers.get(name)
        if reader is not None:
            reader(seq, event)
        if name in READERS:
            self.facts += READERS[name](seq, event)

    def told(self) -> list[Fact]:
        """All facts; what is set for queues and job types says of their jobs that they go apart."""
        if not self._reserving and not self._held_types:
            return self.facts
        return [self._set_apart(f) if isinstance(f, Submitted) else f for f in self.facts]

    def _set_apart(self, job: Submitted) -> Submitted:
        reserving = (job.tenant, job.queue) in self._reserving
        held = (job.tenant, job.name) in self._held_types
        return job._replace(apart=job.apart or reserving or held)

    def _settings_changed(self, seq: int, event: list[Any]) -> None:
        key, settings = event[2], event[3]
        if settings[0] == "queue" and settings[9]:
            self._reserving.add((key[0], key[1]))
            return
        # Whether it is paused, its breaker, and what people make of that.
        if settings[0] == "job_type" and (*settings[1:4],) != (False, None, _NO_OVERRIDE):
            self._held_types.add((key[0], key[1]))

    def _term_opened(self, seq: int, event: list[Any]) -> None:
        at_ms, (epoch, revision), incarnation = event[1:4]
        self.facts.append(TermBegan(seq, f"{epoch:08x}{revision:016x}", incarnation, at_ms))

    def _submitted(self, seq: int, event: list[Any]) -> None:
        at_ms, settings = event[1], event[3]
        for job, setting, payload, key, *more in event[4]:
            policy, priority, ready_ms, state = settings[setting]
            name, queue, tenant, retry = policy[:4]
            limit_key, sticky_key, parents, workflow = _padded(more, _KEYS)
            conflict, requires, prefers, *rules = _padded(policy[13:18], _RULES)
            apart = bool(limit_key or sticky_key or requires or prefers)
            self.facts.append(
                Submitted(
                    seq,
                    job,
                    content_of(payload),
                    retry[5],
                    retry[6],
                    at_ms,
                    tenant,
                    queue,
                    name,
                    priority,
                    ready_ms,
                    state == _PENDING,
                    key,
                    policy[12],
                    apart,
                    _CONFLICTS[conflict],
                    limit_key,
                    tuple(parents),
                    workflow,
                    _RUN_IFS[rules[0]],
                    _PARENT_FAILURES[rules[1]],
                )
            )

    def _readied(self, seq: int, event: list[Any]) -> None:
        self.facts += [Readied(seq, job, event[1]) for job in event[2]]

    def _granted(self, seq: int, event: list[Any]) -> None:
        at_ms, token, holder = event[1:4]
        first_lease_seq, jobs, attempts = event[7:10]
        for index, (job, attempt) in enumerate(zip(jobs, attempts, strict=True)):
            lease = fence([token, first_lease_seq + index, self._runs.get(job, 0)])
            self._open.add(lease)
            self.facts.append(Granted(seq, job, lease, attempt, at_ms, holder))

    def _adopted(self, seq: int, event: list[Any]) -> None:
        for job, lease, attempt, _granted, _started in event[4]:
            text = fence(lease)
            self._open.add(text)
            self.facts.append(Adopted(seq, job, text, attempt))

    def _completed(self, seq: int, event: list[Any]) -> None:
        for job, lease, _started, result, *_ in event[2]:
            text = fence(lease)
            self._close(seq, job, text, "", _COMPLETED, event[1])
            content = hash_of(_decode(result)) if result else ""
            self._settle(seq, event[1], job, "COMPLETED", lease=text, content=content)

    def _ended(self, seq: int, event: list[Any]) -> None:
        for row in event[2]:
            job, lease, state = row[0], fence(row[1]), row[3]
            attempts, losses = row[6], row[7]
            attempts_before, losses_before = self._charged.get(job, (0, 0))
            charged = ""
            if attempts > attempts_before:
                charged = "attempt"
            elif losses > losses_before:
                charged = "loss"
            self._charged[job] = (attempts, losses)
            expired = row[9] is not None and row[9][0] == _EXPIRED
            self._close(seq, job, lease, charged, row[2], event[1], expired=expired)
            if state in _STATES:
                said = self._asked.get(job, "")
                reason = said if row[10] is None else _REASONS[row[10]]
                self._settle(seq, event[1], job, _STATES[state], reason, lease=lease)
            else:
                self.facts.append(Waits(seq, job, row[4], state == _PENDING))

    def _saved(self, seq: int, event: list[Any]) -> None:
        for job, lease, number, data, losses in event[2]:
            attempts, before = self._charged.get(job, (0, 0))
            self._charged[job] = (attempts, losses)
            # What the SDK saves is an array: what the job's code has said, and its loops' cursors.
            content = hash_of(_decode(data)[0])
            fact = Saved(seq, job, fence(lease), number, content, before - losses)
            self.facts.append(fact)

    def _cancel_asked(self, seq: int, event: list[Any]) -> None:
        self._asked.update(dict.fromkeys(event[2], event[3]))
        self.facts += [CancelAsked(seq, job, event[3]) for job in event[2]]

    def _cancelled(self, seq: int, event: list[Any]) -> None:
        for job in event[2]:
            self._settle(seq, event[1], job, "CANCELLED", event[3])

    def _expired(self, seq: int, event: list[Any]) -> None:
        for job in event[2]:
            self._settle(seq, event[1], job, "FAILED", _REASONS[event[3]])

    def _requeued(self, seq: int, event: list[Any]) -> None:
        for job, run, *more in event[2]:
            state, payload = _padded(more, _REQUEUED)
            self._runs[job] = run
            self._charged.pop(job, None)
            content = "" if payload is None else content_of(payload)
            self.facts.append(Requeued(seq, job, run, event[1], state == _PENDING, content))

    def _resolved(self, seq: int, event: list[Any]) -> None:
        at_ms = event[1]
        for job, state, ready_ms, codes in event[2]:
            outcomes = outcomes_of(codes)
            if state in _STATES:
                reason = "DEPENDENCY" if _STATES[state] == "FAILED" else ""
                self._settle(seq, at_ms, job, _STATES[state], reason, outcomes=outcomes)
            else:
                self.facts.append(Freed(seq, job, ready_ms, state == _PENDING, at_ms, outcomes))

    def _withdrawn(self, seq: int, event: list[Any]) -> None:
        parent, jobs, state = event[2:5]
        self.facts += [Withdrawn(seq, job, parent, OUTCOMES[state]) for job in jobs]

    def _purged(self, seq: int, event: list[Any]) -> None:
        self.facts += [Purged(seq, job) for job in event[2]]

    def _boosted(self, seq: int, event: list[Any]) -> None:
        for job, priority, ready_ms, _run_due_ms, state, *_ in event[2]:
            self.facts.append(Boosted(seq, job, priority, ready_ms, state == _PENDING))

    def _close(
        self,
        seq: int,
        job: str,
        lease: str,
        charged: str,
        outcome: int,
        at_ms: int,
        *,
        expired: bool = False,
    ) -> None:
        # A result that saves the work of a lease closed before closes nothing.
        if lease in self._open:
            self._open.remove(lease)
            self.facts.append(Closed(seq, job, lease, charged, expired, at_ms, _ENDS[outcome]))

    def _settle(
        self,
        seq: int,
        at_ms: int,
        job: str,
        state: str,
        reason: str = "",
        *,
        lease: str = "",
        content: str = "",
        outcomes: tuple[str, ...] = (),
    ) -> None:
        run = self._runs.get(job, 0)
        self._asked.pop(job, None)
        self.facts.append(Settled(seq, job, run, lease, state, content, reason, at_ms, outcomes))
