"""Retries that their job types' budgets have put off, and those that may come earlier by now.

A budget gives each retry that is one too many a place in time (``core.budget``). When it is raised,
or taken away, or lets far more through as more is granted, those places are too late: all that it
has put off then are looked at again, some in each turn. So they are at the begin of a term, as the
last leader may not have been done.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

from tenure.master.core.record import JobRecord
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import JobState

#: (tenant, job name).
TypeName: TypeAlias = tuple[str, str]


class LookedAt(NamedTuple):
    """So many retries of a job type were looked at again, the first ones that were to be."""

    tenant: str
    name: str
    retries: int


class Postponed:
    """See the module. All of it is derived, but for what is to be looked at again."""

    __slots__ = ("_again", "_by_type")

    def __init__(self) -> None:
        #: In the order in which they were put off, as far as this term knows.
        self._by_type: dict[TypeName, dict[JobId, JobRecord]] = {}
        #: What is to be looked at again, the last one first: some may not wait any more.
        self._again: dict[TypeName, list[JobRecord]] = {}

    def note(self, records: Iterable[JobRecord]) -> None:
        """These are, or were, RETRYING."""
        for record in records:
            name = record.policy.tenant, record.policy.name
            if is_put_off(record):
                self._by_type.setdefault(name, {})[record.job_id] = record
            elif name in self._by_type:
                self._by_type[name].pop(record.job_id, None)
                if not self._by_type[name]:
                    del self._by_type[name]

    def waits(self, name: TypeName) -> bool:
        """Whether any retry of a job type waits for its place."""
        return name in self._by_type

    def relax(self, name: TypeName) -> None:
        """Retries of a job type may come earlier."""
        if name in self._by_type:
            self._again[name] = list(self._by_type[name].values())[::-1]

    def begin_term(self) -> None:
        """Any of them may come earlier."""
        for name in self._by_type:
            self.relax(name)

    def is_due(self) -> bool:
        """Whether there is something to look at again."""
        return bool(self._again)

    def due(self, retries_max: int) -> Iterator[tuple[LookedAt, list[JobRecord]]]:
        """What is to be looked at now, by job type: so many at most."""
        for (tenant, name), again in self._again.items():
            part = list(islice(reversed(again), retries_max))
            retries_max -= len(part)
            yield LookedAt(tenant, name, len(part)), [r for r in part if is_put_off(r)]
            if retries_max <= 0:
                return

    def looked_at(self, done: LookedAt) -> None:
        """They were."""
        again = self._again[done.tenant, done.name]
        del again[len(again) - done.retries :]
        if not again:
            del self._again[done.tenant, done.name]

    def all(self) -> dict[TypeName, list[JobId]]:
        """All of them, by job type; for audits."""
        return {name: sorted(waiting) for name, waiting in self._by_type.items()}


def is_put_off(record: JobRecord) -> bool:
    """Whether a job waits for its place among retries."""
    return record.over_budget and record.state is JobState.RETRYING
