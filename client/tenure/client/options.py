"""How a job is to be run: ``Retry``, the settings of a definition, and their wire form.

Everything a user can get wrong is refused here, with the field's name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from tenure.client.errors import error_type_names, invalid
from tenure.client.span import check_span
from tenure.protocol import limits
from tenure.protocol.ids import is_job_id
from tenure.protocol.vocabulary import Backoff, Jitter, KeyConflict, ParentFailure, RunIf
from tenure.v1 import common_pb2

if TYPE_CHECKING:
    from tenure.client.job import JobDef, Step

BackoffName = Literal["exponential", "linear", "fixed", "fibonacci", "none"]
JitterName = Literal["full", "equal", "none"]
ConflictName = Literal["return", "reject", "replace"]
RunIfName = Literal["all_succeeded", "any_failed", "always"]
ParentFailureName = Literal["fail", "ignore", "hold"]
#: A key, or what makes it of a job's arguments.
RowKey = str | Callable[..., str]
#: Labels, and what values they may have: one, one of several, or any (``"*"``).
Selectors = Mapping[str, str | Sequence[str]]

_BACKOFFS: Final = {member.name.lower(): member.value for member in Backoff}
_JITTERS: Final = {member.name.lower(): member.value for member in Jitter}
_RUN_IFS: Final = {member.name.lower(): member.value for member in RunIf}
_PARENT_FAILURES: Final = {member.name.lower(): member.value for member in ParentFailure}
_CONFLICTS: Final = {member.name.lower(): member.value for member in KeyConflict}
#: The settings that are spans of time, with their limits in milliseconds.
_SPANS: Final = {
    "delay": limits.DELAY_MS_MAX,
    "key_window": limits.KEY_WINDOW_MS_MAX,
    "timeout": limits.TIMEOUT_MS_MAX,
    "schedule_timeout": limits.TIMEOUT_MS_MAX,
    "deadline": limits.DELAY_MS_MAX,
    "heartbeat_timeout": limits.TIMEOUT_MS_MAX,
    "result_ttl": limits.DELAY_MS_MAX,
}
_NAME: Final = re.compile(limits.NAME_PATTERN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When and how often to try a failed job again.

    Attributes:
        max_attempts: Attempts the job's own failures may cost, the first included (1 to 1,000).
        max_lost: Crashes and expired leases allowed before the job counts as poison.
        backoff: How the delay grows: base*factor^(n-1), base*n, base, base*fib(n), or none.
        base: The first delay.
        factor: For ``exponential``.
        cap: No delay is longer.
        jitter: ``full``: uniform in [0, d]; ``equal``: uniform in [d/2, d]; or none.
        system_base: ``base`` for errors of category SYSTEM; None: the same.
        non_retryable: Errors that fail the job at once: classes (their subclasses count too), or
            names such as ``"ValueError"`` or ``"app.errors.BadInput"``.
    """

    max_attempts: int = limits.MAX_ATTEMPTS_DEFAULT
    max_lost: int = limits.MAX_LOST_DEFAULT
    backoff: BackoffName = "exponential"
    base: timedelta = timedelta(milliseconds=limits.BACKOFF_BASE_MS_DEFAULT)
    factor: float = limits.BACKOFF_FACTOR_DEFAULT
    cap: timedelta = timedelta(milliseconds=limits.BACKOFF_CAP_MS_DEFAULT)
    jitter: JitterName = "full"
    system_base: timedelta | None = None
    non_retryable: tuple[type[BaseException] | str, ...] = ()

    def __post_init__(self) -> None:
        _check_int("retry.max_attempts", self.max_attempts, 1, limits.ATTEMPTS_MAX)
        _check_int("retry.max_lost", self.max_lost, 1, limits.ATTEMPTS_MAX)
        if self.backoff not in _BACKOFFS:
            raise invalid("retry.backoff", f"one of {', '.join(_BACKOFFS)}, got {self.backoff!r}")
        if self.jitter not in _JITTERS:
            raise invalid("retry.jitter", f"one of {', '.join(_JITTERS)}, got {self.jitter!r}")
        check_span("retry.base", self.base, limits.DELAY_MS_MAX, least_ms=0)
        check_span("retry.cap", self.cap, limits.DELAY_MS_MAX, least_ms=0)
        if self.system_base is not None:
            check_span("retry.system_base", self.system_base, limits.DELAY_MS_MAX, least_ms=0)
        if not 1 <= self.factor <= 1000:
            raise invalid("retry.factor", f"from 1 to 1000, got {self.factor}")

    def to_wire(self) -> common_pb2.RetryPolicy:
        """The policy as a message."""
        policy = common_pb2.RetryPolicy(
            backoff=_BACKOFFS[self.backoff],  # type: ignore[arg-type]
            base=self.base,
            factor=self.factor,
            cap=self.cap,
            jitter=_JITTERS[self.jitter],  # type: ignore[arg-type]
            max_attempts=self.max_attempts,
            max_lost=self.max_lost,
            non_retryable=[
                kind if isinstance(kind, str) else error_type_names(kind)[0]
                for kind in self.non_retryable
            ],
        )
        if self.system_base is not None:
            policy.system_base.FromTimedelta(self.system_base)
        return policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The settings of a job definition; checked when made. See ``JobDef.options``."""

    queue: str = limits.DEFAULT_QUEUE
    tenant: str = limits.DEFAULT_TENANT
    priority: int | None = None
    delay: timedelta | None = None
    at: datetime | None = None
    key: str = ""
    key_window: timedelta | None = None
    timeout: timedelta | None = None
    schedule_timeout: timedelta | None = None
    deadline: timedelta | None = None
    heartbeat_timeout: timedelta | None = None
    retry: Retry | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    at_most_once: bool = False
    result_ttl: timedelta | None = None
    content_type: str = limits.DEFAULT_CONTENT_TYPE
    key_conflict: ConflictName = "return"
    limit_key: RowKey = ""
    sticky_key: RowKey = ""
    requires: Selectors = field(default_factory=dict[str, str | Sequence[str]])
    prefers: Selectors = field(default_factory=dict[str, str | Sequence[str]])
    after: tuple[str, ...] = ()
    run_if: RunIfName = "all_succeeded"
    on_parent_failure: ParentFailureName = "fail"
    on_success: JobDef[..., Any] | Step[Any] | None = None
    on_failure: JobDef[..., Any] | Step[Any] | None = None

    def __post_init__(self) -> None:
        check_name("queue", self.queue)
        check_name("tenant", self.tenant)
        if self.priority is not None:
            _check_int("priority", self.priority, limits.PRIORITY_MIN, limits.PRIORITY_MAX)
        for name, most_ms in _SPANS.items():
            if (span := getattr(self, name)) is not None:
                check_span(name, span, most_ms, least_ms=0 if name == "delay" else 1)
        if self.at is not None:
            if not isinstance(self.at, datetime) or self.at.tzinfo is None:
                raise invalid(
                    "at", f"a datetime with a time zone (say which, as tzinfo), got {self.at!r}"
                )
            if self.at.timestamp() < 0:
                raise invalid("at", f"in 1970 or later, got {self.at}")
            if self.delay is not None:
                raise invalid("at", "given without a delay: a job becomes ready once")
        _check_key("key", self.key)
        for name in ("limit_key", "sticky_key"):
            key: RowKey = getattr(self, name)
            if not callable(key):
                _check_key(name, key)
        if self.key_conflict not in _CONFLICTS:
            raise invalid(
                "key_conflict", f"one of {', '.join(_CONFLICTS)}, got {self.key_conflict!r}"
            )
        self._check_parents()
        for name in ("requires", "prefers"):
            _check_selectors(name, getattr(self, name))
        for label, value in self.labels.items():
            check_name(f"labels[{label}]", label)
            check_name(f"labels[{label}]", value)

    def _check_parents(self) -> None:
        if self.run_if not in _RUN_IFS:
            raise invalid("run_if", f"one of {', '.join(_RUN_IFS)}, got {self.run_if!r}")
        if self.on_parent_failure not in _PARENT_FAILURES:
            known = ", ".join(_PARENT_FAILURES)
            raise invalid("on_parent_failure", f"one of {known}, got {self.on_parent_failure!r}")
        if len(self.after) > limits.PARENTS_MAX:
            raise invalid("after", f"at most {limits.PARENTS_MAX} jobs, got {len(self.after)}")
        for index, job_id in enumerate(self.after):
            if not is_job_id(job_id):
                raise invalid(f"after[{index}]", f"a handle or a job's id, got {job_id!r}")

    def to_wire(self, name: str) -> common_pb2.JobOptions:
        """The settings of the job with this name as a message (all but keys and parents)."""
        wire = common_pb2.JobOptions(
            name=name,
            queue=self.queue,
            tenant=self.tenant,
            at_most_once=self.at_most_once,
            labels=self.labels,
            content_type=self.content_type,
        )
        if self.priority is not None:
            wire.priority = self.priority
        if self.at is not None:
            wire.at_ms = round(self.at.timestamp() * 1000)
        if self.retry is not None:
            wire.retry.CopyFrom(self.retry.to_wire())
        for name in _SPANS:
            span: timedelta | None = getattr(self, name)
            if span is not None:
                getattr(wire, name).FromTimedelta(span)
        if self.key_conflict != "return":
            wire.key_conflict = _CONFLICTS[self.key_conflict]  # type: ignore[assignment]
        if self.run_if != "all_succeeded":
            wire.run_if = _RUN_IFS[self.run_if]  # type: ignore[assignment]
        if self.on_parent_failure != "fail":
            wire.on_parent_failure = _PARENT_FAILURES[self.on_parent_failure]  # type: ignore[assignment]
        for label, values in self.requires.items():
            wire.requires.add(key=label, values=_values(values))
        for label, values in self.prefers.items():
            wire.prefers.add(key=label, values=_values(values))
        # A master refuses the whole request, with the jobs of others in it.
        if (size := wire.ByteSize()) > limits.OPTIONS_BYTES_MAX:
            raise invalid(
                "options",
                f"at most {limits.OPTIONS_BYTES_MAX} bytes (data is for the arguments), got {size}",
            )
        return wire


def row_keys(
    name: str, key: RowKey, calls: Sequence[tuple[Sequence[Any], Mapping[str, Any]]]
) -> Sequence[str]:
    """The limit key or the sticky key of each call.

    Raises:
        Rejected: What was made of a call's arguments is no key.
    """
    if not callable(key):
        return [key] * len(calls)
    made = [key(*args, **kwargs) for args, kwargs in calls]
    for each in made:
        _check_key(name, each)
    return made


def check_boost(priority: int | None, delay: timedelta | None) -> None:
    """Refuses what no job that waits can be given."""
    if priority is None and delay is None:
        raise invalid("priority", "given, or a delay, or both; got neither")
    if priority is not None:
        _check_int("priority", priority, limits.PRIORITY_MIN, limits.PRIORITY_MAX)
    if delay is not None:
        check_span("delay", delay, limits.DELAY_MS_MAX, least_ms=0)


def check_name(where: str, name: str) -> None:
    """Refuses what is no name of a queue, job, tenant or label."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise invalid(
            where, f"1 to {limits.NAME_CHARS_MAX} characters of A-Z a-z 0-9 . _ / -, got {name!r}"
        )


def _check_int(where: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise invalid(where, f"a whole number from {least} to {most}, got {value!r}")


def _check_key(where: str, key: object) -> None:
    if not isinstance(key, str) or len(key) > limits.KEY_CHARS_MAX:
        raise invalid(where, f"text of at most {limits.KEY_CHARS_MAX} characters, got {_told(key)}")


def _check_selectors(where: str, selectors: Selectors) -> None:
    if len(selectors) > limits.SELECTORS_MAX:
        raise invalid(where, f"at most {limits.SELECTORS_MAX} labels, got {len(selectors)}")
    for label, values in selectors.items():
        check_name(f"{where}[{label}]", label)
        if values == "*":
            continue
        wanted = _values(values)
        if not 0 < len(wanted) <= limits.SELECTORS_MAX:
            raise invalid(
                f"{where}[{label}]",
                f"1 to {limits.SELECTORS_MAX} values, or '*' for any, got {len(wanted)}",
            )
        for value in wanted:
            check_name(f"{where}[{label}]", value)


def _values(values: str | Sequence[str]) -> Sequence[str]:
    """The values that a label may have; none: any."""
    if values == "*":
        return []
    return [values] if isinstance(values, str) else values


def _told(value: object) -> str:
    """A value, or what there is of it if it is long."""
    return f"{len(value)} characters" if isinstance(value, str) else repr(value)


def default_name(function: Callable[..., Any]) -> str:
    """``module.function``, with the name a worker would import the main module by."""
    module = function.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        if spec is not None:
            module = spec.name
        elif file is not None:
            from pathlib import Path

            module = Path(file).stem
    name = f"{module}.{function.__qualname__}"
    if "<" in name:
        raise invalid("name", f"given for a function inside another one: {name}")
    return name
