"""Queues that are not there, settings that cannot be, and boosts of what does not wait."""

from __future__ import annotations

from tenure.client import RateLimit
from tenure.protocol.refusal import Reason
from tenure.v1 import jobs_pb2, queues_pb2
from tests.integration.refusals.row import Call, Facts, Row


def rows(facts: Facts) -> list[Row]:
    """All of them."""
    return [
        Row(
            name="weight below zero",
            reason=Reason.INVALID_ARGUMENT,
            says=("-1.0 is no share", "pause it instead"),
            address=facts.address,
            wire=_update(queues_pb2.QueueSettings(weight=-1)),
            field="settings.weight",
            sdk=lambda client: client.queues.set("mail", weight=-1),
            cli=("queues", "set", "mail", "--weight", "-1"),
            code=2,
        ),
        Row(
            name="rate of nothing",
            reason=Reason.INVALID_ARGUMENT,
            says=("rate.count", "0", "1"),
            address=facts.address,
            wire=_update(queues_pb2.QueueSettings(rate=queues_pb2.RateLimit(count=0))),
            field="settings.rate.count",
            field_here="rate.count",
            sdk=lambda client: client.queues.set("mail", rate=RateLimit(count=0)),
            cli=("queues", "set", "mail", "--rate", "0/s"),
            code=2,
        ),
        Row(
            name="everything reserved",
            reason=Reason.INVALID_ARGUMENT,
            says=("1.0 is no share", "less than 1"),
            address=facts.address,
            wire=_update(queues_pb2.QueueSettings(reserved=1)),
            field="settings.reserved",
            sdk=lambda client: client.queues.set("mail", reserved=1.0),
            cli=("queues", "set", "mail", "--reserved", "1"),
            code=2,
        ),
        Row(
            name="unknown queue",
            reason=Reason.NOT_FOUND,
            says=("mial", "check the name"),
            address=facts.address,
            wire=Call("GetQueue", queues_pb2.GetQueueRequest(name="mial"), service="QueueService"),
            field="name",
            sdk=lambda client: client.queues.get("mial"),
            cli=("queues", "get", "mial"),
            code=3,
        ),
        Row(
            name="boost of an ended job",
            reason=Reason.WRONG_STATE,
            says=(facts.completed, "COMPLETED", "only jobs that wait"),
            address=facts.address,
            wire=Call(
                "BoostJobs", jobs_pb2.BoostJobsRequest(job_ids=[facts.completed], priority=0)
            ),
            sdk=lambda client: client.boost([facts.completed], priority=0)[0].error,
            cli=("jobs", "boost", facts.completed, "--priority", "0"),
            code=6,
        ),
    ]


def _update(settings: queues_pb2.QueueSettings) -> Call:
    request = queues_pb2.UpdateQueueRequest(name="mail", settings=settings)
    return Call("UpdateQueue", request, service="QueueService")
