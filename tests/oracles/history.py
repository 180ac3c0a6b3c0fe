"""Histories: what each process of a run saw, written as it happened, and read back together.

One JSONL file a process. An operation is an ``invoke`` row before it begins, then one row that says
how it ended: ``ok`` (it took effect), ``fail`` (it did not), ``info`` (nobody knows). A process
that was killed leaves its last calls open; the reader closes them as ``info``. An operation that
has no beginning of its own (a job's start, seen by the job) is a single ``ok`` row.

Times are taken by the process that acts, never inferred from what another saw. What a row says of
its operation, by ``f`` (only what the recorder knows; the checkers use what there is):

======== ================ ========================================================================
f        recorded by      fields, beside job
======== ================ ========================================================================
submit   client           invoke: hash (of the content), and what was asked for: key, conflict,
                          delay_ms, priority, queue, tenant, parents, workflow, handed, whole. ok:
                          the same, and the job that was answered. fail: refused, for certain; if
                          because of its key, the job that has it. info: the outcome is unknown
result   client, waiting  ok: state (terminal), hash of the result if COMPLETED. fail: the answer
                          was an error that says that there is none. info: the wait was given up
cancel   client           ok: state, as answered (RUNNING: it was asked to stop). fail: refused;
                          state as the refusal names it, ``NONE`` if there is no such job
requeue  client           invoke: hash of the content that it is to have, if it is to have another
                          one. ok: the same. fail: as for cancel
purge    client           ok. fail: as for cancel
schedule client           invoke: schedule and tenant, and hash of the content of its jobs: each
                          schedule has contents of its own. ok: it was made or changed so. fail:
                          refused, for certain
trigger  client           invoke: schedule and tenant. ok: the same, and the job. fail: refused,
                          for certain
seal     client           invoke: workflow. ok: it is sealed. fail: refused, for certain
get      client           ok: state, and hash of the payload's content if it was read. fail: state
                          ``NONE`` if the answer was that there is no such job
list     client           ok: seen, (job, state) of all that was listed; tenant and queue, if the
                          list was asked for one tenant's or one queue's
start    the running job  lease, attempt, hash of the content that it was given, saved: hash of what
                          an earlier attempt has saved, empty if there is nothing
save     the running job  lease, hash of what it is about to save
defy     the running job  lease: it was asked to stop, and goes on
end      the running job  lease, hash of the result that it is about to return
quit     the running job  lease: it ends without a result: failed, cancelled, or its lease lost
======== ================ ========================================================================
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Literal, Self, TypedDict, Unpack

import msgspec

Kind = Literal["invoke", "ok", "fail", "info"]

#: What operations are called in the rows' ``f``.
SUBMIT = "submit"
RESULT = "result"
CANCEL = "cancel"
REQUEUE = "requeue"
PURGE = "purge"
SCHEDULE = "schedule"
TRIGGER = "trigger"
SEAL = "seal"
GET = "get"
LIST = "list"
START = "start"
SAVE = "save"
DEFY = "defy"
END = "end"
QUIT = "quit"

#: Operations that clients begin and end.
CALLS = frozenset({SUBMIT, RESULT, CANCEL, REQUEUE, PURGE, SCHEDULE, TRIGGER, SEAL, GET, LIST})
#: The ``state`` of an answer that says that there is no such job.
NONE = "NONE"

#: The detail of rows that the reader adds: the call's process did not live to end it.
KILLED = "its process ended"


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a history.

    Attributes:
        wall: The wall clock, ms since the Unix epoch: for people.
        boottime: CLOCK_BOOTTIME in ms: one clock for every process of a machine.
        process: What the process is, for example ``client-1``.
        incarnation: UUID of the process: a restarted one is another.
        type: How far the operation has come.
        f: Which operation.
        call: Counts the operations of an incarnation; joins an ``invoke`` with its end.
        job: The job's id, as soon as the process knows it.
        token: The office's token, where one is seen.
        lease: The fence text of the lease, where one is seen.
        hash: ``hash_of`` what the job is about (submit, get, start) or has come to (result, end).
        attempt: The attempt's number, in rows of a running job.
        state: The job's state as read.
        detail: The error, for people.
        key: The key that was submitted with.
        conflict: What was asked for should the key be taken: ``RETURN`` (or empty), ``REJECT`` or
            ``REPLACE``.
        tenant: Whose job was submitted, or whose jobs were listed.
        queue: Where it was submitted, or what was listed.
        priority: That was asked for; -1: none was.
        delay_ms: That was asked for.
        parents: What the job was to wait for; without its workflow.
        workflow: Which one the job was to be a member of, or which is sealed.
        schedule: Its name.
        handed: Whether its first argument stands for what others come to, and ``hash`` for whose.
        seen: What was listed: (job, state).
        whole: Jobs that were submitted with the same one are to be taken all or none.
        saved: What an attempt began with: the hash of what an earlier one has saved.
    """

    wall: int
    boottime: float
    process: str
    incarnation: str
    type: Kind
    f: str
    call: int
    job: str = ""
    token: str = ""
    lease: str = ""
    hash: str = ""
    attempt: int = 0
    state: str = ""
    detail: str = ""
    key: str = ""
    conflict: str = ""
    tenant: str = ""
    queue: str = ""
    priority: int = -1
    delay_ms: float = 0
    parents: tuple[str, ...] = ()
    workflow: str = ""
    schedule: str = ""
    handed: bool = False
    seen: tuple[tuple[str, str], ...] = ()
    whole: str = ""
    saved: str = ""


class Fields(TypedDict, total=False):
    """The fields of a row that say what it is about."""

    job: str
    token: str
    lease: str
    hash: str
    attempt: int
    state: str
    detail: str
    key: str
    conflict: str
    tenant: str
    queue: str
    priority: int
    delay_ms: float
    parents: tuple[str, ...]
    workflow: str
    schedule: str
    handed: bool
    seen: tuple[tuple[str, str], ...]
    whole: str
    saved: str


def hash_of(value: object) -> str:
    """A short hash of plain data (strings, numbers, lists, maps), the same in every process."""
    encoded = msgspec.msgpack.encode(value, order="deterministic")
    return hashlib.blake2b(encoded, digest_size=12).hexdigest()


class Recorder:
    """The only writer of one history file. Every row is in the file when a method returns.

    A row is one ``write`` to a file opened for appending: kill -9 cuts no row that was written, and
    threads of the process do not mix theirs.
    """

    def __init__(self, directory: Path, process: str) -> None:
        self.process = process
        self.incarnation = str(uuid.uuid4())
        self.path = directory / f"{process}-{self.incarnation[:8]}.jsonl"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o644)
        self._encoder = msgspec.json.Encoder()
        # Jobs in threads count, too.
        self._calls = count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def invoke(self, f: str, **fields: Unpack[Fields]) -> int:
        """An operation begins. Returns its call number, for the row of its end."""
        call = next(self._calls)
        self.write("invoke", f, call, **fields)
        return call

    def observe(self, f: str, **fields: Unpack[Fields]) -> None:
        """Something happened here that has no beginning to record."""
        self.write("ok", f, next(self._calls), **fields)

    def write(self, kind: Kind, f: str, call: int, **fields: Unpack[Fields]) -> None:
        """Append one row."""
        row = Row(
            wall=time.time_ns() // 1_000_000,
            boottime=boottime_ms(),
            process=self.process,
            incarnation=self.incarnation,
            type=kind,
            f=f,
            call=call,
            **fields,
        )
        os.write(self._file, self._encoder.encode(row) + b"\n")


def boottime_ms() -> float:
    """CLOCK_BOOTTIME now, in ms."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) / 1e6


class BadHistory(ValueError):
    """A history that no run of recorders can have written: the evidence itself is broken."""


def read_history(directory: Path) -> list[Row]:
    """All rows of a run, every operation closed, in the order of the boot clock.

    Raises:
        BadHistory: a line does not parse (but for a last one that a kill cut short), an operation
            ends twice, or ends without having begun.
    """
    rows: list[Row] = []
    for path in sorted(directory.glob("*.jsonl")):
        rows += _close_open_calls(path.name, list(_read_rows(path)))
    rows.sort(key=lambda row: row.boottime)
    return rows


def _read_rows(path: Path) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(Row)
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            yield decoder.decode(line)
        except msgspec.DecodeError as error:
            if number == len(lines):
                return
            raise BadHistory(f"{path.name}:{number}: {error}") from error


def _close_open_calls(name: str, rows: list[Row]) -> list[Row]:
    """The rows, and one ``info`` row for each call that its process did not live to end."""
    begun: dict[tuple[str, int], Row] = {}
    ended: set[tuple[str, int]] = set()
    for row in rows:
        key = (row.incarnation, row.call)
        if row.type == "invoke":
            if key in begun:
                raise BadHistory(f"{name}: call {row.call} begins twice")
            begun[key] = row
            continue
        if key in ended:
            raise BadHistory(f"{name}: call {row.call} ({row.f}) ends twice")
        if key not in begun and row.f in CALLS:
            raise BadHistory(f"{name}: call {row.call} ({row.f}) ends without having begun")
        ended.add(key)
    open_calls: Iterable[Row] = (row for key, row in begun.items() if key not in ended)
    last = rows[-1].boottime if rows else 0.0
    return rows + [
        msgspec.structs.replace(row, type="info", boottime=last, detail=KILLED)
        for row in open_calls
    ]
