"""Runs of jobs that are alike: what most events write, so that most work is done once a run."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from tenure.master.core.record import JobRecord, Policy, Ties


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
    policy, priority, ties = first.policy, first.priority, first.ties
    start = 0
    for index, record in enumerate(records):
        if (
            record.policy is policy
            and record.priority == priority
            and (record.ties is ties or _same_keys(record.ties, ties))
        ):
            continue
        yield Run(policy, priority, ties.limit_key, ties.sticky_key, records[start:index])
        start = index
        policy, priority, ties = record.policy, record.priority, record.ties
    rest = records[start:] if start else records
    yield Run(policy, priority, ties.limit_key, ties.sticky_key, rest)


def _same_keys(one: Ties, other: Ties) -> bool:
    return one.limit_key == other.limit_key and one.sticky_key == other.sticky_key


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
