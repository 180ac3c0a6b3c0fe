"""Keys: look-ups by time, newer events win, windows end."""

from tenure.master.core.key import KeyRecord, Keys
from tenure.protocol.ids import JobId

NAME = ("tenant", "queue", "key")


def test_window() -> None:
    """A key names its job until its window ends."""
    keys = Keys()
    keys.put(NAME, KeyRecord(JobId("a"), 100, 1))
    assert keys.get(NAME, 99) == "a"
    assert keys.get(NAME, 100) is None
    assert keys.get(("tenant", "queue", "other"), 0) is None


def test_newer_event_wins() -> None:
    """A replayed older event does not take a key back."""
    keys = Keys()
    keys.put(NAME, KeyRecord(JobId("new"), 200, 9))
    keys.put(NAME, KeyRecord(JobId("old"), 100, 3))
    assert keys.get(NAME, 50) == "new"


def test_the_same_event_again_changes_nothing() -> None:
    """A key that an event has written already is not written by it again."""
    keys = Keys()
    keys.put(NAME, KeyRecord(JobId("first"), 200, 9))
    keys.put(NAME, KeyRecord(JobId("again"), 100, 9))
    assert keys.get(NAME, 150) == "first"


def test_standing() -> None:
    """What stands is what a look-up finds: at its last millisecond, but not at its end."""
    keys = Keys()
    record = KeyRecord(JobId("a"), 100, 1)
    keys.put(NAME, record)
    assert keys.standing(99) == [(NAME, record)]
    assert keys.standing(100) == []


def test_sweep() -> None:
    """Only keys whose windows are over are forgotten, also those that were taken anew."""
    keys = Keys()
    keys.put(NAME, KeyRecord(JobId("a"), 100, 1))
    keys.put(NAME, KeyRecord(JobId("b"), 300, 2))
    keys.put(("t", "q", "k"), KeyRecord(JobId("c"), 150, 3))
    keys.sweep(200)
    assert keys.standing(0) == [(NAME, KeyRecord(JobId("b"), 300, 2))]
    keys.sweep(300)
    assert keys.standing(0) == []


def test_sweep_is_bounded() -> None:
    """A crowd of ended windows is swept in parts, so that no event pays for all of them."""
    keys = Keys()
    for number in range(1_000):
        keys.put(("t", "q", str(number)), KeyRecord(JobId("a"), 1, 1))
    keys.sweep(10)
    left = len(keys.standing(0))
    assert 0 < left < 1_000
    for _ in range(10):
        keys.sweep(10)
    assert keys.standing(0) == []
