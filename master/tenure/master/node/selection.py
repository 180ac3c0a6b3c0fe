"""What a filter selects: fields of jobs and of changes, and how a value is compared with them.

What a filter says of state, queue, name and tenant in conjunctions is told apart, since the core
counts by these and need not look at each job; all else is a test of each job.
"""

import operator
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import partial
from operator import attrgetter
from typing import Any, Final, TypeAlias, TypeGuard, assert_never

from tenure.master.core.query import Filter
from tenure.master.core.record import JobRecord
from tenure.master.core.state import JobChange
from tenure.master.node.filter import And, Expression, Not, Or, Restriction, parse, wrong
from tenure.protocol.errors import Rejected
from tenure.protocol.vocabulary import TERMINAL, FailureReason, JobState

#: A job, or a change of one, in; whether it matches out.
Test: TypeAlias = Callable[[Any], bool]
Get: TypeAlias = Callable[[Any], Any]
#: What a field makes of a restriction of it.
Field: TypeAlias = Callable[[Restriction], Test]

_LABEL: Final = "labels."
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.A
)
_NUMBER: Final = re.compile(r"-?\d{1,18}", re.A)
_ORDERED: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def select_jobs(text: str) -> Filter:
    """What a filter says of jobs.

    Raises:
        Rejected: INVALID_ARGUMENT, with the position of what is wrong.
    """
    expression = parse(text)
    if expression is None:
        return Filter()
    states: frozenset[JobState] = frozenset()
    exact: dict[str, str] = {}
    rest: list[Test] = []
    for term in expression.terms if isinstance(expression, And) else (expression,):
        some = _states_of(term)
        if some and not states:
            states = some
        elif _is_exact(term) and term.field not in exact:
            exact[term.field] = term.value
        else:
            rest.append(_test(term, _JOB_FIELDS))
    return Filter(states, **exact, also=_all(rest) if rest else None)


def select_changes(text: str) -> Callable[[JobChange], bool]:
    """What a filter says of changes of jobs.

    Raises:
        Rejected: INVALID_ARGUMENT, with the position of what is wrong.
    """
    expression = parse(text)
    return _all([]) if expression is None else _test(expression, _CHANGE_FIELDS)


def _states_of(term: Expression) -> frozenset[JobState]:
    """The states that a term allows; empty: it says something else, too, or allows none."""
    match term:
        case Restriction(field="state"):
            return frozenset(filter(_choice(JobState, _itself, term), JobState))
        case Not(term=inner):
            some = _states_of(inner)
            return frozenset(JobState) - some if some else some
        case Or(terms=terms):
            each = [_states_of(inner) for inner in terms]
            return frozenset[JobState]().union(*each) if all(each) else frozenset()
        case _:
            return frozenset()


def _is_exact(term: Expression) -> TypeGuard[Restriction]:
    return (
        isinstance(term, Restriction)
        and term.field in ("queue", "name", "tenant")
        and term.operator == "="
        and term.value != ""
        and not term.prefix
    )


# Expressions.


def _test(expression: Expression, fields: Mapping[str, Field]) -> Test:
    match expression:
        case Restriction():
            return _restriction(expression, fields)
        case Not(term=term):
            test = _test(term, fields)
            return lambda item: not test(item)
        case And(terms=terms):
            return _all([_test(term, fields) for term in terms])
        case Or(terms=terms):
            return _any([_test(term, fields) for term in terms])
        case _:
            assert_never(expression)


def _all(tests: list[Test]) -> Test:
    def every(item: Any) -> bool:
        for test in tests:  # noqa: SIM110 - half the price of all() with a generator
            if not test(item):
                return False
        return True

    return tests[0] if len(tests) == 1 else every


def _any(tests: list[Test]) -> Test:
    def some(item: Any) -> bool:
        for test in tests:  # noqa: SIM110 - half the price of any() with a generator
            if test(item):
                return True
        return False

    return some


def _restriction(asked: Restriction, fields: Mapping[str, Field]) -> Test:
    if asked.field.startswith(_LABEL):
        return _text(partial(_label, asked.field.removeprefix(_LABEL)), asked)
    field = fields.get(asked.field)
    if field is None:
        known = ", ".join(sorted([*fields, "labels.NAME"]))
        raise wrong(asked.at, f"{asked.field[:60]!r} is no field; there are {known}")
    return field(asked)


# Kinds of fields.


def _text(get: Get, asked: Restriction) -> Test:
    value = asked.value
    match asked.operator:
        case ":" if asked.prefix:
            if value:
                raise wrong(asked.value_at, f"say {asked.field} = {value}*, or leave out the star")
            return lambda item: bool(get(item))
        case ":":
            return lambda item: value in get(item)
        case "=" if asked.prefix:
            return lambda item: bool(get(item).startswith(value))
        case "!=" if asked.prefix:
            return lambda item: not get(item).startswith(value)
        case "=" | "!=":
            return _compare(get, asked.operator, value)
        case _:
            raise _unfit(asked, "text, compared by =, != and : (contains)")


def _choice(kind: type[IntEnum], get: Get, asked: Restriction) -> Test:
    if asked.operator not in ("=", "!="):
        raise _unfit(asked, "one of a few words, compared by = and !=")
    # As the answers write them, JOB_STATE_FAILED, or as people do, failed.
    prefix = re.sub("([a-z])([A-Z])", r"\1_\2", kind.__name__).upper() + "_"
    member = kind.__members__.get(asked.value.upper().removeprefix(prefix))
    if member is None or asked.prefix:
        known = ", ".join(kind.__members__)
        raise wrong(asked.value_at, f"{asked.value[:60]!r} is no {asked.field}; there are {known}")
    return _compare(get, asked.operator, member)


def _number(get: Get, asked: Restriction) -> Test:
    if asked.operator not in _ORDERED:
        raise _unfit(asked, "a number, compared by =, !=, <, <=, > and >=")
    if _NUMBER.fullmatch(asked.value) is None or asked.prefix:
        raise wrong(asked.value_at, f"{asked.value[:60]!r} is no whole number")
    return _compare(get, asked.operator, int(asked.value))


def _moment(get_ms: Get, asked: Restriction) -> Test:
    """A time that has not come (0) is neither before nor after any."""
    if asked.operator == ":" and asked.prefix and not asked.value:
        return lambda item: get_ms(item) != 0
    if asked.operator not in _ORDERED:
        raise _unfit(asked, "a time, compared by =, !=, <, <=, > and >=")
    value_us = _microseconds(asked)
    compare = _ORDERED[asked.operator]
    unset = asked.operator == "!="

    def test(item: Any) -> bool:
        ms = get_ms(item)
        return compare(ms * 1000, value_us) if ms else unset

    return test


def _microseconds(asked: Restriction) -> int:
    """A time of RFC 3339 in microseconds since the Unix epoch."""
    try:
        if _RFC3339.fullmatch(asked.value) is None or asked.prefix:
            raise ValueError(asked.value)
        return (datetime.fromisoformat(asked.value.upper()) - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise wrong(
            asked.value_at,
            f"{asked.value[:60]!r} is no time of RFC 3339, such as 2026-01-31T09:00:00Z",
        ) from None


def _flag(get: Get, asked: Restriction) -> Test:
    if asked.operator not in ("=", "!=") or asked.value not in ("true", "false") or asked.prefix:
        raise _unfit(asked, "compared with true or false by = and !=")
    return _compare(get, asked.operator, asked.value == "true")


def _labels(asked: Restriction) -> Test:
    if asked.operator != ":":
        raise _unfit(asked, "a map: labels:NAME has one, labels.NAME = VALUE compares it")
    name, prefix = asked.value, asked.prefix

    def test(item: Any) -> bool:
        keys = [key for key, _ in item.policy.labels]
        return any(key.startswith(name) for key in keys) if prefix else name in keys

    return test


def _compare(get: Get, sign: str, value: Any) -> Test:
    compare = _ORDERED[sign]
    return lambda item: compare(get(item), value)


def _unfit(asked: Restriction, what: str) -> Rejected:
    return wrong(asked.at, f"{asked.field} {asked.operator} cannot be: it is {what}")


# Fields.


def _itself(state: JobState) -> JobState:
    return state


def _label(name: str, item: Any) -> str:
    """A label's value; empty (which no label can be): there is none of that name."""
    for key, value in item.policy.labels:
        if key == name:
            return str(value)
    return ""


def _error_type(record: JobRecord) -> str:
    return record.fault.type if record.fault is not None else ""


def _error_message(record: JobRecord) -> str:
    return record.fault.message if record.fault is not None else ""


def _finished_ms(record: JobRecord) -> int:
    return record.ended_ms if record.state in TERMINAL else 0


_CHANGE_FIELDS: Final[Mapping[str, Field]] = {
    "job_id": partial(_text, attrgetter("job_id")),
    "state": partial(_choice, JobState, attrgetter("state")),
    "name": partial(_text, attrgetter("policy.name")),
    "queue": partial(_text, attrgetter("policy.queue")),
    "tenant": partial(_text, attrgetter("policy.tenant")),
    "labels": _labels,
}
_JOB_FIELDS: Final[Mapping[str, Field]] = {
    **_CHANGE_FIELDS,
    "key": partial(_text, attrgetter("key")),
    "priority": partial(_number, attrgetter("priority")),
    "run": partial(_number, attrgetter("run")),
    "attempts": partial(_number, attrgetter("attempt")),
    "attempts_charged": partial(_number, attrgetter("attempts_charged")),
    "losses_charged": partial(_number, attrgetter("losses_charged")),
    "worker": partial(_text, attrgetter("worker")),
    "submitted_at": partial(_moment, attrgetter("submitted_ms")),
    "ready_at": partial(_moment, attrgetter("ready_ms")),
    "started_at": partial(_moment, attrgetter("started_ms")),
    "finished_at": partial(_moment, _finished_ms),
    "error.type": partial(_text, _error_type),
    "error.message": partial(_text, _error_message),
    "failure_reason": partial(_choice, FailureReason, attrgetter("failure_reason")),
    "cancel_requested": partial(_flag, attrgetter("cancel_requested")),
}
