"""Leases of one partition that are handed back, until its master is known to have heard of it.

```
 handed back ──due──► said ──answer to a heartbeat that went along, or later──► forgotten
      ▲                 └──(stream broke, or another leads)──► due again
```
What is said on a stream that breaks may never have arrived, and nothing answers it by itself. A
lease that was started and is then missing from its worker's set counts as lost, and that is
charged. So whoever opens the partition next is told of the lease as if it were held, and then that
it is handed back. Said twice, it has no effect: the lease is over.
"""

from collections.abc import Callable

from tenure.protocol.fence import Lease
from tenure.v1 import worker_pb2
from tenure.worker.held import HeldJob


class Returns:
    """Leases that are handed back."""

    def __init__(self) -> None:
        #: Each lease with its job, if that was here.
        self._due: list[tuple[str, Lease, HeldJob | None]] = []
        #: Said, and nothing shows yet that it has arrived.
        self._said: list[HeldJob | None] = []
        #: How many were said before those.
        self._forgotten = 0

    def __len__(self) -> int:
        """How many no master is known to have heard of."""
        return len(self._due) + len(self._said)

    @property
    def due(self) -> bool:
        """Whether there is something to say."""
        return bool(self._due)

    @property
    def mark(self) -> int:
        """How many have been said by now: ``heard`` takes it."""
        return self._forgotten + len(self._said)

    def add(self, job: HeldJob) -> None:
        """A job is handed back, and is not held any more."""
        self._due.append((job.job_id, job.lease, job))

    def refuse(self, job_id: str, lease: Lease) -> None:
        """A lease that is not here is handed back."""
        self._due.append((job_id, lease, None))

    def unsaid(self) -> list[HeldJob]:
        """Jobs that the master believes to be here, as nothing else was said yet."""
        return [job for _, _, job in self._due if job is not None]

    def reopened(self) -> None:
        """A new stream or master: whatever may not have arrived is said again.

        What never was here is not in the declaration, and that says it all.
        """
        self._forgotten += len(self._said)
        again = [(job.job_id, job.lease, job) for job in self._said if job is not None]
        self._due = [*again, *self._due]
        self._said.clear()

    def heard(self, mark: int) -> None:
        """The master has heard all that had been said when ``mark`` was so much."""
        count = mark - self._forgotten
        if count > 0:
            del self._said[:count]
            self._forgotten = mark

    def fill(
        self,
        update: worker_pb2.PartitionUpdate,
        ref: Callable[[str, Lease], worker_pb2.LeaseRef],
    ) -> None:
        """Writes all that is due into the message; ``ref`` makes a lease's reference."""
        update.returned.extend([ref(job_id, lease) for job_id, lease, _ in self._due])
        self._said += [job for _, _, job in self._due]
        self._due.clear()
