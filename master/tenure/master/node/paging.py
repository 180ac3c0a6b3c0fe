"""Pages of lists: how many rows one has, and where the next one begins."""

import base64
import contextlib
from typing import Final
from zlib import crc32

from tenure.master.node.translate import invalid
from tenure.protocol import limits
from tenure.protocol.errors import TenureError

#: Between the parts of a place; in no name.
_SEPARATOR: Final = ":"


def page_size(asked: int) -> int:
    """How many rows a page has.

    Raises:
        Rejected: It is negative.
    """
    if asked < 0:
        raise invalid("page_size", f"{asked} is negative")
    return min(asked or limits.PAGE_SIZE_DEFAULT, limits.PAGE_SIZE_MAX)


def page_token(listed: str, *place: str) -> str:
    """Where the next page begins, and what is listed: a token is of no use for another list."""
    text = _SEPARATOR.join((*place, f"{crc32(listed.encode()):08x}"))
    return base64.urlsafe_b64encode(text.encode()).decode()


def place_of(token: str, listed: str, parts: int = 1) -> tuple[str, ...]:
    """The place, of so many parts, that a token was made of; empty: of no token, the first page.

    Raises:
        Rejected: This list has not made it.
    """
    if not token:
        return ()
    with contextlib.suppress(ValueError):
        place = tuple(base64.urlsafe_b64decode(token.encode()).decode().split(_SEPARATOR)[:-1])
        if len(place) == parts and token == page_token(listed, *place):
            return place
    raise _foreign()


def number_of(token: str, listed: str) -> int | None:
    """As ``place_of``, where the place is a number; None: of no token."""
    for text in place_of(token, listed):
        if not text.isdecimal():
            raise _foreign()
        return int(text)
    return None


def _foreign() -> TenureError:
    return invalid("page_token", "it is not one that this list has answered")
