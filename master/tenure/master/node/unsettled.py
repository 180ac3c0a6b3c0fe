"""Submits that cannot be answered yet: it is not known of all their jobs if their parents exist.

Such jobs are journaled and wait. Their parents' partitions are asked, and each is then settled or
withdrawn. When that has committed for all of a submit's jobs it is answered, or, for who takes its
answer in parts, when it has for each of them. One that is sent again waits like the first one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tenure.master.core.effect import Reply, SubmitReply
from tenure.master.node.inbox import Answer
from tenure.protocol.errors import TenureError
from tenure.protocol.refusal import Refusal

#: Who waits longer had better send the submit again.
_WAIT_MS: Final = 5_000

Settle = Callable[[SubmitReply | TenureError], None]
#: Is told of rows: their parents exist (None), or why they are refused.
Tell = Callable[[Sequence[int], Refusal | None], None]
#: The same; an error says that nothing is known of any row that is left.
_Told = Callable[[Sequence[int], Refusal | TenureError | None], None]


@dataclass(frozen=True, slots=True)
class InParts:
    """Who takes the answer to a submit in parts; called, it takes the first one.

    Attributes:
        first: Gets the reply, its unsettled rows named; or the error, and then nothing follows.
        late: Is told of each of those rows, once.
    """

    first: Answer
    late: Tell

    def __call__(self, reply: Reply | TenureError) -> None:
        """Takes the first part."""
        self.first(reply)


@dataclass(slots=True, eq=False)
class _Submit:
    told: _Told
    due_ms: int
    #: Rows that are not settled, by job.
    rows: dict[str, list[int]]

    def give_up(self, error: TenureError) -> None:
        rows = [index for indexes in self.rows.values() for index in indexes]
        self.rows.clear()
        if rows:
            self.told(rows, error)


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
        whole = replace(reply, unsettled=())
        left = len(reply.unsettled)

        def told(rows: Sequence[int], fate: Refusal | TenureError | None) -> None:
            nonlocal left
            left -= len(rows)
            if isinstance(fate, TenureError):
                settle(fate)
                return
            if fate is not None:
                _refuse(whole, rows, fate)
            if not left:
                settle(whole)

        self._add(reply, told, now_ms)

    def add_late(self, reply: SubmitReply, late: Tell, now_ms: int) -> None:
        """Tells of each unsettled row of an answer that was given when its job is settled."""

        def told(rows: Sequence[int], fate: Refusal | TenureError | None) -> None:
            late(rows, fate.to_refusal() if isinstance(fate, TenureError) else fate)

        if reply.unsettled:
            self._add(reply, told, now_ms)

    def _add(self, reply: SubmitReply, told: _Told, now_ms: int) -> None:
        rows: dict[str, list[int]] = {}
        for index in reply.unsettled:
            rows.setdefault(reply.job_ids[index], []).append(index)
        submit = _Submit(told, now_ms + _WAIT_MS, rows)
        self._number += 1
        self._submits[self._number] = submit
        for job_id in rows:
            self._by_job.setdefault(job_id, []).append(submit)

    def settle(self, job_id: str, refusal: Refusal | None) -> None:
        """A job's parents exist, or not all do: then it is refused."""
        for submit in self._by_job.pop(job_id, ()):
            submit.told(submit.rows.pop(job_id), refusal)

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
            submit.give_up(error)
        return None

    def abandon(self, error: TenureError) -> None:
        """Ends everything that waits: nobody here will know any more."""
        submits = list(self._submits.values())
        self._submits.clear()
        self._by_job.clear()
        for submit in submits:
            submit.give_up(error)


def _refuse(reply: SubmitReply, rows: Sequence[int], refusal: Refusal) -> None:
    for index in rows:
        reply.job_ids[index] = ""
        reply.refusals.append((index, refusal))
        if index in reply.existing:
            reply.existing.remove(index)
    reply.refusals.sort(key=lambda refused: refused[0])
