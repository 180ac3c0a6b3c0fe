"""The ``tenure`` command in a process of its own, with a fake cluster behind it.

``python -m tests.integration.cli.program ARGUMENTS…``. At a terminal it becomes the leader of a
session there, so that Ctrl-C reaches it as it does a user's command.

There are two queues, mail and media, three schedules: nightly, hourly and once, and three workers.
The jobs: DONE has completed, DEAD has failed, RUNNING goes on. Each look at RUNNING finds it 40 %
further, until it completes; ``FAKE_ENDLESS`` stops it at 80 %. ``FAKE_JOBS`` adds so many more,
``FAKE_RESULT`` is what DONE returned.
With ``FAKE_STUCK`` the connection never closes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import signal
import sys
import termios
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tenure.cli import main, session
from tenure.client import AsyncClient, cron, named
from tenure.client.codec import encode_args
from tenure.client.schedule import spec_of
from tenure.protocol.errors import Rejected
from tenure.protocol.ids import mint
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import JobState
from tenure.v1 import (
    common_pb2,
    jobs_pb2,
    queues_pb2,
    schedules_pb2,
    worker_pb2,
    workers_pb2,
)
from tests.unit.client.fake_master import EPOCH_MS, FakeCluster

DONE, DEAD, RUNNING = (mint(0, EPOCH_MS + n * 1_000, n) for n in range(3))
STEP = 40.0


#: What a worker is told that it remembers.
Tell = workers_pb2.DrainWorkerRequest | workers_pb2.QuarantineWorkerRequest


class Cluster(FakeCluster):
    """One whose running job comes further each time that somebody looks."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._told: list[Tell] = []

    async def unary(
        self, address: str, method: str, request: Any, response_type: Any, timeout_s: float
    ) -> Any:
        if address not in self.masters:
            sys.stderr.write(f"nobody at {address}\n")
        name = method.rpartition("/")[2]
        if name in ("DrainWorker", "UndrainWorker", "QuarantineWorker", "ReleaseWorker"):
            # Any master can pass that on: they are about no partition.
            return getattr(self, f"_{name}")(request)
        return await super().unary(address, method, request, response_type, timeout_s)

    def _ListQueues(self, request: queues_pb2.ListQueuesRequest) -> queues_pb2.ListQueuesResponse:
        response = queues_pb2.ListQueuesResponse()
        for name, paused, pending in (("mail", False, 1_234), ("media", True, 7)):
            queue = response.queues.add(tenant="default", name=name)
            queue.settings.weight = 2.5
            queue.settings.paused = paused
            queue.settings.concurrency = 20
            queue.settings.rate.count = queue.settings.rate.burst = 100
            queue.settings.rate.per.FromSeconds(60)
            queue.counts.add(state=common_pb2.JOB_STATE_PENDING, count=pending)
            queue.counts.add(state=common_pb2.JOB_STATE_RETRYING, count=3)
            queue.counts.add(state=common_pb2.JOB_STATE_RUNNING, count=20)
        return response

    def _ListWorkers(
        self, request: workers_pb2.ListWorkersRequest
    ) -> workers_pb2.ListWorkersResponse:
        return workers_pb2.ListWorkersResponse(workers=self._workers())

    def _workers(self) -> list[workers_pb2.Worker]:
        """As they are, and as they were told to be."""
        found = workers()
        for worker in found:
            for tell in self._told:
                if tell.worker == worker.incarnation:
                    _obey(worker, tell)
        return found

    def _GetWorker(self, request: workers_pb2.GetWorkerRequest) -> workers_pb2.GetWorkerResponse:
        for worker in self._workers():
            if request.worker in (worker.name, worker.incarnation):
                worker.job_names.extend(["app.jobs.add_up_all_numbers", "app.jobs.report"])
                if worker.name == "w1":
                    worker.job_names.append("app.jobs.sweep")
                row = worker.running.add(
                    job_id=RUNNING,
                    name="app.jobs.add_up_all_numbers",
                    tenant="default",
                    queue="sums",
                    attempt=2,
                    progress=40.0,
                )
                row.granted_at.FromMilliseconds(EPOCH_MS)
                row.started_at.FromMilliseconds(EPOCH_MS + 5)
                return workers_pb2.GetWorkerResponse(worker=worker)
        raise Rejected(
            f"expected a connected worker named {request.worker}, but none of 3 is; did you mean "
            "w1?",
            reason=Reason.NOT_FOUND,
        )

    def _DrainWorker(
        self, request: workers_pb2.DrainWorkerRequest
    ) -> workers_pb2.DrainWorkerResponse:
        self._told.append(request)
        return workers_pb2.DrainWorkerResponse()

    def _UndrainWorker(
        self, request: workers_pb2.UndrainWorkerRequest
    ) -> workers_pb2.UndrainWorkerResponse:
        return workers_pb2.UndrainWorkerResponse()

    def _QuarantineWorker(
        self, request: workers_pb2.QuarantineWorkerRequest
    ) -> workers_pb2.QuarantineWorkerResponse:
        self._told.append(request)
        return workers_pb2.QuarantineWorkerResponse()

    def _ReleaseWorker(
        self, request: workers_pb2.ReleaseWorkerRequest
    ) -> workers_pb2.ReleaseWorkerResponse:
        return workers_pb2.ReleaseWorkerResponse()

    async def close(self) -> None:
        if "FAKE_STUCK" in os.environ:
            sys.stderr.write("closing\n")
            await asyncio.Event().wait()
        await super().close()

    def _ExplainJob(self, request: jobs_pb2.ExplainJobRequest) -> jobs_pb2.ExplainJobResponse:
        response = jobs_pb2.ExplainJobResponse(
            job_id=request.job_id,
            state=common_pb2.JOB_STATE_PENDING,
            ahead=1_233,
            basis="1233 jobs before it, and 41.1 a second have begun while jobs waited",
        )
        response.estimated_wait.FromSeconds(30)
        response.blockers.add(
            kind=jobs_pb2.BLOCKER_KIND_QUEUE_CONCURRENCY,
            text="queue mail runs 20 of at most 20 jobs",
            freed_by="one of them ends",
        )
        rate = response.blockers.add(
            kind=jobs_pb2.BLOCKER_KIND_QUEUE_RATE,
            text="queue mail begins at most 100 jobs in 60000 ms",
            freed_by="its next token",
        )
        rate.until.FromMilliseconds(EPOCH_MS + 600)
        return response

    def _GetJob(self, request: jobs_pb2.GetJobRequest) -> jobs_pb2.GetJobResponse:
        response = super()._GetJob(request)
        job = self.jobs[request.job_id]
        if job.job_id == RUNNING and job.state == JobState.RUNNING:
            job.progress = min(job.progress + STEP, 100.0)
            if job.progress == 100.0 and "FAKE_ENDLESS" not in os.environ:
                self.complete(RUNNING, {"sum": 3})
            job.progress = min(job.progress, 2 * STEP)
        return response


def _obey(worker: workers_pb2.Worker, tell: Tell) -> None:
    """A worker has been told something."""
    if isinstance(tell, workers_pb2.DrainWorkerRequest):
        worker.vitals.drained = True
        worker.state = workers_pb2.WORKER_STATE_DRAINING
    else:
        quarantine = worker.vitals.quarantine
        quarantine.by_hand, quarantine.reason, quarantine.for_ms = True, tell.reason, 20
        worker.state = workers_pb2.WORKER_STATE_QUARANTINED


def workers() -> list[workers_pb2.Worker]:
    """One that works, one whose loop is blocked, one that is drained."""
    found = []
    for number, state in enumerate(("ACTIVE", "BLOCKED", "DRAINED"), 1):
        leases = 3 if state == "BLOCKED" else number % 2
        worker = workers_pb2.Worker(
            incarnation=f"0000000{number}-0000-4000-8000-000000000000",
            name=f"w{number}",
            state=getattr(workers_pb2, f"WORKER_STATE_{state}"),
            queues=["sums", "mail"] if number == 2 else [],
            labels={"zone": "eu", "disk": "ssd"},
            build_id="v7",
            slots=10,
            job_name_count=2,
            leases=leases,
            vitals=worker_pb2.Vitals(
                drained=state == "DRAINED",
                slots_used=leases,
                slots_lost=number - 1,
                children=2,
                rss_bytes=number * 60_000_000,
                cpu_share=0.25 * number,
                loop_lag_ms=4,
            ),
        )
        if state == "BLOCKED":
            blocked = worker.vitals.loop_blocked
            blocked.job_id, blocked.name, blocked.blocked_ms = RUNNING, "app.jobs.spin", 12_300
            blocked.stack = '  File "/srv/app/jobs.py", line 7, in spin\n    while True:\n'
        worker.connected_at.FromMilliseconds(EPOCH_MS - 60_000)
        worker.heartbeat_age.FromMilliseconds(900 * number)
        worker.vitals_age.FromMilliseconds(900 * number)
        found.append(worker)
    return found


def more_ids(count: int) -> list[str]:
    """Ids of further jobs, older than the others."""
    return [mint(0, EPOCH_MS - 1 - n, n) for n in range(count)]


def schedules() -> list[schedules_pb2.Schedule]:
    """One that ticks, one that is paused, one that is over."""
    definition = named("app.jobs.report", queue="night")
    found = []
    for name, when in (
        ("nightly", cron("0 3 * * *", "Europe/Berlin", jitter=timedelta(minutes=5), note="books")),
        ("hourly", cron("@hourly", overlap="buffer_one", paused=True)),
        ("once", cron("0 0 1 1 *", misfire="skip")),
    ):
        spec = spec_of(when, definition, ("s3://books", 2), {})
        schedule = schedules_pb2.Schedule(tenant="default", name=name, spec=spec)
        schedule.created_at.FromMilliseconds(EPOCH_MS)
        schedule.updated_at.FromMilliseconds(EPOCH_MS)
        if name == "nightly":
            for night in range(3):
                schedule.upcoming.add().FromMilliseconds(EPOCH_MS + 86_400_000 * night)
        if name != "hourly":
            schedule.last_tick_at.FromMilliseconds(EPOCH_MS - 86_400_000)
            schedule.last_job_id = DONE
            schedule.fired = 41
            schedule.skipped = 1
        found.append(schedule)
    return found


def cluster() -> Cluster:
    """With its jobs."""
    fake = Cluster(masters=("m:1",))
    for job_id in (DONE, DEAD, RUNNING, *more_ids(int(os.environ.get("FAKE_JOBS", "0")))):
        definition = named("app.jobs.add_up_all_numbers", queue="sums")
        job = jobs_pb2.Job(
            job_id=job_id,
            state=JobState.RUNNING,
            options=definition.wire,
            payload=encode_args(definition, (1, 2), {}),
        )
        job.submitted_at.FromMilliseconds(EPOCH_MS)
        fake.jobs[job_id] = job
    for schedule in schedules():
        fake.schedules[schedule.name] = schedule
    fake.complete(DONE, os.environ.get("FAKE_RESULT") or {"sum": 3})
    fake.fail(DEAD, "ValueError", "no such thing")
    return fake


def connect(settings: Mapping[str, Any]) -> AsyncClient:
    """A client of the fake cluster; it says when it looks for one somewhere else."""
    return AsyncClient(**settings, transport=cluster(), rng=random.Random(1))


if __name__ == "__main__":
    if os.isatty(0):
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        # Shells let what they start in the background ignore Ctrl-C, and so does what that starts:
        # the tests may have been.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    session.connect = connect
    main.main()
