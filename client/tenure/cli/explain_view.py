"""How an explanation of a job is shown in each format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenure.cli.output import Format, message_data, print_fields, print_json, print_json_line
from tenure.cli.queue_view import moment_text, rough_text

if TYPE_CHECKING:
    from tenure.client import Blocker, Explanation


def show_explanation(found: Explanation, form: Format) -> None:
    """Why a job does not run."""
    match form:
        case Format.JSON:
            print_json(explanation_data(found))
        case Format.JSONL:
            print_json_line(explanation_data(found))
        case Format.NAME:
            print(found.job_id)
        case Format.TABLE:
            print_fields(_fields(found))


def _fields(found: Explanation) -> list[tuple[str, object]]:
    wait = found.estimated_wait
    estimate = "unknown" if wait is None else f"about {rough_text(wait)}"
    return [
        ("id", found.job_id),
        ("state", found.state.name),
        ("ahead", f"{found.ahead} of its queue" if found.ahead else None),
        ("blocked by", "\n".join(map(_blocker, found.blockers))),
        ("parents", "\n".join(found.open_parents)),
        ("wait", f"{estimate}: {found.basis}" if found.basis else None),
    ]


def kind_text(blocker: Blocker) -> str:
    """What kind of thing it is."""
    return "UNKNOWN" if blocker.kind is None else blocker.kind.name


def _blocker(blocker: Blocker) -> str:
    until = "" if blocker.until is None else f" ({moment_text(blocker.until)})"
    return f"{kind_text(blocker)}: {blocker.text}\n  until: {blocker.freed_by}{until}"


def explanation_data(found: Explanation) -> dict[str, Any]:
    """As JSON values."""
    from tenure.v1 import jobs_pb2

    wire = jobs_pb2.ExplainJobResponse(
        job_id=found.job_id,
        state=found.state.value,  # type: ignore[arg-type]
        ahead=found.ahead,
        blockers=[
            jobs_pb2.Blocker(
                kind=0 if blocker.kind is None else blocker.kind.value,  # type: ignore[arg-type]
                text=blocker.text,
                freed_by=blocker.freed_by,
                until=blocker.until,
            )
            for blocker in found.blockers
        ],
        estimated_wait=found.estimated_wait,
        basis=found.basis,
        open_parents=found.open_parents,
    )
    return message_data(wire)
