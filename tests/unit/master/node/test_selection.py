"""What filters select: each field and operator against jobs, and what the core may count by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.query import Filter
from tenure.master.core.record import JobFault, JobRecord, Policy
from tenure.master.core.state import JobChange
from tenure.master.node.selection import select_changes, select_jobs
from tenure.protocol.errors import Rejected
from tenure.protocol.ids import mint
from tenure.protocol.vocabulary import FailureReason, JobState

#: 2026-01-31T09:00:00Z
MORNING_MS = 1_769_850_000_000
ID = mint(0, MORNING_MS, 1)
FAILED = JobRecord(
    job_id=ID,
    seq=1,
    ordinal=1,
    state=JobState.FAILED,
    policy=Policy(
        name="app.jobs.resize", queue="mail", tenant="acme", labels=(("region", "eu"), ("x/y", "1"))
    ),
    priority=3,
    payload=b"",
    key="welcome-42",
    submitted_ms=MORNING_MS,
    ready_ms=MORNING_MS + 1,
    run=1,
    attempt=4,
    attempts_charged=4,
    losses_charged=2,
    worker="worker-1",
    started_ms=MORNING_MS + 2_000,
    ended_ms=MORNING_MS + 3_000,
    fault=JobFault("app.errors.Timeout", "took 100 % too long"),
    failure_reason=FailureReason.EXHAUSTED,
)
FRESH = JobRecord(
    job_id=mint(0, MORNING_MS, 2),
    seq=2,
    ordinal=2,
    state=JobState.PENDING,
    policy=Policy(name="other"),
    priority=5,
    payload=b"",
    key="",
    submitted_ms=MORNING_MS + 60_000,
    ready_ms=MORNING_MS + 60_000,
)


def matches(wanted: Filter, record: JobRecord) -> bool:
    """What the core makes of a filter."""
    policy = record.policy
    return (
        (not wanted.states or record.state in wanted.states)
        and wanted.queue in ("", policy.queue)
        and wanted.name in ("", policy.name)
        and wanted.tenant in ("", policy.tenant)
        and (wanted.also is None or wanted.also(record))
    )


@pytest.mark.parametrize(
    "text",
    [
        "state = FAILED",
        "state = failed",
        "state = JOB_STATE_FAILED",
        "state != PENDING",
        "NOT (state = PENDING OR state = RUNNING)",
        "queue = mail AND name = app.jobs.resize AND tenant = acme",
        "name = app.jobs.*",
        "name != other*",
        "name:resize",
        "-name:other",
        "labels.region = eu",
        "labels.x/y = 1",
        "labels:region",
        "labels:reg*",
        "labels:*",
        "labels.region:*",
        "priority < 4 AND priority >= 3 AND priority != 5",
        "attempts > 3",
        "attempts_charged = 4",
        "losses_charged <= 2 AND run > 0",
        "worker = worker-1",
        "key = welcome-*",
        f"job_id = {ID}",
        f"job_id = {ID[:13]}* AND state = FAILED",
        "submitted_at <= 2026-01-31T09:00:00Z",
        "submitted_at = 2026-01-31T11:00:00+02:00",
        "started_at > 2026-01-31T09:00:01.9999Z AND started_at < 2026-01-31T09:00:02.0001z",
        "finished_at:*",
        "finished_at >= 2026-01-31T09:00:03Z",
        'error.type = "app.errors.Timeout"',
        r'error.message:"100 %" AND NOT error.message = "100 %*"',
        "failure_reason = EXHAUSTED",
        "cancel_requested = false",
    ],
)
def test_each_field_and_operator(text: str) -> None:
    """All of these match the first job and not the second."""
    wanted = select_jobs(text)

    assert matches(wanted, FAILED)
    assert not matches(wanted, FRESH) or text == "cancel_requested = false"


@pytest.mark.parametrize(
    "text",
    [
        "finished_at < 2030-01-01T00:00:00Z",
        "started_at >= 1970-01-01T00:00:00Z",
        "failure_reason = POISON",
        "labels:region",
        'labels.region = "eu"',
        "error.type:*",
        "key:*",
    ],
)
def test_what_is_not_there_matches_nothing(text: str) -> None:
    """A time that has not come, an error or a label that is not there: no comparison holds."""
    assert not matches(select_jobs(text), FRESH)


@pytest.mark.parametrize(
    "text",
    ["finished_at != 2030-01-01T00:00:00Z", "failure_reason != POISON", "labels.region != eu"],
)
def test_what_is_not_there_is_unequal(text: str) -> None:
    """The one comparison that holds of what is not there."""
    assert matches(select_jobs(text), FRESH)


def test_what_lanes_count_is_told_apart() -> None:
    """Conjunctions of states, queue, name and tenant need no look at a job."""
    wanted = select_jobs(
        "queue = mail AND state = FAILED OR state = CANCELLED AND name = f AND tenant = t"
    )
    ended = frozenset({JobState.FAILED, JobState.CANCELLED})

    assert wanted == Filter(ended, "mail", "f", "t", None)
    assert select_jobs("NOT state = FAILED") == Filter(frozenset(JobState) - {JobState.FAILED})
    assert select_jobs("") == Filter()
    assert select_jobs("queue = mail AND priority = 1").also is not None
    for text in ("queue = a OR state = FAILED", "queue = a*", "-queue = a", 'queue = ""'):
        assert select_jobs(text)[:4] == Filter()[:4]


def test_contradictions_match_nothing() -> None:
    """What cannot be is no error, and is not forgotten."""
    for text in (
        "queue = mail AND queue = other",
        "state = FAILED AND state = PENDING",
        "state = FAILED AND state != FAILED",
        "NOT (" + " OR ".join(f"state = {state.name}" for state in JobState) + ")",
    ):
        assert not matches(select_jobs(text), FAILED)


@pytest.mark.parametrize(
    ("text", "position", "named"),
    [
        ("colour = red", 1, "no field"),
        ("queue = a AND Queue = b", 15, "no field"),
        ("state = DONE", 9, "COMPLETED"),
        ("state = FAIL*", 9, "no state"),
        ("state > FAILED", 1, "= and !="),
        ("name > a", 1, "contains"),
        ("name:a*", 6, "star"),
        ("priority = high", 12, "whole number"),
        ("priority:1", 1, "number"),
        ("submitted_at > yesterday", 16, "RFC 3339"),
        ("submitted_at > 2026-01-31", 16, "RFC 3339"),
        ("submitted_at > 2026-01-31T09:00:00", 16, "RFC 3339"),
        ("submitted_at > 2026-02-31T09:00:00Z", 16, "RFC 3339"),
        ("submitted_at:2026", 1, "a time"),
        ("cancel_requested = 1", 1, "true or false"),
        ("labels = a", 1, "a map"),
        ("failure_reason = BAD", 18, "POISON"),
    ],
)
def test_what_is_wrong_is_pointed_at(text: str, position: int, named: str) -> None:
    """Unknown fields, unfit operators and values are refused, by position and by what would do."""
    with pytest.raises(Rejected, match=named) as refused:
        select_jobs(text)

    assert refused.value.metadata["position"] == str(position)


def test_changes_know_less() -> None:
    """A watch filters by what a change carries; other fields are refused, not ignored."""
    change = JobChange(ID, JobState.FAILED, FAILED.policy, MORNING_MS, 1)

    assert select_changes("")(change)
    assert select_changes("state = FAILED AND labels.region = eu AND queue = mail")(change)
    assert not select_changes("state = FAILED AND labels.region = us")(change)
    with pytest.raises(Rejected, match="no field"):
        select_changes("priority = 1")


@given(st.lists(st.sampled_from(["queue = mail", "state = FAILED", "priority = 3", "name = f"])))
def test_conjunctions_mean_all_of_their_terms(terms: list[str]) -> None:
    """However terms are spread over the index and the test, together they mean AND."""
    text = " AND ".join(terms)
    expected = all(matches(select_jobs(term), FAILED) for term in terms)

    assert matches(select_jobs(text), FAILED) is expected
    assert matches(select_jobs(f"NOT ({text})" if terms else ""), FAILED) is (
        not expected if terms else True
    )
