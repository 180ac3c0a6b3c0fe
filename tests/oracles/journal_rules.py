"""Facts about more than one job, from a journal's events: settings, schedules, workflows, the post.

Events are arrays, decoded by position, as in ``journal_facts``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from tests.oracles.facts import (
    BatchEnded,
    BatchMade,
    Cursor,
    Fact,
    Fuse,
    JobTypeSet,
    Message,
    Plan,
    QueueSet,
    Rate,
    Registered,
    Released,
    ScheduleDeleted,
    SchedulePaused,
    SchedulePut,
    Sent,
    Taken,
    TenantSet,
    Ticked,
    Told,
    Trimmed,
    WorkflowForgotten,
    WorkflowIs,
)
from tests.oracles.history import hash_of

_STRATEGIES: Final = {1: "QUEUE", 2: "CANCEL_IN_PROGRESS", 3: "CANCEL_NEWEST"}
_OVERRIDES: Final = {1: "NONE", 2: "CLOSED", 3: "OPEN"}
_MISFIRES: Final = {1: "SKIP", 2: "FIRE_ONCE", 3: "FIRE_ALL"}
_OVERLAPS: Final = {1: "SKIP", 2: "BUFFER_ONE", 3: "ALLOW", 4: "CANCEL_OTHER"}
_BATCH_KINDS: Final = {1: "CANCEL", 2: "REQUEUE", 3: "PURGE", 4: "BOOST"}
_BATCH_RUNS: Final = 1
#: What a parent is to its children.
OUTCOMES: Final = {
    0: "UNASKED",
    1: "ASKED",
    2: "OPEN",
    6: "COMPLETED",
    7: "FAILED",
    8: "CANCELLED",
    9: "GONE",
}
_decode = msgspec.msgpack.Decoder().decode


def content_of(payload: bytes) -> str:
    """The ``hash_of`` a call's first argument: jobs of a run are told apart by it.

    Where results of other jobs are to stand in its place: of their ids.
    """
    args, _, *stand_ins = _decode(payload)
    for place, jobs in stand_ins[0] if stand_ins else ():
        if place == 0:
            return hash_of(jobs)
    return hash_of(args[0]) if args else ""


def outcomes_of(codes: bytes) -> tuple[str, ...]:
    """What parents had come to, a byte each."""
    return tuple(OUTCOMES[code] for code in codes)


def _settings(seq: int, event: list[Any]) -> Iterator[Fact]:
    at_ms, key, (kind, *values) = event[1:4]
    match kind:
        case "queue":
            paused, concurrency, key_concurrency, strategy, rate, key_rate = values[2:8]
            breaker, overrides = values[12:14] or (None, ())
            yield QueueSet(
                seq,
                at_ms,
                *key,
                paused,
                concurrency,
                key_concurrency,
                _STRATEGIES[strategy],
                rate and Rate(*rate),
                key_rate and Rate(*key_rate),
                breaker and Fuse(*breaker),
                tuple((limit_key, _OVERRIDES[override]) for limit_key, override in overrides),
            )
        case "tenant":
            yield TenantSet(seq, at_ms, *key, values[1])
        case "job_type":
            paused, breaker, override = values[:3]
            fuse = breaker and Fuse(*breaker)
            yield JobTypeSet(seq, at_ms, *key, paused, fuse, _OVERRIDES[override])


def _cursor(row: Sequence[Any]) -> Cursor:
    next_ms, _due_ms, buffered_ms, last_ms, last_job = row[:5]
    return Cursor(next_ms, buffered_ms, last_ms, last_job)


def _schedule_put(seq: int, event: list[Any]) -> Iterator[Fact]:
    at_ms, tenant, name, spec, cursor, paused = event[1:7]
    cron, zone, policy, _, payload, misfire, catch_up_ms, overlap, *bounds = spec[:11]
    plan = Plan(
        cron,
        zone,
        content_of(payload),
        policy[2],
        policy[1],
        _MISFIRES[misfire],
        _OVERLAPS[overlap],
        catch_up_ms,
        *bounds,
    )
    yield SchedulePut(seq, at_ms, tenant, name, plan, _cursor(cursor), paused)


def _schedule_paused(seq: int, event: list[Any]) -> Iterator[Fact]:
    at_ms, tenant, name, paused, cursor = event[1:6]
    yield SchedulePaused(seq, at_ms, tenant, name, paused, _cursor(cursor))


def _schedule_deleted(seq: int, event: list[Any]) -> Iterator[Fact]:
    yield ScheduleDeleted(seq, *event[1:4])


def _ticked(seq: int, event: list[Any]) -> Iterator[Fact]:
    for tenant, name, cursor in event[2]:
        yield Ticked(seq, event[1], tenant, name, _cursor(cursor))


def _workflows(seq: int, event: list[Any]) -> Iterator[Fact]:
    for row in event[2]:
        sealed_ms, _, cancelled_ms = row[7:10]
        outcome = "COMPLETED" if sealed_ms else "CANCELLED" if cancelled_ms else "OPEN"
        yield WorkflowIs(seq, event[1], row[0], outcome)


def _workflows_forgotten(seq: int, event: list[Any]) -> Iterator[Fact]:
    for workflow in event[2]:
        yield WorkflowForgotten(seq, event[1], workflow)


def _message(row: Sequence[Any]) -> Message:
    match row:
        case ["submit_from", policy, _, _, job, payload, key, *_]:
            name = (policy[2], policy[1], key)
            return Message("submit", job, content=content_of(payload), key=name)
        case ["register_child", parent, child, run, *_]:
            return Message("register", parent, child, run)
        case ["parent_state", parent, child, run, state, *_]:
            return Message("tell", parent, child, run, OUTCOMES[state])
        case ["release_parent", parent, child, run, *_]:
            return Message("release", parent, child, run)
        case ["cancel_from", job, *_]:
            return Message("cancel", job)
    raise ValueError(f"expected a message that is known here, got {row[0]}")


def _appended(seq: int, event: list[Any]) -> Iterator[Fact]:
    at_ms, target, first, messages = event[1:5]
    for number, row in enumerate(messages, first):
        yield Sent(seq, at_ms, target, number, _message(row))


def _trimmed(seq: int, event: list[Any]) -> Iterator[Fact]:
    yield Trimmed(seq, *event[1:4])


def _taken(seq: int, event: list[Any]) -> Iterator[Fact]:
    yield Taken(seq, *event[1:4])


def _registered(seq: int, event: list[Any]) -> Iterator[Fact]:
    yield Registered(seq, *event[1:5])


def _released(seq: int, event: list[Any]) -> Iterator[Fact]:
    yield Released(seq, *event[1:4])


def _told(seq: int, event: list[Any]) -> Iterator[Fact]:
    at_ms, parent, child, state = event[1:5]
    yield Told(seq, at_ms, parent, child, OUTCOMES[state])


def _batch_created(seq: int, event: list[Any]) -> Iterator[Fact]:
    at_ms, batch, spec = event[1:4]
    yield BatchMade(seq, at_ms, batch, _BATCH_KINDS[spec[0]])


def _batch_advanced(seq: int, event: list[Any]) -> Iterator[Fact]:
    at_ms, batch, *_, state = event[1:7]
    if state != _BATCH_RUNS:
        yield BatchEnded(seq, at_ms, batch)


#: By the name of an event: what it says.
READERS: Final[Mapping[str, Callable[[int, list[Any]], Iterator[Fact]]]] = {
    "settings_changed": _settings,
    "schedule_put": _schedule_put,
    "schedule_paused": _schedule_paused,
    "schedule_deleted": _schedule_deleted,
    "schedules_ticked": _ticked,
    "workflows_written": _workflows,
    "workflows_forgotten": _workflows_forgotten,
    "outbox_appended": _appended,
    "outbox_trimmed": _trimmed,
    "inbox_taken": _taken,
    "child_registered": _registered,
    "child_released": _released,
    "parent_told": _told,
    "batch_created": _batch_created,
    "batch_advanced": _batch_advanced,
}
