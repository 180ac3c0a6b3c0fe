"""What is wrong with a request itself."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from tenure.protocol import limits
from tenure.protocol.ids import home_partition, mint
from tenure.protocol.refusal import Reason
from tenure.v1 import common_pb2, jobs_pb2, worker_pb2
from tests.integration.app import size
from tests.integration.refusals.row import (
    LARGEST,
    NO_FLAG,
    PAGES,
    PARTITIONS,
    SPLITS,
    STRANGER,
    TYPED,
    Call,
    Facts,
    Row,
    submit,
)


def rows(facts: Facts) -> list[Row]:
    """All of them."""
    return [*_reads(facts), *_shapes(facts), *_sizes(facts), *_partitions(facts)]


def _wrong(
    facts: Facts, name: str, field: str, says: tuple[str, ...], wire: Call, **ways: object
) -> Row:
    known = {"reason": Reason.INVALID_ARGUMENT, "sdk": TYPED, "cli": NO_FLAG, **ways}
    return Row(
        name=name,
        field=field,
        says=says,
        wire=wire,
        address=facts.address,
        code=2,
        **known,  # type: ignore[arg-type]
    )


def _reads(facts: Facts) -> list[Row]:
    """Filters, pages, waits."""
    return [
        _wrong(
            facts,
            *("filter", "filter", ("colour", "state")),
            Call("ListJobs", jobs_pb2.ListJobsRequest(filter="colour = red")),
            sdk=lambda client: next(iter(client.list(filter="colour = red"))),
            cli=("jobs", "list", "--filter", "colour = red"),
        ),
        _wrong(
            facts,
            *("filter of a watch", "filter", ("run", "state")),
            Call("WatchJobs", jobs_pb2.WatchJobsRequest(filter="run = 1"), "answers"),
            sdk=lambda client: next(iter(client.watch(filter="run = 1"))),
            cli=("jobs", "watch", "--filter", "run = 1"),
        ),
        _wrong(
            facts,
            *("page size", "page_size", ("-1", "negative")),
            Call("ListJobs", jobs_pb2.ListJobsRequest(page_size=-1)),
            sdk=PAGES,
            cli=PAGES,
        ),
        _wrong(
            facts,
            *("page token", "page_token", ("page_token", "list")),
            Call("ListJobs", jobs_pb2.ListJobsRequest(page_token="mine")),
            sdk=PAGES,
            cli=PAGES,
        ),
        _wrong(
            facts,
            *("wait", "timeout", ("timeout", "negative")),
            Call(
                "WaitJob",
                jobs_pb2.WaitJobRequest(job_id=facts.pending, timeout=Duration(seconds=-1)),
            ),
        ),
    ]


def _shapes(facts: Facts) -> list[Row]:
    """What does not fit together."""
    return [
        _wrong(
            facts,
            *("no options", "options", ("options", "index")),
            submit(options=[]),
        ),
        _wrong(
            facts,
            *("options' index", "jobs[0].options", ("7", "1")),
            submit(jobs_pb2.JobSpec(options=7)),
        ),
        _wrong(
            facts,
            *("no ids", "job_ids", ("one job at least",)),
            Call("CancelJobs", jobs_pb2.CancelJobsRequest()),
            cli="its parser of flags asks for one first",
        ),
        _wrong(
            facts,
            *("worker without a hello", "hello", ("introduce",)),
            Call("Session", worker_pb2.SessionRequest(), "both", "WorkerService"),
            sdk="it is no worker",
            cli="its worker says hello",
        ),
    ]


def _sizes(facts: Facts) -> list[Row]:
    """More than goes into one request."""
    return [
        _wrong(
            facts,
            *("payload", "payload", (str(LARGEST),)),
            submit(jobs_pb2.JobSpec(payload=bytes(LARGEST + 1))),
            reason=Reason.PAYLOAD_TOO_LARGE,
            sdk=lambda client: client.submit(size, "x" * LARGEST),
            cli=("submit", "size", "--json", "-"),
            stdin=f'["{"x" * LARGEST}"]',
        ),
        _wrong(
            facts,
            *("jobs of a batch", "jobs", ("1000", "1001", "split")),
            submit(*[jobs_pb2.JobSpec()] * 1001),
            reason=Reason.BATCH_TOO_LARGE,
            sdk=SPLITS,
            cli=SPLITS,
        ),
        _wrong(
            facts,
            *("ids of a batch", "job_ids", ("1000", "1001", "split")),
            Call("PurgeJobs", jobs_pb2.PurgeJobsRequest(job_ids=[STRANGER] * 1001)),
            reason=Reason.BATCH_TOO_LARGE,
            sdk=SPLITS,
            cli=SPLITS,
        ),
        _wrong(
            facts,
            *("bytes of a batch", "jobs", (str(limits.BATCH_BYTES_MAX), "split")),
            submit(*[jobs_pb2.JobSpec(payload=bytes(LARGEST))] * 2),
            reason=Reason.BATCH_TOO_LARGE,
            sdk=SPLITS,
            cli=SPLITS,
        ),
    ]


def _partitions(facts: Facts) -> list[Row]:
    """One request is for one partition, and for one that there is."""
    far = _queues_apart()
    return [
        _wrong(
            facts,
            *("queues apart", "options[1].queue", ("partition 0", "partition 1", "one batch")),
            submit(
                *(jobs_pb2.JobSpec(), jobs_pb2.JobSpec(options=1)),
                options=[common_pb2.JobOptions(name="double", queue=queue) for queue in far],
            ),
            reason=Reason.WRONG_PARTITION,
            sdk=SPLITS,
            cli=SPLITS,
        ),
        _wrong(
            facts,
            *("ids apart", "job_ids[1]", ("partition 0", "partition 1", "one batch")),
            Call(
                "RequeueJobs",
                jobs_pb2.RequeueJobsRequest(job_ids=[mint(n, facts.now_ms, n) for n in (0, 1)]),
            ),
            reason=Reason.WRONG_PARTITION,
            sdk=SPLITS,
            cli=SPLITS,
        ),
        _wrong(
            facts,
            *("no partition", "partition", ("9", "2")),
            Call("CountJobs", jobs_pb2.CountJobsRequest(partition=9)),
            reason=Reason.WRONG_PARTITION,
            sdk="it asks for those that there are",
            cli="it asks for those that there are",
        ),
    ]


def _queues_apart() -> list[str]:
    """Names of queues that live in partition 0 and in partition 1."""
    names = [f"queue-{n}" for n in range(100)]
    homes = {home_partition(limits.DEFAULT_TENANT, name, PARTITIONS): name for name in names}
    return [homes[0], homes[1]]
