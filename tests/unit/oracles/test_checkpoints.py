"""S21: sound histories of checkpoints pass, and each corrupted one is refused."""

from __future__ import annotations

import pytest

from tests.oracles.checkpoints import check_checkpoints
from tests.oracles.facts import Adopted, Closed, Granted, JobFact, Requeued, Saved, Settled
from tests.oracles.history import SAVE, START, Row
from tests.oracles.word import Word
from tests.unit.oracles.sample import TERM_1, TERM_2, at, lease

FIRST, SECOND, THIRD = lease(TERM_1, 1), lease(TERM_2, 1), lease(TERM_2, 2)
NEXT_RUN = lease(TERM_2, 3, 1)

LIFE: list[JobFact] = [
    Granted(1, "j", FIRST, 1),
    Saved(2, "j", FIRST, 1, "a"),
    Saved(3, "j", FIRST, 4, "b"),
    Closed(4, "j", FIRST, "loss"),
    Granted(5, "j", SECOND, 2),
    Closed(6, "j", SECOND, "loss"),
    Granted(7, "j", THIRD, 3),
    Saved(8, "j", THIRD, 1, "c"),
    Settled(9, "j", 0, THIRD, "FAILED", ""),
    Requeued(10, "j", 1),
    Granted(11, "j", NEXT_RUN, 1),
]


def start(at_ms: float, under: str, saved: str = "") -> Row:
    """An attempt begins."""
    return at(at_ms, "ok", START, int(at_ms), job="j", lease=under, saved=saved)


def save(at_ms: float, under: str, content: str) -> Row:
    """Its code saves something."""
    return at(at_ms, "ok", SAVE, int(at_ms), job="j", lease=under, content=content)


def safe(number: int, under: str) -> Word:
    """A worker is told so."""
    return Word(50.0, "m1", 1, 0, TERM_1, "saved", (("j", under),), number=number)


ROWS = [
    start(1, FIRST),
    save(2, FIRST, "a"),
    save(3, FIRST, "b"),
    save(4, FIRST, "never sent"),
    start(5, SECOND, "b"),
    start(7, THIRD, "b"),
    save(8, THIRD, "c"),
    start(11, NEXT_RUN),
]
WORDS = [safe(1, FIRST), safe(3, FIRST), safe(4, FIRST), safe(1, THIRD)]


def wrongs(rows: list[Row], life: list[JobFact], words: list[Word]) -> list[str]:
    """What is found."""
    found = check_checkpoints(rows, {"j": life}, words)
    assert all(one.invariant == "S21" for one in found)
    return [one.detail for one in found]


def test_a_sound_history_passes() -> None:
    """Losses, an attempt that saves nothing, a new run."""
    assert wrongs(ROWS, LIFE, WORDS) == []


@pytest.mark.parametrize(
    ("place", "saved", "why"),
    [
        (4, "", "nothing, though b"),
        (4, "a", "began with a, though b"),
        (5, "a", "began with a, though b"),
        (4, "never sent", "began with never sent, though b"),
        (4, "foreign", "no earlier attempt"),
        (0, "a", "no earlier attempt"),
        (7, "c", "no earlier attempt"),
    ],
)
def test_a_wrong_beginning_is_refused(place: int, saved: str, why: str) -> None:
    """Lost, too old, from elsewhere, or of another run."""
    rows = list(ROWS)
    rows[place] = start(rows[place].boottime, rows[place].lease, saved)
    (wrong,) = wrongs(rows, LIFE, WORDS)
    assert why in wrong


def test_what_no_code_has_saved_is_refused() -> None:
    """A checkpoint has to come from somewhere."""
    rows = [row for row in ROWS if row.hash != "b"]
    found = wrongs(rows, LIFE, WORDS)
    assert len(found) == 2
    assert all("no earlier attempt" in wrong for wrong in found)


def test_a_lost_acknowledged_one_is_refused() -> None:
    """What was said to be safe must be in the journal, or what came after it."""
    life = [fact for fact in LIFE if fact.seq != 3]
    rows = [*ROWS[:4], start(5, SECOND, "a"), start(7, THIRD, "a"), *ROWS[6:]]
    found = wrongs(rows, life, WORDS)
    assert len(found) == 2
    assert all("is safe, and the journal does not have it" in wrong for wrong in found)


@pytest.mark.parametrize(
    ("fact", "why"),
    [
        (Saved(8, "j", FIRST, 9, "c"), "stood"),
        (Saved(8, "j", SECOND, 1, "c"), "stood"),
        (Saved(8, "j", THIRD, 0, "c"), "after 1"),
    ],
)
def test_a_stale_one_is_refused(fact: Saved, why: str) -> None:
    """Under a lease that does not stand, or with a number that was passed."""
    life = [*LIFE[:8], fact, *LIFE[8:]]
    assert any(why in wrong for wrong in wrongs(ROWS, life, []))


def test_a_grant_that_is_not_in_the_journal() -> None:
    """Its attempt was the first one: it has found nothing, or it is refused."""
    life: list[JobFact] = [Adopted(2, "j", FIRST, 1), Saved(3, "j", FIRST, 1, "a")]
    assert wrongs([start(1, FIRST), save(2, FIRST, "a")], life, [safe(1, FIRST)]) == []
    assert wrongs([start(1, FIRST, "x")], life, []) != []


def test_a_grant_of_a_job_that_has_ended_finds_nothing() -> None:
    """A cancel may come between the grant and its way."""
    life = [*LIFE[:5], Settled(6, "j", 0, "", "CANCELLED", "")]
    assert wrongs([*ROWS[:4], start(7, SECOND)], life, []) == []
