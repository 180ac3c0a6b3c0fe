"""Settings of a job that are out of their limits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration

from tenure.client import Client, Retry, named
from tenure.protocol import limits
from tenure.protocol.refusal import Reason
from tenure.v1 import common_pb2, jobs_pb2
from tests.integration.app import double
from tests.integration.refusals.row import NO_FLAG, Call, Facts, Row, submit

#: Name, path in a request, what the text says; then the wire, the SDK and the command.
Setting: TypeAlias = tuple[
    str, str, tuple[str, ...], Call, Callable[[Client], object], tuple[str, ...] | str
]
TOO_LONG = timedelta(days=400)


def rows(facts: Facts) -> list[Row]:
    """All of them: refused before anything is sent by the SDK, else by the master."""
    return [
        Row(
            name=name,
            reason=Reason.INVALID_ARGUMENT,
            says=says,
            address=facts.address,
            wire=wire,
            field=field,
            field_here=_here(field),
            sdk=sdk,
            cli=cli,
            code=2,
        )
        for name, field, says, wire, sdk, cli in [*_names(), *_numbers(), *_others(facts)]
    ]


def _here(field: str) -> str:
    """What the SDK calls a field of a batch's options or jobs."""
    _, _, setting = field.partition("].")
    return {"": "options", "at_ms": "at"}.get(setting, setting)


def _names() -> list[Setting]:
    """Alphabet and length."""
    return [
        (
            *("job's name", "options[0].name", ("no job!", "128", ". _ / -")),
            submit(name="no job!"),
            lambda client: client.submit(named("no job!"), 1),
            ("submit", "no job!"),
        ),
        (
            *("queue's name", "options[0].queue", ("a b", "128", ". _ / -")),
            submit(queue="a b"),
            lambda client: client.submit(double.options(queue="a b"), 1),
            ("submit", "double", "1", "--queue", "a b"),
        ),
        (
            *("label", "options[0].labels[zone]", ("no way", "128", ". _ / -")),
            submit(labels={"zone": "no way"}),
            lambda client: client.submit(double.options(labels={"zone": "no way"}), 1),
            NO_FLAG,
        ),
    ]


def _numbers() -> list[Setting]:
    """Least and most."""
    days = Duration()
    days.FromTimedelta(TOO_LONG)
    return [
        (
            *("priority", "options[0].priority", ("11", "0", "10")),
            submit(priority=11),
            lambda client: client.submit(double.options(priority=11), 1),
            ("submit", "double", "1", "--priority", "11"),
        ),
        (
            *("delay", "options[0].delay", ("delay", "366")),
            submit(delay=days),
            lambda client: client.submit(double.options(delay=TOO_LONG), 1),
            ("submit", "double", "1", "--delay", "400d"),
        ),
        (
            *("timeout", "options[0].timeout", ("timeout", "7 days")),
            submit(timeout=days),
            lambda client: client.submit(double.options(timeout=TOO_LONG), 1),
            NO_FLAG,
        ),
        (
            *("attempts", "options[0].retry.max_attempts", ("max_attempts", "1001", "1000")),
            submit(retry=common_pb2.RetryPolicy(max_attempts=1001)),
            lambda _: Retry(max_attempts=1001),
            NO_FLAG,
        ),
        (
            *("backoff", "options[0].retry.backoff", ("backoff", "99")),
            submit(retry=common_pb2.RetryPolicy(backoff=99)),  # type: ignore[arg-type]
            lambda _: Retry(backoff="99"),  # type: ignore[arg-type]
            NO_FLAG,
        ),
    ]


def _others(facts: Facts) -> list[Setting]:
    """Times, the key, and how large all of it is."""
    key = "k" * (limits.KEY_CHARS_MAX + 1)
    heavy = {f"label-{n}": "v" * limits.NAME_CHARS_MAX for n in range(limits.NAME_CHARS_MAX)}
    long_ago = datetime(1960, 1, 1, tzinfo=UTC)
    return [
        (
            *("start before 1970", "options[0].at_ms", ("at", "1970")),
            submit(at_ms=round(long_ago.timestamp() * 1000)),
            lambda client: client.submit(double.options(at=long_ago), 1),
            NO_FLAG,
        ),
        (
            *("two starts", "options[0].at_ms", ("at", "delay")),
            submit(at_ms=facts.now_ms, delay=Duration(seconds=5)),
            lambda client: client.submit(
                double.options(at=datetime.now(UTC), delay=timedelta(seconds=5)), 1
            ),
            NO_FLAG,
        ),
        (
            *("key", "jobs[0].key", ("key", "256", "257")),
            submit(jobs_pb2.JobSpec(key=key)),
            lambda client: client.submit(double.options(key=key), 1),
            ("submit", "double", "1", "--key", key),
        ),
        (
            *("size of options", "options[0]", ("16384", "data is for the")),
            submit(labels=heavy),
            lambda client: client.submit(double.options(labels=heavy), 1),
            NO_FLAG,
        ),
    ]
