"""Of a long stream its first and its last lines, and how many are missing between them."""

import random

from hypothesis import given
from hypothesis import strategies as st

from tenure.worker.executor.excerpt import (
    HEAD_BYTES_MAX,
    HEAD_LINES_MAX,
    TAIL_BYTES_MAX,
    TAIL_LINES_MAX,
    Excerpt,
)


def excerpt(data: bytes, sizes: list[int]) -> list[tuple[int | None, bytes]]:
    """What is left of data that comes in parts of these sizes."""
    made, at = Excerpt(), 0
    for size in sizes:
        made.add(data[at : at + size])
        at += size
    made.add(data[at:])
    assert bool(made) == bool(data)
    parts = made.take()
    assert not made
    return parts


def test_what_fits_is_whole() -> None:
    """Nothing is left out, and nothing comes twice."""
    data = b"".join(b"line %d\n" % number for number in range(1_000)) + b"no end"
    made = Excerpt()
    made.add(data)
    assert made.take() == [(None, data)]
    made.add(b"more")
    assert made.take() == [(None, b"more")]


def test_empty_lines_are_many_lines() -> None:
    """They are bounded by their number."""
    ((_, first), (skipped, last)) = excerpt(b"\n" * 10_000, [])
    assert (len(first), len(last)) == (HEAD_LINES_MAX, TAIL_LINES_MAX)
    assert skipped == 10_000 - HEAD_LINES_MAX - TAIL_LINES_MAX


@given(st.integers(0, 2**32), st.integers(0, 400_000), st.integers(1, 3_000))
def test_the_ends_are_there_and_the_rest_is_counted(seed: int, size: int, width: int) -> None:
    """However it comes, the parts are the beginning and the end, ends of lines are neither lost
    nor counted twice, and the end begins with a line.
    """
    rng = random.Random(seed)
    data = bytearray(b"x" * size)
    for at in range(0, size, width):
        data[min(size - 1, at + rng.randrange(width))] = ord("\n")
    text = bytes(data)
    parts = excerpt(text, [rng.randrange(1, 90_000) for _ in range(rng.randrange(6))])
    assert parts[0][0] is None
    assert text.startswith(parts[0][1])
    assert text.endswith(parts[-1][1])
    assert sum(len(part) for _, part in parts) <= HEAD_BYTES_MAX + TAIL_BYTES_MAX
    lines = sum((skipped or 0) + part.count(b"\n") for skipped, part in parts)
    assert lines == text.count(b"\n")
    if len(parts) == 1:
        assert parts[0][1] == text
    else:
        ((_, first), (_, last)) = parts
        assert len(first) == HEAD_BYTES_MAX or first.count(b"\n") == HEAD_LINES_MAX
        assert not last or text[len(text) - len(last) - 1] == ord("\n")
        long_enough = len(last) > TAIL_BYTES_MAX - 2 * width
        assert long_enough or last.count(b"\n") >= TAIL_LINES_MAX
