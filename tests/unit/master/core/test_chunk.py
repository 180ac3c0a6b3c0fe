"""Events stay small enough for one batch, whatever has piled up for one decision."""

import msgspec
import pytest

from tenure.master.core import command as commands
from tenure.master.core import event as events
from tenure.master.core.chunk import BYTES_MAX as CHUNK_BYTES_MAX
from tenure.master.core.chunk import chunks
from tenure.master.core.command import ReportRow, SubmitRow
from tenure.master.core.config import PartitionConfig
from tenure.master.core.effect import Decision
from tenure.master.core.event import DurableEvent, SubmittedSetting
from tenure.master.core.partition import Partition
from tenure.master.core.record import JobFault, Policy
from tenure.master.journal.codec import encode_event
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId, mint
from tenure.protocol.vocabulary import AttemptOutcome, JobState

NOW_MS = 1_700_000_000_000
#: What each row takes beyond its size, and the size of rows of which two fill a portion.
ROW_BYTES = 200
HALF = CHUNK_BYTES_MAX // 2 - ROW_BYTES
OLD, NEW = Token(1, 5), Token(1, 10)
#: Of one batch, its header and one row at the limit of results included.
BYTES_MAX = 448 * 1024


@pytest.mark.parametrize(
    ("sizes", "portions"),
    [
        ([], []),
        ([HALF, HALF], [[HALF, HALF]]),
        ([HALF, HALF, HALF], [[HALF, HALF], [HALF]]),
        ([HALF, HALF + 1, HALF], [[HALF], [HALF + 1], [HALF]]),
        ([3 * HALF, HALF, HALF, 0], [[3 * HALF], [HALF, HALF], [0]]),
    ],
)
def test_portions_are_full_and_never_empty(sizes: list[int], portions: list[list[int]]) -> None:
    """Rows come in order, as many together as fit; one that is too large comes alone."""
    assert list(chunks(sizes, int)) == portions


def replaying(count: int, payload: bytes = b"") -> tuple[Partition, list[JobId]]:
    """A partition that has read in its journal that one worker holds all jobs."""
    partition = Partition(PartitionConfig(partition=0, partitions=1))
    ids = [mint(0, NOW_MS, n * 0x9E3779B97F4A7C15) for n in range(count)]
    setting = SubmittedSetting(Policy(name="job"), 5, NOW_MS, JobState.PENDING)
    rows = [SubmitRow(job_id, 0, payload, "") for job_id in ids]
    partition.replay(
        events.JobsSubmitted(now_ms=NOW_MS, first_ordinal=1, settings=[setting], rows=rows), 1
    )
    granted = events.JobsGranted(
        now_ms=NOW_MS,
        token=OLD,
        incarnation="i",
        worker="w",
        session_id=1,
        assignment=1,
        first_lease_seq=1,
        job_ids=ids,
        attempts=[1] * count,
    )
    partition.replay(granted, 2)
    return partition, ids


def recovered(count: int, payload: bytes = b"") -> tuple[Partition, list[JobId]]:
    """A partition whose journal shows that one worker holds all jobs."""
    partition, ids = replaying(count, payload)
    partition.finish_replay()
    return partition, ids


def do(partition: Partition, command: commands.Command, now_ms: int = NOW_MS) -> list[DurableEvent]:
    """Decides and applies; the durable events."""
    decision = partition.decide(command, now_ms)
    assert isinstance(decision, Decision)
    for event in decision.events:
        partition.apply(event)
    return [event for event in decision.events if isinstance(event, DurableEvent)]


def open_term(partition: Partition, window_ms: int) -> None:
    """Opens the next term and the worker's session in it."""
    do(partition, commands.OpenTerm(token=NEW, incarnation="m", window_ms=window_ms))
    do(
        partition,
        commands.OpenSession(
            session_id=1,
            incarnation="i",
            worker="w",
            job_names=frozenset({"job"}),
            queues=frozenset(),
            slots=1,
        ),
    )


def sizes(found: list[DurableEvent]) -> list[int]:
    """How many bytes each event takes in a batch."""
    return [len(encode_event(event)) for event in found]


def test_reports_kept_for_the_windows_end_fill_several_events() -> None:
    """A cluster that finished 3,000 jobs during a failover does not lose the next leader too."""
    partition, ids = recovered(3_000)
    open_term(partition, 3_000)
    fault = JobFault("app.Error", "m" * 1_000, "t" * 1_000)
    for at in range(0, 3_000, 500):
        rows = [
            ReportRow(
                job_id,
                Lease(OLD, n + 1, 0),
                AttemptOutcome.COMPLETED if n % 2 else AttemptOutcome.FAILED,
                b"r" * 2_000 if n % 2 else b"",
                "",
                None if n % 2 else fault,
                1,
            )
            for n, job_id in enumerate(ids[at : at + 500], at)
        ]
        do(partition, commands.ReportAttempts(session_id=1, rows=rows, jitter=[0.5]))
    closed = do(partition, commands.CloseWindow(jitter=[0.5]))
    assert max(sizes(closed)) <= BYTES_MAX
    ended = [event for event in closed if isinstance(event, events.AttemptsEnded)]
    done = [event for event in closed if isinstance(event, events.JobsCompleted)]
    assert sum(len(event.rows) for event in ended) == 1_500
    assert sum(len(event.rows) for event in done) == 1_500


def test_leases_that_expire_together_fill_several_events() -> None:
    """A worker with 5,000 leases that dies costs no batch that a store would refuse."""
    partition, ids = recovered(5_000)
    open_term(partition, 0)
    expired = do(partition, commands.FireTimers(rows_max=512, jitter=[0.5]), NOW_MS + 60_000)
    assert max(sizes(expired)) <= BYTES_MAX
    ended = [row for e in expired if isinstance(e, events.AttemptsEnded) for row in e.rows]
    assert sorted(row.job_id for row in ended) == sorted(ids)


def test_slices_of_a_snapshot_are_small_however_large_their_jobs_are() -> None:
    """A slice is one value in the store, which takes no more than 1.5 MiB in etcd."""
    partition, ids = recovered(100, payload=bytes(100_000))
    cursor, found = partition.snapshot(), 0
    while (rows := cursor.next_slice(256)) is not None:
        if rows[0] == "jobs":
            assert sum(len(row[6]) for row in rows[2]) <= BYTES_MAX
            found += len(rows[2])
    assert found == len(ids)


def test_a_term_with_many_leases_closes_in_several_events() -> None:
    """A leader of 10,000 running jobs hands over in order: its successor sees them all closed."""
    partition, ids = recovered(10_000)
    open_term(partition, 0)
    closed = do(partition, commands.CloseTerm())
    assert max(sizes(closed)) <= BYTES_MAX
    assert {type(event) for event in closed} == {events.TermClosed}
    standing = [e.holders for e in closed if isinstance(e, events.TermClosed)]
    leases = [lease.job_id for holders in standing for holder in holders for lease in holder.leases]
    assert leases == ids


def test_slices_are_small_however_large_their_policies_are() -> None:
    """Options count as well: jobs of many kinds still make slices that a store takes."""
    partition = Partition(PartitionConfig(partition=0, partitions=1))
    settings = [
        SubmittedSetting(
            Policy(name=f"job{n}", content_type="x" * 15_000), 5, NOW_MS, JobState.PENDING
        )
        for n in range(256)
    ]
    rows = [SubmitRow(mint(0, NOW_MS, n * 0x9E3779B97F4A7C15), n, b"", "") for n in range(256)]
    partition.replay(
        events.JobsSubmitted(now_ms=NOW_MS, first_ordinal=1, settings=settings, rows=rows), 1
    )
    partition.finish_replay()
    cursor = partition.snapshot()
    while (part := cursor.next_slice(256)) is not None:
        assert len(msgspec.msgpack.encode(part)) <= BYTES_MAX
