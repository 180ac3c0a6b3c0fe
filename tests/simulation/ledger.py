"""The history of a simulated run, and a client whose every operation is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar, Unpack

import msgspec

from tenure.client import (
    AsyncJobHandle,
    BatchFailed,
    BlockerKind,
    Cron,
    Explanation,
    JobCancelled,
    JobDef,
    JobFailed,
    JobState,
    Rejected,
    TenureError,
    current_job,
)
from tenure.client.change import JobVerdict, requeue_with
from tenure.client.client import AsyncClient
from tenure.client.errors import Reason
from tenure.client.job import Step
from tenure.client.parent_result import Placeholder, parents_of
from tenure.client.workflow import AsyncWorkflow
from tenure.testing.clock import WALL_ORIGIN_MS
from tenure.testing.process import Process, current_process
from tests.oracles.history import (
    CANCEL,
    GET,
    KILLED,
    LIST,
    NONE,
    PURGE,
    REQUEUE,
    RESULT,
    SCHEDULE,
    SEAL,
    SUBMIT,
    TRIGGER,
    Fields,
    Kind,
    Row,
    hash_of,
)

T = TypeVar("T")

#: What an operation is about beside its job.
NOTHING: Final[Fields] = {}
#: Answers that say that there is no such job (any more).
_NO_JOB: Final = (Reason.NOT_FOUND, Reason.RESULT_EXPIRED)


@dataclass(slots=True)
class Ledger:
    """The history of all processes of a run."""

    rows: list[Row] = field(default_factory=list)
    _calls: int = 0
    #: Each process that has written, and what tells it from others of its name.
    _incarnations: dict[Process, str] = field(default_factory=dict)

    def invoke(self, f: str, **fields: Unpack[Fields]) -> int:
        """An operation begins; its number."""
        self._calls += 1
        self.write("invoke", f, self._calls, **fields)
        return self._calls

    def observe(self, f: str, *, hash: str = "", saved: str = "") -> None:
        """The running job notes its start or its end, or what it saves."""
        me = current_job()
        self._calls += 1
        seen: Fields = {"job": me.id, "lease": me.fence, "attempt": me.attempt, "hash": hash}
        if saved:
            seen["saved"] = saved
        self.write("ok", f, self._calls, **seen)

    def write(self, kind: Kind, f: str, call: int, **fields: Unpack[Fields]) -> None:
        """One row, at this moment of virtual time, by the process that runs now."""
        process = current_process()
        name = incarnation = "client"
        if process is not None:
            if process.killed:
                # It only unwinds: nobody is there to write.
                return
            name = process.name
            known = self._incarnations
            incarnation = known.setdefault(process, f"{name}/{len(known)}")
        at_ms = asyncio.get_running_loop().time() * 1000
        self.rows.append(
            Row(
                wall=WALL_ORIGIN_MS + int(at_ms),
                boottime=at_ms,
                process=name,
                incarnation=incarnation,
                type=kind,
                f=f,
                call=call,
                **fields,
            )
        )

    def close(self, process: Process) -> None:
        """A client was killed: nobody knows what became of its open calls."""
        incarnation = self._incarnations.get(process)
        last = {row.call: row for row in self.rows if row.incarnation == incarnation}
        at_ms = asyncio.get_running_loop().time() * 1000
        self.rows += [
            msgspec.structs.replace(row, type="info", boottime=at_ms, detail=KILLED)
            for row in last.values()
            if row.type == "invoke"
        ]


class Desk:
    """What one client does, and the rows that say so.

    Args:
        ledger: Where the rows go.
        client: Who asks.
    """

    def __init__(self, ledger: Ledger, client: AsyncClient) -> None:
        self.ledger = ledger
        self.client = client

    async def submit(
        self, job: JobDef[..., Any], *args: Any, **options: Any
    ) -> AsyncJobHandle[Any] | None:
        """Submits one job; None if nobody took it, or nobody knows.

        Args:
            job: Which; it returns its first argument.
            *args: Its arguments.
            **options: As ``JobDef.options`` takes them.
        """
        if options:
            job = job.options(**options)
        asked = asked_of(job, args)
        call = self.ledger.invoke(SUBMIT, **asked)
        try:
            handle = await self.client.submit(job, *args)
        except TenureError as error:
            self._not_taken(call, asked, error)
            return None
        taken: Fields = {**asked, "job": handle.id}
        self.ledger.write("ok", SUBMIT, call, **taken)
        return handle

    async def submit_many(
        self, job: JobDef[..., Any], calls: Sequence[Sequence[Any]], *, whole: str = ""
    ) -> Sequence[AsyncJobHandle[Any]]:
        """Submits a batch; the handles of those that were taken for certain.

        Args:
            job: Which; it returns its first argument.
            calls: Its arguments, of each of them.
            whole: What tells the batch from others, if it is all or nothing.
        """
        asked: list[Fields] = [{**asked_of(job, args), "whole": whole} for args in calls]
        numbers = [self.ledger.invoke(SUBMIT, **fields) for fields in asked]
        errors: dict[int, TenureError] = {}
        try:
            handles = await self.client.submit_many(job, calls, all_or_nothing=bool(whole))
        except BatchFailed as failed:
            handles, errors = failed.handles, dict(failed.errors)
        except TenureError as error:
            handles, errors = [], dict.fromkeys(range(len(calls)), error)
        taken = iter(handles)
        for index, (number, fields) in enumerate(zip(numbers, asked, strict=True)):
            if index in errors:
                self._not_taken(number, fields, errors[index])
            else:
                found: Fields = {**fields, "job": next(taken).id}
                self.ledger.write("ok", SUBMIT, number, **found)
        return handles

    def _not_taken(self, call: int, asked: Fields, error: TenureError) -> None:
        kind: Kind = "info" if error.reason is Reason.OUTCOME_UNKNOWN else "fail"
        refused: Fields = {**asked, "detail": str(error)}
        if error.reason is Reason.JOB_KEY_CONFLICT:
            refused["job"] = error.metadata["job_id"]
        self.ledger.write(kind, SUBMIT, call, **refused)

    async def result(self, handle: AsyncJobHandle[Any]) -> str:
        """Waits for one result, as long as it takes; the state in which the job has ended."""
        return await read_result(self.ledger, handle)

    async def cancel(self, job_id: str) -> bool:
        """Asks one job to stop; whether that was answered, be it by a refusal."""
        return await self._change(CANCEL, job_id, self.client.cancel)

    async def requeue(self, job_id: str, step: Step[Any] | None = None) -> None:
        """Gives one job that has ended badly a new run, with its own or other arguments."""
        if step is None:
            await self._change(REQUEUE, job_id, self.client.requeue)
            return

        async def edit(_: Sequence[str]) -> list[JobVerdict]:
            return [await requeue_with(self.client, job_id, step)]

        await self._change(REQUEUE, job_id, edit, {"hash": hash_of(step.args[0])})

    async def purge(self, job_id: str) -> None:
        """Forgets one job that has ended."""
        await self._change(PURGE, job_id, self.client.purge)

    async def _change(
        self,
        f: str,
        job_id: str,
        change: Callable[[list[str]], Awaitable[Sequence[JobVerdict]]],
        asked: Fields = NOTHING,
    ) -> bool:
        about: Fields = {**asked, "job": job_id}
        call = self.ledger.invoke(f, **about)
        try:
            (verdict,) = await change([job_id])
            if verdict.error is not None:
                raise verdict.error
        except Rejected as error:
            state = NONE if error.reason in _NO_JOB else error.metadata.get("state", "")
            refused: Fields = {**about, "state": state, "detail": str(error)}
            self.ledger.write("fail", f, call, **refused)
        except TenureError as error:
            unknown: Fields = {**about, "detail": str(error)}
            self.ledger.write("info", f, call, **unknown)
            return False
        else:
            done: Fields = {**about, "state": "" if verdict.state is None else verdict.state.name}
            self.ledger.write("ok", f, call, **done)
        return True

    async def put(
        self, name: str, when: Cron, job: JobDef[..., Any], *args: Any, create: bool = False
    ) -> bool:
        """Makes or changes a schedule; whether it is so for certain."""
        asked: Fields = {
            "schedule": name,
            "tenant": job.settings.tenant,
            "hash": hash_of(args[0]),
        }
        schedules = self.client.schedules
        put = schedules.create if create else schedules.put
        return await self._note(SCHEDULE, asked, lambda: put(name, when, job, *args)) is not None

    async def trigger(self, name: str, tenant: str) -> AsyncJobHandle[Any] | None:
        """Lets a schedule's job run now; None if that is not certain."""
        asked: Fields = {"schedule": name, "tenant": tenant}
        trigger = self.client.schedules.trigger
        return await self._note(TRIGGER, asked, lambda: trigger(name, tenant=tenant))

    async def flush(
        self, workflow: AsyncWorkflow, asked: Mapping[str, Fields]
    ) -> list[AsyncJobHandle[Any]]:
        """Submits what was added to a workflow; the handles of members taken for certain.

        Args:
            workflow: The workflow.
            asked: By id: what is asked for each of them, in the order in which they were added.
        """
        numbers = {job_id: self.ledger.invoke(SUBMIT, **row) for job_id, row in asked.items()}
        errors: dict[int, TenureError] = {}
        try:
            await workflow.flush()
        except BatchFailed as failed:
            errors = dict(failed.errors)
        except TenureError as error:
            errors = dict.fromkeys(range(len(asked)), error)
        taken: list[AsyncJobHandle[Any]] = []
        for index, (job_id, row) in enumerate(asked.items()):
            if index in errors:
                self._not_taken(numbers[job_id], row, errors[index])
                continue
            answered: Fields = {**row, "job": job_id}
            self.ledger.write("ok", SUBMIT, numbers[job_id], **answered)
            taken.append(AsyncJobHandle(self.client, job_id, "", None))
        return taken

    async def seal(self, workflow: AsyncWorkflow) -> bool:
        """Lets a workflow run; whether it does for certain."""
        asked: Fields = {"workflow": workflow.id}

        async def seal() -> bool:
            await workflow.seal()
            return True

        return await self._note(SEAL, asked, seal) is not None

    async def _note(self, f: str, asked: Fields, call: Callable[[], Awaitable[T]]) -> T | None:
        """Makes a call about no job that is known; None if it was refused, or nobody knows."""
        number = self.ledger.invoke(f, **asked)
        try:
            answer = await call()
        except TenureError as error:
            # What is there may be what an earlier try has made.
            sure = isinstance(error, Rejected) and error.reason is not Reason.SCHEDULE_EXISTS
            refused: Fields = {**asked, "detail": str(error)}
            self.ledger.write("fail" if sure else "info", f, number, **refused)
            return None
        found: Fields = {**asked}
        if isinstance(answer, AsyncJobHandle):
            found["job"] = answer.id
        self.ledger.write("ok", f, number, **found)
        return answer

    async def explain(self, job_id: str) -> None:
        """Asks why a job does not run.

        Raises:
            RuntimeError: What is said does not go together.
        """
        call = self.ledger.invoke(GET, job=job_id)
        try:
            found = await self.client.explain(job_id)
        except Rejected as error:
            if error.reason not in _NO_JOB:
                raise
            self.ledger.write("fail", GET, call, job=job_id, state=NONE)
        except TenureError as error:
            self.ledger.write("info", GET, call, job=job_id, detail=str(error))
        else:
            self.ledger.write("ok", GET, call, job=job_id, state=found.state.name)
            check_explanation(found)

    async def get(self, job_id: str) -> None:
        """Reads one job."""
        call = self.ledger.invoke(GET, job=job_id)
        try:
            found = await self.client.describe(job_id)
        except Rejected as error:
            if error.reason not in _NO_JOB:
                raise
            self.ledger.write("fail", GET, call, job=job_id, state=NONE)
        except TenureError as error:
            self.ledger.write("info", GET, call, job=job_id, detail=str(error))
        else:
            self.ledger.write("ok", GET, call, job=job_id, state=JobState(found.state).name)

    async def list(self, *, tenant: str = "", queue: str = "") -> None:
        """Reads all jobs, or those of one tenant or queue, page by page."""
        call = self.ledger.invoke(LIST)
        jobs = self.client.list(tenant=tenant, queue=queue)
        try:
            seen = [(job.job_id, JobState(job.state).name) async for job in jobs]
        except TenureError as error:
            self.ledger.write("info", LIST, call, detail=str(error))
        else:
            found = tuple(seen)
            self.ledger.write("ok", LIST, call, seen=found, tenant=tenant, queue=queue)


async def read_result(ledger: Ledger, handle: AsyncJobHandle[Any]) -> str:
    """Waits for one result, as long as it takes; the state in which the job has ended."""
    call = ledger.invoke(RESULT, job=handle.id)
    state, content, detail = "COMPLETED", "", ""
    try:
        content = hash_of(await handle.result())
    except JobFailed as error:
        state, detail = "FAILED", str(error)
    except JobCancelled:
        state = "CANCELLED"
    except Rejected as error:
        if error.reason not in _NO_JOB:
            raise
        ledger.write("fail", RESULT, call, job=handle.id, state=NONE)
        return NONE
    ledger.write("ok", RESULT, call, job=handle.id, hash=content, state=state, detail=detail)
    return state


def asked_of(job: JobDef[..., Any], args: Sequence[Any], workflow: str = "") -> Fields:
    """What the rows of a submit say beside its job and its end."""
    settings, content = job.settings, args[0]
    handed = isinstance(content, Placeholder)
    if handed:
        content = content.job_ids
    parents = dict.fromkeys((*settings.after, *parents_of(args, {})))
    return {
        "hash": hash_of(content),
        "handed": handed,
        "parents": tuple(parents),
        "workflow": workflow,
        "key": settings.key,
        "conflict": settings.key_conflict.upper(),
        "tenant": settings.tenant,
        "queue": settings.queue,
        "priority": -1 if settings.priority is None else settings.priority,
        "delay_ms": 0.0 if settings.delay is None else settings.delay.total_seconds() * 1000,
    }


def check_explanation(found: Explanation) -> None:
    """Holds an explanation to the job's state.

    Raises:
        RuntimeError: A job that waits has to have something that it waits for, or it is its turn.
    """
    kinds = {blocker.kind for blocker in found.blockers}
    match found.state:
        case JobState.PENDING:
            fine = bool(kinds) or found.estimated_wait == timedelta(0)
        case JobState.BLOCKED:
            fine = BlockerKind.PARENTS in kinds
        case JobState.SCHEDULED:
            fine = BlockerKind.NOT_DUE in kinds
        case JobState.RETRYING:
            fine = bool({BlockerKind.NOT_DUE, BlockerKind.RETRY_BUDGET} & kinds)
        case _:
            fine = not kinds and not found.ahead
    if not fine:
        raise RuntimeError(f"expected an explanation that explains, but got {found}")
