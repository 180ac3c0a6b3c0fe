"""Pages: their sizes, and tokens that are good for one list only."""

import base64

import pytest

from tenure.master.node.paging import number_of, page_size, page_token, place_of
from tenure.protocol.errors import Rejected
from tenure.protocol.limits import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX


def test_sizes() -> None:
    """None asked for is the default, too many are the most, fewer than none is a mistake."""
    assert page_size(0) == PAGE_SIZE_DEFAULT
    assert page_size(7) == 7
    assert page_size(2**31 - 1) == PAGE_SIZE_MAX
    with pytest.raises(Rejected) as refused:
        page_size(-1)
    assert refused.value.field == "page_size"


def test_a_token_says_where_the_next_page_begins() -> None:
    """Names may have any letters; the first page has no token."""
    assert place_of("", "a list") == ()
    assert place_of(page_token("a list", "städte", "näme"), "a list", 2) == ("städte", "näme")
    assert number_of("", "a list") is None
    assert number_of(page_token("a list", "4711"), "a list") == 4_711


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "ä",
        page_token("another list", "x"),
        page_token("a list", "x", "y"),
        page_token("a list", "x")[:-4],
        base64.urlsafe_b64encode(b"\xff:00000000").decode(),
    ],
)
def test_a_token_of_another_list_is_refused(token: str) -> None:
    """Or one that is none; with the field's name."""
    with pytest.raises(Rejected) as refused:
        place_of(token, "a list")
    assert refused.value.field == "page_token"


def test_a_token_without_a_number_is_refused() -> None:
    """Where numbers are asked for."""
    with pytest.raises(Rejected):
        number_of(page_token("a list", "x"), "a list")
