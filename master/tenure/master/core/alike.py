"""Runs of jobs that are alike: what most events write, so that most work is done once a run."""

from collections.abc import Iterator
from typing import NamedTuple

from tenure.master.core.record import JobRecord, Policy


class Run(NamedTuple):
    """Jobs in a row that are alike."""

    policy: Policy
    priority: int
    limit_key: str
    sticky_key: str
    records: list[JobRecord]


def runs_of(records: list[JobRecord]) -> Iterator[Run]:
    """Splits jobs into runs of those that are alike."""
    first = records[0]
    policy, priority = first.policy, first.priority
    limit_key, sticky_key = first.limit_key, first.sticky_key
    start = 0
    for index, record in enumerate(records):
        if (
            record.policy is policy
            and record.priority == priority
            and record.limit_key == limit_key
            and record.sticky_key == sticky_key
        ):
            continue
        yield Run(policy, priority, limit_key, sticky_key, records[start:index])
        start = index
        policy, priority = record.policy, record.priority
        limit_key, sticky_key = record.limit_key, record.sticky_key
    yield Run(policy, priority, limit_key, sticky_key, records[start:] if start else records)
