"""S16: one job a (tenant, queue, key) in its window, and concurrent submits get the same id.

In the journal: a key's next job is accepted only after the window of the one before, by the term's
clock. At the clients: whatever id a submit with a key was answered, the job of that id is one that
the journal accepted under that very key; so two concurrent submits with different answers would
need two jobs of one key in the journal, and those are never in one window.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.oracles.facts import Fact, Submitted
from tests.oracles.history import SUBMIT, Row
from tests.oracles.verdict import Violation

_Name = tuple[str, str, str]


def check_keys(rows: Iterable[Row], facts: Iterable[Fact]) -> list[Violation]:
    """Facts of all partitions, each in journal order; a key lives in one of them."""
    holders: dict[_Name, Submitted] = {}
    names: dict[str, str] = {}
    violations = []
    for fact in facts:
        if not isinstance(fact, Submitted):
            continue
        names[fact.job] = fact.key
        if not fact.key:
            continue
        name = (fact.tenant, fact.queue, fact.key)
        former = holders.get(name)
        if former is not None and fact.at_ms < former.at_ms + former.key_window_ms:
            left_ms = former.at_ms + former.key_window_ms - fact.at_ms
            detail = (
                f"accepted for key {fact.key} while {former.job} held it, {left_ms} ms too soon"
            )
            violations.append(Violation("S16", fact.job, detail))
        holders[name] = fact
    for row in rows:
        if row.f != SUBMIT or row.type != "ok" or not row.key:
            continue
        key = names.get(row.job, row.key)
        if key != row.key:
            detail = f"answered for key {row.key}, but its key is {key!r}"
            violations.append(Violation("S16", row.job, detail))
    return violations
