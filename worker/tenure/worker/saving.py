"""What jobs of one partition have saved, on its way to the master.

```
 saved ──due──► sent ──ack──► safe
   ▲              └──(stream broke, no ack for long)──► due again
   └── only the newest counts: what is saved before that is sent replaces it
```
Of one job nothing is sent sooner than ``CHECKPOINT_MS_MIN`` after the last, and large data later,
unless its attempt ends: then what it has saved goes before its end, in the same envelope or an
earlier one.
"""

from collections.abc import Callable, Iterable
from typing import Final

from tenure.protocol.fence import Lease
from tenure.protocol.limits import CHECKPOINT_MS_MIN
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.v1 import worker_pb2
from tenure.worker.held import HeldJob

#: After these nothing is ever run again, so nobody needs what was saved.
_FINAL: Final = frozenset(
    {AttemptOutcome.COMPLETED, AttemptOutcome.FAILED_PERMANENT, AttemptOutcome.CANCELLED}
)


class Saving:
    """Jobs with something to send.

    Attributes:
        due: Whether some of it may be sent now.
    """

    def __init__(self) -> None:
        self.due = False
        self._jobs: dict[HeldJob, None] = {}
        #: When it was last told the time.
        self._now_ms = 0

    def __bool__(self) -> bool:
        return bool(self._jobs)

    @property
    def any_ended(self) -> bool:
        """Whether some of it has to go before the end of an attempt."""
        return any(_has_ended(job) for job in self._jobs)

    def add(self, job: HeldJob) -> None:
        """A job has saved something."""
        if not job.freed and job.saved is not None:
            self._jobs[job] = None
            self.due = self.due or _is_due(job, self._now_ms)

    def ended(self, job: HeldJob) -> None:
        """An attempt has ended."""
        if not _is_unsafe(job):
            self.forget(job)

    def forget(self, job: HeldJob) -> None:
        """Nobody wants to know any more what a job has saved."""
        self._jobs.pop(job, None)
        # Who says that there is something to send has to have something.
        self.due = self.due and bool(self._jobs)

    def reopened(self, jobs: Iterable[HeldJob]) -> None:
        """A new stream or master: whatever is not known to be safe is sent again."""
        for job in jobs:
            if job.saved is not None and _is_unsafe(job):
                job.saved.sent_ms = None
                self._jobs[job] = None
                self.due = True

    def offer_again(self, job: HeldJob, before_ms: int) -> None:
        """What was sent before then ought to be safe by now: it is sent again if it is not."""
        saved = job.saved
        if saved is None or saved.sent_ms is None or saved.sent_ms > before_ms:
            return
        if _is_unsafe(job):
            self._jobs[job] = None

    def tick(self, now_ms: int) -> None:
        """Sees whose turn has come."""
        self._now_ms = now_ms
        if self._jobs and not self.due:
            self.due = any(_is_due(job, now_ms) for job in self._jobs)

    def fill(
        self,
        update: worker_pb2.PartitionUpdate,
        now_ms: int,
        bytes_max: int,
        ref: Callable[[str, Lease], worker_pb2.LeaseRef],
    ) -> int:
        """Writes as much as fits into the message, ended attempts first; returns how large it is.

        Args:
            update: The message.
            now_ms: The time.
            bytes_max: Nothing is added beyond it.
            ref: Makes a lease's reference.
        """
        self.due = False
        size = 0
        ended = [job for job in self._jobs if _has_ended(job)]
        for job in dict.fromkeys([*ended, *(j for j in self._jobs if _is_due(j, now_ms))]):
            if size >= bytes_max:
                self.due = True
                break
            del self._jobs[job]
            saved = job.saved
            if saved is None:
                continue
            # In this order: what is saved from here on is told anew.
            saved.told = False
            number, data = saved.newest
            if number <= saved.acked:
                continue
            row = update.checkpoints.add(number=number, data=data)
            row.lease.CopyFrom(ref(job.job_id, job.lease))
            saved.sent_ms = now_ms
            size += len(data) + 64
        return size


def take_acks(
    acks: Iterable[worker_pb2.CheckpointAck],
    find: Callable[[worker_pb2.LeaseRef], HeldJob | None],
) -> None:
    """What jobs have saved is durable, up to these numbers."""
    for ack in acks:
        job = find(ack.lease)
        if job is not None and job.saved is not None:
            job.saved.acked = max(job.saved.acked, ack.number)


def _has_ended(job: HeldJob) -> bool:
    """Whether a job's attempt is over here, be it that it was given back."""
    return job.result is not None or job.freed


def _is_unsafe(job: HeldJob) -> bool:
    """Whether a job has saved what a later attempt may need and a master may not have."""
    if job.saved is None or job.saved.acked >= job.saved.newest[0]:
        return False
    return job.result is None or job.result.outcome not in _FINAL


def _is_due(job: HeldJob, now_ms: int) -> bool:
    """Whether what a job has saved may be sent: not more often than agreed."""
    saved = job.saved
    if saved is None or saved.sent_ms is None:
        return True
    # No job writes more than 64 KiB a second into the journal, whatever it saves.
    pause_ms = CHECKPOINT_MS_MIN + len(saved.newest[1]) // 64
    return now_ms - saved.sent_ms >= pause_ms
