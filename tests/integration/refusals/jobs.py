"""Jobs that are not there, or not so."""

from __future__ import annotations

from tenure.client import named
from tenure.protocol.ids import home_partition, mint
from tenure.protocol.limits import DEFAULT_QUEUE, DEFAULT_TENANT
from tenure.protocol.refusal import Reason
from tenure.v1 import jobs_pb2
from tests.integration.app import double
from tests.integration.refusals.row import (
    PARTITIONS,
    STATES,
    STRANGER,
    Call,
    Facts,
    Row,
    submit,
)

UNKNOWN = ("no such job is known", "check the id and the cluster")


def rows(facts: Facts) -> list[Row]:
    """All of them."""
    return [
        *_gone(facts),
        *_elsewhere_in_life(facts),
        *_waited_for(facts),
        *_parents(facts),
    ]


def _row(facts: Facts, name: str, reason: Reason, code: int, **ways: object) -> Row:
    return Row(
        name=name,
        reason=reason,
        code=code,
        address=facts.address,
        **ways,  # type: ignore[arg-type]
    )


def _gone(facts: Facts) -> list[Row]:
    """Never known, or forgotten."""
    return [
        _row(
            facts,
            *("unknown job", Reason.NOT_FOUND, 3),
            says=(STRANGER, *UNKNOWN),
            wire=Call("GetJob", jobs_pb2.GetJobRequest(job_id=STRANGER)),
            sdk=lambda client: client.describe(STRANGER),
            cli=("jobs", "get", STRANGER),
        ),
        _row(
            facts,
            *("explanation of an unknown job", Reason.NOT_FOUND, 3),
            says=(STRANGER, *UNKNOWN),
            wire=Call("ExplainJob", jobs_pb2.ExplainJobRequest(job_id=STRANGER)),
            sdk=lambda client: client.explain(STRANGER),
            cli=("jobs", "explain", STRANGER),
        ),
        _row(
            facts,
            *("cancel of an unknown job", Reason.NOT_FOUND, 3),
            says=(STRANGER, *UNKNOWN),
            wire=Call("CancelJobs", jobs_pb2.CancelJobsRequest(job_ids=[STRANGER])),
            sdk=lambda client: client.cancel([STRANGER])[0].error,
            cli=("jobs", "cancel", STRANGER),
        ),
        _row(
            facts,
            *("wait for an unknown job", Reason.NOT_FOUND, 3),
            says=(STRANGER, *UNKNOWN),
            wire=Call("WaitJob", jobs_pb2.WaitJobRequest(job_id=STRANGER)),
            sdk=lambda client: client.get(STRANGER).result(timeout=10),
            cli=("jobs", "wait", STRANGER),
        ),
        _row(
            facts,
            *("purged job", Reason.RESULT_EXPIRED, 3),
            says=(facts.purged, "tombstone", "result_ttl"),
            wire=Call("GetJob", jobs_pb2.GetJobRequest(job_id=facts.purged)),
            sdk=lambda client: client.get(facts.purged).result(timeout=10),
            cli=("jobs", "wait", facts.purged),
        ),
        _row(
            facts,
            *("requeue of a purged job", Reason.RESULT_EXPIRED, 3),
            says=(facts.purged, "tombstone", "nothing left"),
            wire=Call("RequeueJobs", jobs_pb2.RequeueJobsRequest(job_ids=[facts.purged])),
            sdk=lambda client: client.requeue([facts.purged])[0].error,
            cli=("jobs", "requeue", facts.purged),
        ),
    ]


def _elsewhere_in_life(facts: Facts) -> list[Row]:
    """In a state that does not allow it; changes that are forgotten."""
    return [
        _row(
            facts,
            *("cancel of a completed job", Reason.WRONG_STATE, 6),
            says=(facts.completed, "COMPLETED"),
            wire=Call("CancelJobs", jobs_pb2.CancelJobsRequest(job_ids=[facts.completed])),
            sdk=lambda client: client.cancel([facts.completed])[0].error,
            cli=("jobs", "cancel", facts.completed),
        ),
        _row(
            facts,
            *("requeue of a completed job", Reason.WRONG_STATE, 6),
            says=(facts.completed, "COMPLETED", "FAILED and CANCELLED"),
            wire=Call("RequeueJobs", jobs_pb2.RequeueJobsRequest(job_ids=[facts.completed])),
            sdk=lambda client: client.requeue([facts.completed])[0].error,
            cli=("jobs", "requeue", facts.completed),
        ),
        _row(
            facts,
            *("purge of a waiting job", Reason.WRONG_STATE, 6),
            says=(facts.pending, "PENDING", "cancel it first"),
            wire=Call("PurgeJobs", jobs_pb2.PurgeJobsRequest(job_ids=[facts.pending])),
            sdk=lambda client: client.purge([facts.pending])[0].error,
            cli=("jobs", "purge", facts.pending, "--yes"),
        ),
        _row(
            facts,
            *("watch from too far back", Reason.CURSOR_EXPIRED, 6),
            says=("partition 0", "list the jobs", "from now on"),
            wire=Call("WatchJobs", jobs_pb2.WatchJobsRequest(after_seq=0), "answers"),
            sdk=lambda client: next(iter(client.watch(cursor="0:0"))),
            cli=("jobs", "watch", "--cursor", "0:0"),
        ),
    ]


def _waited_for(facts: Facts) -> list[Row]:
    """Results that are not had."""
    return [
        _row(
            facts,
            *("failed job", Reason.JOB_FAILED, 1),
            says=(facts.failed, "double", "1 attempt"),
            wire=STATES,
            sdk=lambda client: client.get(facts.failed).result(timeout=10),
            cli=("jobs", "wait", facts.failed),
        ),
        _row(
            facts,
            *("cancelled job", Reason.JOB_CANCELLED, 1),
            says=(facts.cancelled, "tenure jobs requeue"),
            wire=STATES,
            sdk=lambda client: client.get(facts.cancelled).result(timeout=10),
            cli=("jobs", "wait", facts.cancelled),
        ),
        _row(
            facts,
            *("job that takes longer", Reason.DEADLINE_EXCEEDED, 124),
            says=(facts.pending, "wait longer"),
            wire="WaitJob answers with the present state",
            sdk=lambda client: client.get(facts.pending).result(timeout=0.1),
            cli=("jobs", "wait", facts.pending, "--wait-timeout", "0.1"),
        ),
        _row(
            facts,
            *("function that is not here", Reason.UNKNOWN_JOB, 3),
            says=("app.resize",),
            wire="masters know no functions: the job waits for a worker that has it",
            sdk=lambda _: named("app.resize")(1),
            cli="it calls no function",
        ),
        _row(
            facts,
            *("codec that is not here", Reason.UNKNOWN_CODEC, 3),
            says=("application/x-mine", "import what registers it"),
            wire="masters know no codecs: the job waits for a worker that has it",
            sdk=lambda client: client.submit(
                named("app.resize", content_type="application/x-mine")
            ),
            field_here="content_type",
            cli="it sends MessagePack",
        ),
    ]


def _parents(facts: Facts) -> list[Row]:
    """Jobs to wait for that are not there, or that wait themselves for what is submitted."""
    itself = mint(home_partition(DEFAULT_TENANT, DEFAULT_QUEUE, PARTITIONS), facts.now_ms, 4)
    return [
        _row(
            facts,
            *("unknown parent", Reason.UNKNOWN_PARENT, 3),
            says=(STRANGER,),
            wire=submit(jobs_pb2.JobSpec(parents=[STRANGER])),
            field="parents[0]",
            sdk=lambda client: client.submit(double.options(after=[STRANGER]), 1),
            cli=("submit", "double", "1", "--after", STRANGER),
        ),
        _row(
            facts,
            *("parents in a circle", Reason.PARENT_CYCLE, 2),
            says=(itself,),
            wire=submit(jobs_pb2.JobSpec(job_id=itself, parents=[itself])),
            field="parents",
            sdk="a job that was not submitted has no id that another one could name",
            cli="a job that was not submitted has no id that another one could name",
        ),
    ]
