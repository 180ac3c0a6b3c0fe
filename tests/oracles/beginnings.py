"""S8, the other half: what had committed when an office was won is in the state of its term.

A term begins behind all that its journal held when its office was won: nobody else can write from
then on. So whoever holds an office never sends a batch under a number that had been taken before.
(Such a batch is refused, and nothing is lost; but what was recovered was not the whole journal, and
jobs would have been judged by it.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.oracles.journal import BatchWritten, Change, OfficeTaken, OfficeVacated
from tests.oracles.verdict import Violation


def check_beginnings(
    partition: int, changes: Iterable[Change], trace: Iterable[Mapping[str, Any]]
) -> list[Violation]:
    """Compare the numbers that masters sent with those that were there before their terms.

    Args:
        partition: Whose.
        changes: What its store did, with times.
        trace: What its masters traced: ``append_sent``, with who did as ``by``.
    """
    violations: list[Violation] = []
    told = [change for change in changes if getattr(change, "at_ms", None) is not None]
    told.reverse()
    holder, last, number = "", -1, -1
    for row in trace:
        if row["event"] != "append_sent":
            continue
        while told and (told[-1].at_ms or 0.0) <= row["boot_ms"]:  # type: ignore[union-attr]
            match told.pop():
                case OfficeTaken(holder=name):
                    holder, last = name, number
                case OfficeVacated():
                    holder = ""
                case BatchWritten(number=written):
                    number = written
        if holder and row["by"] == holder and row["number"] <= last:
            detail = f"{holder} sent batch {row['number']}; {last} were there when it took office"
            violations.append(Violation("S8", f"partition {partition}", detail))
    return violations
