"""Retries that were put off, by themselves: who waits, and what is looked at again."""

import msgspec

from tenure.master.core.postponed import LookedAt, Postponed
from tenure.master.core.record import JobRecord, Policy
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import JobState
from tests.unit.master.core.rig import Rig

A, B = ("default", "a"), ("other", "b")


def put_off(rig: Rig, *names: tuple[str, str]) -> list[JobRecord]:
    """Retries of these job types, each over its budget."""
    records = []
    for tenant, name in names:
        record = rig.record(rig.submit_one(Policy(name=name, tenant=tenant)))
        copy = msgspec.structs.replace(record, state=JobState.RETRYING, over_budget=True)
        records.append(copy)
    return records


def ids(records: list[JobRecord]) -> list[JobId]:
    """Theirs."""
    return [record.job_id for record in records]


def looks(postponed: Postponed, most: int) -> list[tuple[LookedAt, list[JobId]]]:
    """What is to be looked at now."""
    return [(done, ids(records)) for done, records in postponed.due(most)]


def test_who_is_over_its_budget_waits() -> None:
    """As long as it is RETRYING, and over it; a job type is forgotten with its last one."""
    first, second, other = put_off(Rig(), A, A, B)
    postponed = Postponed()
    postponed.note([first, second, other])
    assert (postponed.waits(A), postponed.waits(B), postponed.waits(("default", "b"))) == (
        True,
        True,
        False,
    )
    assert postponed.all() == {A: sorted(ids([first, second])), B: ids([other])}
    first.state = JobState.PENDING
    second.over_budget = False
    postponed.note([first])
    assert postponed.all() == {A: ids([second]), B: ids([other])}
    postponed.note([second, first])
    assert postponed.all() == {B: ids([other])}
    assert not postponed.waits(A)


def test_what_may_come_earlier_is_looked_at_in_its_order() -> None:
    """The first that were put off first; some in each turn, of one job type after the other."""
    records = put_off(Rig(), A, A, A, B)
    postponed = Postponed()
    postponed.note(records)
    assert not postponed.is_due()
    postponed.begin_term()
    assert postponed.is_due()
    assert looks(postponed, 9) == [
        (LookedAt(*A, 3), ids(records[:3])),
        (LookedAt(*B, 1), ids(records[3:])),
    ]
    assert looks(postponed, 3) == [(LookedAt(*A, 3), ids(records[:3]))]
    assert looks(postponed, 2) == [(LookedAt(*A, 2), ids(records[:2]))]
    postponed.looked_at(LookedAt(*A, 2))
    assert looks(postponed, 9)[0] == (LookedAt(*A, 1), ids(records[2:3]))
    postponed.looked_at(LookedAt(*A, 1))
    assert looks(postponed, 9) == [(LookedAt(*B, 1), ids(records[3:]))]
    postponed.looked_at(LookedAt(*B, 1))
    assert not postponed.is_due()


def test_only_what_waits_still_is_looked_at() -> None:
    """What does not wait any more takes its place in a turn, and nothing is done about it."""
    first, second = put_off(Rig(), A, A)
    postponed = Postponed()
    postponed.note([first, second])
    postponed.relax(B)
    assert not postponed.is_due()
    postponed.relax(A)
    first.state = JobState.CANCELLED
    postponed.note([first])
    assert looks(postponed, 1) == [(LookedAt(*A, 1), [])]
    assert looks(postponed, 2) == [(LookedAt(*A, 2), ids([second]))]
