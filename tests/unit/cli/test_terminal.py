"""Texts of jobs at a terminal: nothing in them moves its cursor, or does worse."""

import json
from datetime import UTC, datetime

import pytest

from tenure.cli import exits
from tenure.cli.job_view import JOBS, show_event, show_job, show_value
from tenure.cli.output import Format, print_fields, print_json, print_json_line, print_table
from tenure.cli.terminal import harmless
from tenure.client import JobEvent
from tenure.protocol.errors import Rejected
from tenure.protocol.vocabulary import JobState
from tenure.v1 import jobs_pb2

#: Clears the screen; sets the title; the same with a control character of C1; a bell, a return.
EVIL = "a\x1b[2Jb\x1b]0;title\x07c\x9b2Jd\x7fe\rf"
SPELLED = r"a\x1b[2Jb\x1b]0;title\x07c\x9b2Jd\x7fe\x0df"


def a_job() -> jobs_pb2.Job:
    """All that its submitter or its code chose is evil."""
    job = jobs_pb2.Job(job_id="1", state=JobState.FAILED)
    job.options.name = job.options.queue = EVIL
    job.error.type, job.error.message, job.error.traceback = EVIL, EVIL, f"x\n\t{EVIL}\n"
    return job


def test_what_is_harmless_stays() -> None:
    """Ends of lines, tabs, and every script's letters."""
    assert harmless("a\tb\nc ü 日本 🎉") == "a\tb\nc ü 日本 🎉"
    assert harmless("a\r\nb") == "a\nb"


def test_control_characters_are_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    """In tables, fields, results, events, names, and in errors on stderr."""
    event = JobEvent(
        cursor="c", job_id="1", state=JobState.FAILED, name=EVIL, queue=EVIL, at=datetime.now(UTC)
    )
    prints = [
        lambda: print_table(("A", "B"), [("1", EVIL)]),
        lambda: print_fields([("error", EVIL)]),
        lambda: show_value(EVIL, Format.TABLE),
        lambda: show_event(event, Format.TABLE),
        lambda: show_job(a_job(), None, Format.TABLE),
        lambda: JOBS.show([a_job()], Format.TABLE),
        lambda: exits.explain(Rejected(EVIL)),
    ]
    for show in prints:
        show()
        printed = "".join(capsys.readouterr())
        assert "a\\x1b[2Jb" in printed
        assert printed == harmless(printed)


def test_json_keeps_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    """Spelled out in JSON's own way, those of C1 too, so that a program reads what it was."""
    for show in (print_json, print_json_line):
        show({"text": EVIL})
        printed = capsys.readouterr().out
        assert printed == harmless(printed)
        assert json.loads(printed) == {"text": EVIL}


def test_controls_are_told_by_their_codes() -> None:
    """What it was can be seen."""
    assert harmless(EVIL) == SPELLED


def test_halves_of_characters_are_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A word that was not UTF-8 can be named on any stream, also where none may be written."""
    exits.say("expected a name, got '\udc9fa\ud800'")
    assert capsys.readouterr().err == "expected a name, got '\\udc9fa\\ud800'\n"
