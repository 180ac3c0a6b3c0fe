"""Definitions: names, executors, settings, their limits and their wire form."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenure.client import AsyncJob, Job, Reason, Rejected, Retry, job, named
from tenure.protocol import limits
from tenure.v1 import common_pb2


@job
def plain(x: int) -> int:
    """Doubles."""
    return 2 * x


@job(queue="mail", timeout=timedelta(minutes=5), labels={"team": "a"})
async def waits(x: int) -> int:
    """Doubles later."""
    return 2 * x


def test_a_job_is_still_its_function() -> None:
    """Calling a definition calls the function; its name, module and docstring stay."""
    assert plain(4) == 8
    assert isinstance(plain, Job)
    assert isinstance(waits, AsyncJob)
    assert plain.__name__ == "plain"
    assert plain.__doc__ == "Doubles."
    assert plain.name == f"{__name__}.plain"
    coroutine = waits(4)
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    assert stopped.value.value == 8


def test_executors_follow_the_function() -> None:
    """Functions run in threads, coroutine functions in the loop, and processes on demand."""

    def work() -> None:
        """Does nothing."""

    async def later() -> None:
        """Does nothing."""

    assert plain.executor == "thread"
    assert waits.executor == "async"
    assert job(name="p", executor="process")(work).executor == "process"
    for function, executor in ((later, "process"), (later, "thread"), (work, "async")):
        with pytest.raises(Rejected) as caught:
            job(name="p", executor=executor)(function)  # type: ignore[arg-type]
        assert caught.value.field == "executor"


def test_a_nested_function_needs_a_name() -> None:
    """A name that no worker could import is refused when the job is defined."""
    with pytest.raises(Rejected) as caught:

        @job
        def inner() -> None:
            """Does nothing."""

    assert caught.value.field == "name"


def test_options_leave_the_definition_as_it_is() -> None:
    """``options`` gives a changed copy of the same kind that shares what was built."""
    changed = waits.options(priority=1, delay=timedelta(hours=1), queue="slow")
    assert isinstance(changed, AsyncJob)
    assert (changed.queue, waits.queue) == ("slow", "mail")
    assert changed.timeout == waits.timeout
    assert changed.signature is waits.signature
    assert changed.wire.delay.ToTimedelta() == timedelta(hours=1)
    assert waits.options(key="k").wire is waits.wire
    assert waits.options(key="k").settings.key == "k"


def test_the_wire_form_has_every_setting() -> None:
    """Each setting lands in its field; the message is built once."""
    at = datetime(2030, 1, 1, tzinfo=UTC)
    full = plain.options(
        queue="q",
        tenant="t",
        priority=0,
        at=at,
        key_window=timedelta(days=2),
        timeout=timedelta(seconds=1),
        schedule_timeout=timedelta(seconds=2),
        deadline=timedelta(seconds=3),
        heartbeat_timeout=timedelta(seconds=4),
        retry=Retry(
            max_attempts=7,
            max_lost=2,
            backoff="fibonacci",
            base=timedelta(milliseconds=250),
            factor=1.5,
            cap=timedelta(minutes=3),
            jitter="equal",
            system_base=timedelta(seconds=9),
            non_retryable=(ValueError, "app.Bad", Rejected),
        ),
        labels={"a": "1"},
        at_most_once=True,
        result_ttl=timedelta(hours=5),
        key_conflict="replace",
        requires={"gpu": "*", "zone": ["eu", "us"]},
        prefers={"disk": "ssd"},
    )
    wire = full.wire
    assert wire is full.wire
    assert (wire.queue, wire.tenant, wire.priority) == ("q", "t", 0)
    assert wire.HasField("priority")
    assert wire.at_ms == int(at.timestamp()) * 1000
    spans = (wire.timeout, wire.schedule_timeout, wire.deadline, wire.heartbeat_timeout)
    assert [span.seconds for span in spans] == [1, 2, 3, 4]
    assert wire.key_window.ToTimedelta() == timedelta(days=2)
    assert wire.result_ttl.ToTimedelta() == timedelta(hours=5)
    assert wire.at_most_once
    assert dict(wire.labels) == {"a": "1"}
    assert wire.key_conflict == common_pb2.KEY_CONFLICT_REPLACE
    assert [(s.key, [*s.values]) for s in wire.requires] == [("gpu", []), ("zone", ["eu", "us"])]
    assert [(s.key, [*s.values]) for s in wire.prefers] == [("disk", ["ssd"])]
    retry = wire.retry
    assert (retry.max_attempts, retry.max_lost, retry.factor) == (7, 2, 1.5)
    assert retry.backoff == common_pb2.BACKOFF_FIBONACCI
    assert retry.jitter == common_pb2.JITTER_EQUAL
    assert retry.base.ToMilliseconds() == 250
    assert retry.cap.ToTimedelta() == timedelta(minutes=3)
    assert retry.system_base.ToSeconds() == 9
    assert list(retry.non_retryable) == ["ValueError", "app.Bad", "tenure.protocol.errors.Rejected"]


def test_defaults_are_left_to_the_cluster() -> None:
    """What a definition does not say is not sent."""
    wire = named("a").wire
    assert not wire.HasField("priority")
    assert not wire.HasField("retry")
    assert not wire.HasField("delay")
    assert wire.at_ms == 0


NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001  (the mistake under test)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"priority": 11}, "priority"),
        ({"priority": -1}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"queue": ""}, "queue"),
        ({"queue": "a b"}, "queue"),
        ({"queue": "q" * 129}, "queue"),
        ({"tenant": "ü"}, "tenant"),
        ({"labels": {"a": "b c"}}, "labels[a]"),
        ({"delay": timedelta(seconds=-1)}, "delay"),
        ({"delay": timedelta(days=367)}, "delay"),
        ({"delay": 5}, "delay"),
        ({"at": NAIVE}, "at"),
        ({"at": "tomorrow"}, "at"),
        ({"at": datetime(1969, 12, 31, tzinfo=UTC)}, "at"),
        ({"at": datetime(2030, 1, 1, tzinfo=UTC), "delay": timedelta(1)}, "at"),
        ({"key": "k" * (limits.KEY_CHARS_MAX + 1)}, "key"),
        ({"key_window": timedelta(days=8)}, "key_window"),
        ({"key_conflict": "ignore"}, "key_conflict"),
        ({"limit_key": "k" * (limits.KEY_CHARS_MAX + 1)}, "limit_key"),
        ({"sticky_key": 7}, "sticky_key"),
        ({"requires": {"a b": "c"}}, "requires[a b]"),
        ({"requires": {"zone": ["eu", "u s"]}}, "requires[zone]"),
        ({"requires": {"zone": []}}, "requires[zone]"),
        ({"prefers": {f"l{n}": "*" for n in range(17)}}, "prefers"),
        ({"timeout": timedelta(0)}, "timeout"),
        ({"timeout": timedelta(days=8)}, "timeout"),
        ({"schedule_timeout": timedelta(days=8)}, "schedule_timeout"),
        ({"heartbeat_timeout": timedelta(0)}, "heartbeat_timeout"),
        ({"deadline": timedelta(0)}, "deadline"),
        ({"result_ttl": timedelta(0)}, "result_ttl"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, Any], field: str) -> None:
    """Every wrong setting is an error of its own line of code, and names the field."""
    with pytest.raises(Rejected) as caught:
        plain.options(**settings)
    assert caught.value.field == field
    assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"max_attempts": 0}, "retry.max_attempts"),
        ({"max_attempts": 1_001}, "retry.max_attempts"),
        # 0 on the wire means the default.
        ({"max_lost": 0}, "retry.max_lost"),
        ({"backoff": "random"}, "retry.backoff"),
        ({"jitter": "some"}, "retry.jitter"),
        ({"base": timedelta(seconds=-1)}, "retry.base"),
        ({"cap": 60}, "retry.cap"),
        ({"factor": 0.5}, "retry.factor"),
    ],
)
def test_retry_policies_out_of_range_are_refused(settings: dict[str, Any], field: str) -> None:
    """A policy is checked when it is written down."""
    with pytest.raises(Rejected) as caught:
        Retry(**settings)
    assert caught.value.field == field


def test_options_that_are_too_large_are_refused_before_others_share_their_request() -> None:
    """A master refuses the whole request for them, and with it the jobs of other callers."""
    labels = {f"label-{n}": "v" * limits.NAME_CHARS_MAX for n in range(limits.NAME_CHARS_MAX)}

    with pytest.raises(Rejected, match=str(limits.OPTIONS_BYTES_MAX)) as caught:
        _ = plain.options(labels=labels).wire

    assert caught.value.field == "options"


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "späť"])
def test_names_that_no_cluster_takes_are_refused(name: str) -> None:
    """A job's name follows the rule of all names."""
    with pytest.raises(Rejected) as caught:
        named(name)
    assert caught.value.field == "name"


def test_limit_and_sticky_keys_belong_to_the_row() -> None:
    """A text is every call's; a function makes one of each call's arguments."""
    changed = plain.options(limit_key="l", sticky_key="s")
    assert changed.wire is plain.wire
    assert changed.row_keys([((1,), {}), ((2,), {})]) == [("l", "s"), ("l", "s")]
    assert plain.row_keys([((1,), {})]) == ()

    @job(name="app.mail", limit_key=lambda user, text="": f"user-{user}")
    def mail(user: int, text: str = "") -> None:
        """By user."""

    assert mail.row_keys([((1, "x"), {}), ((), {"user": 2})]) == [("user-1", ""), ("user-2", "")]
    assert mail.options(limit_key="all").row_keys([((1,), {})]) == [("all", "")]


def test_what_a_function_makes_of_arguments_must_be_a_key() -> None:
    """It is refused before it is sent, by the name of the setting."""

    @job(name="app.mail", sticky_key=lambda user: user)  # type: ignore[arg-type, return-value]
    def mail(user: int) -> None:
        """By user."""

    with pytest.raises(Rejected) as caught:
        mail.row_keys([((1,), {})])
    assert caught.value.field == "sticky_key"
