"""Commands as jobs, and limits: what is a definition, what a call gives, what is refused."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tenure.client import (
    Command,
    CommandFailed,
    CommandNotFound,
    Job,
    Limits,
    Reason,
    Rejected,
    job,
)
from tenure.client.codec import decode_result, encode_args, encode_result
from tenure.client.content_type import JSON, MSGPACK


@job(name="count_words", queue="texts", limits=Limits(memory="64MiB"))
def count_words(text: str, *, program: str = "wc") -> Command[str]:
    """How many words a text has."""
    return Command(program, "-w", stdin=text)


@job(name="raw")
def raw(path: str) -> Command[bytes]:
    """A file."""
    return Command("cat", path)


@job(name="quoted")
def quoted() -> "Command[None]":
    """An annotation that is not looked up before it is needed."""
    return Command("true")


@job(name="sloppy")
def sloppy() -> Command:  # type: ignore[type-arg]
    """Text, where nothing is said."""
    return Command("echo", 1, 2.5, Path("a"))


@job(name="wordy")
def wordy(size: int) -> Command[None]:
    """One long argument."""
    return Command("true", "x" * size)


@job(name="liar")
def liar() -> Command[str]:
    """Not what it says."""
    return "ls"  # type: ignore[return-value]


class TestDefinitions:
    """What a function annotated with ``Command`` becomes."""

    def test_it_is_a_job_like_others(self) -> None:
        """Arguments are checked as those of any function, and the result has stdout's type."""
        assert isinstance(count_words, Job)
        assert count_words.executor == quoted.executor == sloppy.executor == "command"
        assert count_words.options(priority=1).limits == Limits(memory="64MiB")
        with pytest.raises(Rejected):
            encode_args(count_words, (7,), {})
        for content_type in (MSGPACK, JSON):
            for definition, value in ((count_words, "3\n"), (raw, b"\x00\xff"), (quoted, None)):
                packed = encode_result(value, definition, content_type)
                assert decode_result(packed, content_type, definition) == value

    def test_calling_it_runs_the_command_here(self, tmp_path: Path) -> None:
        """As calling another job calls its function."""
        assert count_words("one two three").strip() == "3"
        (tmp_path / "f").write_bytes(b"\x00\xff")
        assert raw(str(tmp_path / "f")) == b"\x00\xff"
        quoted()
        assert sloppy() == "1 2.5 a\n"  # type: ignore[comparison-overlap]

    def test_a_command_that_fails_here_raises(self) -> None:
        """The same errors as a worker reports."""
        with pytest.raises(CommandFailed, match="ended with 1") as failed:
            raw("/no/such/file")
        assert failed.value.status == 1
        assert "No such file" in failed.value.stderr
        with pytest.raises(Rejected, match="give it long texts as stdin") as too_large:
            wordy(200_000)
        assert too_large.value.reason is Reason.PAYLOAD_TOO_LARGE
        with pytest.raises(CommandNotFound) as caught:
            count_words("", program="no-such-program-4711")
        assert caught.value.reason is Reason.COMMAND_NOT_FOUND
        assert "no-such-program-4711" in str(caught.value)

    def test_a_function_that_gives_something_else_is_told_so(self) -> None:
        """A TypeError in the attempt."""
        with pytest.raises(TypeError, match="liar to give back a Command"):
            liar()

    def test_executors_that_do_not_fit(self) -> None:
        """The annotation and the executor say the same, or the definition is refused."""

        def bare(text: str) -> str:
            return text

        wrong: list[Callable[[], object]] = [
            lambda: job(name="b", executor="command")(bare),
            lambda: job(name="b", executor="thread")(raw.fn),
            lambda: job(name="b", limits=Limits(nice=3))(bare),
        ]
        for make, field in zip(wrong, ("executor", "executor", "limits"), strict=True):
            with pytest.raises(Rejected) as caught:
                make()
            assert caught.value.field == field
        assert job(name="b", executor="process", limits=Limits(nice=3))(bare).limits == Limits(
            nice=3
        )


class TestCommand:
    """What may be run."""

    @pytest.mark.parametrize(
        ("make", "field"),
        [
            (lambda: Command("ls", ["-l"]), "argv[1]"),  # type: ignore[arg-type]
            (lambda: Command("ls", None), "argv[1]"),  # type: ignore[arg-type]
            (lambda: Command("ls", True), "argv[1]"),
            (lambda: Command("ls", "a\0b"), "argv[1]"),
            (lambda: Command(""), "argv[0]"),
            (lambda: Command("ls", env={"A": None}), "env[A]"),  # type: ignore[dict-item]
            (lambda: Command("ls", env={"A=B": "1"}), "env"),
            (lambda: Command("ls", "\ud800"), "argv[1]"),
            (lambda: Command("ls", stdin=bytes((8 << 20) + 1)), "command"),
        ],
    )
    def test_what_is_no_argument_is_refused(
        self, make: Callable[[], Command[str]], field: str
    ) -> None:
        """Where it is made, and with its place."""
        with pytest.raises(Rejected) as caught:
            make()
        assert caught.value.field == field


class TestLimits:
    """What one attempt may use."""

    @pytest.mark.parametrize(
        ("given", "field"),
        [
            ({"memory": 1000}, "limits.memory"),
            ({"memory": "lots"}, "limits.memory"),
            ({"memory": 1.5}, "limits.memory"),
            ({"memory": True}, "limits.memory"),
            ({"cpu": timedelta(milliseconds=10)}, "limits.cpu"),
            ({"cpu": 5}, "limits.cpu"),
            ({"files": 0}, "limits.files"),
            ({"processes": -1}, "limits.processes"),
            ({"cpus": 0}, "limits.cpus"),
            ({"cpus": "1"}, "limits.cpus"),
            ({"cpus": True}, "limits.cpus"),
            ({"cpus": float("nan")}, "limits.cpus"),
            ({"nice": 20}, "limits.nice"),
            ({"nice": "1"}, "limits.nice"),
        ],
    )
    def test_what_is_no_limit_is_refused(self, given: dict[str, object], field: str) -> None:
        """When the job is defined, and with its name."""
        with pytest.raises(Rejected) as caught:
            Limits(**given)  # type: ignore[arg-type]
        assert caught.value.field == field

    def test_units(self) -> None:
        """Bytes as a number or as text; CPU time in whole seconds, rounded up."""
        limits = Limits(memory="512 MiB", cpu=timedelta(seconds=1.2))
        assert limits.memory_bytes == 512 << 20
        assert limits.cpu_s == 2
        assert Limits(memory=1 << 30).memory_bytes == 1 << 30
        assert (Limits().memory_bytes, Limits().cpu_s) == (0, 0)
