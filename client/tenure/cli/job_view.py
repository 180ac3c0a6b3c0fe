"""How jobs, their changes and their results are shown in each format."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

from tenure.cli import terminal
from tenure.cli.output import (
    Format,
    View,
    message_data,
    print_fields,
    print_json,
    print_json_line,
)
from tenure.protocol.vocabulary import AttemptOutcome, FailureReason, JobState

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from tenure.client import JobEvent, JobVerdict, LogLine
    from tenure.v1 import common_pb2, jobs_pb2


def show_job(job: jobs_pb2.Job, waits_for: str | None, form: Format) -> None:
    """One job with all that is known of it; ``waits_for``: why no worker begins it."""
    match form:
        case Format.JSON:
            print_json(message_data(job))
        case Format.JSONL:
            print_json_line(message_data(job))
        case Format.NAME:
            print(job.job_id)
        case Format.TABLE:
            print_fields(_details(job, waits_for))


def show_value(value: object, form: Format) -> None:
    """A job's result: as JSON; in a table plain text goes without quotes."""
    plain = _plain(value)
    if form is Format.TABLE and isinstance(plain, str):
        print(terminal.harmless(plain))
    elif form is Format.JSONL:
        print_json_line(plain)
    else:
        print_json(plain)


def _state(job: jobs_pb2.Job) -> str:
    return JobState(job.state).name if job.state else "UNKNOWN"


def when(moment: Timestamp) -> str:
    """A time in UTC; empty if it is not set."""
    if not moment.ByteSize():
        return ""
    return moment.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def _details(job: jobs_pb2.Job, waits_for: str | None) -> list[tuple[str, object]]:
    options = job.options
    return [
        ("id", job.job_id),
        ("state", _state(job)),
        ("waits", waits_for),
        ("name", options.name),
        ("queue", options.queue),
        ("tenant", options.tenant),
        ("priority", options.priority if options.HasField("priority") else None),
        ("key", job.key),
        ("limit key", job.limit_key),
        ("sticky key", job.sticky_key),
        ("requires", ", ".join(map(_selector, options.requires))),
        ("prefers", ", ".join(map(_selector, options.prefers))),
        ("after", "\n".join(job.parents)),
        ("workflow", job.workflow_id),
        ("labels", ", ".join(f"{name}={value}" for name, value in options.labels.items())),
        ("submitted", when(job.submitted_at)),
        ("ready", when(job.ready_at)),
        ("finished", when(job.finished_at)),
        ("run", job.run or None),
        ("progress", f"{job.progress:g} %" if job.progress else None),
        ("checkpoint", _checkpoint(job)),
        ("arguments", decoded(job.payload, options.content_type)),
        ("result", decoded(job.result, job.result_content_type)),
        ("failure", FailureReason(job.failure_reason).name if job.failure_reason else None),
        ("error", f"{job.error.type}: {job.error.message}" if job.error.type else None),
        ("cancel reason", job.cancel_reason),
        ("attempts", "\n".join(map(_attempt, job.attempts))),
        ("log", _log(job)),
        ("traceback", job.error.traceback.rstrip()),
    ]


def _checkpoint(job: jobs_pb2.Job) -> str:
    if not job.checkpoint_bytes:
        return ""
    return f"{when(job.checkpoint_at)}  {job.checkpoint_bytes} bytes"


def _selector(selector: common_pb2.LabelSelector) -> str:
    values = ",".join(selector.values)
    return f"{selector.key}={values}" if values else selector.key


def _log(job: jobs_pb2.Job) -> str:
    """How to read what it has said, if it has said something that is kept."""
    size = sum(attempt.log_bytes for attempt in job.attempts)
    return f"{size} bytes: tenure jobs logs {job.job_id}" if size else ""


def _attempt(attempt: jobs_pb2.Attempt) -> str:
    outcome = AttemptOutcome(attempt.outcome).name if attempt.outcome else "RUNNING"
    parts = [f"{attempt.number}", outcome, attempt.worker, when(attempt.granted_at)]
    parts += [
        f"+{moment.ToMilliseconds() - attempt.granted_at.ToMilliseconds()} ms {name}"
        for name, moment in (
            ("accepted", attempt.accepted_at),
            ("started", attempt.started_at),
            ("ended", attempt.ended_at),
        )
        if moment.ByteSize()
    ]
    if attempt.error.type:
        parts.append(f"{attempt.error.type}: {attempt.error.message}")
    return "  ".join(part for part in parts if part)


def decoded(data: bytes, content_type: str) -> str:
    """A payload or a result in one line, as JSON; how many bytes it has if that cannot be."""
    import json

    from tenure.client.codec import decode_result
    from tenure.protocol.errors import Rejected

    if not data:
        return ""
    try:
        return json.dumps(_plain(decode_result(data, content_type, None)), ensure_ascii=False)
    except Rejected:
        return f"{len(data)} bytes of {content_type}"


def show_event(event: JobEvent, form: Format) -> None:
    """One change of one job, at once."""
    when = event.at.strftime("%H:%M:%S.%f")[:-3]
    match form:
        case Format.TABLE:
            name = terminal.harmless(event.name)
            print(f"{when}  {event.job_id}  {event.state.name:<9}  {name}", flush=True)
        case Format.NAME:
            print(event.job_id, flush=True)
        case Format.JSON | Format.JSONL:
            print_json_line(
                {
                    "jobId": event.job_id,
                    "state": f"JOB_STATE_{event.state.name}",
                    "name": event.name,
                    "queue": event.queue,
                    "changedAt": event.at.isoformat().replace("+00:00", "Z"),
                    "cursor": event.cursor,
                }
            )


def show_line(line: LogLine, form: Format) -> None:
    """One line of a job's log, at once."""
    match form:
        case Format.TABLE:
            when = line.time.strftime("%H:%M:%S.%f")[:-3]
            if line.skipped:
                print(f"{when}  {line.attempt}  ({line.skipped} lines were left out)")
            text = terminal.harmless(line.text).replace("\n", "\n    ")
            source = line.level or line.stream
            print(f"{when}  {line.attempt}  {source:<8}  {text}", flush=True)
        case Format.NAME:
            print(terminal.harmless(line.text), flush=True)
        case Format.JSON | Format.JSONL:
            print_json_line(
                {
                    "time": line.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                    "run": line.run,
                    "attempt": line.attempt,
                    "number": line.number,
                    "skipped": line.skipped,
                    "stream": line.stream,
                    "level": line.level,
                    "text": line.text,
                }
            )


def _job_row(job: jobs_pb2.Job) -> Sequence[object]:
    options = job.options
    attempts = job.attempts_charged
    return (job.job_id, _state(job), options.name, options.queue, attempts, when(job.submitted_at))


def _verdict_data(verdict: JobVerdict) -> dict[str, Any]:
    state = {} if verdict.state is None else {"state": f"JOB_STATE_{verdict.state.name}"}
    return {"jobId": verdict.job_id, **state}


JOBS: View[jobs_pb2.Job] = View(
    ("ID", "STATE", "NAME", "QUEUE", "FAILURES", "SUBMITTED"),
    row=_job_row,
    data=message_data,
    name=lambda job: job.job_id,
)
COUNTS: View[tuple[JobState, int]] = View(
    ("STATE", "COUNT"),
    row=lambda pair: (pair[0].name, pair[1]),
    data=lambda pair: {"state": f"JOB_STATE_{pair[0].name}", "count": str(pair[1])},
    name=lambda pair: pair[0].name,
)
VERDICTS: View[JobVerdict] = View(
    ("ID", "STATE"),
    row=lambda verdict: (verdict.job_id, verdict.state.name if verdict.state else "PURGED"),
    data=_verdict_data,
    name=lambda verdict: verdict.job_id,
)
RESULTS: View[jobs_pb2.JobResult] = View(
    ("ID", "STATE", "RESULT"),
    row=lambda result: (result.job_id, JobState(result.state).name, _outcome(result)),
    data=message_data,
    name=lambda result: result.job_id,
)


def _outcome(result: jobs_pb2.JobResult) -> str:
    """A value, or in one line the error, or why the job was cancelled."""
    if result.cancel_reason:
        return result.cancel_reason
    if result.error.type:
        return f"{result.error.type}: {result.error.message}"
    return decoded(result.result, result.content_type)


def _plain(value: object) -> Any:
    """A decoded value as JSON values: bytes in base64, times in ISO form."""
    import msgspec

    return msgspec.to_builtins(value, str_keys=True)
