"""A small run without faults, as rows and facts, for the tests to corrupt."""

from __future__ import annotations

from typing import Any

from tests.oracles.facts import Adopted, Closed, Fact, Granted, Settled, Submitted, TermBegan
from tests.oracles.history import END, RESULT, START, SUBMIT, Kind, Row
from tests.oracles.submits import Present

TERM_1 = f"{1:08x}{7:016x}"
TERM_2 = f"{1:08x}{9:016x}"


def lease(term: str, seq: int, run: int = 0) -> str:
    """A fence text."""
    return f"{term}{seq:016x}{run:08x}"


def row(
    kind: Kind,
    f: str,
    call: int,
    *,
    job: str = "",
    content: str = "",
    lease: str = "",
    attempt: int = 0,
    state: str = "",
) -> Row:
    """One row of one process."""
    return Row(
        wall=0,
        boottime=float(call),
        process="p",
        incarnation="i",
        type=kind,
        f=f,
        call=call,
        job=job,
        hash=content,
        lease=lease,
        attempt=attempt,
        state=state,
    )


def at(boottime: float, kind: Kind, f: str, call: int, **fields: Any) -> Row:
    """One row of one process at a moment; ``content`` is its hash."""
    fields["hash"] = fields.pop("content", "")
    return Row(
        wall=0,
        boottime=boottime,
        process="p",
        incarnation="i",
        type=kind,
        f=f,
        call=call,
        **fields,
    )


def rows() -> list[Row]:
    """Three jobs are acknowledged, one is refused, one stays unknown; two are read twice."""
    history: list[Row] = []
    for call, content in enumerate(("a", "b", "c", "refused", "unknown"), 1):
        history.append(row("invoke", SUBMIT, call, content=content))
    history += [
        row("ok", SUBMIT, 1, job="A", content="a"),
        row("ok", SUBMIT, 2, job="B", content="b"),
        row("ok", SUBMIT, 3, job="C", content="c"),
        row("fail", SUBMIT, 4, content="refused"),
        row("info", SUBMIT, 5, content="unknown"),
        row("ok", START, 6, job="A", lease=lease(TERM_1, 1), attempt=1),
        row("ok", START, 7, job="B", lease=lease(TERM_1, 2), attempt=1),
        row("ok", START, 8, job="B", lease=lease(TERM_2, 1), attempt=2),
        row("ok", START, 9, job="C", lease=lease(TERM_2, 2), attempt=1),
        row("ok", END, 10, job="A", lease=lease(TERM_1, 1), content="a"),
        row("ok", END, 11, job="B", lease=lease(TERM_2, 1), content="b"),
    ]
    for call, (job, state, content) in enumerate(
        (
            ("A", "COMPLETED", "a"),
            ("B", "COMPLETED", "b"),
            ("A", "COMPLETED", "a"),
            ("C", "FAILED", ""),
        ),
        12,
    ):
        history.append(row("invoke", RESULT, call, job=job))
        history.append(row("ok", RESULT, call, job=job, state=state, content=content))
    return history


def present() -> list[Present]:
    """What is there at the end: the unknown one too."""
    return [
        Present("A", "a", "COMPLETED"),
        Present("B", "b", "COMPLETED"),
        Present("C", "c", "FAILED"),
        Present("U", "unknown", "PENDING"),
    ]


def facts() -> list[Fact]:
    """B's first lease is lost with its worker; C's grant was not journaled, so it is adopted."""
    return [
        TermBegan(1, TERM_1),
        Submitted(2, "A", "a", 2, 1),
        Submitted(3, "B", "b", 2, 1),
        Submitted(4, "C", "c", 1, 0),
        Granted(5, "A", lease(TERM_1, 1), 1),
        Granted(6, "B", lease(TERM_1, 2), 1),
        Closed(7, "A", lease(TERM_1, 1), ""),
        Settled(7, "A", 0, lease(TERM_1, 1), "COMPLETED", "a"),
        TermBegan(8, TERM_2),
        Closed(9, "B", lease(TERM_1, 2), "loss"),
        Granted(10, "B", lease(TERM_2, 1), 2),
        Closed(11, "B", lease(TERM_2, 1), ""),
        Settled(11, "B", 0, lease(TERM_2, 1), "COMPLETED", "b"),
        Adopted(12, "C", lease(TERM_2, 2), 1),
        Closed(13, "C", lease(TERM_2, 2), "attempt"),
        Settled(13, "C", 0, lease(TERM_2, 2), "FAILED", ""),
    ]
