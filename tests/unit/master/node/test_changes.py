"""The ring of changes: what it keeps, and after which event it knows all."""

import pytest

from tenure.master.core.record import Policy
from tenure.master.core.state import JobChange
from tenure.master.node.changes import CHANGES_KEPT, Changes
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import JobState


def _changes(first: int, count: int) -> list[JobChange]:
    return [
        JobChange(JobId(f"job-{seq}"), JobState.PENDING, Policy(name="f"), 1_000, seq)
        for seq in range(first, first + count)
    ]


@pytest.mark.parametrize("at_once", [1_000, CHANGES_KEPT, CHANGES_KEPT + 500])
def test_the_oldest_give_way(at_once: int) -> None:
    """However many come at once, what is kept begins right behind what was lost."""
    ring = Changes(0)
    for first in range(1, 2 * at_once, at_once):
        ring.record(_changes(first, at_once))
    ring.record(_changes(2 * at_once + 1, CHANGES_KEPT - 300))
    last = 2 * at_once + CHANGES_KEPT - 300
    assert ring.after_seq == max(0, last - CHANGES_KEPT)
    assert [change.seq for change in ring.behind(ring.after_seq)] == list(
        range(ring.after_seq + 1, last + 1)
    )


def test_what_a_snapshot_hides_stays_unknown() -> None:
    """Changes of before the snapshot's last event may be there; that all are, is not claimed."""
    ring = Changes(1_000)
    ring.record(_changes(900, 10))
    ring.record(_changes(1_001, CHANGES_KEPT - 5))
    assert ring.after_seq == 1_000
    ring.restart(50_000)
    assert (ring.after_seq, ring.behind(0)) == (50_000, [])
