"""Rows: jobs on their way in, and what those of one call share."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from tenure.protocol.limits import BATCH_BYTES_MAX, BATCH_JOBS_MAX
from tenure.protocol.refusal import Refusal
from tenure.v1 import common_pb2

#: The message itself, with what is not repeated.
_REQUEST_BYTES: Final = 8
#: An id, its framing and the option's index.
_ROW_BYTES: Final = 56
#: The id of a parent, or of a workflow, with its framing.
_PARENT_BYTES: Final = 38
#: What frames a key, or the options.
_FRAME_BYTES: Final = 4


class Call:
    """What a caller waits for, and what all its rows share.

    Attributes:
        options: Told apart from others by identity.
        key: Idempotency key, or empty.
        deadline_s: When the caller stops waiting, by the loop's clock.
        answered: Done when the fate of every row is known.
        open_rows: How many rows have no fate yet.
        parents: Jobs that must have ended first.
        whole: Its rows, and those of calls with the same one, are taken all or nothing; None: each
            by itself.
    """

    __slots__ = ("answered", "deadline_s", "key", "open_rows", "options", "parents", "whole")

    def __init__(
        self,
        options: common_pb2.JobOptions,
        key: str,
        deadline_s: float,
        answered: asyncio.Future[None],
        open_rows: int,
        parents: Sequence[str] = (),
        whole: object | None = None,
    ) -> None:
        self.options = options
        self.key = key
        self.deadline_s = deadline_s
        self.answered = answered
        self.open_rows = open_rows
        self.parents = parents
        self.whole = whole


class Row(msgspec.Struct, eq=False):
    """One job on its way in. (A struct: there is one for each job.)

    Attributes:
        call: The call that it is of.
        payload: The arguments.
        limit_key: Jobs with the same one share the queue's limits per key; or empty.
        sticky_key: Jobs with the same one go to one worker; or empty.
        job_id: Empty until first sent; in the end the id of the job that exists.
        refusal: Why it was refused, in the end.
        done: Its fate is known.
        unanswered: It was sent and the answer never came: a leader may have it.
        remints: How often it got a new id.
        parents: Jobs that must have ended first, beside those of the call.
        workflow_id: The workflow that it is a member of; or empty.
    """

    call: Call
    payload: bytes
    limit_key: str = ""
    sticky_key: str = ""
    job_id: str = ""
    refusal: Refusal | None = None
    done: bool = False
    unanswered: bool = False
    remints: int = 0
    parents: Sequence[str] = ()
    workflow_id: str = ""

    def accept(self, job_id: str) -> None:
        """A leader has the job, under this id."""
        if not self.done:
            self.job_id = job_id
            self._finish()

    def refuse(self, refusal: Refusal) -> None:
        """It is not accepted, or nobody knows."""
        if not self.done:
            self.refusal = refusal
            self._finish()

    def _finish(self) -> None:
        self.done = True
        call = self.call
        call.open_rows -= 1
        if not call.open_rows and not call.answered.done():
            call.answered.set_result(None)

    @property
    def abandoned(self) -> bool:
        """Nobody waits any more."""
        return self.done or self.call.answered.cancelled()


class Member(NamedTuple):
    """A job that has its id already.

    Attributes:
        job_id: Minted for its home.
        options: Shared with others that have the same ones, by identity.
        payload: The arguments.
        parents: Jobs that must have ended first.
        workflow_id: The workflow that it is a member of; or empty.
        limit_key: As in ``Row``.
        sticky_key: As in ``Row``.
    """

    job_id: str
    options: common_pb2.JobOptions
    payload: bytes
    parents: Sequence[str]
    workflow_id: str = ""
    limit_key: str = ""
    sticky_key: str = ""


class Load:
    """What one request is to carry.

    Attributes:
        rows: How many rows.
        size: Never less than the bytes that the request will have.
    """

    __slots__ = ("_options", "rows", "size")

    def __init__(self) -> None:
        self.rows = 0
        self.size = _REQUEST_BYTES
        self._options: set[int] = set()

    def add(
        self,
        row: Row | Member,
        options: common_pb2.JobOptions,
        key: str = "",
        parents: Sequence[str] = (),
    ) -> bool:
        """Adds a row, with what it shares with others; whether a request can carry it all."""
        size = _ROW_BYTES + len(row.payload)
        if id(options) not in self._options:
            self._options.add(id(options))
            size += options.ByteSize() + _FRAME_BYTES
        if key:
            size += len(key.encode()) + _FRAME_BYTES
        if row.limit_key or row.sticky_key:
            size += len(f"{row.limit_key}{row.sticky_key}".encode()) + 2 * _FRAME_BYTES
        if parents or row.parents or row.workflow_id:
            size += _PARENT_BYTES * (len(parents) + len(row.parents) + 1)
        self.rows += 1
        self.size += size
        return self.rows <= BATCH_JOBS_MAX and self.size <= BATCH_BYTES_MAX


def fit_together(members: Iterable[Member]) -> bool:
    """Whether one request can carry them all."""
    load = Load()
    return all(load.add(member, member.options) for member in members)
