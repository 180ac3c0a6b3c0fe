"""The oracle's own decoding says what the product's encoder wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tenure.client.codec import encode_args
from tenure.client.job import job
from tenure.master.core import event
from tenure.master.core.command import SubmitRow
from tenure.master.core.record import LabelSelector, Policy, RetryPolicy
from tenure.master.core.settings import (
    AnySettings,
    BreakerSettings,
    JobTypeSettings,
    QueueSettings,
    RateLimit,
)
from tenure.master.journal.frame import Chain
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId
from tenure.protocol.vocabulary import AttemptOutcome, JobState
from tests.encoded import encode_events
from tests.oracles.facts import (
    Adopted,
    Boosted,
    CancelAsked,
    Closed,
    Granted,
    Purged,
    Readied,
    Requeued,
    Saved,
    Settled,
    Submitted,
    TermBegan,
    Waits,
    is_about_job,
)
from tests.oracles.history import hash_of
from tests.oracles.journal_facts import Extents, journal_facts

FIRST, SECOND = Token(1, 7), Token(1, 9)
A, B, C = JobId("a"), JobId("b"), JobId("c")


@job(name="echo")
def echo(text: str) -> str:
    """A job that returns its argument."""
    return text


def submitted() -> event.JobsSubmitted:
    """Three jobs with budgets of 2 and 1."""
    setting = event.SubmittedSetting(
        policy=Policy(name="echo", retry=RetryPolicy(max_attempts=2, max_lost=1)),
        priority=5,
        ready_ms=0,
        state=JobState.PENDING,
    )
    rows = [SubmitRow(job, 0, encode_args(echo, (f"text {job}",), {}), "") for job in (A, B, C)]
    return event.JobsSubmitted(now_ms=0, first_ordinal=0, settings=[setting], rows=rows)


def granted(token: Token, first_seq: int, jobs: list[JobId], attempt: int) -> event.JobsGranted:
    """One assignment."""
    return event.JobsGranted(
        now_ms=0,
        token=token,
        incarnation="i",
        worker="w",
        session_id=1,
        assignment=1,
        first_lease_seq=first_seq,
        job_ids=jobs,
        attempts=[attempt] * len(jobs),
    )


def ended(job_id: JobId, lease: Lease, state: JobState, losses: int) -> event.AttemptsEnded:
    """One lost attempt."""
    row = event.EndedRow(
        job_id=job_id,
        lease=lease,
        outcome=AttemptOutcome.LOST,
        state=state,
        ready_ms=0,
        started_ms=0,
        attempts_charged=0,
        losses_charged=losses,
        undelivered=0,
        fault=None,
        failure_reason=None,
    )
    return event.AttemptsEnded(now_ms=0, rows=[row])


def completed(job_id: JobId, lease: Lease) -> event.JobsCompleted:
    """One accepted result."""
    result = msgspec.msgpack.encode(f"text {job_id}")
    return event.JobsCompleted(now_ms=0, rows=[event.CompletedRow(job_id, lease, 0, result, "")])


def opened(token: Token) -> event.TermOpened:
    """A term begins."""
    return event.TermOpened(now_ms=0, token=token, incarnation="m", window_ms=0)


def sealed(*batches: Sequence[Any]) -> list[bytes]:
    """The batches as a store holds them."""
    chain = Chain.start(0)
    return [
        chain.seal(
            token=FIRST, stamp_ms=0, events=encode_events(events), event_count=len(events)
        ).data
        for events in batches
    ]


def submitted_fact(job: JobId) -> Submitted:
    """What is read of one of the three jobs."""
    return Submitted(
        seq=2,
        job=job,
        content=hash_of(f"text {job}"),
        max_attempts=2,
        max_lost=1,
        at_ms=0,
        tenant="default",
        queue="default",
        name="echo",
        priority=5,
        ready_ms=0,
        pending=True,
        key="",
        key_window_ms=Policy(name="echo").key_window_ms,
    )


def test_facts_are_what_was_written() -> None:
    """A life of three jobs over two terms: a loss, an adoption, a requeue."""
    first, second = Lease(FIRST, 1, 0), Lease(SECOND, 1, 0)
    lost = Lease(FIRST, 2, 0)
    adopted = event.AdoptedRow(C, lost, 1, 0, 0)
    other = encode_args(echo, ("other",), {})
    again = event.RequeuedRow(B, 1, JobState.PENDING, other)
    facts = journal_facts(
        sealed(
            [opened(FIRST), submitted()],
            [granted(FIRST, 1, [A], 1), ended(A, first, JobState.RETRYING, 1)],
            [opened(SECOND), granted(SECOND, 1, [A, B], 2), completed(A, second)],
            [event.LeasesAdopted(now_ms=0, incarnation="i", worker="w", rows=[adopted])],
            [event.JobsCancelled(now_ms=0, job_ids=[B], reason="")],
            [event.JobsRequeued(now_ms=0, rows=[again])],
            [granted(SECOND, 3, [B], 1), ended(B, Lease(SECOND, 3, 1), JobState.FAILED, 1)],
        )
    )

    b_first, b_second = Lease(SECOND, 2, 0).fence, Lease(SECOND, 3, 1).fence
    assert facts == [
        TermBegan(1, f"{1:08x}{7:016x}", "m", 0),
        *(submitted_fact(job) for job in (A, B, C)),
        Granted(3, A, first.fence, 1, 0, "i"),
        Closed(4, A, first.fence, "loss", outcome="LOST"),
        Waits(4, A, 0, False),
        TermBegan(5, f"{1:08x}{9:016x}", "m", 0),
        Granted(6, A, second.fence, 2, 0, "i"),
        Granted(6, B, b_first, 2, 0, "i"),
        Closed(7, A, second.fence, "", outcome="COMPLETED"),
        Settled(7, A, 0, second.fence, "COMPLETED", hash_of("text a")),
        Adopted(8, C, lost.fence, 1),
        Settled(9, B, 0, "", "CANCELLED", ""),
        Requeued(10, B, 1, 0, content=hash_of("other")),
        Granted(11, B, b_second, 1, 0, "i"),
        Closed(12, B, b_second, "loss", outcome="LOST"),
        Settled(12, B, 1, b_second, "FAILED", ""),
    ]


def test_facts_of_people_and_timers_are_what_was_written() -> None:
    """A delayed job with a key is boosted, ready, asked to stop, and forgotten."""
    setting = event.SubmittedSetting(
        policy=Policy(name="echo", queue="q", tenant="t", key_window_ms=7),
        priority=0,
        ready_ms=90,
        state=JobState.SCHEDULED,
    )
    row = SubmitRow(A, 0, encode_args(echo, ("text",), {}), "key")
    facts = journal_facts(
        sealed(
            [event.JobsSubmitted(now_ms=4, first_ordinal=0, settings=[setting], rows=[row])],
            [
                event.JobsBoosted(
                    now_ms=5, rows=[event.BoostedRow(A, 2, 91, 91, JobState.SCHEDULED)]
                )
            ],
            [event.JobsReadied(now_ms=91, job_ids=[A])],
            [event.CancelsRequested(now_ms=92, job_ids=[A], reason="")],
            [event.JobsPurged(now_ms=93, job_ids=[A])],
        )
    )

    delayed = Submitted(1, A, hash_of("text"), 4, 3, 4, "t", "q", "echo", 0, 90, False, "key", 7)
    assert facts == [
        delayed,
        Boosted(2, A, 2, 91, False),
        Readied(3, A, 91),
        CancelAsked(4, A),
        Purged(5, A),
    ]


def test_extents_find_batches() -> None:
    """A seq is found in its batch; what had committed is told by how many may be on their way."""
    found = Extents([1, 3, 5, 9, 10, 11, 12, 13], range(8), [10, 10, 10, 10, 10, 10, 500_000, 10])

    assert [found.index(seq) for seq in (0, 1, 2, 3, 8, 9, 99)] == [-1, 0, 0, 1, 2, 3, 7]
    assert found.number(0) == -1
    # Batch 6 was decided after 5 was sealed, when 1 had committed; 7 may be what 6 left behind.
    assert [found.committed(index) for index in (5, 6, 7)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("policy", "row", "setting"),
    [
        (Policy(name="echo"), ("limit", ""), None),
        (Policy(name="echo"), ("", "sticky"), None),
        (Policy(name="echo", requires=(LabelSelector("gpu"),)), (), None),
        (Policy(name="echo", prefers=(LabelSelector("gpu"),)), (), None),
        (Policy(name="echo"), (), QueueSettings(reserved=0.5)),
        (Policy(name="echo"), (), JobTypeSettings(paused=True)),
        (Policy(name="echo"), (), JobTypeSettings(breaker=BreakerSettings())),
    ],
)
def test_jobs_that_may_be_held_up_alone_go_apart(
    policy: Policy, row: tuple[str, ...], setting: AnySettings | None
) -> None:
    """By what they have, and by what is ever set for their queue or job type; no others do."""

    def apart(policy: Policy, row: tuple[str, ...], setting: AnySettings | None) -> bool:
        given = event.SubmittedSetting(policy, 5, 0, JobState.PENDING)
        rows = [SubmitRow(A, 0, encode_args(echo, ("a",), {}), "", *row)]
        key = (policy.tenant, "default" if isinstance(setting, QueueSettings) else "echo")
        changed = event.SettingsChanged(now_ms=1, key=key, settings=setting or JobTypeSettings())
        submits = event.JobsSubmitted(now_ms=0, first_ordinal=0, settings=[given], rows=rows)
        (fact,) = [f for f in journal_facts(sealed([submits], [changed])) if is_about_job(f)]
        assert isinstance(fact, Submitted)
        return fact.apart

    assert apart(policy, row, setting)
    for other in (None, QueueSettings(rate=RateLimit(1, 1, 1)), JobTypeSettings(retry_budget=0.5)):
        assert not apart(Policy(name="echo"), (), other)


def test_what_was_saved_and_what_it_forgave() -> None:
    """A checkpoint's content is what the job's code has saved, without its loops' cursors."""
    first, second = Lease(FIRST, 1, 0), Lease(FIRST, 2, 0)
    data = msgspec.msgpack.encode([["state"], {"": 3}])
    events = [
        submitted(),
        granted(FIRST, 1, [A], 1),
        ended(A, first, JobState.PENDING, 1),
        granted(FIRST, 2, [A], 2),
        event.CheckpointsSaved(now_ms=0, rows=[event.SavedRow(A, second, 4, data, 0)]),
        ended(A, second, JobState.PENDING, 1),
    ]
    found = journal_facts(sealed(events))
    (one,) = [fact for fact in found if isinstance(fact, Saved)]
    assert (one.job, one.lease, one.number) == (A, second.fence, 4)
    assert (one.content, one.forgiven) == (hash_of(["state"]), 1)
    assert [fact.charged for fact in found if isinstance(fact, Closed)] == ["loss", "loss"]
