"""A crowded limit key: the reference of what becomes of its jobs, and jobs that are tried again."""

from typing import Final

from tenure.master.core.command import LeaseRow
from tenure.master.core.record import Policy, RetryPolicy
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import Backoff, Jitter, JobState, LimitStrategy

BACKOFF_MS: Final = 2
TOUGH = Policy(
    name="job",
    queue="mail",
    retry=RetryPolicy(
        backoff=Backoff.FIXED, base_ms=BACKOFF_MS, jitter=Jitter.NONE, max_attempts=1_000
    ),
)


class Key:
    """What becomes of a key's jobs, by the words of docs/explanation/scheduling.md."""

    def __init__(self, strategy: LimitStrategy, limit: int) -> None:
        self.strategy, self.limit = strategy, limit
        self.states: dict[JobId, JobState] = {}
        #: When they became or become ready.
        self.ready_ms: dict[JobId, int] = {}
        #: Those that run, who of them was asked to stop, and all that ever ran.
        self.running: dict[JobId, LeaseRow] = {}
        self.stopping: set[JobId] = set()
        self.begun: set[JobId] = set()

    def waiting(self) -> list[JobId]:
        """The ready ones, in the order of their submits."""
        return [job_id for job_id, state in self.states.items() if state is JobState.PENDING]

    def pass_to(self, now_ms: int) -> None:
        """Time passes; then those who are too many go."""
        for job_id, state in self.states.items():
            due = self.ready_ms[job_id] <= now_ms
            if state in (JobState.SCHEDULED, JobState.RETRYING) and due:
                self.states[job_id] = JobState.PENDING
        waiting = self.waiting()
        if self.strategy is LimitStrategy.CANCEL_NEWEST:
            fresh = [job_id for job_id in waiting if job_id not in self.begun]
            taken = len(self.running) + len(waiting) - len(fresh)
            for job_id in fresh[max(self.limit - taken, 0) :]:
                self.states[job_id] = JobState.CANCELLED
        elif self.strategy is LimitStrategy.CANCEL_IN_PROGRESS:
            there = {*waiting, *self.running} - self.stopping
            oldest_first = [job_id for job_id in self.states if job_id in there]
            for job_id in oldest_first[: max(len(oldest_first) - self.limit, 0)]:
                if job_id in self.running:
                    self.stopping.add(job_id)
                else:
                    self.states[job_id] = JobState.CANCELLED

    def grant(self) -> list[JobId]:
        """Who gets the places that are free."""
        by_place = sorted(self.waiting(), key=self.ready_ms.__getitem__)
        granted = by_place[: max(self.limit - len(self.running), 0)]
        self.states |= dict.fromkeys(granted, JobState.RUNNING)
        self.begun |= {*granted}
        return granted

    def end(self, job_id: JobId, what: str, now_ms: int) -> LeaseRow:
        """A job that runs has ended, or its attempt has; its lease."""
        stopping = job_id in self.stopping
        match what:
            case "fail":
                state = JobState.RETRYING
                self.ready_ms[job_id] = now_ms + BACKOFF_MS
            case "give back":
                state = JobState.PENDING
            case _:
                state = JobState.COMPLETED
                stopping = stopping and what == "stop"
        self.states[job_id] = JobState.CANCELLED if stopping else state
        self.stopping.discard(job_id)
        return self.running.pop(job_id)
