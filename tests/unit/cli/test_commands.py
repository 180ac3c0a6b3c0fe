"""The command line against a fake cluster: what it prints, where, and with which exit code."""

import asyncio
import io
import json
import os
import random
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from tenure.cli import exits, main, session
from tenure.cli.command import Command, Group, first_line
from tenure.cli.version import installed
from tenure.client import AsyncClient, Unavailable, named
from tenure.client.codec import encode_args
from tenure.protocol.ids import mint
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import AttemptOutcome, JobState
from tenure.v1 import jobs_pb2
from tests.unit.client.fake_master import EPOCH_MS, FakeCluster
from tools.generate_reference import commands

DONE, DEAD, WAITING = (mint(0, EPOCH_MS + n * 1_000, n) for n in range(3))
UNKNOWN = mint(0, EPOCH_MS, 99)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """A cluster with one job completed, one failed and one waiting, behind every command."""
    fake = FakeCluster(masters=("m:1",))
    for job_id, args in ((DONE, (1, 2)), (DEAD, ("x",)), (WAITING, ())):
        fake.jobs[job_id] = waiting_job(job_id, args)
    fake.complete(DONE, {"sum": 3})
    fake.fail(DEAD, "ValueError", "no such thing")
    row = fake.jobs[DEAD].attempts.add(number=1, worker="worker-1", outcome=AttemptOutcome.FAILED)
    row.error.type, row.error.message = "ValueError", "no such thing"
    row.granted_at.FromMilliseconds(EPOCH_MS)
    row.accepted_at.FromMilliseconds(EPOCH_MS + 12)
    row.started_at.FromMilliseconds(EPOCH_MS + 15)
    row.ended_at.FromMilliseconds(EPOCH_MS + 140)

    def connect(settings: Mapping[str, Any]) -> AsyncClient:
        return AsyncClient(**settings, transport=fake, rng=random.Random(1))

    monkeypatch.setattr(session, "connect", connect)
    monkeypatch.setenv("TENURE_ADDRESS", "m:1")
    monkeypatch.setenv("TENURE_CONFIG", os.devnull)
    return fake


def waiting_job(job_id: str, args: tuple[object, ...]) -> jobs_pb2.Job:
    """A job as a master holds it."""
    definition = named("app.add", queue="sums")
    job = jobs_pb2.Job(
        job_id=job_id,
        state=JobState.PENDING,
        options=definition.wire,
        payload=encode_args(definition, args, {}),
    )
    job.submitted_at.FromMilliseconds(EPOCH_MS)
    return job


def test_list_prints_a_table(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has a row a job, newest first, and nothing on stderr."""
    assert main.run(["jobs", "list"]) == exits.OK
    out, err = capsys.readouterr()
    assert out == (
        f"{'ID':<36}  STATE      NAME     QUEUE  FAILURES  SUBMITTED\n"
        f"{WAITING}  PENDING    app.add  sums   0         2025-10-09 08:53:20.000Z\n"
        f"{DEAD}  FAILED     app.add  sums   4         2025-10-09 08:53:20.000Z\n"
        f"{DONE}  COMPLETED  app.add  sums   0         2025-10-09 08:53:20.000Z\n"
    )
    assert err == ""


def test_list_speaks_json_and_names(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON is the API message's proto3 JSON; name is ids alone; jsonl one document a line."""
    assert main.run(["jobs", "list", "--state", "failed", "-o", "json"]) == exits.OK
    (job,) = json.loads(capsys.readouterr().out)
    assert (job["jobId"], job["state"]) == (DEAD, "JOB_STATE_FAILED")
    assert job["options"]["queue"] == "sums"
    assert main.run(["jobs", "list", "-o", "name"]) == exits.OK
    assert capsys.readouterr().out.split() == [WAITING, DEAD, DONE]
    assert main.run(["jobs", "list", "-o", "jsonl", "--limit", "2"]) == exits.OK
    out, err = capsys.readouterr()
    assert [json.loads(line)["jobId"] for line in out.splitlines()] == [WAITING, DEAD]
    assert "there are more" in err


def test_get_shows_arguments_attempts_and_the_error(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """``jobs get`` decodes what it can and leaves out what is empty."""
    assert main.run(["jobs", "get", DEAD]) == exits.OK
    assert capsys.readouterr().out == (
        f"id:        {DEAD}\n"
        "state:     FAILED\n"
        "name:      app.add\n"
        "queue:     sums\n"
        "tenant:    default\n"
        "submitted: 2025-10-09 08:53:20.000Z\n"
        'arguments: [["x"], {}]\n'
        "failure:   EXHAUSTED\n"
        "error:     ValueError: no such thing\n"
        "attempts:  1  FAILED  worker-1  2025-10-09 08:53:20.000Z  +12 ms accepted  "
        "+15 ms started  +140 ms ended  ValueError: no such thing\n"
    )
    assert main.run(["jobs", "get", DONE, "-o", "json"]) == exits.OK
    assert json.loads(capsys.readouterr().out)["state"] == "JOB_STATE_COMPLETED"


def test_get_shows_why_a_job_waits(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """A PENDING job that no connected worker takes has a line that says so; others have none."""
    assert main.run(["jobs", "get", WAITING]) == exits.OK
    assert "waits:" not in capsys.readouterr().out
    cluster.workers[0].queues.append("default")
    assert main.run(["jobs", "get", WAITING]) == exits.OK
    assert (
        "waits:     no connected worker that runs app.add serves the queue sums; "
        "they serve: default\n" in capsys.readouterr().out
    )
    assert main.run(["jobs", "get", DONE]) == exits.OK
    assert "waits:" not in capsys.readouterr().out


def test_wait_prints_the_result_or_fails(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result goes to stdout as JSON; a failed job is exit code 1 and one line on stderr."""
    assert main.run(["jobs", "wait", DONE]) == exits.OK
    assert json.loads(capsys.readouterr().out) == {"sum": 3}
    assert main.run(["jobs", "wait", DEAD]) == exits.JOB_FAILED
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "ValueError: no such thing" in err
    assert main.run(["jobs", "wait", WAITING, "--wait-timeout", "0.1"]) == exits.TIMED_OUT
    assert main.run(["jobs", "wait", UNKNOWN]) == exits.NOT_FOUND


def test_submit_prints_the_id(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments are JSON where they are JSON; options land in the job; stdout is the id."""
    arguments = ["app.add", "1", "two", "-3", "[4]", '"-x"', "--queue", "q", "--priority", "0"]
    assert main.run(["submit", *arguments, "--delay", "1h30m", "--key", "k"]) == exits.OK
    job = cluster.jobs[capsys.readouterr().out.strip()]
    assert job.payload == encode_args(named("app.add"), (1, "two", -3, [4], "-x"), {})
    assert (job.options.queue, job.options.priority, job.key) == ("q", 0, "k")
    assert job.options.delay.ToSeconds() == 5_400
    assert main.run(["submit", "app.add", "-o", "json"]) == exits.OK
    assert json.loads(capsys.readouterr().out)["jobId"] in cluster.jobs


@pytest.mark.parametrize("argument", ["{a: 1}", "[draft] it's mail", '"open'])
def test_what_looks_like_json_must_be_json(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    """What a shell has eaten the quotes of does not reach the job as text, unless one says so."""
    assert main.run(["submit", "app.add", argument]) == exits.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert f"expected {argument} to be JSON" in err
    (proposed,) = shlex.split(err.partition("as text: ")[2].rpartition(" (see")[0])
    assert main.run(["submit", "app.add", proposed]) == exits.OK
    job = cluster.jobs[capsys.readouterr().out.strip()]
    assert job.payload == encode_args(named("app.add"), (argument,), {})
    assert main.run(["submit", "app.add", "{" * 100_000]) == exits.USAGE
    assert len(capsys.readouterr().err) < 500


def test_submit_takes_arguments_from_stdin(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JSON object gives arguments by name, an array more by position."""
    monkeypatch.setattr("sys.stdin", io.StringIO('{"right": 2}'))
    assert main.run(["submit", "app.add", "1", "--json", "-"]) == exits.OK
    job = cluster.jobs[capsys.readouterr().out.strip()]
    assert job.payload == encode_args(named("app.add"), (1,), {"right": 2})


def test_wait_says_why_a_job_was_cancelled(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason that somebody gave is in the error, and in the row beside others."""
    assert main.run(["jobs", "cancel", WAITING, "--reason", "wrong file"]) == exits.OK
    capsys.readouterr()
    assert main.run(["jobs", "wait", WAITING]) == exits.JOB_FAILED
    assert "it was cancelled (wrong file); " in capsys.readouterr().err
    assert main.run(["jobs", "wait", WAITING, DONE, "--no-headers"]) == exits.JOB_FAILED
    assert capsys.readouterr().out.splitlines()[0] == f"{WAITING}  CANCELLED  wrong file"


def test_submit_waits_for_the_result(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --wait stdout is the result alone; plain text goes without quotes."""
    cluster.on_submit = lambda request: (
        asyncio.get_running_loop().call_later(
            0.05, cluster.complete, request.jobs[0].job_id, "done"
        )
        and None
    )
    assert main.run(["submit", "app.add", "--wait"]) == exits.OK
    out, err = capsys.readouterr()
    assert out == "done\n"
    assert err.startswith("waiting for ")


def test_changes_show_states_and_refusals_apart(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """What succeeded is on stdout, each refusal a line on stderr, and the code is the refusal's."""
    assert main.run(["jobs", "cancel", WAITING, UNKNOWN]) == exits.NOT_FOUND
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == [f"{WAITING}  CANCELLED"]
    assert UNKNOWN in err
    assert main.run(["jobs", "requeue", DEAD, "-o", "jsonl"]) == exits.OK
    out = capsys.readouterr().out
    assert json.loads(out) == {"jobId": DEAD, "state": "JOB_STATE_PENDING"}
    assert main.run(["jobs", "purge", DONE, "--yes"]) == exits.OK
    assert DONE not in cluster.jobs


def test_a_job_is_requeued_with_other_arguments(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Of a file, for one job; they are encoded as those that it had."""
    file = tmp_path / "args.json"
    file.write_text('[7, "x"]')
    assert main.run(["jobs", "requeue", DEAD, "--json", str(file), "-o", "name"]) == exits.OK
    assert capsys.readouterr().out.split() == [DEAD]
    assert cluster.jobs[DEAD].payload == encode_args(named("app.add"), (7, "x"), {})
    assert main.run(["jobs", "requeue", DEAD, DONE, "--json", str(file)]) == exits.USAGE
    assert "expected one ID with --json" in capsys.readouterr().err
    file.write_text("7")
    assert main.run(["jobs", "requeue", DEAD, "--json", str(file)]) == exits.USAGE
    assert main.run(["jobs", "requeue", UNKNOWN, "--json", str(file)]) == exits.USAGE


def test_purge_asks_first(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --yes and without a terminal nothing is purged."""
    assert main.run(["jobs", "purge", DONE]) == exits.USAGE
    assert DONE in cluster.jobs
    assert "--yes" in capsys.readouterr().err


def test_filter(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """A filter narrows what the other options let through; a wrong one is a usage error."""
    assert main.run(["jobs", "list", "-o", "name", "--filter", f"NOT job_id = {DONE}"]) == exits.OK
    listed = capsys.readouterr().out.split()
    assert DEAD in listed
    assert DONE not in listed
    assert main.run(["jobs", "count", "--filter", "colour = red"]) == exits.USAGE
    assert "character 1" in capsys.readouterr().err


def test_what_is_no_text_is_refused(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell hands over any bytes, which Python keeps as lone surrogates."""
    words = ["jobs", "cancel", "--filter", "name = 'caf\udce9'", "--yes"]
    assert main.run(words) == exits.USAGE
    assert "expected text in UTF-8, got" in capsys.readouterr().err


def test_count_and_cluster(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts and the cluster's state as tables and as JSON."""
    assert main.run(["jobs", "count"]) == exits.OK
    assert capsys.readouterr().out == (
        "STATE      COUNT\nPENDING    1\nCOMPLETED  1\nFAILED     1\n"
    )
    assert main.run(["cluster", "members", "-o", "name"]) == exits.OK
    assert capsys.readouterr().out == "m:1\n"
    assert main.run(["cluster", "status"]) == exits.OK
    assert capsys.readouterr().out == (
        "MASTER  ADDRESS  PARTITION  ROLE     TERM  STANDBY  JOBS  READY  RUNNING  BYTES  DETAIL\n"
        "m:1     m:1      0          SERVING  1.1   -        3     0      0        -\n"
        "\n"
        "WORKER    SLOTS  LEASES  HEARTBEAT  DRAINING  JOBS\n"
        "worker-1  10     1       0.0 s ago  no        app.add\n"
    )
    assert main.run(["cluster", "status", "-o", "json"]) == exits.OK
    assert json.loads(capsys.readouterr().out)[0]["clusterId"] == "c"


def test_a_standby_is_shown_with_how_far_behind_it_is(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what its leader and it have replayed; others that follow have nothing to show."""
    cluster.masters = ("m:1", "n:1", "o:1")
    cluster.applied_seqs = {"m:1": 1_250, "n:1": 16}
    assert main.run(["cluster", "status", "--no-headers"]) == exits.OK
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()[:3]]
    standby = [[cell.strip() for cell in row if cell.strip()][5] for row in rows]
    assert standby == ["-", "1,234 behind", "-"]


def test_a_cluster_without_workers_says_so(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty table of workers comes with the command that starts one, on stderr."""
    cluster.workers.clear()
    assert main.run(["cluster", "status"]) == exits.OK
    assert "tenure worker APP --master m:1" in capsys.readouterr().err
    assert main.run(["cluster", "status", "-o", "json"]) == exits.OK
    assert capsys.readouterr().err == ""


def test_a_dead_master_is_named_in_the_status(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """A status shows who answers, names who does not, and exits 4."""
    cluster.masters = ("m:1", "n:1")
    cluster.dead.add("n:1")
    assert main.run(["cluster", "status", "-o", "name"]) == exits.UNAVAILABLE
    out, err = capsys.readouterr()
    assert out == "m:1\n"
    assert "n:1" in err


def test_no_cluster_is_one_line_and_exit_4(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong address costs the timeout, and the line says what was tried."""
    code = main.run(["jobs", "list", "--address", "nobody:1", "--timeout", "0.2"])
    assert code == exits.UNAVAILABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "nobody:1" in err


def test_a_refused_submit_says_why(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """A master's refusal is one line with its reason."""
    cluster.refuse_rows = lambda _: Refusal(
        reason=Reason.JOB_ID_CONFLICT, message="expected the same job"
    )
    assert main.run(["submit", "app.add"]) == exits.CONFLICT
    assert capsys.readouterr().err == "tenure: expected the same job [JOB_ID_CONFLICT]\n"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["jobs", "list", "--state", "lost"], "scheduled, blocked"),
        (["jobs", "get", "nonsense"], "a job's id"),
        (["jobs", "get"], "Missing argument"),
        (["jobs", "watch", "--cursor", "x"], "cursor"),
        (["submit", "app.add", "--priority", "11"], "priority"),
        (["submit", "app.add", "--delay", "soon"], "90s, 5m"),
        (["submit", "bad name"], "A-Z a-z 0-9"),
        (["submit", "app.add", "1", "--prioritty=3"], "Did you mean --priority? Text that"),
        (["submit", "app.add", "--", "-x"], "given as JSON"),
        (["submit", "app.add", "--json", "/does/not/exist"], "No such file"),
        (["submit", "app.add", "--address", "nonsense"], "HOST:PORT"),
        (["worker", "app", "--label", "zone"], "zone=eu"),
        (["worker", "app", "--master", "nonsense"], "HOST:PORT"),
        (["master"], "--store"),
        (["job", "list"], "jobs"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(
    cluster: FakeCluster,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    hint: str,
) -> None:
    """A mistake in the arguments says what was expected, without a traceback."""
    assert main.run(arguments) == exits.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tenure: ")
    assert err.count("\n") == 1
    assert hint in err


@pytest.mark.parametrize(
    "command",
    [[], ["dev"], ["master"], ["worker"], ["submit"], ["jobs"], ["jobs", "list"], ["cluster"]],
)
def test_help_is_there(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """Every command explains itself on stdout and exits 0."""
    assert main.run([*command, "--help"]) == exits.OK
    out, err = capsys.readouterr()
    assert out.startswith(f"Usage: {' '.join(['tenure', *command])} ")
    assert err == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is there for people and for machines."""
    assert main.run(["version"]) == exits.OK
    assert re.fullmatch(r"tenure \S+ \(Python .*\)\n", capsys.readouterr().out)
    assert main.run(["version", "-o", "json"]) == exits.OK
    assert json.loads(capsys.readouterr().out) == installed()


def test_an_interrupt_is_exit_130(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends a command quietly."""

    def interrupted(settings: Mapping[str, Any]) -> AsyncClient:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "connect", interrupted)
    assert main.run(["jobs", "list"]) == exits.INTERRUPTED
    out, err = capsys.readouterr()
    assert (out, err.strip()) == ("", "")


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_an_exit_code(reason: Reason) -> None:
    """No error ends as success, and what may be tried again is told apart."""
    code = exits.code_of(Unavailable("x", reason=reason))
    assert code in {1, 2, 3, 4, 5, 6}


def test_a_dry_run_changes_nothing(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cancel and purge show the jobs as they are; submit shows what it would send."""
    for change in ("cancel", "purge", "requeue"):
        assert main.run(["jobs", change, DEAD, "--dry-run", "-o", "name"]) == exits.OK
        assert capsys.readouterr().out.split() == [DEAD]
        assert cluster.jobs[DEAD].state == JobState.FAILED
    assert main.run(["submit", "app.add", "1", "--key", "k", "--dry-run", "--quiet"]) == exits.OK
    out, err = capsys.readouterr()
    request = json.loads(out)
    assert (request["options"][0]["name"], request["jobs"][0]["key"]) == ("app.add", "k")
    assert err == ""
    assert cluster.requests == []
    assert main.run(["submit", "app.add", "--priority", "11", "--dry-run"]) == exits.USAGE


def test_ids_from_stdin(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dash takes the ids that another command has printed."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{DEAD}\n{WAITING}\n"))
    assert main.run(["jobs", "cancel", "-", "-o", "name"]) == exits.OK
    assert capsys.readouterr().out.split() == [DEAD, WAITING]


def test_wait_for_many(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """A row a job, in the order of the ids; 1 if one has failed, 124 if one is late."""
    assert main.run(["jobs", "wait", DONE, DEAD, "--no-headers"]) == exits.JOB_FAILED
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        [DONE, "COMPLETED", '{"sum":', "3}"],
        [DEAD, "FAILED", "ValueError:", "no", "such", "thing"],
    ]
    assert main.run(["jobs", "wait", DONE, DONE, "-o", "name"]) == exits.OK
    assert capsys.readouterr().out.split() == [DONE, DONE]
    code = main.run(["jobs", "wait", DONE, WAITING, "--wait-timeout", "0.1"])
    assert code == exits.TIMED_OUT
    out, err = capsys.readouterr()
    assert out == ""
    assert WAITING in err


def test_watch_shows_again_until_something_ends_it(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pipe each look follows the last one, without escapes."""
    looks = 0
    count = cluster._CountJobs

    def interrupted(request: jobs_pb2.CountJobsRequest) -> jobs_pb2.CountJobsResponse:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt
        return count(request)

    monkeypatch.setattr(cluster, "_CountJobs", interrupted)
    assert main.run(["jobs", "count", "--watch", "--interval", "0.1"]) == exits.INTERRUPTED
    out = capsys.readouterr().out
    assert out.count("PENDING    1") == 2
    assert "\x1b" not in out


def test_config_show(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Values with their sources, for people and for machines; no password is shown."""
    file = tmp_path / "tenure.toml"
    file.write_text('[master]\nstore = "etcd://user:secret@h:1/p"\n')
    monkeypatch.setenv("TENURE_CONFIG", str(file))
    monkeypatch.setenv("TENURE_WORKER_SLOTS", "3")
    monkeypatch.setenv("TENURE_TOKEN", "secret")
    assert main.run(["config", "show", "--sources", "-o", "json"]) == exits.OK
    out, err = capsys.readouterr()
    rows = {row["setting"]: row for row in json.loads(out)}
    assert rows["worker.slots"] == {
        "setting": "worker.slots",
        "value": 3,
        "source": "TENURE_WORKER_SLOTS",
    }
    assert rows["master.store"]["source"] == f"{file}:2"
    assert err == f"read {file}\n"
    assert main.run(["config", "show"]) == exits.OK
    table = capsys.readouterr().out
    assert "etcd://********@h:1/p" in table
    assert "SOURCE" not in table
    assert "secret" not in out + table


def test_one_line_about_each_command_is_its_own() -> None:
    """The tree's table, which saves imports, says what the commands say themselves."""
    context = click.Context(main.app)
    for name, (_, _, line) in main.app.lazy.items():
        command = main.app.get_command(context, name)
        assert command is not None
        assert first_line(command.help) == line
        assert command.name == name


def test_every_command_has_an_example_of_itself() -> None:
    """Help leads with what can be typed as it is."""
    for path, command in commands(main.app, "tenure", None):
        assert isinstance(command, Command | Group)
        assert command.examples, path
        assert any(path in line for line, _ in command.examples), path
