"""What ``tenure jobs get`` shows of a job, beside what the golden files hold."""

import json

import pytest

from tenure.cli.job_view import show_job
from tenure.cli.output import Format
from tenure.protocol.vocabulary import JobState
from tenure.v1 import jobs_pb2


def test_a_checkpoint_is_shown_with_its_time_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the progress, for people and for programs; a job without one has no such line."""
    job = jobs_pb2.Job(job_id="1", state=JobState.RUNNING, progress=40)
    show_job(job, None, Format.TABLE)
    assert "checkpoint" not in capsys.readouterr().out
    job.checkpoint_at.FromMilliseconds(1_800_000_000_000)
    job.checkpoint_bytes = 17
    show_job(job, None, Format.TABLE)
    (line,) = [
        line for line in capsys.readouterr().out.splitlines() if "checkpoint" in line.lower()
    ]
    assert "2027-01-15 08:00:00" in line
    assert line.endswith("17 bytes")
    show_job(job, None, Format.JSON)
    found = json.loads(capsys.readouterr().out)
    assert int(found["checkpointBytes"]) == 17
