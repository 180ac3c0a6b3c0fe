"""What commands write is in their attempts' logs: while they run, in bounded memory, and in the end
what was to be a result and is none.
"""

from itertools import pairwise
from pathlib import Path

import msgspec

from tenure.protocol.vocabulary import AttemptOutcome, LogStream
from tenure.worker.attempt_log import HEAD_BYTES_MAX, LINE_BYTES, TAIL_BYTES_MAX
from tests.unit.worker.executor.bench import bench
from tests.unit.worker.executor.test_child_logs import said, until_said

OUT, ERR = LogStream.STDOUT, LogStream.STDERR


def test_stderr_comes_while_the_command_runs(tmp_path: Path) -> None:
    """Whole lines arrive within a moment; a line without an end with the command's."""
    with bench("script") as pool:
        wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
        job = pool.job("script", f"echo one >&2; printf tw >&2; {wait}; printf 'o\nend' >&2")
        pool.pool.run([job])
        until_said(pool, job, 1)
        assert said(job) == [(ERR, 0, "one")]
        assert job.result is None
        (tmp_path / "go").touch()
        pool.until(lambda: job.result is not None)
        assert job.log is not None
        job.log.end_lines()
        assert said(job) == [(ERR, 0, text) for text in ("one", "two", "end")]


def test_a_stdout_that_is_dropped_is_said(tmp_path: Path) -> None:
    """It is no result: like stderr it comes while the command runs."""
    with bench("mute_script") as pool:
        wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
        job = pool.job("mute_script", f"echo step 1; {wait}; echo oh >&2")
        pool.pool.run([job])
        until_said(pool, job, 1)
        assert said(job) == [(OUT, 0, "step 1")]
        (tmp_path / "go").touch()
        pool.until(lambda: job.result is not None)
        assert said(job)[1:] == [(ERR, 0, "oh")]


def test_a_result_is_not_said_twice() -> None:
    """The stdout of a command that ends well is its result, and no line of its log: one that says
    nothing else has none.
    """
    with bench("echo", "script") as pool:
        job = pool.job("echo", "the result")
        pool.run(job)
        assert job.log is None
        job = pool.job("script", "echo the result; echo aside >&2")
        (result,) = pool.run(job)
        assert msgspec.msgpack.decode(result.result) == "the result\n"
        assert said(job) == [(ERR, 0, "aside")]


def test_the_stdout_of_a_command_that_fails_is_said() -> None:
    """It is no result any more, and may say what went wrong."""
    with bench("script") as pool:
        job = pool.job("script", "echo compiling; echo error: line 3; exit 2")
        (result,) = pool.run(job)
        assert result.outcome is AttemptOutcome.FAILED
        assert said(job) == [(OUT, 0, "compiling"), (OUT, 0, "error: line 3")]


def test_a_flood_is_bounded_and_counted() -> None:
    """Of a hundred thousand lines the first and the last are held, and their numbers tell how many
    are missing.
    """
    with bench("mute_script") as pool:
        job = pool.job("mute_script", "seq 100000 >&2")
        pool.run(job)
    assert job.log is not None
    lines = job.log.after(0)
    assert [int(line.text) for line in lines] == [line.number for line in lines]
    numbers = [line.number for line in lines]
    assert (numbers[0], numbers[-1]) == (1, 100_000)
    assert sum(b - a > 1 for a, b in pairwise(numbers)) == 1
    size = sum(len(line.text) + LINE_BYTES for line in lines)
    assert HEAD_BYTES_MAX < size <= HEAD_BYTES_MAX + TAIL_BYTES_MAX


def test_characters_are_whole_and_what_is_none_is_replaced() -> None:
    """A character whose halves come one after the other is one; bytes that are no text do no
    harm.
    """
    with bench("small_python") as pool:
        text = (
            "import os, time; os.write(2, b'a\\xc3'); time.sleep(0.3); "
            "os.write(2, b'\\xa4\\n\\xff\\n')"
        )
        job = pool.job("small_python", text)
        pool.run(job)
        assert said(job) == [(ERR, 0, "aä"), (ERR, 0, "\ufffd")]


def test_commands_say_each_their_own() -> None:
    """However many run at once, none has another one's lines."""
    with bench("script", slots=8) as pool:
        jobs = [pool.job("script", f"for i in 1 2 3; do echo {n}/$i >&2; done") for n in range(40)]
        pool.run(*jobs)
        for number, job in enumerate(jobs):
            assert [text for _, _, text in said(job)] == [f"{number}/{i}" for i in (1, 2, 3)]


def test_a_long_line_without_an_end_is_cut() -> None:
    """What is there of it says so, and what comes behind it is a line of its own."""
    with bench("small_python") as pool:
        text = "import os; os.write(2, b'x' * 300_000); os.write(2, b'\\nlast\\n')"
        job = pool.job("small_python", text)
        pool.run(job)
    texts = [text for _, _, text in said(job)]
    assert all(text.endswith("[cut]") for text in texts[:-1])
    assert texts[-1] == "last"


def test_the_log_is_there_when_the_launcher_has_died(tmp_path: Path) -> None:
    """What a command has said outlives the process that started it."""
    with bench("script") as pool:
        job = pool.job("script", f"echo on the edge >&2; touch {tmp_path}/up; sleep 600")
        pool.begin(job, tmp_path / "up")
        until_said(pool, job, 1)
        launcher = pool.pool._launcher._process
        assert launcher is not None
        launcher.kill()
        pool.until(lambda: job.result is not None)
        assert said(job) == [(ERR, 0, "on the edge")]


def test_much_in_and_much_out_at_once() -> None:
    """Long inputs on their way to commands do not wait for long outputs on their way back, and
    those not for them.
    """
    with bench("shout", slots=24) as pool:
        text = "word " * 40_000
        results = pool.run(*[pool.job("shout", text) for _ in range(24)])
    outputs = [msgspec.msgpack.decode(result.result) for result in results]
    assert all(output == text.upper().encode() for output in outputs)
