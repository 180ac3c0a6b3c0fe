"""What an attempt says, in bounded memory."""

import threading
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tenure.protocol.limits import ATTEMPT_LOG_BYTES_MAX, LOG_LINE_BYTES_MAX
from tenure.protocol.vocabulary import LogStream
from tenure.v1 import common_pb2
from tenure.worker.attempt_log import (
    HEAD_BYTES_MAX,
    KEPT_HEAD_BYTES_MAX,
    LINE_BYTES,
    PARTS_MAX,
    TAIL_BYTES_MAX,
    AttemptLog,
)

OUT, ERR = LogStream.STDOUT, LogStream.STDERR


def texts(log: AttemptLog) -> list[str]:
    """All lines that are held."""
    return [line.text for line in log.after(0)]


def kept(log: AttemptLog) -> list[common_pb2.LogLine]:
    """What is kept when it has ended."""
    return [*common_pb2.JobLog.FromString(log.seal()).lines]


def test_parts_of_lines_are_joined_by_stream() -> None:
    """``print`` writes a line in parts; those of two streams do not mix, and a line has the time
    of its first part.
    """
    log = AttemptLog()
    log.write(1, OUT, "one ")
    log.write(2, ERR, "a warning\n")
    log.write(3, OUT, "line\nanother\nand")
    log.record(4, 20, "a record\nof two lines")
    log.write(5, OUT, " a third\n")
    assert [(line.time_ms, line.stream, line.level, line.text) for line in log.after(0)] == [
        (2, ERR, 0, "a warning"),
        (1, OUT, 0, "one line"),
        (3, OUT, 0, "another"),
        (4, LogStream.LOGGING, 20, "a record\nof two lines"),
        (3, OUT, 0, "and a third"),
    ]
    assert [line.number for line in log.after(3)] == [4, 5]


def test_a_line_without_an_end_is_kept_when_the_attempt_ends() -> None:
    """The last word of a job is a line even if it did not end it."""
    log = AttemptLog()
    log.write(1, OUT, "last words")
    assert texts(log) == []
    assert [line.text for line in kept(log)] == ["last words"]


def test_long_lines_are_cut() -> None:
    """A line has its limit in bytes, however it came, and holds no more while it has no end."""
    log = AttemptLog()
    log.record(1, 20, "ä" * LOG_LINE_BYTES_MAX)
    for _ in range(100):
        log.write(1, OUT, "x" * 1_000)
    log.write(1, OUT, "\nnext\n")
    sizes = [len(text.encode()) for text in texts(log)]
    # No half of a character is kept.
    assert sizes == [LOG_LINE_BYTES_MAX - 1, LOG_LINE_BYTES_MAX, 4]
    assert all(text.endswith("[cut]") for text in texts(log)[:2])


def test_halves_of_characters_do_no_harm() -> None:
    """What cannot be UTF-8 is replaced: nothing that a job says can break its report."""
    log = AttemptLog()
    log.write(1, OUT, "\ud800 half\n")
    assert [line.text for line in kept(log)] == ["? half"]


@given(st.lists(st.integers(0, 3_000), max_size=120))
def test_the_beginning_and_the_end_are_held_within_the_bounds(lengths: list[int]) -> None:
    """Whatever is said, the first and the last lines are held, in order, and what is missing are
    lines between them; memory and what is kept have their bounds, empty lines included.
    """
    log = AttemptLog()
    for length in lengths:
        log.record(1, 20, "x" * length)
    lines = log.after(0)
    numbers = [line.number for line in lines]
    size = sum(len(line.text) + LINE_BYTES for line in lines)
    assert size <= HEAD_BYTES_MAX + TAIL_BYTES_MAX
    assert log.count == len(lengths)
    if sum(lengths) + LINE_BYTES * len(lengths) <= HEAD_BYTES_MAX + TAIL_BYTES_MAX // 2:
        assert numbers == [*range(1, len(lengths) + 1)]
    _is_beginning_and_end(numbers, len(lengths))
    data = log.seal()
    assert len(data) <= ATTEMPT_LOG_BYTES_MAX
    last = [line.number for line in common_pb2.JobLog.FromString(data).lines]
    _is_beginning_and_end(last, len(lengths))
    if len(last) < len(numbers):
        # Neither part could take its next line.
        assert len(data) > ATTEMPT_LOG_BYTES_MAX - KEPT_HEAD_BYTES_MAX - 3_100


def _is_beginning_and_end(numbers: list[int], count: int) -> None:
    """All lines, or those before a gap and those behind it to the last."""
    gaps = sum(b - a > 1 for a, b in pairwise(numbers))
    assert gaps <= 1
    if count:
        assert (numbers[0], numbers[-1]) == (1, count)


def test_a_sealed_log_takes_nothing_more() -> None:
    """Code that runs on after its attempt was given up changes nothing of what was reported."""
    log = AttemptLog()
    log.record(1, 20, "in time")
    data = log.seal()
    log.record(2, 20, "too late")
    log.write(2, OUT, "too late\npart")
    assert log.seal() == data
    assert log.after(0) == []


def test_threads_do_not_share_lines() -> None:
    """Parts that two threads write by turns are two lines; and what threads have begun and left
    is bounded.
    """
    log = AttemptLog()
    log.write(1, OUT, "begun here, ")

    def write(text: str) -> None:
        thread = threading.Thread(target=log.write, args=(1, OUT, text))
        thread.start()
        thread.join()

    write("a line of another\n")
    log.write(1, OUT, "ended here\n")
    assert texts(log) == ["a line of another", "begun here, ended here"]
    parts = [threading.Thread(target=log.write, args=(1, OUT, f"{n}")) for n in range(40)]
    # Started all before one has ended, or their numbers are given again.
    with log._lock:
        for thread in parts:
            thread.start()
    for thread in parts:
        thread.join()
    assert len(log._parts) <= PARTS_MAX
    log.seal()
    assert log.count == 2 + 40


def test_threads_lose_no_line() -> None:
    """Lines of many threads are all counted, whole, and numbered one by one."""
    log = AttemptLog()

    def say(thread: int) -> None:
        for number in range(20):
            log.record(1, 20, f"{thread}/{number}")

    threads = [threading.Thread(target=say, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts(log)) == sorted(f"{t}/{n}" for t in range(8) for n in range(20))
    assert [line.number for line in log.after(0)] == [*range(1, 161)]
