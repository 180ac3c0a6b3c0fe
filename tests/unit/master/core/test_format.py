"""Formats: what the first release knows stays in the first one, and nothing else does."""

from collections.abc import Callable
from typing import Final, get_args

import msgspec
import pytest

from tenure.master.core import command as commands
from tenure.master.core import partition as facade
from tenure.master.core.bulk import BatchSpec
from tenure.master.core.command import CheckpointRow, SubmitRow
from tenure.master.core.event import DurableEvent
from tenure.master.core.format import FIRST, NEWEST
from tenure.master.core.message import RegisterChild
from tenure.master.core.partition import Partition
from tenure.master.core.record import LabelSelector, Policy, RetryPolicy
from tenure.master.core.settings import JobTypeSettings, QueueSettings, TenantSettings
from tenure.master.core.snapshot import Slice
from tenure.protocol.fence import Token
from tenure.protocol.ids import JobId, mint
from tenure.protocol.vocabulary import (
    AttemptOutcome,
    BatchKind,
    JobState,
    KeyConflict,
    ParentFailure,
    RunIf,
)
from tests.unit.master.core.planner import put
from tests.unit.master.core.rig import START_MS, Rig, held, report_row

#: All that 0.1.0 journals: it reads nothing else.
FIRST_TAGS: Final = {
    "term_opened",
    "term_closed",
    "jobs_submitted",
    "jobs_readied",
    "jobs_granted",
    "leases_adopted",
    "jobs_completed",
    "attempts_ended",
    "cancels_requested",
    "jobs_cancelled",
    "jobs_expired",
    "jobs_requeued",
    "jobs_purged",
}
#: And what it finds in a snapshot.
FIRST_KINDS: Final = {"head", "jobs", "keys", "tombstones"}
#: A job of another partition.
FAR: Final = mint(1, START_MS, 1)


def tag_of(event: type | DurableEvent) -> str:
    """An event's name in the journal."""
    tag = event.__struct_config__.tag  # type: ignore[union-attr]
    assert isinstance(tag, str)
    return tag


def slices_of(partition: Partition) -> list[Slice]:
    """A whole snapshot, as it is stored."""
    cursor, slices = partition.snapshot(), []
    while (part := cursor.next_slice(2)) is not None:
        slices.append(msgspec.msgpack.decode(msgspec.msgpack.encode(part)))
    return slices


def restored(rig: Rig) -> Partition:
    """What a successor makes of a snapshot that says which format it is of."""
    partition = Partition(rig.config)
    partition.begin_snapshot(rig.partition.format)
    for part in slices_of(rig.partition):
        partition.load_slice(part)
    return partition


def first_story() -> Rig:
    """All that could happen to jobs in 0.1.0, with all options that there were."""
    rig = Rig()
    rig.open_session(1)
    policy = Policy(
        name="job",
        retry=RetryPolicy(max_attempts=9, max_lost=9),
        timeout_ms=900_000,
        deadline_ms=900_000,
        labels=(("a", "b"),),
        content_type="text/plain",
        key_window_ms=60_000,
    )
    done, dead, _ = rig.submit(3, policy), rig.submit_one(policy), rig.submit_one(policy, key="k")
    rows = rig.grant(1, 5)
    rig.start(*rows)
    for row in rows[:2]:
        rig.report(row)
    rig.do(commands.PurgeJobs(job_ids=done[:1]))
    rig.do(commands.CancelJobs(job_ids=[done[2]]))
    rig.report(rows[2], AttemptOutcome.CANCELLED)
    rig.report(rows[3], AttemptOutcome.FAILED_PERMANENT)
    rig.do(commands.RequeueJobs(job_ids=[dead]))
    rig.do(commands.CancelJobs(job_ids=[dead]))
    rig.fail(rows[4])
    rig.submit_one(delay_ms=1_000)
    rig.submit_one(msgspec.structs.replace(policy, schedule_timeout_ms=500), delay_ms=100)
    rig.pass_time(1_000)
    (row,) = rig.grant()
    rig.crash(lose=1)
    rig.open_session(1, declare=[held(row)])
    rig.close_window()
    rig.do(commands.CloseTerm())
    return rig


def test_what_the_first_release_knows_is_of_the_first_format() -> None:
    """Its successor finds the same: from the journal, and from a snapshot without other slices."""
    rig = first_story()
    assert {tag_of(event) for event in rig.events()} == FIRST_TAGS
    assert {part[0] for part in slices_of(rig.partition)} == FIRST_KINDS
    formats = [found.format for found in (rig.partition, rig.replayed(), restored(rig))]
    assert formats == [FIRST] * 3


def test_every_other_event_is_of_a_later_one() -> None:
    """Whoever adds one has to say where it belongs; 0.1.0 does not learn any more."""
    assert {tag_of(event) for event in facade._FIRST} == FIRST_TAGS
    assert set(facade._FIRST) | set(facade._LATER) == set(get_args(DurableEvent))


def running(rig: Rig) -> commands.LeaseRow:
    """A job that runs on the worker."""
    rig.submit_one()
    row = rig.grant_one()
    rig.start(row)
    return row


def requeue_with_arguments(rig: Rig) -> None:
    """A new run is not like the one before."""
    job_id = rig.submit_one()
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    rig.do(commands.RequeueJobs(job_ids=[job_id], payload=b"other"))


def save(rig: Rig) -> None:
    """A job saves how far it is."""
    row = running(rig)
    saved = CheckpointRow(row.job_id, row.lease, 1, b"half")
    rig.do(commands.SaveCheckpoints(session_id=1, rows=[saved]))


def say(rig: Rig) -> None:
    """A job has said something."""
    rows = [report_row(running(rig), log=b"line")]
    rig.do(commands.ReportAttempts(session_id=1, rows=rows, jitter=[0.5]))


def make_batch(rig: Rig) -> None:
    """Something is done to all jobs that match."""
    spec = BatchSpec(kind=BatchKind.CANCEL, filter="")
    rig.do(commands.CreateBatch(batch_id="b", spec=spec, matched=0))


def open_workflow(rig: Rig) -> None:
    """A workflow begins."""
    rig.do(
        commands.OpenWorkflow(
            workflow_id=rig.mint(), name="w", tenant="default", seal_within_ms=60_000
        )
    )


def hear(rig: Rig) -> None:
    """Another partition says something."""
    message = RegisterChild(parent=rig.submit_one(), child=FAR, run=0)
    rig.do(commands.TakeMessage(source=1, token=Token(1, 1), number=1, after=0, message=message))


def child(rig: Rig) -> None:
    """A job waits for another."""
    rig.submit_rows([SubmitRow(rig.mint(), 0, b"", "", parents=(rig.submit_one(),))])


def option(**options: object) -> Callable[[Rig], object]:
    """A job asks for something that 0.1.0 would pass over."""
    return lambda rig: rig.submit_one(Policy(name="job", **options))  # type: ignore[arg-type]


LATER: dict[str, Callable[[Rig], object]] = {
    "settings of a queue": lambda rig: rig.configure(("default", "q"), QueueSettings(weight=2.0)),
    "settings of a tenant": lambda rig: rig.configure(("t",), TenantSettings(weight=2.0)),
    "settings of a job type": lambda rig: rig.configure(("t", "j"), JobTypeSettings(paused=True)),
    "a schedule": put,
    "a priority": lambda rig: rig.do(commands.BoostJobs(job_ids=[rig.submit_one()], priority=1)),
    "a batch": make_batch,
    "a workflow": open_workflow,
    "a checkpoint": save,
    "a log": say,
    "a message": hear,
    "a parent": child,
    "a limit key": lambda rig: rig.submit_one(limit_key="k"),
    "a sticky key": lambda rig: rig.submit_one(sticky_key="k"),
    "other arguments": requeue_with_arguments,
    "required labels": option(requires=(LabelSelector("gpu"),)),
    "preferred labels": option(prefers=(LabelSelector("gpu"),)),
    "key conflicts": option(key_conflict=KeyConflict.REJECT),
    "run if": option(run_if=RunIf.ALWAYS),
    "failed parents": option(on_parent_failure=ParentFailure.HOLD),
}


@pytest.mark.parametrize("use", LATER.values(), ids=LATER.keys())
def test_what_came_later_is_of_a_later_format(use: Callable[[Rig], object]) -> None:
    """From its event on, for whoever replays it or begins with a snapshot, and for ever."""
    rig = Rig()
    rig.open_session(1)
    rig.submit_one()
    rig.grant_one()
    assert rig.partition.format == FIRST
    use(rig)
    formats = [found.format for found in (rig.partition, rig.replayed(), restored(rig))]
    assert formats == [NEWEST] * 3
    rig.crash()
    rig.submit_one()
    assert rig.partition.format == NEWEST


@pytest.mark.parametrize(
    "part", [["inbox", []], ["settings", []], ["schedules", []], ["workflows", []], ["batches", []]]
)
def test_later_slices_are_known_by_their_kind(part: Slice) -> None:
    """Before there was a second format they were written into the first one, and are read still."""
    partition = Partition(Rig().config)
    partition.load_slice(part)
    assert partition.format == NEWEST


def test_a_blocked_job_that_is_requeued_needs_a_later_format() -> None:
    """Also for who has only the event of it: 0.1.0 would let it run at once."""
    rig = Rig()
    parent = rig.submit_one()
    row = SubmitRow(rig.mint(), 0, b"", "", parents=(parent,))
    rig.submit_rows([row])
    rig.do(commands.CancelJobs(job_ids=[row.job_id]))
    rig.do(commands.RequeueJobs(job_ids=[JobId(row.job_id)]))
    assert rig.state(JobId(row.job_id)) is JobState.BLOCKED
    successor = Partition(rig.config)
    successor.replay(rig.events()[-1], len(rig.journal))
    assert successor.format == NEWEST
