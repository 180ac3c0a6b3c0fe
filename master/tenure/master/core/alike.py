"""Runs of jobs that are alike: what most events write, so that most work is done once a run."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from tenure.master.core.record import JobRecord, Policy


class Run(NamedTuple):
    """Jobs that are alike, in their order."""

    policy: Policy
    priority: int
    limit_key: str
    sticky_key: str
    records: list[JobRecord]


def runs_of(records: list[JobRecord]) -> Iterator[Run]:
    """Splits jobs into runs of those that are alike; others of their policy may come between."""
    first = records[0]
    policy, priority, ties = first.policy, first.priority, first.ties
    own: list[JobRecord] = []
    runs: dict[tuple[int, str, str], list[JobRecord]] = {
        (priority, ties.limit_key, ties.sticky_key): own
    }
    for record in records:
        if record.policy is not policy or record.priority != priority or record.ties is not ties:
            if record.policy is not policy:
                for kind, run in runs.items():
                    yield Run(policy, *kind, run)
                policy, runs = record.policy, {}
            priority, ties = record.priority, record.ties
            own = runs.setdefault((priority, ties.limit_key, ties.sticky_key), [])
        own.append(record)
    for kind, run in runs.items():
        yield Run(policy, *kind, run)


def pieces(records: list[JobRecord]) -> Iterator[list[JobRecord]]:
    """Splits jobs into such as differ by no more than their keys, in order of submission.

    What each is can go into an order as one: all of it became ready at the same time.
    """
    piece = [records[0]]
    last = records[0]
    for record in islice(records, 1, None):
        if not (
            record.ready_ms == last.ready_ms
            and record.ordinal > last.ordinal
            and record.policy is last.policy
            and record.priority == last.priority
        ):
            yield piece
            piece = []
        piece.append(record)
        last = record
    yield piece
