"""Options from the wire: defaults, limits, and the path of what is wrong."""

import re
from datetime import timedelta

import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration

from tenure.master.core.record import JobFault, JobRecord, LabelSelector, Policy, RetryPolicy
from tenure.master.node.translate import (
    SettingCache,
    checked_span,
    fault_from_wire,
    fault_to_wire,
    options_of,
    result_of,
    setting_of,
)
from tenure.protocol import limits
from tenure.protocol.errors import Rejected
from tenure.protocol.ids import JobId, home_partition
from tenure.protocol.vocabulary import Backoff, ErrorCategory, Jitter, JobState, KeyConflict
from tenure.v1 import common_pb2


def test_unset_options_take_the_documented_defaults() -> None:
    """Only a name is needed."""
    setting = setting_of(common_pb2.JobOptions(name="app.f"), "options[0]")
    assert setting.priority == 5
    assert (setting.delay_ms, setting.at_ms) == (0, 0)
    assert setting.policy == Policy(name="app.f")
    retry = setting.policy.retry
    assert retry == RetryPolicy()
    assert (retry.backoff, retry.base_ms, retry.factor) == (Backoff.EXPONENTIAL, 1_000, 2.0)
    assert (retry.cap_ms, retry.jitter) == (60_000, Jitter.FULL)
    assert (retry.max_attempts, retry.max_lost) == (4, 3)


def test_priority_zero_is_not_unset() -> None:
    """0 is the most urgent priority, not the default."""
    assert setting_of(common_pb2.JobOptions(name="f", priority=0), "o").priority == 0


def test_a_policy_survives_the_wire() -> None:
    """What a worker gets means what the client sent."""
    policy = Policy(
        name="app.f",
        queue="q",
        tenant="t",
        retry=RetryPolicy(
            backoff=Backoff.LINEAR,
            base_ms=250,
            factor=3.0,
            cap_ms=9_000,
            jitter=Jitter.NONE,
            max_attempts=7,
            max_lost=2,
            system_base_ms=4_000,
            non_retryable=("builtins.ValueError",),
        ),
        timeout_ms=1_500,
        schedule_timeout_ms=2_500,
        deadline_ms=9_500,
        heartbeat_timeout_ms=700,
        at_most_once=True,
        result_ttl_ms=60_000,
        labels=(("gpu", "true"), ("region", "eu")),
        key_window_ms=5_000,
    )
    assert setting_of(options_of(policy), "o").policy == policy


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": ""}, "o.name"),
        ({"name": "white space"}, "o.name"),
        ({"name": "f", "queue": "q" * 129}, "o.queue"),
        ({"name": "f", "tenant": "a b"}, "o.tenant"),
        ({"name": "f", "priority": 11}, "o.priority"),
        ({"name": "f", "delay": timedelta(days=367)}, "o.delay"),
        ({"name": "f", "delay": timedelta(seconds=-1)}, "o.delay"),
        ({"name": "f", "delay": timedelta(seconds=1), "at_ms": 5}, "o.at_ms"),
        ({"name": "f", "at_ms": -5}, "o.at_ms"),
        ({"name": "f", "timeout": timedelta(days=8)}, "o.timeout"),
        ({"name": "f", "schedule_timeout": timedelta(days=8)}, "o.schedule_timeout"),
        ({"name": "f", "key_window": timedelta(days=8)}, "o.key_window"),
        ({"name": "f", "labels": {"bad label": "x"}}, "o.labels"),
        ({"name": "f", "retry": {"max_attempts": 1_001}}, "o.retry.max_attempts"),
        ({"name": "f", "retry": {"factor": 0.5}}, "o.retry.factor"),
    ],
)
def test_a_wrong_field_is_named(options: dict[str, object], field: str) -> None:
    """Each bad value is refused with its path."""
    with pytest.raises(Rejected) as caught:
        setting_of(common_pb2.JobOptions(**options), "o")  # type: ignore[arg-type]
    assert caught.value.field == field
    assert field in caught.value.message


def test_equal_options_are_one_setting() -> None:
    """Batches that repeat their options validate them once, and know their home."""
    cache = SettingCache(4)
    one = cache.get(common_pb2.JobOptions(name="f", queue="mail"), "o")
    two = cache.get(common_pb2.JobOptions(name="f", queue="mail"), "o")
    assert one is two
    assert one.home == home_partition("default", "mail", 4)


def test_long_errors_are_cut() -> None:
    """Messages and tracebacks end at their limits, and say so."""
    wire = common_pb2.JobError(type="E", message="ä" * 9_000, traceback="t" * 99_000)
    fault = fault_from_wire(wire)
    assert len(fault.message.encode()) <= limits.ERROR_MESSAGE_BYTES_MAX
    assert fault.message.endswith("[cut]")
    assert len(fault.traceback.encode()) <= limits.TRACEBACK_BYTES_MAX


def test_a_fault_survives_the_wire() -> None:
    """Type, message, category and the wish for a delay arrive."""
    fault = JobFault("app.Busy", "later", "trace", ErrorCategory.SYSTEM, 1_500)
    assert fault_from_wire(fault_to_wire(fault)) == fault


@pytest.mark.parametrize("field", ["backoff", "jitter"])
def test_an_enum_value_of_a_later_release_is_refused_by_its_path(field: str) -> None:
    """proto3 lets any number through; the master names the field instead of failing inside."""
    options = common_pb2.JobOptions(name="f")
    setattr(options.retry, field, 77)

    with pytest.raises(Rejected) as refused:
        setting_of(options, "options[0]")

    assert refused.value.field == f"options[0].retry.{field}"


def test_a_time_that_no_timestamp_shows_is_refused() -> None:
    """One such job would make every list of its partition fail."""
    last = common_pb2.JobOptions(name="f", at_ms=253_402_300_799_999)
    assert setting_of(last, "o").at_ms == last.at_ms

    with pytest.raises(Rejected, match="9999"):
        setting_of(common_pb2.JobOptions(name="f", at_ms=last.at_ms + 1), "o")


def test_a_jobs_wish_for_its_next_delay_has_a_limit() -> None:
    """Longer than any delay that a client may ask for is cut to that."""
    wire = common_pb2.JobError(type="T")
    wire.retry_after.FromTimedelta(timedelta(days=100_000))

    assert fault_from_wire(wire).retry_after_ms == limits.DELAY_MS_MAX


def test_what_a_worker_says_of_an_error_is_brought_within_bounds() -> None:
    """No report can put a time into the journal that cannot be written or shown."""
    wire = common_pb2.JobError(type="app.Error", message="m", category=99)  # type: ignore[arg-type]
    for seconds, expected in ((2**62, limits.DELAY_MS_MAX), (-5, 0), (3, 3_000)):
        wire.retry_after.seconds = seconds
        fault = fault_from_wire(wire)
        assert fault.retry_after_ms == expected
        assert fault.category is ErrorCategory.TRANSIENT
        msgspec.msgpack.encode(fault)


def test_only_a_cancelled_job_says_why_it_was() -> None:
    """A job that won against its cancel is COMPLETED, and has no reason to tell."""

    def told(state: JobState) -> str:
        record = JobRecord(
            job_id=JobId("j"),
            seq=1,
            ordinal=1,
            state=state,
            policy=Policy(name="f"),
            priority=5,
            payload=b"",
            key="",
            submitted_ms=1,
            ready_ms=1,
            cancel_reason="wrong file",
        )
        return result_of(record).cancel_reason

    assert told(JobState.CANCELLED) == "wrong file"
    assert told(JobState.COMPLETED) == ""


def test_options_have_a_size() -> None:
    """Labels, error types and the like are short: records of jobs carry them about."""
    options = common_pb2.JobOptions(name="app.f")
    options.retry.non_retryable.extend([f"app.Error{n}" for n in range(5_000)])
    with pytest.raises(Rejected) as caught:
        setting_of(options, "options[0]")
    assert caught.value.metadata["field"] == "options[0]"


def test_selectors_are_one_policy_in_any_order() -> None:
    """What is asked of labels survives the wire, and its order is no matter."""
    gpu = common_pb2.LabelSelector(key="gpu")
    zones = common_pb2.LabelSelector(key="zone", values=["us", "eu", "us"])
    one = common_pb2.JobOptions(name="f", requires=[zones, gpu, gpu], prefers=[gpu])
    two = common_pb2.JobOptions(name="f", requires=[gpu, zones], prefers=[gpu])
    policy = setting_of(one, "o").policy
    assert policy == setting_of(two, "o").policy
    assert policy.requires == (LabelSelector("gpu"), LabelSelector("zone", ("eu", "us")))
    assert setting_of(options_of(policy), "o").policy == policy


@pytest.mark.parametrize(
    ("selector", "path"),
    [
        (common_pb2.LabelSelector(key=""), "o.requires[1].key"),
        (common_pb2.LabelSelector(key="a", values=["b", "c d"]), "o.requires[1].values[1]"),
        (common_pb2.LabelSelector(key="a", values=["b"] * 17), "o.requires[1].values"),
    ],
)
def test_a_wrong_selector_is_refused_by_its_path(
    selector: common_pb2.LabelSelector, path: str
) -> None:
    """Names and their number have limits."""
    good = common_pb2.LabelSelector(key="gpu")
    with pytest.raises(Rejected) as refused:
        setting_of(common_pb2.JobOptions(name="f", requires=[good, selector]), "o")
    assert refused.value.field == path
    with pytest.raises(Rejected) as refused:
        setting_of(common_pb2.JobOptions(name="f", prefers=[good] * 17), "o")
    assert refused.value.field == "o.prefers"


def test_what_a_taken_key_comes_to_survives_the_wire() -> None:
    """Not said, the job that has the key is returned."""
    assert (
        setting_of(common_pb2.JobOptions(name="f"), "o").policy.key_conflict is KeyConflict.RETURN
    )
    for conflict in KeyConflict:
        asked = common_pb2.JobOptions(name="f", key_conflict=conflict)  # type: ignore[arg-type]
        policy = setting_of(asked, "o").policy
        assert policy.key_conflict is conflict
        assert setting_of(options_of(policy), "o").policy == policy


@pytest.mark.parametrize(
    ("most_ms", "said"), [(3_600_000, "3600000 ms"), (2 * limits.DAY_MS, "172800000 ms (2 days)")]
)
def test_a_span_that_is_too_long_is_told_its_limit(most_ms: int, said: str) -> None:
    """In days only where there are some."""
    with pytest.raises(Rejected, match=rf"above the limit of {re.escape(said)}$"):
        checked_span(Duration(seconds=most_ms // 1_000 + 1), "window", most_ms)
