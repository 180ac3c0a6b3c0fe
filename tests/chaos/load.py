"""A client under load, as a process: submits jobs, waits for their results, records both.

``python -m tests.chaos.load --address A[,B] --name client-1 --open 1000 --hold-s 0.3``. It keeps
``--open`` jobs on their way until a line ``stop`` on stdin (or ``--jobs`` are submitted), waits for
what is left, prints ``drained`` and ends. With ``--at-once`` it submits all ``--jobs`` first. Its
JSON lines count what was acknowledged and completed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tenure.client import AsyncClient, AsyncJobHandle, JobDef, JobFailed, TenureError
from tenure.client.errors import Reason
from tests.chaos import app
from tests.oracles.history import RESULT, SUBMIT, Recorder, hash_of

_RESULT_TIMEOUT_S = 150.0
#: A result that did not come is asked for again: what nobody ever reads counts as lost.
_READS_MAX = 3
_BATCH = 1_000


@dataclass(slots=True)
class Load:
    """One run of the client."""

    client: AsyncClient
    recorder: Recorder
    name: str
    hold_s: float
    padding: int
    jobs_max: int
    say_every: int
    job: JobDef[[str, float], str] = app.echo
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    submitted: int = 0
    acked: int = 0
    completed: int = 0
    unknown: int = 0
    failed: int = 0

    async def run(self, open_max: int) -> None:
        """Keeps that many jobs on their way until it is told to stop."""
        async with asyncio.TaskGroup() as group:
            for _ in range(min(open_max, self.jobs_max)):
                group.create_task(self._one_after_another())
        self.say("drained")

    async def run_at_once(self) -> None:
        """Submits all jobs in batches, then waits for all results."""
        handles: list[AsyncJobHandle[str]] = []
        for first in range(1, self.jobs_max + 1, _BATCH):
            handles += await self._submit_many(range(first, min(first + _BATCH, self.jobs_max + 1)))
        async with asyncio.TaskGroup() as group:
            for handle in handles:
                group.create_task(self._read(handle))
        self.say("drained")

    def say(self, event: str) -> None:
        """One line on stdout."""
        line = {
            "event": event,
            "acked": self.acked,
            "completed": self.completed,
            "unknown": self.unknown,
            "failed": self.failed,
        }
        print(json.dumps(line), flush=True)  # noqa: T201 - its stdout is what the test reads

    async def _one_after_another(self) -> None:
        while not self.stopping.is_set() and self.submitted < self.jobs_max:
            self.submitted += 1
            text = self._text(self.submitted)
            handle = await self._submit(text)
            if handle is not None:
                await self._read(handle)

    async def _read(self, handle: AsyncJobHandle[str]) -> None:
        for _ in range(_READS_MAX):
            if await self._result(handle):
                return

    async def _submit_many(self, numbers: range) -> Sequence[AsyncJobHandle[str]]:
        """A batch, of which all must be taken: this load comes before the faults."""
        texts = [self._text(number) for number in numbers]
        hashes = [hash_of(text) for text in texts]
        calls = [self.recorder.invoke(SUBMIT, hash=content) for content in hashes]
        handles = await self.client.submit_many(self.job, [(text, self.hold_s) for text in texts])
        for call, content, handle in zip(calls, hashes, handles, strict=True):
            self.recorder.write("ok", SUBMIT, call, hash=content, job=handle.id)
        self.acked += len(handles)
        self.say("acked")
        return handles

    def _text(self, number: int) -> str:
        """What tells a job from all others, those of another process under this name too."""
        return f"{self.name}/{self.recorder.incarnation}/{number:06d}{'.' * self.padding}"

    async def _submit(self, text: str) -> AsyncJobHandle[str] | None:
        content = hash_of(text)
        # From once to twice as long: jobs that began together do not end together.
        hold_s = self.hold_s * (1 + self.submitted % 16 / 15)
        call = self.recorder.invoke(SUBMIT, hash=content)
        try:
            handle: AsyncJobHandle[str] = await self.client.submit(self.job, text, hold_s)
        except TenureError as error:
            unknown = error.reason is Reason.OUTCOME_UNKNOWN
            self.recorder.write(
                "info" if unknown else "fail",
                SUBMIT,
                call,
                hash=content,
                job=error.metadata.get("job_id", ""),
                detail=str(error),
            )
            self.unknown += unknown
            self.failed += not unknown
            self.say("submit_failed")
            return None
        self.recorder.write("ok", SUBMIT, call, job=handle.id, hash=content)
        self.acked += 1
        if self.acked % self.say_every == 0 or self.acked == self.jobs_max:
            self.say("acked")
        return handle

    async def _result(self, handle: AsyncJobHandle[str]) -> bool:
        """Whether it was read."""
        job_id = handle.id
        call = self.recorder.invoke(RESULT, job=job_id)
        state, content, detail = "COMPLETED", "", ""
        try:
            content = hash_of(await handle.result(timeout=_RESULT_TIMEOUT_S))
        except JobFailed as error:
            state, detail = "FAILED", str(error)
        except (TenureError, TimeoutError) as error:
            self.recorder.write("info", RESULT, call, job=job_id, detail=repr(error))
            self.say("result_unknown")
            return False
        self.recorder.write(
            "ok", RESULT, call, job=job_id, hash=content, state=state, detail=detail
        )
        self.completed += 1
        if self.completed % self.say_every == 0 or self.completed == self.jobs_max:
            self.say("completed")
        return True


async def main() -> None:
    """Parses the flags, runs the load, obeys stdin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--open", type=int, default=100)
    parser.add_argument("--at-once", action="store_true", help="submit all jobs first, in batches")
    parser.add_argument("--jobs", type=int, default=10**9)
    parser.add_argument("--hold-s", type=float, default=0.0)
    parser.add_argument("--padding", type=int, default=0, help="bytes to add to each payload")
    parser.add_argument("--say-every", type=int, default=50, help="jobs between two lines")
    parser.add_argument("--job", default="echo")
    parser.add_argument("--timeout-s", type=float, help="each attempt's limit")
    parser.add_argument("--delay-s", type=float, help="how long each job waits first")
    parser.add_argument("--queue", help="another queue than the job's own")
    flags = parser.parse_args()
    job = getattr(app, flags.job)
    if flags.queue:
        job = job.options(queue=flags.queue)
    if flags.timeout_s:
        job = job.options(timeout=timedelta(seconds=flags.timeout_s))
    if flags.delay_s:
        job = job.options(delay=timedelta(seconds=flags.delay_s))
    with Recorder(Path(os.environ["CHAOS_HISTORY"]), flags.name) as recorder:
        async with AsyncClient(flags.address) as client:
            load = Load(
                client=client,
                recorder=recorder,
                name=flags.name,
                hold_s=flags.hold_s,
                padding=flags.padding,
                jobs_max=flags.jobs,
                say_every=flags.say_every,
                job=job,
            )
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), load.stopping.set)
            await (load.run_at_once() if flags.at_once else load.run(flags.open))


if __name__ == "__main__":
    asyncio.run(main())
