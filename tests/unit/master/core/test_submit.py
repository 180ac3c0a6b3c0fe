"""Submits: new, known and refused jobs; ids, keys, limits."""

from dataclasses import replace

import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import SubmitRow, SubmitSetting
from tenure.master.core.config import PartitionConfig
from tenure.master.core.effect import SubmitReply
from tenure.master.core.event import JobsSubmitted, SubmittedSetting
from tenure.master.core.record import JobRecord, Policy
from tenure.protocol.ids import home_partition, mint
from tenure.protocol.limits import DAY_MS, ID_AHEAD_MS_MAX, RETRY_WINDOW_MS
from tenure.protocol.refusal import Reason, Refusal
from tenure.protocol.vocabulary import AttemptOutcome, JobState
from tests.unit.master.core.rig import CONFIG, JOB, Rig

OTHER = Policy(name="other")


def reason_of(reply: SubmitReply) -> Reason:
    """Why the only row was refused."""
    assert reply.job_ids == [""]
    ((index, refusal),) = reply.refusals
    assert index == 0
    return refusal.reason


def test_new_job() -> None:
    """A new job is PENDING, due now, with everything it was submitted with."""
    rig = Rig()
    (job_id,) = rig.submit(1, JOB, priority=2, payload=b"abc", key="k")
    record = rig.record(job_id)
    assert (record.state, record.policy, record.priority) == (JobState.PENDING, JOB, 2)
    assert (record.payload, record.key) == (b"abc", "k")
    assert record.submitted_ms == record.ready_ms == record.run_due_ms == rig.now_ms
    assert record.seq == rig.partition.next_seq - 1


def test_ordinals_follow_the_order_of_submission() -> None:
    """Jobs are numbered in the order in which they were submitted, across batches."""
    rig = Rig()
    ids = rig.submit(3) + rig.submit(2, OTHER)
    ordinals = [rig.record(job_id).ordinal for job_id in ids]
    assert ordinals == [1, 2, 3, 4, 5]


def test_equal_policies_are_one_object() -> None:
    """Equal policies of different submits are stored once."""
    rig = Rig()
    (first,) = rig.submit(1, Policy(name="x"))
    (second,) = rig.submit(1, Policy(name="x"))
    assert rig.record(first).policy is rig.record(second).policy


@pytest.mark.parametrize(
    ("delay_ms", "at_ms", "wait_ms"), [(5_000, 0, 5_000), (0, 7_000, 7_000), (0, -7_000, 0)]
)
def test_delay_and_at(delay_ms: int, at_ms: int, wait_ms: int) -> None:
    """A delayed job is SCHEDULED; an ``at`` that has passed is now and buys no age."""
    rig = Rig()
    at_ms = rig.now_ms + at_ms if at_ms else 0
    (job_id,) = rig.submit(1, delay_ms=delay_ms, at_ms=at_ms)
    record = rig.record(job_id)
    assert record.ready_ms == rig.now_ms + wait_ms
    assert record.state is (JobState.SCHEDULED if wait_ms else JobState.PENDING)


def test_same_id_again_is_the_same_job() -> None:
    """A re-sent submit names the job and changes nothing, whatever state it is in."""
    rig = Rig()
    rig.open_session(1)
    row = SubmitRow(rig.mint(), 0, b"p", "")
    rig.submit_rows([row])
    for step in (lambda: None, rig.grant, lambda: rig.pass_time(60_000)):
        step()
        before = rig.partition.state_hash()
        reply = rig.submit_rows([row])
        assert (reply.job_ids, reply.existing, reply.refusals) == ([row.job_id], [0], [])
        assert rig.partition.state_hash() == before


def test_same_id_again_is_safe_for_ever() -> None:
    """A job that lives is known by its id, however old the id is."""
    rig = Rig()
    row = SubmitRow(rig.mint(), 0, b"p", "")
    rig.submit_rows([row], delay_ms=30 * DAY_MS)
    rig.now_ms += 29 * DAY_MS
    assert rig.submit_rows([row], delay_ms=30 * DAY_MS).existing == [0]


@pytest.mark.parametrize(
    ("row", "policy"),
    [
        ((0, b"other", ""), JOB),
        ((0, b"p", "key"), JOB),
        ((0, b"p", ""), OTHER),
        ((0, b"p", ""), Policy(name="job", queue="other")),
        ((0, b"p", ""), Policy(name="job", tenant="other")),
    ],
)
def test_same_id_with_other_content_conflicts(row: tuple[int, bytes, str], policy: Policy) -> None:
    """The same id with another tenant, queue, name, payload or key is JOB_ID_CONFLICT."""
    rig = Rig()
    job_id = rig.mint()
    rig.submit_rows([SubmitRow(job_id, 0, b"p", "")])
    reply = rig.submit_rows([SubmitRow(job_id, *row)], policy)
    assert reason_of(reply) is Reason.JOB_ID_CONFLICT


def test_same_id_twice_in_one_batch() -> None:
    """Inside a batch the same id is the same job, or a conflict."""
    rig = Rig()
    job_id = rig.mint()
    rows = [SubmitRow(job_id, 0, payload, "") for payload in (b"p", b"p", b"q")]
    reply = rig.submit_rows(rows)
    assert reply.job_ids == [job_id, job_id, ""]
    assert reply.existing == [1]
    assert [(index, refusal.reason) for index, refusal in reply.refusals] == [
        (2, Reason.JOB_ID_CONFLICT)
    ]


def test_tombstone_answers_a_resent_submit() -> None:
    """The id of a purged job still names it; after its tombstone it is REQUEST_TOO_OLD."""
    rig = Rig()
    row = SubmitRow(rig.mint(), 0, b"p", "")
    rig.submit_rows([row])
    rig.do(commands.CancelJobs(job_ids=[row.job_id]))
    rig.do(commands.PurgeJobs(job_ids=[row.job_id]))
    assert rig.submit_rows([row]).existing == [0]
    rig.now_ms += RETRY_WINDOW_MS - 1
    assert rig.submit_rows([row]).existing == [0]
    rig.now_ms += 2
    assert reason_of(rig.submit_rows([row])) is Reason.REQUEST_TOO_OLD


@pytest.mark.parametrize(
    ("age_ms", "reason"),
    [
        (RETRY_WINDOW_MS, None),
        (RETRY_WINDOW_MS + 1, Reason.REQUEST_TOO_OLD),
        (-ID_AHEAD_MS_MAX, None),
        (-ID_AHEAD_MS_MAX - 1, Reason.ID_FROM_FUTURE),
    ],
)
def test_age_of_an_unknown_id(age_ms: int, reason: Reason | None) -> None:
    """Unknown ids are taken from 5 min old to 60 s ahead, to the millisecond."""
    rig = Rig()
    reply = rig.submit_rows([SubmitRow(rig.mint(rig.now_ms - age_ms), 0, b"", "")])
    assert reason_of(reply) is reason if reason else not reply.refusals


def test_wrong_partition() -> None:
    """An id or a queue of another partition is refused."""
    home = home_partition("default", "default", 4)
    rig = Rig(PartitionConfig(partition=home, partitions=4))
    foreign = mint((home + 1) % 4, rig.now_ms, 7)
    assert reason_of(rig.submit_rows([SubmitRow(foreign, 0, b"", "")])) is Reason.WRONG_PARTITION
    queues = (f"q{n}" for n in range(100))
    elsewhere = next(q for q in queues if home_partition("default", q, 4) != home)
    reply = rig.submit_rows(
        [SubmitRow(rig.mint(), 0, b"", "")], Policy(name="job", queue=elsewhere)
    )
    assert reason_of(reply) is Reason.WRONG_PARTITION


def test_payload_too_large() -> None:
    """The limit is inclusive; beyond it the row is refused at once, naming the limit."""
    rig = Rig(replace(CONFIG, payload_bytes_max=10))
    assert not rig.submit_rows([SubmitRow(rig.mint(), 0, b"x" * 10, "")]).refusals
    reply = rig.submit_rows([SubmitRow(rig.mint(), 0, b"x" * 11, "")])
    assert reason_of(reply) is Reason.PAYLOAD_TOO_LARGE
    assert reply.refusals[0][1].metadata["limit"] == "10"


def test_queue_depth() -> None:
    """A full queue refuses with a hint when to retry; running jobs and other queues are apart."""
    rig = Rig(replace(CONFIG, queue_depth_max=3))
    rig.open_session(1)
    rows = [SubmitRow(rig.mint(), 0, b"", "") for _ in range(5)]
    reply = rig.submit_rows(rows)
    assert [(index, refusal.reason) for index, refusal in reply.refusals] == [
        (3, Reason.QUEUE_FULL),
        (4, Reason.QUEUE_FULL),
    ]
    assert reply.refusals[0][1].retry_after_ms
    assert rig.submit(1, Policy(name="job", queue="other"))
    rig.grant(1, 2)
    assert not rig.submit_rows(rows[3:]).refusals
    assert reason_of(rig.submit_rows([SubmitRow(rig.mint(), 0, b"", "")])) is Reason.QUEUE_FULL


def test_names_and_delayed_jobs_share_the_queue_depth() -> None:
    """All waiting jobs of a queue count, whatever their name, state or setting."""
    rig = Rig(replace(CONFIG, queue_depth_max=3))
    rig.submit(1, OTHER)
    rig.submit(1, delay_ms=1_000)
    settings = [SubmitSetting(JOB, 5, 0, 0), SubmitSetting(OTHER, 5, 0, 0)]
    rows = [SubmitRow(rig.mint(), setting, b"", "") for setting in (0, 1)]
    reply = rig.do(commands.SubmitJobs(settings=settings, rows=rows)).reply
    assert isinstance(reply, SubmitReply)
    assert [index for index, _ in reply.refusals] == [1]


def test_bytes_limit() -> None:
    """Payloads, results and errors count; nothing accepted is dropped; a purge makes room."""
    rig = Rig(replace(CONFIG, bytes_max=100))
    rig.open_session(1)
    (job_id,) = rig.submit(1, payload=b"x" * 60)
    assert (
        reason_of(rig.submit_rows([SubmitRow(rig.mint(), 0, b"x" * 41, "")])) is Reason.MEMORY_FULL
    )
    rig.report(rig.grant_one(), result=b"r" * 90)
    assert rig.partition.stats().payload_bytes == 150
    assert reason_of(rig.submit_rows([SubmitRow(rig.mint(), 0, b"x", "")])) is Reason.MEMORY_FULL
    rig.do(commands.PurgeJobs(job_ids=[job_id]))
    assert rig.partition.stats().payload_bytes == 0
    assert rig.submit(1, payload=b"x" * 100)


def test_bytes_limit_may_change_within_a_term() -> None:
    """What the partition may keep by now counts, not what the configuration says."""
    rig = Rig(replace(CONFIG, bytes_max=100))
    command = commands.SubmitJobs(
        settings=[SubmitSetting(JOB, 5, 0, 0)],
        rows=[SubmitRow(rig.mint(), 0, b"x" * 200, "")],
        bytes_max=300,
    )
    assert rig.do(command).reply.refusals == []
    again = replace(command, rows=[SubmitRow(rig.mint(), 0, b"x", "")], bytes_max=10)
    assert reason_of(rig.do(again).reply) is Reason.MEMORY_FULL


def test_all_or_nothing() -> None:
    """One refused row refuses the batch, naming its reason and its place; nothing is applied."""
    rig = Rig()
    rows = [
        SubmitRow(rig.mint(), 0, b"", ""),
        SubmitRow(rig.mint(0), 0, b"", ""),
    ]
    settings = [SubmitSetting(JOB, 5, 0, 0)]
    command = commands.SubmitJobs(settings=settings, rows=rows, all_or_nothing=True)
    refusal = rig.refused(command)
    assert refusal.reason is Reason.REQUEST_TOO_OLD
    assert refusal.metadata["index"] == "1"
    assert rig.partition.stats().jobs == 0


def test_key_names_one_job_in_its_window() -> None:
    """The same (tenant, queue, key) gives the existing job; others are other keys."""
    rig = Rig()
    (job_id,) = rig.submit(1, key="k")
    assert rig.submit(1, key="k") == [job_id]
    assert rig.submit(1, key="k", payload=b"other content") == [job_id]
    assert rig.submit(1, key="other") != [job_id]
    assert rig.submit(1, Policy(name="job", queue="q"), key="k") != [job_id]
    assert rig.submit(1, Policy(name="job", tenant="t"), key="k") != [job_id]


def test_key_twice_in_one_batch() -> None:
    """Inside a batch the second job of a key is the first."""
    rig = Rig()
    rows = [SubmitRow(rig.mint(), 0, b"", "k") for _ in range(2)]
    reply = rig.submit_rows(rows)
    assert reply.job_ids == [rows[0].job_id] * 2
    assert reply.existing == [1]


def test_key_window() -> None:
    """After its window a key is free again."""
    rig = Rig()
    policy = Policy(name="job", key_window_ms=1_000)
    (first,) = rig.submit(1, policy, key="k")
    rig.now_ms += 999
    assert rig.submit(1, policy, key="k") == [first]
    rig.now_ms += 1
    (second,) = rig.submit(1, policy, key="k")
    assert second != first
    assert rig.submit(1, policy, key="k") == [second]


def test_key_outlives_job_and_tombstone() -> None:
    """A key answers the id of a job that nobody remembers any more."""
    rig = Rig()
    (job_id,) = rig.submit(1, key="k")
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    rig.do(commands.PurgeJobs(job_ids=[job_id]))
    rig.now_ms += RETRY_WINDOW_MS + 1
    rig.submit(1)
    assert rig.partition.get(job_id) is None
    assert rig.submit(1, key="k") == [job_id]
    assert rig.submit_rows([SubmitRow(job_id, 0, b"payload", "k")]).job_ids == [job_id]


def test_key_survives_failed_jobs() -> None:
    """A key names its job also after it has failed: the window decides, not the outcome."""
    rig = Rig()
    rig.open_session(1)
    (job_id,) = rig.submit(1, key="k")
    rig.report(rig.grant_one(), AttemptOutcome.FAILED_PERMANENT)
    assert rig.submit(1, key="k") == [job_id]


def test_closed_term_refuses() -> None:
    """Outside an open term nothing is accepted."""
    rig = Rig()
    rig.do(commands.CloseTerm())
    row = SubmitRow(rig.mint(), 0, b"", "")
    setting = SubmitSetting(JOB, 5, 0, 0)
    refusal = rig.refused(commands.SubmitJobs(settings=[setting], rows=[row]))
    assert refusal.reason is Reason.NOT_LEADER


@pytest.mark.parametrize(
    ("intake", "refused"),
    [
        (commands.Intake.OPEN, []),
        (commands.Intake.NO_BULK, [6, 10]),
        (commands.Intake.CLOSED, [0, 5, 6, 10]),
    ],
)
def test_a_store_that_is_nearly_full_refuses_bulk_first(
    intake: commands.Intake, refused: list[int]
) -> None:
    """Bulk is what is submitted behind the default priority; a refusal says when to come back."""
    rig = Rig()
    priorities = [0, 5, 6, 10]
    command = commands.SubmitJobs(
        settings=[SubmitSetting(JOB, priority, 0, 0) for priority in priorities],
        rows=[SubmitRow(rig.mint(), setting, b"", "") for setting in range(len(priorities))],
        intake=intake,
    )
    reply = rig.do(command).reply
    assert [priorities[index] for index, _ in reply.refusals] == refused
    assert {refusal.reason for _, refusal in reply.refusals} <= {Reason.STORE_FULL}
    assert all(refusal.retry_after_ms for _, refusal in reply.refusals)


def test_a_known_job_is_named_however_full_the_store_is() -> None:
    """A submit that is sent again was accepted once: it is never called refused."""
    rig = Rig()
    rows = [SubmitRow(rig.mint(), 0, b"", "")]
    command = commands.SubmitJobs(settings=[SubmitSetting(JOB, 10, 0, 0)], rows=rows)
    rig.do(command)
    again = rig.do(replace(command, intake=commands.Intake.CLOSED)).reply
    assert (again.refusals, again.existing) == ([], [0])


FAR = Policy(name="job", tenant="acme", queue="mail")


def told(refusal: Refusal) -> tuple[dict[str, str], str, int]:
    """What a refusal says to programs."""
    return refusal.metadata, refusal.field, refusal.retry_after_ms


def refusal_of(rig: Rig, row: SubmitRow, policy: Policy = JOB) -> Refusal:
    """Why a row is refused."""
    ((_, refusal),) = rig.submit_rows([row], policy).refusals
    return refusal


def test_a_conflict_names_the_id() -> None:
    """To programs by metadata and field, to people with what to do."""
    rig = Rig()
    job_id = rig.mint()
    rig.submit_rows([SubmitRow(job_id, 0, b"p", "")])
    refusal = refusal_of(rig, SubmitRow(job_id, 0, b"q", ""))
    assert told(refusal) == ({"job_id": job_id}, "job_id", None)
    assert f"job {job_id}, but another job has this id: mint a new id" in refusal.message


def test_an_id_of_another_partition_names_both() -> None:
    """Partitions of ids are hexadecimal, all three digits of them."""
    home = home_partition("default", "default", 0x200)
    rig = Rig(PartitionConfig(partition=home, partitions=0x200))
    foreign = mint(0x1FE, rig.now_ms, 7)
    assert home != 0x1FE
    refusal = refusal_of(rig, SubmitRow(foreign, 0, b"", ""))
    assert refusal.reason is Reason.WRONG_PARTITION
    assert told(refusal) == ({"job_id": foreign, "partition": str(home)}, "job_id", None)
    assert f"job {foreign} to its home" in refusal.message
    assert f"its id names partition {0x1FE}, this is {home}" in refusal.message


@pytest.mark.parametrize("partitions", [2, 0x200])
def test_a_queue_of_another_partition_names_its_home(partitions: int) -> None:
    """By tenant and queue; at home it is taken."""
    home = home_partition(FAR.tenant, FAR.queue, partitions)
    away = Rig(PartitionConfig(partition=(home + 1) % partitions, partitions=partitions))
    refusal = refusal_of(away, SubmitRow(away.mint(), 0, b"", ""), FAR)
    assert refusal.reason is Reason.WRONG_PARTITION
    metadata = {"queue": "mail", "tenant": "acme", "partition": str(home)}
    assert told(refusal) == (metadata, "options.queue", None)
    here = away.config.partition
    assert f"queue mail in its home partition {home}, but this is partition {here}" in (
        refusal.message
    )
    assert Rig(PartitionConfig(partition=home, partitions=partitions)).submit(1, FAR)


@pytest.mark.parametrize(
    ("age_ms", "says"),
    [
        (RETRY_WINDOW_MS + 1, f"is {RETRY_WINDOW_MS + 1} ms old and unknown ids are accepted"),
        (-ID_AHEAD_MS_MAX - 1, f"is {ID_AHEAD_MS_MAX + 1} ms ahead of the cluster's clock"),
    ],
)
def test_an_id_out_of_time_tells_the_time(age_ms: int, says: str) -> None:
    """So a client can tell whose clock is wrong."""
    rig = Rig()
    job_id = rig.mint(rig.now_ms - age_ms)
    refusal = refusal_of(rig, SubmitRow(job_id, 0, b"", ""))
    assert told(refusal) == ({"job_id": job_id, "now_ms": str(rig.now_ms)}, "job_id", None)
    assert f"job {job_id}, but its id {says}" in refusal.message


def test_a_payload_too_large_tells_both_sizes() -> None:
    """That of the payload, and the limit."""
    rig = Rig(replace(CONFIG, payload_bytes_max=10))
    row = SubmitRow(rig.mint(), 0, b"x" * 11, "")
    refusal = refusal_of(rig, row)
    metadata = {"job_id": row.job_id, "bytes": "11", "limit": "10"}
    assert told(refusal) == (metadata, "payload", None)
    assert f"job {row.job_id}, but its payload has 11 bytes (at most 10)" in refusal.message


def test_a_full_queue_says_which_and_when_to_come_back() -> None:
    """With its tenant, and how many jobs may wait in it."""
    rig = Rig(replace(CONFIG, queue_depth_max=0))
    refusal = refusal_of(rig, SubmitRow(rig.mint(), 0, b"", ""), FAR)
    metadata = {"queue": "mail", "tenant": "acme", "limit": "0"}
    assert told(refusal) == (metadata, "", CONFIG.retry_after_ms)
    assert "to queue mail, but queue mail holds 0 waiting jobs: try again later" in refusal.message


def test_a_full_partition_says_how_full_and_when_to_come_back() -> None:
    """The bytes it keeps, and those that it may keep by now."""
    rig = Rig(replace(CONFIG, bytes_max=100))
    rig.submit(1, payload=b"x" * 60)
    refusal = refusal_of(rig, SubmitRow(rig.mint(), 0, b"x" * 41, ""), FAR)
    assert refusal.reason is Reason.MEMORY_FULL
    metadata = {"queue": "mail", "tenant": "acme", "limit": "100"}
    assert told(refusal) == (metadata, "", CONFIG.retry_after_ms)
    assert "to queue mail, but the partition keeps 60 bytes of at most 100" in refusal.message
    assert "try again later" in refusal.message


@pytest.mark.parametrize(
    ("intake", "what"),
    [
        (commands.Intake.NO_BULK, "no jobs of priority 6 until"),
        (commands.Intake.CLOSED, "no new jobs until"),
    ],
)
def test_a_store_that_is_nearly_full_says_what_it_takes(intake: commands.Intake, what: str) -> None:
    """Programs hear it by the name of the intake."""
    rig = Rig()
    command = commands.SubmitJobs(
        settings=[SubmitSetting(FAR, 6, 0, 0)],
        rows=[SubmitRow(rig.mint(), 0, b"", "")],
        intake=intake,
    )
    ((_, refusal),) = rig.do(command).reply.refusals
    metadata = {"queue": "mail", "tenant": "acme", "intake": intake.value}
    assert told(refusal) == (metadata, "", 5_000)
    assert "to queue mail, but the store is so full that it takes" in refusal.message
    assert what in refusal.message


def test_rows_of_one_batch_share_the_room() -> None:
    """Each takes from what those before it have left; one that is refused takes nothing."""
    rig = Rig(replace(CONFIG, bytes_max=100))
    rows = [SubmitRow(rig.mint(), 0, b"x" * size, "") for size in (40, 50, 20, 10, 1)]
    refusals = rig.submit_rows(rows).refusals
    assert [(index, refusal.reason) for index, refusal in refusals] == [
        (2, Reason.MEMORY_FULL),
        (4, Reason.MEMORY_FULL),
    ]


def test_a_replayed_submit_adds_what_the_snapshot_lacks() -> None:
    """A fuzzy snapshot has some jobs of an event; the others get their own places behind them."""
    rig = Rig()
    known = rig.submit_one()
    partition = rig.replaying()
    setting = SubmittedSetting(JOB, 5, rig.now_ms, JobState.PENDING)
    rows = [SubmitRow(known, 0, b"again", ""), SubmitRow(rig.mint(), 0, b"new", "")]
    again = JobsSubmitted(now_ms=rig.now_ms, first_ordinal=1, settings=[setting], rows=rows)
    partition.replay(again, partition.next_seq)
    partition.finish_replay()
    records = [partition.get(row.job_id) for row in rows]
    assert all(isinstance(record, JobRecord) for record in records)
    assert [(record.ordinal, record.payload) for record in records] == [
        (1, b"payload"),
        (2, b"new"),
    ]
