"""``tenure submit``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenure.cli import exits
from tenure.cli.flags import TIMEOUT_S, Address, Output, Timeout, parse_duration
from tenure.cli.output import Format, print_json, print_json_line
from tenure.cli.session import with_client

if TYPE_CHECKING:
    from tenure.client import AsyncClient, AsyncJobHandle, Job


def submit(
    job: Annotated[str, typer.Argument(help="The job's name, for example app.jobs.resize.")],
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARG]…", help="Arguments: JSON where it is JSON, else text."),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE|-",
            help="More arguments: a JSON array by position, or a JSON object by name.",
        ),
    ] = None,
    queue: Annotated[str | None, typer.Option(help="The queue to wait in.")] = None,
    priority: Annotated[
        int | None, typer.Option(help="0 (critical) to 10 (low).  [default: 5]")
    ] = None,
    delay: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Wait first: 90s, 5m, 1h30m, 2d.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key is the same job.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait, and print the result.")] = False,
    wait_timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --wait: exit 124 after this.")
    ] = None,
    output: Output = Format.TABLE,
    address: Address = None,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Submits one job; prints its id, or with --wait its result.

    Example: tenure submit app.jobs.resize s3://a.png 320 --queue media --wait
    """
    from tenure.client import named

    settings: dict[str, Any] = {}
    if queue is not None:
        settings["queue"] = queue
    if priority is not None:
        settings["priority"] = priority
    if delay is not None:
        settings["delay"] = parse_duration(delay)
    if key is not None:
        settings["key"] = key
    definition = named(job, **settings)
    positional, by_name = _arguments(args or [], json_file)

    async def work(client: AsyncClient) -> int:
        handle = await _submit(client, definition, positional, by_name)
        if not wait:
            _show_id(handle.id, output)
            if sys.stderr.isatty():
                exits.say(f"next: tenure jobs wait {handle.id}")
            return exits.OK
        exits.say(f"waiting for {handle.id}")
        value = await handle.result(wait_timeout)
        show_value(value, output)
        return exits.OK

    return with_client(address, timeout, work)


async def _submit(
    client: AsyncClient, job: Job[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> AsyncJobHandle[Any]:
    return await client.submit(job, *args, **kwargs)


def _show_id(job_id: str, form: Format) -> None:
    if form is Format.JSON:
        print_json({"jobId": job_id})
    elif form is Format.JSONL:
        print_json_line({"jobId": job_id})
    else:
        print(job_id)


def show_value(value: object, form: Format) -> None:
    """A job's result: as JSON; in a table plain text goes without quotes."""
    plain = plain_value(value)
    if form is Format.TABLE and isinstance(plain, str):
        print(plain)
    elif form is Format.JSONL:
        print_json_line(plain)
    else:
        print_json(plain)


def plain_value(value: object) -> Any:
    """A decoded value as JSON values: bytes in base64, times in ISO form."""
    import msgspec

    return msgspec.to_builtins(value, str_keys=True)


def _arguments(texts: list[str], json_file: str | None) -> tuple[list[Any], dict[str, Any]]:
    positional = [_value(text) for text in texts]
    if json_file is None:
        return positional, {}
    try:
        text = sys.stdin.read() if json_file == "-" else Path(json_file).read_text("utf-8")
        more = json.loads(text)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {json_file}: {error.strerror}") from None
    except ValueError as error:
        raise typer.BadParameter(f"expected JSON in {json_file}, but {error}") from None
    if isinstance(more, list):
        return positional + more, {}
    if isinstance(more, dict):
        return positional, more
    raise typer.BadParameter(f"expected a JSON array or object in {json_file}")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
