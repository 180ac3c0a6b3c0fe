"""Submits that cannot be answered yet: it is not known of all their jobs if their parents exist.

Such jobs are journaled and wait. Their parents' partitions are asked, and each is then settled or
withdrawn; a submit is answered when that has committed for all of its jobs. One that is sent again
waits like the first one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tenure.master.core.effect import SubmitReply
from tenure.protocol.errors import TenureError
from tenure.protocol.refusal import Refusal

#: Who waits longer had better send the submit again.
_WAIT_MS: Final = 5_000

Settle = Callable[[SubmitReply | TenureError], None]


@dataclass(slots=True, eq=False)
class _Submit:
    reply: SubmitReply
    settle: Settle
    due_ms: int
    #: Rows that are not settled, by job.
    rows: dict[str, list[int]]


class Unsettled:
    """All such submits of a term."""

    def __init__(self) -> None:
        self._by_job: dict[str, list[_Submit]] = {}
        #: In the order in which they came.
        self._submits: dict[int, _Submit] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._submits)

    def add(self, reply: SubmitReply, settle: Settle, now_ms: int) -> None:
        """Keeps an answer until the jobs of its unsettled rows are settled."""
        rows: dict[str, list[int]] = {}
        for index in reply.unsettled:
            rows.setdefault(reply.job_ids[index], []).append(index)
        submit = _Submit(replace(reply, unsettled=()), settle, now_ms + _WAIT_MS, rows)
        self._number += 1
        self._submits[self._number] = submit
        for job_id in rows:
            self._by_job.setdefault(job_id, []).append(submit)

    def settle(self, job_id: str, refusal: Refusal | None) -> None:
        """A job's parents exist, or not all do: then it is refused."""
        for submit in self._by_job.pop(job_id, ()):
            rows = submit.rows.pop(job_id, ())
            if refusal is not None:
                _refuse(submit.reply, rows, refusal)
            if not submit.rows:
                submit.settle(submit.reply)

    def expire(self, now_ms: int, error: TenureError) -> int | None:
        """Ends what has waited for too long; gives when to look again, if ever."""
        for number, submit in list(self._submits.items()):
            if submit.rows and submit.due_ms > now_ms:
                return submit.due_ms
            del self._submits[number]
            for job_id in submit.rows:
                left = [other for other in self._by_job[job_id] if other is not submit]
                if left:
                    self._by_job[job_id] = left
                else:
                    del self._by_job[job_id]
            if submit.rows:
                submit.settle(error)
        return None


def _refuse(reply: SubmitReply, rows: list[int] | tuple[()], refusal: Refusal) -> None:
    for index in rows:
        reply.job_ids[index] = ""
        reply.refusals.append((index, refusal))
        if index in reply.existing:
            reply.existing.remove(index)
    reply.refusals.sort(key=lambda refused: refused[0])
