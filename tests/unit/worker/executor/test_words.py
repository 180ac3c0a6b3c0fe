"""What a child wrote last is whole, however slowly the worker's stderr is read."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tenure.worker.executor import words
from tenure.worker.executor.words import LastWords

WAIT_S = 30.0


def test_what_is_in_the_pipe_is_waited_for_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody else may hold the pipe open, so its end may never come; what the dead one has
    written is there.
    """
    busy, go = threading.Event(), threading.Event()

    def pass_on(data: bytes) -> None:
        busy.set()
        go.wait(WAIT_S)

    monkeypatch.setattr(words, "_pass_on", pass_on)
    monkeypatch.setattr(words, "LAST_S", 10 * WAIT_S)
    reader, writer = os.pipe()
    said = LastWords(reader)
    try:
        os.write(writer, b"it begins\n")
        assert busy.wait(WAIT_S)
        os.write(writer, b"that was all\n")
        with ThreadPoolExecutor(1) as pool:
            last = pool.submit(said.last)
            go.set()
            assert last.result(WAIT_S) == "it begins\nthat was all"
    finally:
        os.close(writer)
    said._thread.join(WAIT_S)
    assert said.last() == "it begins\nthat was all"


def test_words_that_nobody_takes_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """If nobody reads the worker's stderr, what was read before has to do."""
    go = threading.Event()
    monkeypatch.setattr(words, "_pass_on", lambda data: go.wait(WAIT_S))
    monkeypatch.setattr(words, "LAST_S", 0.01)
    reader, writer = os.pipe()
    said = LastWords(reader)
    os.write(writer, b"it begins\n")
    while not said.last():
        pass
    os.write(writer, b"that was all\n")
    os.close(writer)
    assert said.last() == "it begins"
    go.set()
    said._thread.join(WAIT_S)
