"""Ids that are none, another cluster's, out of time or taken."""

from __future__ import annotations

from tenure.client import named
from tenure.protocol import limits
from tenure.protocol.ids import home_partition, mint
from tenure.protocol.refusal import Reason
from tenure.v1 import common_pb2, jobs_pb2
from tests.integration.refusals.row import MINTS, OPTIONS, PARTITIONS, Call, Facts, Row, submit


def rows(facts: Facts) -> list[Row]:
    """All of them."""
    return [*_given(facts), *_minted(facts), *_keyed(facts)]


def _given(facts: Facts) -> list[Row]:
    """Ids that users give."""
    alien = mint(9, facts.now_ms, 9)
    return [
        Row(
            name="malformed id",
            reason=Reason.INVALID_ARGUMENT,
            says=("'42'", "UUIDv7", "submit"),
            address=facts.address,
            wire=Call("GetJob", jobs_pb2.GetJobRequest(job_id="42")),
            field="job_id",
            sdk=lambda client: client.describe("42"),
            cli=("jobs", "get", "42"),
            code=2,
        ),
        Row(
            name="malformed id in a batch",
            reason=Reason.INVALID_ARGUMENT,
            says=("'42'", "UUIDv7", "submit"),
            address=facts.address,
            wire=Call("CancelJobs", jobs_pb2.CancelJobsRequest(job_ids=["42"])),
            field="job_ids[0]",
            field_here="job_id",
            sdk=lambda client: client.cancel(["42"]),
            cli=("jobs", "cancel", "42"),
            code=2,
        ),
        Row(
            name="another cluster's id",
            reason=Reason.WRONG_PARTITION,
            says=(alien, "partition 9", "check the id and the cluster"),
            address=facts.address,
            wire=Call("GetJob", jobs_pb2.GetJobRequest(job_id=alien)),
            field="job_id",
            sdk=lambda client: client.describe(alien),
            cli=("jobs", "get", alien),
            code=2,
        ),
    ]


def _keyed(facts: Facts) -> list[Row]:
    """Keys that are taken."""
    job = named("app.nobody", key="taken", key_conflict="reject")
    return [
        Row(
            name="taken key",
            reason=Reason.JOB_KEY_CONFLICT,
            says=(facts.pending, "key taken", "under another key"),
            address=facts.address,
            wire=submit(
                jobs_pb2.JobSpec(key="taken"),
                name="app.nobody",
                key_conflict=common_pb2.KEY_CONFLICT_REJECT,
            ),
            field="key",
            sdk=lambda client: client.submit(job, 1),
            cli=("submit", "app.nobody", "1", "--key", "taken", "--key-conflict", "reject"),
            code=6,
        ),
    ]


def _minted(facts: Facts) -> list[Row]:
    """Ids that clients mint."""
    home = home_partition(limits.DEFAULT_TENANT, OPTIONS["queue"], PARTITIONS)
    old = mint(home, facts.now_ms - limits.RETRY_WINDOW_MS - 60_000, 1)
    ahead = mint(home, facts.now_ms + 2 * limits.ID_AHEAD_MS_MAX, 2)
    there = {"address": facts.address, "sdk": MINTS, "cli": MINTS, "code": 6, "field": "job_id"}
    return [
        Row(
            name="taken id",
            reason=Reason.JOB_ID_CONFLICT,
            says=(facts.completed, "mint a new id"),
            wire=submit(jobs_pb2.JobSpec(job_id=facts.completed, payload=b"another")),
            **there,  # type: ignore[arg-type]
        ),
        Row(
            name="old id",
            reason=Reason.REQUEST_TOO_OLD,
            says=(old, str(limits.RETRY_WINDOW_MS), "look for its effects"),
            wire=submit(jobs_pb2.JobSpec(job_id=old)),
            **there,  # type: ignore[arg-type]
        ),
        Row(
            name="id of the future",
            reason=Reason.ID_FROM_FUTURE,
            says=(ahead, str(limits.ID_AHEAD_MS_MAX), "by the cluster's clock"),
            wire=submit(jobs_pb2.JobSpec(job_id=ahead)),
            **there,  # type: ignore[arg-type]
        ),
    ]
