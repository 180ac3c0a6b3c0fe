"""What the cluster cannot do now."""

from __future__ import annotations

from collections.abc import Callable

from tenure.client import Client
from tenure.protocol.refusal import Reason
from tenure.v1 import jobs_pb2, worker_pb2
from tests.integration.app import double, size
from tests.integration.refusals.row import FOLLOWS, LARGEST, OWN_WORDS, Call, Facts, Row, submit
from tests.integration.refusals.stand_in import LEADER
from tests.integration.refusals.tight_master import BYTES_MAX, QUEUE_DEPTH_MAX


def rows(facts: Facts) -> list[Row]:
    """All of them."""
    return [*_full(facts), *_away(facts), *_from_stand_in(facts)]


def _full(facts: Facts) -> list[Row]:
    """No room."""
    return [
        Row(
            name="full queue",
            reason=Reason.QUEUE_FULL,
            says=("full", f"{QUEUE_DEPTH_MAX}", "try again later"),
            address=facts.address,
            wire=submit(queue="full"),
            retry=True,
            sdk=lambda client: client.submit(double.options(queue="full"), 1),
            cli=("submit", "double", "1", "--queue", "full"),
            code=4,
        ),
        Row(
            name="full memory",
            reason=Reason.MEMORY_FULL,
            says=("default", str(BYTES_MAX), "try again later"),
            address=facts.address,
            wire=submit(jobs_pb2.JobSpec(payload=bytes(LARGEST))),
            retry=True,
            sdk=lambda client: client.submit(size, "x" * (LARGEST - 100)),
            cli=("submit", "size", "--json", "-"),
            stdin=f'["{"x" * (LARGEST - 100)}"]',
            code=4,
        ),
    ]


def _away(facts: Facts) -> list[Row]:
    """Nobody leads, nobody is there, or not for such an old worker."""
    return [
        Row(
            name="halted partition",
            reason=Reason.PARTITION_HALTED,
            says=("partition 0", "halted", "tenure cluster status"),
            address=facts.halted,
            wire=Call("CountJobs", jobs_pb2.CountJobsRequest()),
            retry=True,
            sdk=lambda client: client.count(),
            cli=("jobs", "count"),
            code=4,
        ),
        Row(
            name="nobody there",
            reason=Reason.UNREACHABLE,
            says=(facts.closed, "is a master running there?"),
            address=facts.closed,
            wire=OWN_WORDS,
            sdk=lambda client: client.count(),
            cli=("jobs", "count"),
            code=4,
        ),
        Row(
            name="old worker",
            reason=Reason.PROTOCOL_TOO_OLD,
            says=("worker-0", "upgrade it"),
            address=facts.address,
            wire=Call(
                "Session",
                worker_pb2.SessionRequest(
                    hello=worker_pb2.Hello(incarnation="w-0", name="worker-0", protocol=0)
                ),
                "both",
                "WorkerService",
            ),
            sdk="it is no worker",
            cli="its worker speaks the present revision",
            code=6,
        ),
    ]


def _from_stand_in(facts: Facts) -> list[Row]:
    """What no healthy cluster says."""
    return [
        Row(
            name=f"stand-in: {reason}",
            reason=reason,
            says=says,
            address=facts.stand_in,
            wire=Call("CountJobs", jobs_pb2.CountJobsRequest(filter=reason)),
            retry=reason is not Reason.INTERNAL,
            sdk=_counted(reason) if reason is not Reason.NOT_LEADER else FOLLOWS,
            cli=("jobs", "count", "--filter", reason)
            if reason is not Reason.NOT_LEADER
            else FOLLOWS,
            code=1 if reason is Reason.INTERNAL else 4,
        )
        for reason, says in (
            (Reason.NOT_LEADER, ("partition 0", f"ask {LEADER}")),
            (Reason.FROZEN, ("try again",)),
            (Reason.OUTCOME_UNKNOWN, ("try again",)),
            (Reason.STORE_UNAVAILABLE, ("try again",)),
            (Reason.STORE_FULL, ("try again",)),
            (Reason.INTERNAL, ("see its log",)),
        )
    ]


def _counted(reason: Reason) -> Callable[[Client], object]:
    return lambda client: client.count(filter=reason)
