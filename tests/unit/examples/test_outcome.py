"""How the demos tell what was meant to happen from what was not."""

from examples.stdlib_metrics.audit import Audit, tally
from examples.stdlib_metrics.metrics import measure_source
from examples.stdlib_metrics.outcome import Outcomes
from tenure.client import AttemptOutcome, FailureReason, JobFailed, JobState, RemoteError
from tenure.v1 import jobs_pb2


def failure(kind: str, reason: FailureReason) -> JobFailed:
    """What a client raises for a FAILED job."""
    return JobFailed("id", RemoteError(type=kind, message="bad"), 1, reason)


def job(state: JobState, *outcomes: AttemptOutcome) -> jobs_pb2.Job:
    """A job as the cluster lists it, with attempts that ended so."""
    attempts = [jobs_pb2.Attempt(worker="w", outcome=int(outcome)) for outcome in outcomes]  # type: ignore[arg-type]
    return jobs_pb2.Job(state=int(state), attempts=attempts)  # type: ignore[arg-type]


def test_an_unparsable_file_is_no_surprise() -> None:
    """A permanent SyntaxError is what the demo is meant to show."""
    outcomes = Outcomes()
    outcomes.failed("bad.py", failure("builtins.SyntaxError", FailureReason.PERMANENT), 1.0)
    assert outcomes.surprises == []
    assert [row.error for row in outcomes.failures] == ["SyntaxError: bad"]


def test_any_other_failure_is_a_surprise() -> None:
    """Another error, an exhausted budget and a mixed-up result are each told."""
    outcomes = Outcomes()
    outcomes.failed("a.py", failure("builtins.OSError", FailureReason.PERMANENT), 1.0)
    outcomes.failed("b.py", failure("builtins.SyntaxError", FailureReason.EXHAUSTED), 1.0)
    outcomes.completed("c.py", measure_source(b"", "d.py"), 1.0)
    assert [surprise[:4] for surprise in outcomes.surprises] == ["a.py", "b.py", "the "]


def test_the_audit_counts_losses_reruns_and_doubles() -> None:
    """A lost attempt that another completed is a re-run; two deciding attempts are a fault."""
    audit = Audit(submitted=4)
    lost, completed = AttemptOutcome.LOST, AttemptOutcome.COMPLETED
    tally(audit, job(JobState.COMPLETED, lost, completed), "rerun.py")
    tally(audit, job(JobState.COMPLETED, completed, completed), "double.py")
    tally(audit, job(JobState.FAILED, AttemptOutcome.FAILED_PERMANENT), "bad.py")
    tally(audit, job(JobState.RUNNING), "open.py")
    assert (audit.completed, audit.failed, audit.lost) == (2, 1, 1)
    assert (audit.accepted_twice, audit.attempts_lost) == (1, 1)
    assert [rerun.path for rerun in audit.reruns] == ["rerun.py"]
