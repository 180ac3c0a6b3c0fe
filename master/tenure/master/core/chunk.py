"""Rows in portions: an event goes into one batch whole, and no store takes batches of any size."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

R = TypeVar("R")

#: One row may exceed it by as much as a result may have.
BYTES_MAX: Final = 160 * 1024
_ROW_BYTES: Final = 200


def chunks(rows: Sequence[R], size: Callable[[R], int] = lambda _: 0) -> Iterator[Sequence[R]]:
    """All rows in order, in portions that are each small enough for one event.

    Args:
        rows: What a decision came to.
        size: A row's bytes beyond its ids and numbers.
    """
    if len(rows) * _ROW_BYTES + sum(map(size, rows)) <= BYTES_MAX:
        if rows:
            yield rows
        return
    start, used = 0, 0
    for index, row in enumerate(rows):
        grows = _ROW_BYTES + size(row)
        if index > start and used + grows > BYTES_MAX:
            yield rows[start:index]
            start, used = index, 0
        used += grows
    yield rows[start:]
