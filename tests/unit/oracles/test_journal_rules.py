"""What the oracles read of settings, schedules, workflows and the post is what was written."""

from __future__ import annotations

from tenure.client.codec import encode_args
from tenure.master.core import event, message
from tenure.master.core.bulk import BatchAdvanced, BatchCreated, BatchSpec
from tenure.master.core.record import Policy
from tenure.master.core.settings import (
    BreakerSettings,
    JobTypeSettings,
    QueueSettings,
    RateLimit,
    TenantSettings,
)
from tenure.master.core.timetable import ScheduleCursor, ScheduleSpec
from tenure.master.core.workflows import WorkflowRecord
from tenure.protocol.fence import Token
from tenure.protocol.vocabulary import (
    BatchKind,
    BatchState,
    BreakerOverride,
    JobState,
    LimitStrategy,
    Misfire,
    Overlap,
)
from tests.oracles.facts import (
    BatchEnded,
    BatchMade,
    Cursor,
    Freed,
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
    Settled,
    Taken,
    TenantSet,
    Ticked,
    Told,
    Trimmed,
    Withdrawn,
    WorkflowForgotten,
    WorkflowIs,
)
from tests.oracles.history import hash_of
from tests.oracles.journal_facts import journal_facts
from tests.unit.oracles.test_journal_facts import A, B, C, echo, sealed

TEXT = encode_args(echo, ("text",), {})


def test_settings() -> None:
    """Of a queue, a tenant and a job type."""
    queue = QueueSettings(
        paused=True,
        concurrency=2,
        key_concurrency=3,
        key_strategy=LimitStrategy.CANCEL_NEWEST,
        rate=RateLimit(1, 2, 3),
        key_rate=RateLimit(4, 5, 6),
    )
    breaker = BreakerSettings(failure_rate=0.25, window_ms=9, volume_min=8, open_for_ms=7, probes=6)
    job_type = JobTypeSettings(breaker=breaker, breaker_override=BreakerOverride.OPEN)
    facts = journal_facts(
        sealed(
            [event.SettingsChanged(now_ms=1, key=("t", "q"), settings=queue)],
            [event.SettingsChanged(now_ms=2, key=("t",), settings=TenantSettings(paused=True))],
            [event.SettingsChanged(now_ms=3, key=("t", "j"), settings=job_type)],
            [event.SettingsChanged(now_ms=4, key=("t", "q"), settings=QueueSettings())],
        )
    )

    assert facts == [
        QueueSet(1, 1, "t", "q", True, 2, 3, "CANCEL_NEWEST", Rate(1, 2, 3), Rate(4, 5, 6)),
        TenantSet(2, 2, "t", True),
        JobTypeSet(3, 3, "t", "j", False, Fuse(0.25, 9, 8, 7, 6), "OPEN"),
        QueueSet(4, 4, "t", "q"),
    ]


def test_schedules() -> None:
    """Made, paused, moved on, deleted."""
    spec = ScheduleSpec(
        cron="@daily",
        time_zone="UTC",
        policy=Policy(name="echo", queue="q", tenant="u"),
        payload=TEXT,
        misfire=Misfire.SKIP,
        catch_up_ms=5,
        overlap=Overlap.BUFFER_ONE,
        jitter_ms=6,
        start_ms=7,
        end_ms=8,
    )
    cursor = ScheduleCursor(next_ms=1, due_ms=2, buffered_ms=3, last_ms=4, last_job_id="a")
    made = event.SchedulePut(
        now_ms=1, tenant="t", name="n", spec=spec, cursor=cursor, paused=True, created_ms=1
    )
    resumed = event.SchedulePaused(now_ms=2, tenant="t", name="n", paused=False, cursor=cursor)
    ticked = event.SchedulesTicked(now_ms=3, rows=[event.TickedRow("t", "n", cursor)])
    deleted = event.ScheduleDeleted(now_ms=4, tenant="t", name="n")

    told = Cursor(next_ms=1, buffered_ms=3, last_ms=4, last_job="a")
    plan = Plan("@daily", "UTC", hash_of("text"), "u", "q", "SKIP", "BUFFER_ONE", 5, 6, 7, 8)
    assert journal_facts(sealed([made, resumed], [ticked, deleted])) == [
        SchedulePut(1, 1, "t", "n", plan, told, True),
        SchedulePaused(2, 2, "t", "n", False, told),
        Ticked(3, 3, "t", "n", told),
        ScheduleDeleted(4, 4, "t", "n"),
    ]


def test_families_and_workflows() -> None:
    """What becomes of children, and of the workflows that are parents of theirs."""
    run = event.ResolvedRow(A, JobState.PENDING, 5, bytes([6, 9]))
    failed = event.ResolvedRow(B, JobState.FAILED, 5, bytes([7]))
    record = WorkflowRecord(
        workflow_id=C, name="w", tenant="t", created_ms=1, seal_by_ms=2, look_ms=2
    )
    rows = [
        record,
        WorkflowRecord(**{**_fields(record), "sealed_ms": 2, "cancelled_ms": 3}),
        WorkflowRecord(**{**_fields(record), "cancelled_ms": 3}),
    ]
    facts = journal_facts(
        sealed(
            [event.DependentsResolved(now_ms=1, rows=[run, failed])],
            [event.JobsWithdrawn(now_ms=2, parent=C, job_ids=[A, B], state=8)],
            [event.WorkflowsWritten(now_ms=3, rows=rows)],
            [event.WorkflowsForgotten(now_ms=4, workflow_ids=[C])],
        )
    )

    assert facts == [
        Freed(1, A, 5, True, 1, ("COMPLETED", "GONE")),
        Settled(1, B, 0, "", "FAILED", "", "DEPENDENCY", 1, ("FAILED",)),
        Withdrawn(2, A, C, "CANCELLED"),
        Withdrawn(2, B, C, "CANCELLED"),
        WorkflowIs(3, 3, C, "OPEN"),
        WorkflowIs(3, 3, C, "COMPLETED"),
        WorkflowIs(3, 3, C, "CANCELLED"),
        WorkflowForgotten(4, 4, C),
    ]


def _fields(record: WorkflowRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def test_batches() -> None:
    """Made, and over: done, or stopped."""

    def advanced(now_ms: int, batch_id: str, state: BatchState) -> BatchAdvanced:
        return BatchAdvanced(
            now_ms=now_ms, batch_id=batch_id, cursor=1, changed=2, refused=3, state=state
        )

    kinds = enumerate((BatchKind.REQUEUE, BatchKind.PURGE), 1)
    made = [
        BatchCreated(
            now_ms=number,
            batch_id=f"b{number}",
            spec=BatchSpec(kind=kind, filter="f"),
            matched=9,
            cursor=9,
        )
        for number, kind in kinds
    ]
    going, done = advanced(3, "b1", BatchState.RUNNING), advanced(4, "b1", BatchState.DONE)
    stopped = advanced(5, "b2", BatchState.CANCELLED)

    assert journal_facts(sealed(made, [going, done, stopped])) == [
        BatchMade(1, 1, "b1", "REQUEUE"),
        BatchMade(2, 2, "b2", "PURGE"),
        BatchEnded(4, 4, "b1"),
        BatchEnded(5, 5, "b2"),
    ]


def test_the_post() -> None:
    """What is said of jobs, taken, and comes of it."""
    policy = Policy(name="echo", queue="q", tenant="t")
    messages = [
        message.SubmitFrom(policy=policy, priority=5, ready_ms=0, job_id=A, payload=TEXT, key="k"),
        message.RegisterChild(parent=A, child=B, run=1),
        message.ParentState(parent=A, child=B, run=1, state=2),
        message.ReleaseParent(parent=A, child=B, run=1),
        message.CancelFrom(job_id=A, reason="enough"),
    ]
    facts = journal_facts(
        sealed(
            [event.OutboxAppended(now_ms=1, target=3, first_number=7, messages=messages)],
            [event.OutboxTrimmed(now_ms=2, target=3, upto=8)],
            [event.ChildRegistered(now_ms=3, parent=A, child=B, run=1)],
            [event.InboxTaken(now_ms=4, source=3, number=9, token=Token(1, 1))],
            [event.ParentTold(now_ms=5, parent=A, child=B, state=9)],
            [event.ChildReleased(now_ms=6, parent=A, child=B)],
        )
    )

    said = [
        Message("submit", A, content=hash_of("text"), key=("t", "q", "k")),
        Message("register", A, B, 1),
        Message("tell", A, B, 1, "OPEN"),
        Message("release", A, B, 1),
        Message("cancel", A),
    ]
    assert facts == [
        *(Sent(1, 1, 3, number, each) for number, each in enumerate(said, 7)),
        Trimmed(2, 2, 3, 8),
        Registered(3, 3, A, B, 1),
        Taken(4, 4, 3, 9),
        Told(5, 5, A, B, "GONE"),
        Released(6, 6, A, B),
    ]
