"""Facts from a journal's bytes, decoded here by position: the product's event types are not used.

A batch's body is a msgpack array of events, each an array whose first entry names it. A grant's
run is not written out: it follows from the events before, so it is tracked here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from tenure.v1.journal_pb2 import JournalBatch
from tests.oracles.facts import Adopted, Closed, Fact, Granted, Settled, Submitted, TermBegan
from tests.oracles.history import hash_of

_STATES = {6: "COMPLETED", 7: "FAILED", 8: "CANCELLED"}
_decode = msgspec.msgpack.Decoder().decode


def journal_facts(batches: Iterable[bytes]) -> list[Fact]:
    """All that one partition's batches say, in order."""
    reader = _Reader()
    for data in batches:
        batch = JournalBatch.FromString(data)
        for seq, event in enumerate(_decode(batch.events), batch.first_seq):
            reader.read(seq, event)
    return reader.facts


def content_of(payload: bytes) -> str:
    """The ``hash_of`` a call's first argument: jobs of a run are told apart by it."""
    args, _ = _decode(payload)
    return hash_of(args[0]) if args else ""


def fence(lease: list[Any]) -> str:
    """The fence text of ``[[epoch, revision], seq, run]``."""
    (epoch, revision), seq, run = lease
    return f"{epoch:08x}{revision:016x}{seq:016x}{run:08x}"


class _Reader:
    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self._runs: dict[str, int] = {}
        self._open: set[str] = set()
        self._charged: dict[str, tuple[int, int]] = {}
        self._readers: dict[str, Callable[[int, list[Any]], None]] = {
            "term_opened": self._term_opened,
            "jobs_submitted": self._submitted,
            "jobs_granted": self._granted,
            "leases_adopted": self._adopted,
            "jobs_completed": self._completed,
            "attempts_ended": self._ended,
            "jobs_cancelled": self._cancelled,
            "jobs_expired": self._expired,
            "jobs_requeued": self._requeued,
        }

    def read(self, seq: int, event: list[Any]) -> None:
        """Take one event; those that concern no checker are passed over."""
        reader = self._readers.get(event[0])
        if reader is not None:
            reader(seq, event)

    def _term_opened(self, seq: int, event: list[Any]) -> None:
        epoch, revision = event[2]
        self.facts.append(TermBegan(seq, f"{epoch:08x}{revision:016x}"))

    def _submitted(self, seq: int, event: list[Any]) -> None:
        settings = event[3]
        for job, setting, payload, _key in event[4]:
            retry = settings[setting][0][3]
            self.facts.append(Submitted(seq, job, content_of(payload), retry[5], retry[6]))

    def _granted(self, seq: int, event: list[Any]) -> None:
        token, first_lease_seq, jobs, attempts = event[2], event[7], event[8], event[9]
        for index, (job, attempt) in enumerate(zip(jobs, attempts, strict=True)):
            lease = fence([token, first_lease_seq + index, self._runs.get(job, 0)])
            self._open.add(lease)
            self.facts.append(Granted(seq, job, lease, attempt))

    def _adopted(self, seq: int, event: list[Any]) -> None:
        for job, lease, attempt, _granted, _started in event[4]:
            text = fence(lease)
            self._open.add(text)
            self.facts.append(Adopted(seq, job, text, attempt))

    def _completed(self, seq: int, event: list[Any]) -> None:
        for job, lease, _started, result, _content_type in event[2]:
            text = fence(lease)
            self._close(seq, job, text, "")
            content = hash_of(_decode(result)) if result else ""
            self._settle(seq, job, text, "COMPLETED", content)

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
            self._close(seq, job, lease, charged)
            if state in _STATES:
                self._settle(seq, job, lease, _STATES[state], "")

    def _cancelled(self, seq: int, event: list[Any]) -> None:
        for job in event[2]:
            self._settle(seq, job, "", "CANCELLED", "")

    def _expired(self, seq: int, event: list[Any]) -> None:
        for job in event[2]:
            self._settle(seq, job, "", "FAILED", "")

    def _requeued(self, seq: int, event: list[Any]) -> None:
        for job, run in event[2]:
            self._runs[job] = run
            self._charged.pop(job, None)

    def _close(self, seq: int, job: str, lease: str, charged: str) -> None:
        # A result that saves the work of a lease closed before closes nothing.
        if lease in self._open:
            self._open.remove(lease)
            self.facts.append(Closed(seq, job, lease, charged))

    def _settle(self, seq: int, job: str, lease: str, state: str, content: str) -> None:
        self.facts.append(Settled(seq, job, self._runs.get(job, 0), lease, state, content))
