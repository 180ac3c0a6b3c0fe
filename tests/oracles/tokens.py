"""S7: one token belongs to one process incarnation, and opens one term of a partition.

Three witnesses name who held a token: the office's key, the ``TermOpened`` in the journal, and what
the processes announced of themselves. An incarnation may hold many tokens one after another; a
token that is seen with two incarnations, or that opens a second term, was used again. (On SQLite
one process holds all partitions under one token: so terms are counted by partition.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tests.oracles.evidence import Said
from tests.oracles.facts import Fact, TermBegan
from tests.oracles.journal import Change, OfficeTaken
from tests.oracles.verdict import Violation


def check_tokens(
    facts: Mapping[int, Sequence[Fact]],
    changes: Iterable[Change] = (),
    announcements: Iterable[Said] = (),
) -> list[Violation]:
    """Compare the witnesses; ``facts`` are by partition, in journal order.

    What announcements call an incarnation is the harness's word: they are compared by themselves.
    """
    judge = _Judge()
    for change in changes:
        if isinstance(change, OfficeTaken) and change.holder:
            judge.see(f"{change.epoch:08x}{change.revision:016x}", change.holder)
    for partition, found in facts.items():
        opened: set[str] = set()
        for fact in found:
            if not isinstance(fact, TermBegan):
                continue
            judge.see(fact.token, fact.incarnation)
            if fact.token in opened:
                judge.say(fact.token, f"opened a second term of partition {partition}")
            opened.add(fact.token)
    leaders: dict[str, tuple[str, str]] = {}
    for said in announcements:
        if said.event == "leader" and said.token:
            process = (said.process, said.incarnation)
            first = leaders.setdefault(said.token, process)
            if first != process:
                judge.say(said.token, f"was announced by {first} and by {process}")
    return judge.violations


class _Judge:
    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self._owner: dict[str, str] = {}

    def see(self, token: str, incarnation: str) -> None:
        if not incarnation:
            return
        owner = self._owner.setdefault(token, incarnation)
        if owner != incarnation:
            self.say(token, f"was held by {owner} and by {incarnation}")

    def say(self, token: str, detail: str) -> None:
        self.violations.append(Violation("S7", f"token {token}", detail))
