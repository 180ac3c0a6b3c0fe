"""What jobs log and print is theirs, whichever executor runs them."""

import asyncio
import contextvars
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tenure.client import current_job, job
from tenure.client.codec import encode_args
from tenure.protocol.vocabulary import LogStream
from tenure.worker import capture
from tenure.worker.attempt_log import Line
from tenure.worker.clock import SystemClock
from tenure.worker.executor.pool import ExecutorPool
from tenure.worker.held import HeldJob, Terms
from tests.unit.worker.rig import held

LOGGING, OUT, ERR = LogStream.LOGGING, LogStream.STDOUT, LogStream.STDERR
_LOGGER = logging.getLogger("app")


@contextmanager
def listening() -> Iterator[None]:
    """This process listens to jobs for as long as the block lasts."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, sys.stdout, sys.stderr
    root.setLevel(logging.INFO)
    capture.install()
    try:
        yield
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        sys.stdout, sys.stderr = before[2], before[3]


class Rude:
    """What cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@job
def talk(name: str) -> None:
    """Says things in many ways."""
    print("hello", name)  # noqa: T201  (what is tested)
    print("oh", file=sys.stderr)  # noqa: T201  (the same)
    _LOGGER.info("about %s", name, extra={"action": "talk"})
    current_job().log.warning("careful")
    _LOGGER.debug("too fine for the worker's level")


@job
async def talk_async(name: str) -> None:
    """Says things in tasks of its own."""

    async def one(number: int) -> None:
        print(name, "task", number)  # noqa: T201  (the same)
        await asyncio.to_thread(print, name, "thread", number)

    await asyncio.gather(*(one(number) for number in range(2)))


@job
def spread(name: str) -> None:
    """Says things in threads."""
    context = contextvars.copy_context()
    within = threading.Thread(target=context.run, args=(print, name, "with its context"))
    without = threading.Thread(target=print, args=(name, "without"))
    for thread in (within, without):
        thread.start()
        thread.join()


@job
def fail_to_say() -> None:
    """Logs what cannot be formatted."""
    _LOGGER.error("%s", Rude())
    try:
        raise ValueError("broken")
    except ValueError:
        _LOGGER.exception("it failed")


@job
def silent() -> None:
    """Says nothing, but asks who it is."""
    current_job().checkpoint()


def run(*jobs: HeldJob) -> None:
    """Runs jobs at once, to their ends."""
    definitions = (talk, talk_async, spread, fail_to_say, silent)
    table = {one.name: one for one in definitions}
    woken = threading.Event()
    pool = ExecutorPool(table, "", len(jobs), SystemClock(), woken.set)
    with listening():
        pool.start()
        try:
            pool.run([*jobs])
            while any(job.result is None for job in jobs):
                assert woken.wait(30)
                woken.clear()
                pool.take_facts()
        finally:
            pool.close()


def a_job(definition: Any, *args: object, number: int = 1) -> HeldJob:
    """A job to run."""
    payload = encode_args(definition, args, {})
    return held(number, terms=Terms(definition.name), payload=payload)


def lines(held: HeldJob) -> list[Line]:
    """What it has said."""
    assert held.result is not None
    assert held.result.fault is None, held.result.fault
    return [] if held.log is None else held.log.after(0)


def test_prints_and_records_are_captured(capsys: pytest.CaptureFixture[str]) -> None:
    """Both streams and every record that its logger lets through, in order; and all goes where it
    went before.
    """
    held = a_job(talk, "world")
    run(held)
    assert [(line.stream, line.level, line.text) for line in lines(held)] == [
        (OUT, 0, "hello world"),
        (ERR, 0, "oh"),
        (LOGGING, logging.INFO, "about world"),
        (LOGGING, logging.WARNING, "careful"),
    ]
    passed_on = capsys.readouterr()
    assert (passed_on.out, passed_on.err) == ("hello world\n", "oh\n")


def test_each_job_has_its_own_lines() -> None:
    """Jobs that run beside each other in one loop and in threads say what they say, no other."""
    jobs = [a_job(talk_async, f"job{n}", number=n) for n in range(1, 9)]
    jobs += [a_job(talk, f"job{n}", number=n) for n in range(9, 13)]
    run(*jobs)
    for number, ended in enumerate(jobs, 1):
        said = [line.text for line in lines(ended)]
        assert len(said) == 4
        if number <= 8:
            assert all(text.startswith(f"job{number} ") for text in said)
        else:
            assert said[0] == f"hello job{number}"


def test_threads_with_a_copied_context_are_their_jobs() -> None:
    """A thread that has the context belongs to the job; one that has none, to nobody."""
    held = a_job(spread, "it")
    run(held)
    assert [line.text for line in lines(held)] == ["it with its context"]


def test_what_cannot_be_formatted_is_said_so() -> None:
    """A ``__str__`` that raises does no harm, and a traceback comes with its record."""
    held = a_job(fail_to_say)
    # The handlers of the worker's own log may complain to stderr as they always do.
    logging.raiseExceptions, before = False, logging.raiseExceptions
    try:
        run(held)
    finally:
        logging.raiseExceptions = before
    first, second = (line.text for line in lines(held) if line.stream is LOGGING)
    assert first == "(a message that could not be made: RuntimeError)"
    assert second.startswith("it failed\nTraceback")
    assert second.endswith("ValueError: broken")


def test_a_job_that_says_nothing_has_no_log() -> None:
    """Nothing is made for it, not even if it asks for its context."""
    held = a_job(silent)
    run(held)
    assert held.log is None


def test_what_is_no_jobs_is_not_captured(capsys: pytest.CaptureFixture[str]) -> None:
    """Outside a job streams and loggers are as they were."""
    with listening():
        print("plain")  # noqa: T201  (the same)
        sys.stdout.writelines(["a\n", "b\n"])
        _LOGGER.warning("plain, too")
        assert sys.stdout.encoding
    assert capsys.readouterr().out == "plain\na\nb\n"


def test_installing_twice_listens_once() -> None:
    """A second call changes nothing."""
    held = a_job(talk, "twice")
    with listening():
        run(held)
    assert len(lines(held)) == 4
