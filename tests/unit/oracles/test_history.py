"""Recording a history and reading it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracles.history import RESULT, START, SUBMIT, BadHistory, Recorder, hash_of, read_history


def test_rows_are_in_the_file_before_the_call_returns(tmp_path: Path) -> None:
    """A process may be killed at any time: nothing waits in a buffer."""
    recorder = Recorder(tmp_path, "client-1")
    recorder.invoke(SUBMIT, hash="h")

    rows = read_history(tmp_path)

    assert [(row.type, row.f, row.hash) for row in rows] == [
        ("invoke", SUBMIT, "h"),
        ("info", SUBMIT, "h"),
    ]
    recorder.close()


def test_open_call_of_a_killed_process_is_unknown(tmp_path: Path) -> None:
    """What a killed client asked for may or may not have happened; what it ended is ended."""
    with Recorder(tmp_path, "client-1") as recorder:
        first = recorder.invoke(SUBMIT, hash="a")
        recorder.invoke(SUBMIT, hash="b")
        recorder.write("ok", SUBMIT, first, job="j", hash="a")

    rows = read_history(tmp_path)

    assert [(row.type, row.hash) for row in rows] == [
        ("invoke", "a"),
        ("invoke", "b"),
        ("ok", "a"),
        ("info", "b"),
    ]


def test_histories_of_processes_are_joined_by_the_boot_clock(tmp_path: Path) -> None:
    """Rows of several writers come back in the order in which they were written."""
    with Recorder(tmp_path, "one") as one, Recorder(tmp_path, "two") as two:
        one.observe(START, job="1")
        two.observe(START, job="2")
        one.observe(START, job="3")

    assert [row.job for row in read_history(tmp_path)] == ["1", "2", "3"]


def test_a_line_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    """The last line may be torn; one in the middle may not."""
    with Recorder(tmp_path, "one") as recorder:
        recorder.observe(START, job="1")
        recorder.observe(START, job="2")
    whole = recorder.path.read_bytes()

    recorder.path.write_bytes(whole[:-20])
    assert [row.job for row in read_history(tmp_path)] == ["1"]

    recorder.path.write_bytes(whole[20:])
    with pytest.raises(BadHistory, match=":1:"):
        read_history(tmp_path)


@pytest.mark.parametrize("fault", ["ends twice", "without having begun", "begins twice"])
def test_impossible_histories_are_refused(tmp_path: Path, fault: str) -> None:
    """Evidence that no recorder can have written proves nothing."""
    with Recorder(tmp_path, "one") as recorder:
        call = recorder.invoke(RESULT, job="1")
        match fault:
            case "ends twice":
                recorder.write("ok", RESULT, call, job="1")
                recorder.write("ok", RESULT, call, job="1")
            case "begins twice":
                recorder.write("invoke", RESULT, call, job="1")
            case _:
                recorder.write("ok", RESULT, call + 1, job="1")

    with pytest.raises(BadHistory, match=fault):
        read_history(tmp_path)


def test_hash_is_of_the_value() -> None:
    """The same data has the same hash in every process; other data has another."""
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})
    assert hash_of("1") != hash_of(1)
