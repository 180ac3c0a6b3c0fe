"""Jobs that are alike: what most events write, so that most work is done once for many of them."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

from tenure.master.core.record import JobRecord, Policy

#: What jobs of one policy may differ by: their priority, limit key and sticky key.
Kind: TypeAlias = tuple[int, str, str]


class Kin(NamedTuple):
    """Jobs of one policy, in their order; and split into those that are alike, in theirs."""

    policy: Policy
    records: list[JobRecord]
    runs: dict[Kind, list[JobRecord]]


def kin_of(records: list[JobRecord]) -> Iterator[Kin]:
    """Splits jobs wherever their policy changes."""
    first = records[0]
    policy, priority, ties = first.policy, first.priority, first.ties
    start = 0
    own: list[JobRecord] = []
    runs: dict[Kind, list[JobRecord]] = {(priority, ties.limit_key, ties.sticky_key): own}
    for index, record in enumerate(records):
        if record.ties is not ties or record.policy is not policy or record.priority != priority:
            if record.policy is not policy:
                yield Kin(policy, records[start:index], runs)
                start, policy, runs = index, record.policy, {}
            priority, ties = record.priority, record.ties
            own = runs.setdefault((priority, ties.limit_key, ties.sticky_key), [])
        own.append(record)
    yield Kin(policy, records[start:], runs)


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
