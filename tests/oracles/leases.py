"""S4 and S5: an accepted lease was issued for that job and was its newest; leases of a job rise.

There are two witnesses: the journal's order, and the workers, whose jobs record the lease that they
start and end under. A first grant may leave before its own event is committed, and die with its
master: the next one then adopts the lease on the worker's word. So every lease must be of a term
that began, and a result must be the one that a job itself ended with under that very lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.oracles.facts import Adopted, Closed, Fact, Granted, Settled, TermBegan, token_of
from tests.oracles.history import END, Row
from tests.oracles.verdict import Violation


def check_leases(rows: Sequence[Row], facts: Iterable[Fact]) -> list[Violation]:
    """One pass over the journal's order, with the workers' rows as the second witness."""
    judge = _Judge(rows)
    for fact in facts:
        judge.see(fact)
    return judge.violations


class _Judge:
    def __init__(self, rows: Sequence[Row]) -> None:
        self.violations: list[Violation] = []
        self._ended = {(row.job, row.lease): row.hash for row in rows if row.f == END}
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
            case Adopted():
                self._adopt(fact)
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
        still_open = self._open.get(fact.job)
        if still_open is not None:
            self._say("S5", fact.job, f"granted as {fact.lease} while {still_open} was open")
        self._issue(fact.job, fact.lease)

    def _adopt(self, fact: Adopted) -> None:
        newest = self._newest.get(fact.job, "")
        if fact.lease <= newest:
            self._say("S5", fact.job, f"adopted {fact.lease}, though {newest} was known")
        self._issue(fact.job, fact.lease)

    def _issue(self, job: str, lease: str) -> None:
        owner = self._owner.setdefault(lease, job)
        if owner != job:
            self._say("S5", job, f"lease {lease} was also granted for {owner}")
        if token_of(lease) not in self._terms:
            self._say("S4", job, f"lease {lease} is of a term that never began")
        self._newest[job] = max(self._newest.get(job, ""), lease)
        self._open[job] = lease

    def _accept(self, fact: Settled) -> None:
        newest = self._newest.get(fact.job, "")
        if fact.lease < newest:
            self._say("S4", fact.job, f"accepted under {fact.lease}, but {newest} is newer")
        if self._owner.get(fact.lease) != fact.job:
            self._say("S4", fact.job, f"accepted under {fact.lease}, which was never issued for it")
        if fact.state != "COMPLETED":
            return
        ended = self._ended.get((fact.job, fact.lease))
        if ended is None:
            self._say("S4", fact.job, f"no worker ended it under {fact.lease}")
        elif ended != fact.content:
            self._say("S4", fact.job, f"the worker under {fact.lease} ended with another result")

    def _say(self, invariant: str, job: str, detail: str) -> None:
        self.violations.append(Violation(invariant, job, detail))
