"""How commands behave at a terminal and in a pipe: progress, interrupts, questions."""

import json
import subprocess

import pytest

from tests.integration.cli import program
from tests.integration.cli.terminal import Terminal, plain, run


def test_a_wait_shows_how_far_the_job_is() -> None:
    """The bar moves on stderr and disappears; stdout has the result alone."""
    with Terminal("jobs", "wait", program.RUNNING, stdout=subprocess.PIPE) as terminal:
        drawn = plain(terminal.rest())
        if terminal.process.stdout is None:
            raise AssertionError("expected a pipe")
        assert json.loads(terminal.process.stdout.read()) == {"sum": 3}
        assert terminal.code() == 0
    assert "app.jobs.add_up_all_numbers" in drawn
    assert "running" in drawn
    assert "80%" in drawn


def test_a_wait_for_many_counts_them() -> None:
    """Rows on stdout in the order of the ids; exit code 1, as one of them has failed."""
    ids = [program.DEAD, program.DONE]
    with Terminal("jobs", "wait", *ids, stdout=subprocess.PIPE) as terminal:
        terminal.rest()
        if terminal.process.stdout is None:
            raise AssertionError("expected a pipe")
        rows = terminal.process.stdout.read().decode().splitlines()[1:]
        assert [row.split()[:2] for row in rows] == [
            [program.DEAD, "FAILED"],
            [program.DONE, "COMPLETED"],
        ]
        assert terminal.code() == 1


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"TERM": ""}])
def test_a_terminal_that_cannot_draw_gets_no_bar(variables: dict[str, str]) -> None:
    """No escape is sent to what would print it."""
    with Terminal("jobs", "wait", program.DONE, **variables) as terminal:
        assert "\x1b" not in terminal.rest()


def test_quiet_is_quiet() -> None:
    """With --quiet stderr stays empty, also at a terminal."""
    with Terminal("jobs", "wait", program.DONE, "--quiet", stdout=subprocess.DEVNULL) as terminal:
        assert terminal.rest() == ""


def test_nothing_is_drawn_in_a_pipe() -> None:
    """Without a terminal there is neither a bar nor a colour nor a cut."""
    done = run(["jobs", "wait", program.DONE])
    assert (done.returncode, done.stderr, json.loads(done.stdout)) == (0, "", {"sum": 3})
    listed = run(["jobs", "list"])
    assert "app.jobs.add_up_all_numbers" in listed.stdout
    assert "\x1b" not in listed.stdout


def test_an_interrupt_ends_a_wait() -> None:
    """Ctrl-C: exit code 130, the cursor is back, and a line says that the job goes on."""
    with Terminal("jobs", "wait", program.RUNNING, FAKE_ENDLESS="1") as terminal:
        terminal.screen.expect("80%")
        terminal.screen.send("\x03")
        rest = terminal.rest()
        assert terminal.code() == 130
    assert rest.rfind("\x1b[?25h") > rest.rfind("\x1b[?25l")
    assert f"tenure jobs wait {program.RUNNING}" in rest
    assert "Traceback" not in rest


def test_a_second_interrupt_waits_for_nothing() -> None:
    """A connection that does not close keeps nobody at the terminal."""
    with Terminal("jobs", "wait", program.RUNNING, FAKE_ENDLESS="1", FAKE_STUCK="1") as terminal:
        terminal.screen.expect("80%")
        terminal.screen.send("\x03")
        terminal.screen.expect("closing")
        terminal.screen.send("\x03")
        assert "Traceback" not in terminal.rest()
        assert terminal.code() == 130


def test_a_large_batch_shows_how_far_it_is() -> None:
    """What takes several calls has a bar; what takes one has none."""
    more = program.more_ids(600)
    with Terminal("jobs", "cancel", *more, "-o", "name", FAKE_JOBS="600") as terminal:
        drawn = terminal.rest()
        assert "\x1b" in drawn
        assert "0%" in plain(drawn).partition(more[0])[0]
        assert terminal.code() == 0
    with Terminal("jobs", "cancel", more[0], "-o", "name", FAKE_JOBS="600") as terminal:
        assert terminal.rest() == f"{more[0]}\n"


def test_an_interrupt_ends_a_search_for_the_cluster() -> None:
    """Ctrl-C is heard while no master answers."""
    with Terminal("jobs", "list", "--address", "nobody:1", "--timeout", "60") as terminal:
        terminal.screen.expect("nobody at nobody:1")
        terminal.screen.send("\x03")
        assert "Traceback" not in terminal.rest()
        assert terminal.code() == 130


def test_a_watch_draws_again_until_interrupted() -> None:
    """--watch goes to the top of the screen for each look."""
    with Terminal("jobs", "count", "--watch", "--interval", "0.1") as terminal:
        for _ in range(3):
            terminal.screen.expect_exact("\x1b[H\x1b[J")
            terminal.screen.expect("RUNNING")
        terminal.screen.send("\x03")
        assert "Traceback" not in terminal.rest()
        assert terminal.code() == 130


def test_a_purge_asks_at_a_terminal() -> None:
    """Yes purges, no does not; --no-input refuses to ask."""
    with Terminal("jobs", "purge", program.DONE) as terminal:
        terminal.screen.expect_exact("Forget 1 job for ever? [y/N]: ")
        terminal.screen.send("y\n")
        assert "PURGED" in terminal.rest()
        assert terminal.code() == 0
    with Terminal("jobs", "purge", program.DONE) as terminal:
        terminal.screen.expect_exact("[y/N]: ")
        terminal.screen.send("n\n")
        assert "PURGED" not in terminal.rest()
        assert terminal.code() == 130
    with Terminal("jobs", "purge", program.DONE, "--no-input") as terminal:
        assert "expected --yes" in terminal.rest()
        assert terminal.code() == 2


def test_a_closed_pipe_ends_a_command_quietly() -> None:
    """``| head`` is no error: exit code 0, and nothing on stderr."""
    with Terminal(
        "jobs", "list", "-o", "jsonl", "--limit", "600", stdout=subprocess.PIPE, FAKE_JOBS="500"
    ) as terminal:
        if terminal.process.stdout is None:
            raise AssertionError("expected a pipe")
        terminal.process.stdout.close()
        assert terminal.rest() == ""
        assert terminal.code() == 0


def test_ids_come_through_a_pipe() -> None:
    """``-o name`` prints what ``-`` reads."""
    listed = run(["jobs", "list", "--state", "failed", "-o", "name"])
    assert listed.stdout.split() == [program.DEAD]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_a_terminal_cannot_show_ends_no_command(encoding: str) -> None:
    """Text is escaped where its encoding has no such character; JSON stays JSON."""
    variables = {"PYTHONIOENCODING": encoding, "FAKE_RESULT": "→"}
    for arguments in (["submit", "--help"], ["jobs", "wait", program.DONE]):
        shown = run(arguments, **variables)
        assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == "\\u2192\n"
    for form in ("json", "jsonl"):
        shown = run(["jobs", "wait", program.DONE, "-o", form], **variables)
        assert json.loads(shown.stdout) == "→"
