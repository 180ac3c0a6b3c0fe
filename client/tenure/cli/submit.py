"""``tenure submit``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import click

from tenure.cli import exits
from tenure.cli.command import NoSuchOption, Takes, argument, command, option, switch
from tenure.cli.flags import WaitTimeout, duration
from tenure.cli.invocation import Invocation
from tenure.cli.output import Format, message_data, print_json, print_json_line
from tenure.cli.texts import parse_selector
from tenure.cli.waiting import result_of

if TYPE_CHECKING:
    from tenure.client import AsyncClient, AsyncJobHandle, Job

Queue = Annotated[str | None, option("--queue", metavar="QUEUE", help="The queue to wait in.")]
Priority = Annotated[
    int | None,
    option("--priority", metavar="N", help="0 (critical) to 10 (low).  [default: 5]", type=int),
]
Delay = Annotated[
    str | None, option("--delay", metavar="DURATION", help="Wait first: 90s, 5m, 1h30m, 2d.")
]
Key = Annotated[
    str | None,
    option("--key", metavar="KEY", help="Idempotency key: the same key is the same job."),
]
KeyConflict = Annotated[
    str | None,
    option(
        "--key-conflict",
        metavar="WHAT",
        help="What a taken key comes to: return that job, reject this one, or replace that one "
        "unless it runs.  [default: return]",
        type=click.Choice(["return", "reject", "replace"]),
    ),
]
LimitKey = Annotated[
    str | None,
    option("--limit-key", metavar="KEY", help="Share the queue's limits per key with others."),
]
StickyKey = Annotated[
    str | None,
    option("--sticky-key", metavar="KEY", help="Go where others with this key go."),
]
After = Annotated[
    Sequence[str],
    option(
        "--after",
        metavar="ID",
        help="A job that must have ended first; may be given several times.",
        multiple=True,
    ),
]
RunIf = Annotated[
    str | None,
    option(
        "--run-if",
        metavar="WHAT",
        help="With --after: all_succeeded, any_failed, always.  [default: all_succeeded]",
        type=click.Choice(["all_succeeded", "any_failed", "always"]),
    ),
]
Tenant = Annotated[str | None, option("--tenant", metavar="TENANT", help="On whose behalf.")]
Prefers = Annotated[
    Sequence[str],
    option(
        "--prefer",
        metavar="LABEL[=V,…]",
        help="A label that its worker had better have; may be given several times.",
        multiple=True,
    ),
]
JsonFile = Annotated[
    str | None,
    option(
        "--json",
        metavar="FILE|-",
        help="More arguments: a JSON array by position, or a JSON object by name.",
    ),
]
Requires = Annotated[
    Sequence[str],
    option(
        "--require",
        metavar="LABEL[=V,…]",
        help="A label that its worker must have; may be given several times.",
        multiple=True,
    ),
]

#: An argument that begins so is meant as JSON.
_BEGINS_JSON: Final = tuple('{["')
#: Of an argument in a message.
_SHOWN_MAX: Final = 80


@command(
    "submit",
    takes=Takes.OUTPUT | Takes.DRY_RUN,
    examples=[
        ("tenure submit app.jobs.resize s3://a.png 320 --wait", "run it, print its result"),
        ("tenure submit app.jobs.notify 42 hi --delay 1h --key welcome-42", "later, and once"),
        ("tenure submit app.jobs.report --json report.json", "arguments from a file"),
        ("tenure submit app.jobs.tidy --after ID --run-if always", "when another one has ended"),
    ],
    ignore_unknown_options=True,
)
def submit(
    cli: Invocation,
    job: Annotated[
        str,
        argument(metavar="JOB", help="The job's name, for example app.jobs.resize."),
    ],
    args: Annotated[
        Sequence[str],
        argument(
            metavar="[ARG…]",
            help="Arguments: JSON where it is JSON, else text. What begins with a dash, a bracket, "
            "a brace or a double quote must be JSON.",
            nargs=-1,
        ),
    ] = (),
    json_file: JsonFile = None,
    queue: Queue = None,
    priority: Priority = None,
    delay: Delay = None,
    key: Key = None,
    key_conflict: KeyConflict = None,
    limit_key: LimitKey = None,
    sticky_key: StickyKey = None,
    tenant: Tenant = None,
    require: Requires = (),
    prefer: Prefers = (),
    after: After = (),
    run_if: RunIf = None,
    wait: Annotated[bool, switch("--wait", help="Wait, and print the result.")] = False,
    wait_timeout: WaitTimeout = None,
) -> int:
    """Submits one job. Prints its id, or with --wait its result.

    Only the name of the job is known here: its queue, retries and timeouts are the defaults, not
    those of its @job line.
    """
    from tenure.client import named

    settings: dict[str, Any] = {
        "queue": queue,
        "tenant": tenant,
        "priority": priority,
        "delay": None if delay is None else duration(delay),
        "key": key,
        "key_conflict": key_conflict,
        "limit_key": limit_key,
        "sticky_key": sticky_key,
        "requires": _selectors(require),
        "prefers": _selectors(prefer),
        "after": list(after) or None,
        "run_if": run_if,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    definition = named(job, **given)
    positional, by_name = given_arguments(args, json_file)
    if cli.dry_run:
        return _show_request(cli, definition, positional, by_name)

    async def work(client: AsyncClient) -> int:
        handle: AsyncJobHandle[Any] = await client.submit(definition, *positional, **by_name)
        if not wait:
            show_id(handle.id, cli.form)
            cli.hint(f"next: tenure jobs wait {handle.id}")
            return exits.OK
        cli.say(f"waiting for {handle.id}")
        return await result_of(cli, client, handle, wait_timeout)

    return cli.with_client(work)


def _selectors(texts: Sequence[str]) -> dict[str, str | list[str]] | None:
    """What is asked of a worker's labels; None: nothing is."""
    found: dict[str, str | list[str]] = {}
    for text in texts:
        try:
            label, values = parse_selector(text)
        except ValueError as error:
            raise click.BadParameter(f"expected {error}, got {text!r}") from None
        found[label] = values or "*"
    return found or None


def _show_request(
    cli: Invocation, job: Job[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> int:
    """What would be sent, once the arguments and options have been found good."""
    from tenure.client.codec import encode_args
    from tenure.v1 import jobs_pb2

    ((limit_key, sticky_key),) = job.row_keys([(args, kwargs)]) or [("", "")]
    request = jobs_pb2.SubmitJobsRequest(
        options=[job.wire],
        jobs=[
            jobs_pb2.JobSpec(
                payload=encode_args(job, tuple(args), kwargs),
                key=job.settings.key,
                limit_key=limit_key,
                sticky_key=sticky_key,
                parents=job.settings.after,
            )
        ],
    )
    if cli.form is Format.JSONL:
        print_json_line(message_data(request))
    else:
        print_json(message_data(request))
    cli.say("dry run: nothing was submitted")
    return exits.OK


def show_id(job_id: str, form: Format) -> None:
    """The id of a job that was submitted."""
    if form is Format.JSON:
        print_json({"jobId": job_id})
    elif form is Format.JSONL:
        print_json_line({"jobId": job_id})
    else:
        print(job_id)


def given_arguments(
    texts: Sequence[str], json_file: str | None
) -> tuple[list[Any], dict[str, Any]]:
    """A job's arguments by position and by name, as they were given.

    Raises:
        BadParameter: What should be JSON is none.
    """
    positional = [_value(text) for text in texts]
    if json_file is None:
        return positional, {}
    place = "on stdin" if json_file == "-" else f"in {json_file}"
    try:
        text = sys.stdin.read() if json_file == "-" else Path(json_file).read_text("utf-8")
        more = json.loads(text)
    except OSError as error:
        raise click.BadParameter(f"cannot read {json_file}: {error.strerror}") from None
    except ValueError as error:
        raise click.BadParameter(f"expected JSON {place}, but {error}") from None
    if isinstance(more, list):
        return positional + more, {}
    if isinstance(more, dict):
        return positional, more
    raise click.BadParameter(f"expected a JSON array or object {place}")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        if text[:1] in _BEGINS_JSON:
            # The shell has eaten quotes, most often; as a text it would reach the job unnoticed.
            as_text = shlex.quote(json.dumps(text, ensure_ascii=False))
            raise click.BadParameter(
                f"expected {_cut(text)} to be JSON, as its beginning says, but {error}; "
                f"if it is meant as text: {_cut(as_text)}"
            ) from None
        if len(text) > 1 and text.startswith("-"):
            # Numbers may be negative, so unknown options come here; most often one is mistyped.
            name = text.partition("=")[0]
            raise NoSuchOption(
                name, why="Text that begins with a dash is given as JSON, in double quotes"
            ) from None
        return text


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"
