"""The audit: reads every job and all its attempts back from the cluster and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tenure.client import AsyncClient, AttemptOutcome, JobState
from tenure.v1 import jobs_pb2

_TERMINAL = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
#: Outcomes of an attempt that decide a job.
_ACCEPTED = (AttemptOutcome.COMPLETED, AttemptOutcome.FAILED_PERMANENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """A job that was lost with its worker and completed by another."""

    path: str
    worker: str
    #: When the completing attempt ended, in seconds since the Unix epoch.
    ended_wall_s: float


@dataclass(slots=True, eq=False)
class Audit:
    """Counts over all submitted jobs."""

    submitted: int
    completed: int = 0
    failed: int = 0
    #: Acknowledged and not in a terminal state, or not there at all.
    lost: int = 0
    #: Decided by more than one attempt.
    accepted_twice: int = 0
    #: Attempts that died with their worker.
    attempts_lost: int = 0
    reruns: list[Rerun] = field(default_factory=list)

    def rows(self, adopted: int) -> list[tuple[str, str]]:
        """Label and value of each count."""
        return [
            ("jobs submitted", f"{self.submitted:,}"),
            ("jobs completed", f"{self.completed:,}"),
            ("jobs failed, as expected", f"{self.failed:,}"),
            ("leases adopted", f"{adopted:,}"),
            ("leases expired", f"{self.attempts_lost:,}"),
            ("jobs re-run", f"{len(self.reruns):,}"),
            ("jobs lost", f"{self.lost:,}"),
            ("accepted twice", f"{self.accepted_twice:,}"),
        ]


async def audit_jobs(client: AsyncClient, path_of: Mapping[str, str]) -> Audit:
    """Looks at every submitted job once more.

    Args:
        client: Of the cluster.
        path_of: Job id to the file it was about, of all acknowledged jobs.
    """
    audit = Audit(submitted=len(path_of))
    seen: set[str] = set()
    async for job in client.list():
        if job.job_id in path_of and job.job_id not in seen:
            seen.add(job.job_id)
            tally(audit, job, path_of[job.job_id])
    audit.lost += len(path_of) - len(seen)
    audit.reruns.sort(key=lambda rerun: rerun.ended_wall_s)
    return audit


def tally(audit: Audit, job: jobs_pb2.Job, path: str) -> None:
    """Counts one job, with all its attempts."""
    state = int(job.state)
    audit.completed += state == JobState.COMPLETED
    audit.failed += state == JobState.FAILED
    audit.lost += state not in _TERMINAL
    deciding = [attempt for attempt in job.attempts if int(attempt.outcome) in _ACCEPTED]
    audit.accepted_twice += len(deciding) > 1
    lost = sum(int(attempt.outcome) == AttemptOutcome.LOST for attempt in job.attempts)
    audit.attempts_lost += lost
    if lost and deciding:
        last = deciding[-1]
        ended = last.ended_at.seconds + last.ended_at.nanos / 1e9
        audit.reruns.append(Rerun(path=path, worker=last.worker, ended_wall_s=ended))
