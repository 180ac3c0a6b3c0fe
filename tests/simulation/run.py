"""A run of a simulated cluster under load, its history kept in memory, judged by the oracles."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tenure.client import (
    AsyncJob,
    AsyncJobHandle,
    JobCancelled,
    JobFailed,
    Rejected,
    Retry,
    TenureError,
    current_job,
    job,
)
from tenure.client.client import AsyncClient
from tenure.client.errors import Reason
from tenure.testing.clock import WALL_ORIGIN_MS
from tenure.testing.cluster import SimCluster
from tenure.testing.process import current_process, elapse
from tests.oracles.court import Evidence, PartitionLog, judge, require
from tests.oracles.history import CANCEL, END, RESULT, START, SUBMIT, Kind, Row, hash_of
from tests.oracles.verdict import Violation

#: Retries come at once and losses are no poison: a run has many of both.
PATIENT = Retry(max_attempts=4, max_lost=10, backoff="none")


@dataclass(slots=True)
class Ledger:
    """The history of all processes of a run."""

    rows: list[Row] = field(default_factory=list)
    _calls: int = 0

    def invoke(self, f: str, *, job: str = "", hash: str = "") -> int:
        """An operation begins; its number."""
        self._calls += 1
        self.write("invoke", f, self._calls, job=job, hash=hash)
        return self._calls

    def observe(self, f: str, *, hash: str = "") -> None:
        """The running job notes its start or its end."""
        me = current_job()
        self._calls += 1
        self.write("ok", f, self._calls, job=me.id, lease=me.fence, attempt=me.attempt, hash=hash)

    def write(self, kind: Kind, f: str, call: int, **fields: str | int) -> None:
        """One row, at this moment of virtual time, by the process that runs now."""
        process = current_process()
        at_ms = asyncio.get_running_loop().time() * 1000
        row = {
            "wall": WALL_ORIGIN_MS + int(at_ms),
            "boottime": at_ms,
            "process": "client" if process is None else process.name,
            "incarnation": "" if process is None else process.name,
            "type": kind,
            "f": f,
            "call": call,
            **fields,
        }
        self.rows.append(Row(**row))  # type: ignore[arg-type]


class Run:
    """The load on one cluster: jobs that return their argument after a while.

    Attributes:
        ledger: What clients and workers saw.
        echo: The job.
    """

    def __init__(self) -> None:
        ledger = self.ledger = Ledger()

        @job(name="echo", retry=PATIENT)
        async def echo(text: str, hold_s: float, failures: int = 0) -> str:
            ledger.observe(START)
            await elapse(hold_s)
            if current_job().attempt <= failures:
                raise RuntimeError("as it was told to")
            ledger.observe(END, hash=hash_of(text))
            return text

        self.echo: AsyncJob[..., str] = echo

    async def one(
        self, client: AsyncClient, text: str, hold_s: float, *, failures: int = 0
    ) -> None:
        """Submits one job and waits for its result."""
        handle = await self.submit(client, text, hold_s, failures=failures)
        if handle is not None:
            await self.result(handle)

    async def submit(
        self, client: AsyncClient, text: str, hold_s: float, *, failures: int = 0
    ) -> AsyncJobHandle[str] | None:
        """Submits one job; None if nobody took it, or nobody knows.

        Args:
            client: Who submits.
            text: What the job returns.
            hold_s: How long each attempt takes.
            failures: How many attempts fail first.
        """
        content = hash_of(text)
        call = self.ledger.invoke(SUBMIT, hash=content)
        try:
            handle = await client.submit(self.echo, text, hold_s, failures)
        except TenureError as error:
            kind: Kind = "info" if error.reason is Reason.OUTCOME_UNKNOWN else "fail"
            self.ledger.write(kind, SUBMIT, call, hash=content, detail=str(error))
            return None
        self.ledger.write("ok", SUBMIT, call, job=handle.id, hash=content)
        return handle

    async def result(self, handle: AsyncJobHandle[str]) -> None:
        """Waits for one result, as long as it takes."""
        call = self.ledger.invoke(RESULT, job=handle.id)
        state, content, detail = "COMPLETED", "", ""
        try:
            content = hash_of(await handle.result())
        except JobFailed as error:
            state, detail = "FAILED", str(error)
        except JobCancelled:
            state = "CANCELLED"
        self.ledger.write(
            "ok", RESULT, call, job=handle.id, hash=content, state=state, detail=detail
        )

    async def cancel(self, handle: AsyncJobHandle[str]) -> None:
        """Asks one job to stop."""
        call = self.ledger.invoke(CANCEL, job=handle.id)
        try:
            await handle.cancel()
        except Rejected as error:
            self.ledger.write("fail", CANCEL, call, job=handle.id, detail=str(error))
        except TenureError as error:
            self.ledger.write("info", CANCEL, call, job=handle.id, detail=str(error))
        else:
            self.ledger.write("ok", CANCEL, call, job=handle.id)

    def judge(self, cluster: SimCluster) -> None:
        """Holds the run to the invariants.

        Raises:
            InvariantBroken: With the first violations.
        """
        violations = [Violation("handler", "", repr(error)) for error in cluster.network.failures]
        require([*violations, *judge(self.evidence(cluster))])

    def evidence(self, cluster: SimCluster) -> Evidence:
        """What is known of the run."""
        return Evidence(
            rows=self.ledger.rows,
            logs=[
                PartitionLog(
                    partition=partition,
                    batches=cluster.journal(partition),
                    hashes={
                        seq: text
                        for (number, seq), text in cluster.state_hashes.items()
                        if number == partition
                    },
                )
                for partition in range(cluster.partitions)
            ],
            partitions=cluster.partitions,
        )
