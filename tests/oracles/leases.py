"""S4 and S5: an accepted lease was issued for that job and was its newest; leases of a job rise.

A first grant may leave before its own event is committed, and die with its master. So a lease that
the journal does not show counts as issued when a worker recorded that the job started under it,
and its token is that of a term that began.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.oracles.facts import Closed, Fact, Granted, Settled, TermBegan, token_of
from tests.oracles.history import START, Row
from tests.oracles.verdict import Violation


def check_leases(rows: Sequence[Row], facts: Iterable[Fact]) -> list[Violation]:
    """One pass over the journal's order, with the workers' starts as the second witness."""
    started = {(row.job, row.lease) for row in rows if row.f == START}
    judge = _Judge(started)
    for fact in facts:
        judge.see(fact)
    return judge.violations


class _Judge:
    def __init__(self, started: set[tuple[str, str]]) -> None:
        self.violations: list[Violation] = []
        self._started = started
        self._terms: set[str] = set()
        self._newest: dict[str, str] = {}
        self._open: dict[str, str] = {}
        self._owner: dict[str, str] = {}

    def see(self, fact: Fact) -> None:
        match fact:
            case TermBegan():
                self._terms.add(fact.token)
            case Granted():
                self._grant(fact)
            case Closed():
                if self._open.get(fact.job) == fact.lease:
                    del self._open[fact.job]
            case Settled():
                if fact.lease:
                    self._accept(fact)
                self._open.pop(fact.job, None)
            case _:
                pass

    def _grant(self, fact: Granted) -> None:
        newest = self._newest.get(fact.job, "")
        if fact.lease <= newest:
            self._say("S5", fact.job, f"lease {fact.lease} was granted after {newest}")
        owner = self._owner.setdefault(fact.lease, fact.job)
        if owner != fact.job:
            self._say("S5", fact.job, f"lease {fact.lease} was also granted for {owner}")
        still_open = self._open.get(fact.job)
        if still_open is not None:
            self._say("S5", fact.job, f"granted as {fact.lease} while {still_open} was open")
        if token_of(fact.lease) not in self._terms:
            self._say("S4", fact.job, f"lease {fact.lease} is of a term that never began")
        self._newest[fact.job] = max(newest, fact.lease)
        self._open[fact.job] = fact.lease

    def _accept(self, fact: Settled) -> None:
        newest = self._newest.get(fact.job, "")
        if fact.lease < newest:
            self._say("S4", fact.job, f"accepted under {fact.lease}, but {newest} is newer")
        if self._owner.get(fact.lease) == fact.job:
            return
        if (fact.job, fact.lease) not in self._started or token_of(fact.lease) not in self._terms:
            self._say("S4", fact.job, f"accepted under {fact.lease}, which was never issued for it")

    def _say(self, invariant: str, job: str, detail: str) -> None:
        self.violations.append(Violation(invariant, job, detail))
