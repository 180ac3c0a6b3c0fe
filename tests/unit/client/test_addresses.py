"""Where masters may be found: what stays, what is forgotten."""

from tenure.client.addresses import FORGET_AFTER_S, Addresses


def test_what_was_given_stays() -> None:
    """The user's addresses stay, first and in their order, though no master names them."""
    addresses = Addresses(["b:1", "a:1"])
    addresses.named(["m:1"], 0)
    assert addresses.named(["m:1"], 10 * FORGET_AFTER_S) == []
    assert list(addresses) == ["b:1", "a:1", "m:1"]


def test_a_learnt_address_is_forgotten_when_nobody_names_it() -> None:
    """Only after a while, and not if it is named again within it."""
    addresses = Addresses(["a:1"])
    addresses.named(["old:1", "restarts:1"], 0)
    assert addresses.named(["new:1"], 5) == []
    assert addresses.named(["new:1", "restarts:1"], 5 + FORGET_AFTER_S - 1) == []
    assert addresses.named(["new:1"], 5 + FORGET_AFTER_S) == ["old:1"]
    assert list(addresses) == ["a:1", "restarts:1", "new:1"]


def test_silence_forgets_nothing() -> None:
    """However long no master has said anything, the first answer starts the time."""
    addresses = Addresses(["a:1"])
    addresses.named(["m:1"], 0)
    assert addresses.named(["n:1"], 10 * FORGET_AFTER_S) == []
    assert "m:1" in addresses


def test_no_address_is_nowhere() -> None:
    """A master that has no address to name names none."""
    addresses = Addresses(["a:1"])
    addresses.named([""], 0)
    assert len(addresses) == 1
