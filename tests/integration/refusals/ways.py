"""The four ways in, each of which hears the refusals of many rows."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from tenure.cli import main
from tenure.client import Client, TenureError
from tenure.client.router import RESEND
from tenure.protocol.errors import DOMAIN, error_of
from tenure.protocol.refusal import Reason, Refusal
from tests.integration.commands import Outcome
from tests.integration.refusals.row import Call, Row
from tests.nodejs import NODE, node_examples

CALLS: Final = Path(__file__).with_name("calls.mjs")
AT_ONCE_S: Final = 10.0
AGAIN_S: Final = 0.5
WIRE_TIMEOUT_S: Final = 60.0
#: As many processes as there are cores.
ABREAST: Final = 2
_SPAN: Final = re.compile(r"(-?\d+)s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one way was told.

    Attributes:
        reason: Of the one ErrorInfo, or of the refused row.
        text: The readable line.
        field: Of the BadRequest, or of the refused row.
        retry: Whether a time was told after which to come back.
        offences: What breaks the rules of all errors.
    """

    reason: str
    text: str
    field: str
    retry: bool
    offences: tuple[str, ...] = ()


def ask_sdk(rows: Iterable[Row]) -> dict[str, Heard]:
    """By the SDK, with one client for each cluster and patience."""
    clients: dict[tuple[str, float], Client] = {}
    heard = {}
    try:
        for row in rows:
            if not isinstance(row.sdk, str):
                key = (row.address, timeout_s(row))
                client = clients.get(key)
                if client is None:
                    client = clients[key] = Client(key[0], timeout=key[1])
                heard[row.name] = _of_error(_error(row.sdk, client))
    finally:
        for client in clients.values():
            client.close()
    return heard


def _error(way: Callable[[Client], object], client: Client) -> TenureError:
    try:
        found = way(client)
    except TenureError as error:
        return error
    if not isinstance(found, TenureError):
        raise AssertionError(f"expected a refusal, got {found!r}")
    return found


def _of_error(error: TenureError) -> Heard:
    return Heard(
        reason=error.reason,
        text=error.message,
        field=error.field,
        retry=error.retry_after_ms is not None,
    )


def ask_cli(rows: Iterable[Row]) -> dict[str, Outcome]:
    """By the command line, all in this process: a process for each would cost half a second."""
    return {row.name: command(row) for row in rows if not isinstance(row.cli, str)}


def command(row: Row) -> Outcome:
    """A row's command."""
    return here([*row.cli], row.address, timeout_s=timeout_s(row), stdin=row.stdin)


def here(
    arguments: list[str], address: str, *, timeout_s: float = AT_ONCE_S, stdin: str = ""
) -> Outcome:
    """One command, run in this process to its end."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main.run([*arguments, "--address", address, "--timeout", f"{timeout_s}"])
    return Outcome(code, out.getvalue(), err.getvalue())


def timeout_s(row: Row) -> float:
    """Long enough for what is refused at once, short for what is tried again until then."""
    return AGAIN_S if row.reason in RESEND else AT_ONCE_S


def _wired(rows: Iterable[Row]) -> list[tuple[Row, Call]]:
    return [(row, row.wire) for row in rows if isinstance(row.wire, Call)]


def _json(call: Call) -> Any:
    return json_format.MessageToDict(call.request, preserving_proto_field_name=True)


def ask_grpcurl(rows: Iterable[Row]) -> dict[str, Heard]:
    """By grpcurl, which knows the API from reflection."""

    def command(asked: tuple[Row, Call]) -> Heard:
        row, call = asked
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "grpcurl"), "-plaintext", "-format-error"),
                *("-max-time", "10", "-d", "@", row.address),
                f"tenure.v1.{call.service}/{call.method}",
            ],
            input=json.dumps(_json(call)),
            capture_output=True,
            text=True,
            timeout=WIRE_TIMEOUT_S,
            check=False,
        )
        if done.returncode == 0:
            return _of_answer(row, json.loads(done.stdout))
        return _of_status(json_format.Parse(done.stderr, status_pb2.Status()))

    asked = _wired(rows)
    with ThreadPoolExecutor(ABREAST) as pool:
        return dict(zip([row.name for row, _ in asked], pool.map(command, asked), strict=True))


def ask_node(rows: Iterable[Row]) -> dict[str, Heard]:
    """By the stubs of ``examples/node``."""
    asked = {row.name: (row, call) for row, call in _wired(rows)}
    heard = {}
    for said in node_calls([(row.name, row.address, call) for row, call in asked.values()], {}):
        row, _ = asked[said["name"]]
        heard[row.name] = _of_answer(row, said["answer"]) if "answer" in said else of_node(said)
    return heard


def node_calls(
    calls: Iterable[tuple[str, str, Call]], environment: dict[str, str]
) -> list[dict[str, Any]]:
    """What Node heard of calls, each with a name and an address, in one process."""
    asked = [
        {
            "name": name,
            "address": address,
            "service": call.service,
            "method": call.method,
            "streams": call.streams,
            "request": _spans(_json(call)),
        }
        for name, address, call in calls
    ]
    done = subprocess.run(
        [NODE, str(CALLS), str(node_examples() / "tenure.mjs")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=WIRE_TIMEOUT_S,
        check=True,
        env={**os.environ, **environment},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _spans(value: Any) -> Any:
    """Durations as JavaScript's protobuf takes them; proto3 JSON writes them as text."""
    if isinstance(value, dict):
        return {key: _spans(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_spans(part) for part in value]
    span = _SPAN.fullmatch(value) if isinstance(value, str) else None
    return {"seconds": int(span[1])} if span else value


def of_node(said: dict[str, Any]) -> Heard:
    """A status that Node was told, with its details.

    Raises:
        AssertionError: It has none: no master wrote it.
    """
    if "details" not in said:
        raise AssertionError(f"expected a status with details, got {said}")
    status = status_pb2.Status.FromString(base64.b64decode(said["details"]))
    heard = _of_status(status)
    offences = [*heard.offences]
    if said["code"] != status.code or said["message"] != status.message:
        offences.append(f"the status and its details differ: {said}")
    if said["reason"] != heard.reason:
        offences.append(f"x-tenure-reason is {said['reason']}")
    return Heard(
        reason=heard.reason,
        text=heard.text,
        field=heard.field,
        retry=heard.retry,
        offences=tuple(offences),
    )


def _of_status(status: status_pb2.Status) -> Heard:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    infos, field, told, offences = [], "", False, []
    for detail in status.details:
        if detail.Unpack(info):
            infos.append((info.domain, info.reason))
        elif detail.Unpack(bad):
            field = ",".join(violation.field for violation in bad.field_violations)
        elif detail.Unpack(retry):
            told = retry.retry_delay.ToMilliseconds() > 0
    if [domain for domain, _ in infos] != [DOMAIN]:
        raise AssertionError(f"expected one ErrorInfo of our domain, got {status}")
    reason = infos[0][1]
    code = error_of(Refusal(reason=Reason(reason), message="")).code
    if (status.code,) != code.value[:1]:
        offences.append(f"the status is {status.code}, not {code}")
    return Heard(
        reason=reason, text=status.message, field=field, retry=told, offences=tuple(offences)
    )


def _of_answer(row: Row, answer: dict[str, Any]) -> Heard:
    """The refusal of the only row of a batch."""
    rows = [*answer.get("errors", ()), *answer.get("verdicts", ())]
    found = [row["refusal"] for row in rows if row.get("refusal")]
    if len(found) != 1:
        raise AssertionError(f"expected {row.name} to be refused, got {answer}")
    refusal = found[0]
    return Heard(
        reason=refusal["reason"],
        text=refusal["message"],
        field=refusal.get("field", ""),
        retry=bool(refusal.get("retry_after")),
    )
