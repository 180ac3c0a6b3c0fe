"""What happened to one job of a run, told in the order of time.

Four sources are laid side by side: what clients and the job itself saw, what the journal says, what
was broken meanwhile, and who led. The journal's times are its batches' stamps: by the term's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tenure.testing.clock import WALL_ORIGIN_MS
from tenure.v1.journal_pb2 import JournalBatch
from tests.oracles.evidence import PartitionLog
from tests.oracles.facts import is_about_job
from tests.oracles.history import Row
from tests.oracles.journal_facts import journal_facts
from tests.simulation.swarm import Outcome

#: What all facts of jobs have, and stories say once.
_KEYS = ("seq", "job")


class Line(NamedTuple):
    """One line of a story.

    Attributes:
        at_s: When, on the cluster's clock.
        source: Who says so.
        text: What.
    """

    at_s: float
    source: str
    text: str

    def __str__(self) -> str:
        return f"{self.at_s:9.3f} s  {self.source:<10} {self.text}"


def offender(outcome: Outcome) -> str | None:
    """The job that a run's first violation is about; None: it is about no single job."""
    jobs = {row.job for row in outcome.evidence.rows if row.job}
    for violation in outcome.violations:
        if violation.subject in jobs:
            return violation.subject
    return _never_read(outcome)


def story(outcome: Outcome, job: str | None) -> list[Line]:
    """The story of a job, or of the faults and leaders alone."""
    lines = [*_faults(outcome), *_announcements(outcome)]
    if job is not None:
        lines += _rows(outcome, job)
        for log in outcome.evidence.logs:
            lines += _facts(log, job)
    return sorted(lines, key=lambda line: line.at_s)


def _never_read(outcome: Outcome) -> str | None:
    """The first job whose end somebody still waits for."""
    waiting: dict[tuple[str, int], Row] = {}
    for row in outcome.evidence.rows:
        if row.type == "invoke" and row.job:
            waiting[row.incarnation, row.call] = row
        else:
            waiting.pop((row.incarnation, row.call), None)
    return next((row.job for row in waiting.values()), None)


def _rows(outcome: Outcome, job: str) -> Iterator[Line]:
    rows = outcome.evidence.rows
    # A submit learns the job's id when it ends.
    calls = {(row.incarnation, row.call) for row in rows if row.job == job}
    for row in rows:
        if (row.incarnation, row.call) in calls:
            said = [row.type, row.f, row.state, row.lease and f"under {row.lease}", row.detail]
            text = " ".join(word for word in said if word)
            yield Line(row.boottime / 1000, row.process, text)


def _facts(log: PartitionLog, job: str) -> Iterator[Line]:
    stamps = _stamps(log)
    for fact in journal_facts(log.all_batches()):
        if is_about_job(fact) and fact.job == job:
            fields = fact._asdict().items()
            told = [
                f"{name}={value}" for name, value in fields if name not in _KEYS and value != ""
            ]
            text = " ".join((f"seq {fact.seq} {type(fact).__name__}", *told))
            yield Line(stamps[fact.seq], f"journal {log.partition}", text)


def _stamps(log: PartitionLog) -> dict[int, float]:
    """When each event's batch was sealed, in seconds of the cluster's clock."""
    stamps: dict[int, float] = {}
    for data in log.all_batches():
        batch = JournalBatch.FromString(data)
        for seq in range(batch.first_seq, batch.first_seq + batch.event_count):
            stamps[seq] = (batch.stamp_ms - WALL_ORIGIN_MS) / 1000
    return stamps


def _faults(outcome: Outcome) -> Iterator[Line]:
    for struck in outcome.struck:
        yield Line(struck.at_s, "fault", f"{struck.kind} strikes {struck.target}")
        if struck.until_s is not None:
            yield Line(struck.until_s, "fault", f"{struck.kind} is over")


def _announcements(outcome: Outcome) -> Iterator[Line]:
    for said in outcome.announcements:
        fields = " ".join(f"{name}={value}" for name, value in said.fields.items())
        if "partition" in said.fields:
            yield Line(said.at_s, said.process, f"{said.event} {fields}")
