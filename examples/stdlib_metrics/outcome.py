"""What became of the jobs, sorted into what was meant to happen and what was not."""

from __future__ import annotations

from dataclasses import dataclass, field

from examples.stdlib_metrics.metrics import ModuleMetrics
from examples.stdlib_metrics.report import Failure
from tenure.client import FailureReason, JobFailed, TenureError

#: What Python says of a file that it cannot parse.
_PARSE_ERRORS = ("SyntaxError", "IndentationError", "TabError", "ValueError")


@dataclass(slots=True, eq=False)
class Outcomes:
    """Results and failures as they arrive."""

    modules: list[ModuleMetrics] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    #: When each outcome arrived, in seconds since the first submit.
    ended_seconds: list[float] = field(default_factory=list)
    #: Outcomes that nobody ordered, in words.
    surprises: list[str] = field(default_factory=list)

    def completed(self, path: str, metrics: ModuleMetrics, at_seconds: float) -> None:
        """A job returned its result."""
        self.ended_seconds.append(at_seconds)
        self.modules.append(metrics)
        if metrics.path != path:
            self.surprises.append(f"the job of {path} returned the metrics of {metrics.path}")

    def failed(self, path: str, error: TenureError, at_seconds: float) -> None:
        """A job has no result. That is right for an unparsable file, after one attempt."""
        self.ended_seconds.append(at_seconds)
        if not isinstance(error, JobFailed):
            self.surprises.append(f"{path}: {error}")
            return
        name = error.error.type.rpartition(".")[2]
        text = f"{name}: {error.error.message}"
        self.failures.append(Failure(path=path, error=text, attempts=error.attempts))
        if name not in _PARSE_ERRORS or error.failure_reason is not FailureReason.PERMANENT:
            self.surprises.append(f"{path}: {error}")
