"""What a worker sends of what its jobs say: only what somebody reads, and the rest at the end."""

import pytest

from tenure.protocol.fence import Token
from tenure.v1 import common_pb2, worker_pb2
from tenure.worker.attempt_log import AttemptLog
from tenure.worker.held import HeldJob
from tenure.worker.log_taps import CHUNK_BYTES_MAX, PAUSE_MS
from tenure.worker.session import Session
from tests.unit.worker.masters import TOKEN
from tests.unit.worker.rig import Rig, Said


def say(job: HeldJob, *texts: str) -> None:
    """A job says something."""
    if job.log is None:
        job.log = AttemptLog()
    for text in texts:
        job.log.record(1, 20, text)


def running(rig: Rig, master: Session) -> tuple[HeldJob, worker_pb2.LeaseRef]:
    """A job that has begun."""
    (ref,) = rig.grant(master, 1)
    (job,) = rig.begin()
    rig.hear(master)
    return job, ref


def want(rig: Rig, master: Session, ref: worker_pb2.LeaseRef, after: int = 0) -> None:
    """Somebody reads the job."""
    rig.instruct(master, logs=[worker_pb2.LogWish(lease=ref, after=after)])


def heard(said: Said) -> list[tuple[int, list[str]]]:
    """Chunks: behind which line, and what was said."""
    return [(chunk.after, [line.text for line in chunk.lines]) for chunk in said.logs]


@pytest.fixture
def rig() -> Rig:
    """A worker."""
    return Rig()


def test_nobody_reads_so_nothing_is_sent(rig: Rig) -> None:
    """What a running job says stays at its worker."""
    master = rig.leading()
    job, _ = running(rig, master)
    say(job, "one")
    rig.wait(PAUSE_MS)
    assert rig.hear(master).logs == []


def test_a_wish_is_answered_at_once_and_then_now_and_then(rig: Rig) -> None:
    """All that there is comes with the next envelope; what is new waits for company, and nothing
    is sent of who says nothing.
    """
    master = rig.leading()
    job, ref = running(rig, master)
    say(job, "one", "two")
    want(rig, master, ref)
    assert heard(rig.hear(master)) == [(0, ["one", "two"])]
    say(job, "three")
    assert heard(rig.hear(master)) == []
    rig.wait(PAUSE_MS // 2)
    assert heard(rig.hear(master)) == []
    say(job, "four")
    rig.wait(PAUSE_MS)
    assert heard(rig.hear(master)) == [(2, ["three", "four"])]
    rig.wait(PAUSE_MS)
    assert heard(rig.hear(master)) == []


def test_who_asks_is_answered_even_if_there_is_nothing(rig: Rig) -> None:
    """So a reader who does not follow knows that it has had all."""
    master = rig.leading()
    _, ref = running(rig, master)
    want(rig, master, ref)
    assert heard(rig.hear(master)) == [(0, [])]


def test_a_second_reader_gets_what_it_does_not_know(rig: Rig) -> None:
    """A wish sets the job's place back, never forward: nobody's lines are left out."""
    master = rig.leading()
    job, ref = running(rig, master)
    say(job, "one", "two")
    want(rig, master, ref)
    rig.hear(master)
    want(rig, master, ref, after=1)
    assert heard(rig.hear(master)) == [(1, ["two"])]
    want(rig, master, ref, after=9)
    assert heard(rig.hear(master)) == [(2, [])]


def test_what_is_left_comes_before_the_report(rig: Rig) -> None:
    """The lines that a reader lacks are in the report's own envelope, which has what is kept."""
    master = rig.leading()
    job, ref = running(rig, master)
    want(rig, master, ref)
    rig.hear(master)
    say(job, "the end")
    rig.end(job)
    said = rig.hear(master)
    assert heard(said) == [(0, ["the end"])]
    (report,) = said.reports
    assert [line.text for line in common_pb2.JobLog.FromString(report.log).lines] == ["the end"]
    rig.wait(PAUSE_MS)
    assert heard(rig.hear(master)) == []


def test_the_report_is_the_same_when_it_is_sent_again(rig: Rig) -> None:
    """A log is sealed with its first report: code that runs on cannot make two of one outcome."""
    master = rig.leading()
    job, _ = running(rig, master)
    say(job, "in time")
    rig.end(job)
    (first,) = rig.hear(master).reports
    say(job, "too late")
    other = rig.connect("m2")
    rig.open(other, token=Token(TOKEN.epoch, TOKEN.revision + 1))
    (second,) = rig.hear(other).reports
    assert second.log == first.log


def test_a_job_that_said_nothing_reports_nothing(rig: Rig) -> None:
    """No byte is spent on it."""
    master = rig.leading()
    job, _ = running(rig, master)
    rig.end(job)
    (report,) = rig.hear(master).reports
    assert report.log == b""


def test_nothing_is_sent_when_nobody_reads_any_more(rig: Rig) -> None:
    """A stop ends it; so does another master, which has wishes of its own."""
    master = rig.leading()
    job, ref = running(rig, master)
    want(rig, master, ref)
    rig.hear(master)
    rig.instruct(master, logs=[worker_pb2.LogWish(lease=ref, stop=True)])
    say(job, "one")
    rig.wait(PAUSE_MS)
    assert heard(rig.hear(master)) == []
    want(rig, master, ref)
    assert heard(rig.hear(master)) == [(0, ["one"])]
    other = rig.leading("m2", token=Token(TOKEN.epoch, TOKEN.revision + 1))
    say(job, "two")
    rig.wait(PAUSE_MS)
    assert heard(rig.hear(other)) == []


def test_unknown_leases_are_not_answered(rig: Rig) -> None:
    """A wish for what this worker does not hold does nothing."""
    master = rig.leading()
    _, ref = running(rig, master)
    ref.seq += 7
    want(rig, master, ref)
    assert heard(rig.hear(master)) == []


def test_many_long_logs_share_envelopes(rig: Rig) -> None:
    """What does not fit into one envelope goes with the next, and each job's comes whole."""
    master = rig.leading()
    refs = rig.grant(master, 1, 2, 3, 4)
    jobs = rig.begin(4)
    rig.hear(master)
    for job in jobs:
        say(job, *["x" * 4_000] * 20)
    rig.instruct(master, logs=[worker_pb2.LogWish(lease=ref) for ref in refs])
    said = rig.hear(master)
    assert len(said.logs) == 4
    sizes = [
        sum(len(line.text) for chunk in update.logs for line in chunk.lines)
        for update in said.updates
    ]
    assert len(sizes) > 1
    assert max(sizes) < 2 * CHUNK_BYTES_MAX
