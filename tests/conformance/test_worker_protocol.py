"""The worker protocol, held against every worker that there is: ours, and the example in Node.

docs/protocol.md is what they are held to; each test names the rule.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tenure.v1 import common_pb2, worker_pb2
from tests.chaos.cluster import REPOSITORY, tenure
from tests.conformance.worker_script import (
    LEASE_TTL_S,
    PATIENCE_S,
    ScriptedMaster,
    Session,
    grant,
    token,
)
from tests.nodejs import NODE, node_examples

COMPLETED = common_pb2.ATTEMPT_OUTCOME_COMPLETED
SLOTS = 8


def command(kind: str, address: str) -> list[str]:
    """How to start a worker."""
    if kind == "node":
        return [NODE, str(node_examples() / "serve.mjs"), address, "worker-1"]
    return tenure(
        *("worker", "tests.conformance.worker_app", "--master", address),
        *("--name", "worker-1", "--slots", str(SLOTS), "--queues", "default"),
    )


@contextmanager
def started(kind: str, master: ScriptedMaster, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker's process."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(
            command(kind, master.address), stdout=log, stderr=log, env=environment
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module", params=["python", "node"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which worker."""
    return str(request.param)


@pytest.fixture(scope="module")
def master(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedMaster]:
    """A master that says what the tests tell it to, with one worker for most of them."""
    folder = tmp_path_factory.mktemp("worker")
    with ScriptedMaster() as master, started(kind, master, folder):
        yield master


@pytest.fixture
def session(master: ScriptedMaster) -> Iterator[Session]:
    """The worker's stream, with the partition open under a new token; at the end it has no lease.

    The stream before it was hung up, so each test also finds a worker that comes back.
    """
    session = master.session()
    session.open(master.next_revision())
    yield session
    master.current.clear_up()
    master.current.hang_up()


def decoded(report: worker_pb2.Report) -> object:
    """A report's result."""
    return msgspec.msgpack.decode(report.result)


def test_greeting(session: Session) -> None:
    """Rules 1 and 2: Hello says who the worker is; credit comes with a partition, not before."""
    hello = session.hello

    assert len(hello.incarnation) == 36
    assert hello.name == "worker-1"
    assert {"echo", "fail"} <= set(hello.job_names)
    assert list(hello.queues) == ["default"]
    assert (hello.slots, hello.protocol) == (SLOTS, 1)
    assert session.declared == [[]]
    assert 1 <= session.limit <= SLOTS
    assert session.credits == sorted(set(session.credits))


def test_a_job_from_grant_to_verdict(session: Session) -> None:
    """Rules 3, 4 and 7: accepted, started, renewed while it runs, reported until judged."""
    job = grant(1, text="hello", hold_s=0.6)
    session.assign(1, job)
    session.until(lambda: session.accepted == 1, "the assignment accepted")
    session.until(lambda: session.started == [job.job_id], "the job started")
    session.next_beat()
    beat = session.beats[-1]
    assert session.held() == {job.job_id}
    assert beat.last_assignment == 1
    assert beat.held.leases[0].started
    assert beat.held.leases[0].running_ms >= 0
    session.until(lambda: session.reports, "a report")
    report = session.reports[0]
    assert (report.lease.job_id, report.lease.seq, report.outcome) == (job.job_id, 1, COMPLETED)
    assert decoded(report) == "hello"
    assert report.run_ms >= 500

    session.until(lambda: len(session.reports) > 1, "the report again, without a verdict")
    assert session.held() == {job.job_id}
    session.judge(report, worker_pb2.VERDICT_ACCEPTED)
    session.until(lambda: session.held() == set(), "the lease freed by the verdict")


def test_credit_comes_back(session: Session) -> None:
    """Rule 2: limits count all grants of the stream; a slot that is free again is offered again."""
    jobs = [grant(number, text="x") for number in range(1, session.limit + 1)]
    session.assign(1, *jobs)
    session.until(lambda: len({r.lease.seq for r in session.reports}) == len(jobs), "reports")
    session.until(lambda: session.limit >= len(jobs) + 1, "more credit")
    assert session.credits == sorted(set(session.credits))


def test_a_failure_is_reported(session: Session) -> None:
    """Rule 7: an error has a type, a message, a category and where it happened."""
    session.assign(1, grant(1, text="too bad"), job="fail")
    session.until(lambda: session.reports, "a report")

    report = session.reports[0]
    assert report.outcome == common_pb2.ATTEMPT_OUTCOME_FAILED
    assert report.error.type.endswith("TypeError")
    assert report.error.message == "too bad"
    assert report.error.traceback
    assert report.error.category == common_pb2.ERROR_CATEGORY_TRANSIENT


def test_revokes(session: Session) -> None:
    """Rule 6: what never came is returned; Started wins over taking back; a lost lease ends."""
    job = grant(1, text="x", hold_s=1.5)
    session.assign(1, job)
    session.until(lambda: session.started == [job.job_id], "the job started")
    never = worker_pb2.LeaseRef(job_id=grant(9).job_id, seq=9)
    session.instruct(
        revokes=[
            worker_pb2.Revoke(lease=never, unless_started=True, reason="not accepted"),
            worker_pb2.Revoke(lease=session.ref(job), unless_started=True, reason="idle others"),
        ]
    )
    session.until(lambda: session.returned == [never.job_id], "what is not here returned")
    session.until(lambda: session.started == [job.job_id] * 2, "Started, said again")

    session.instruct(revokes=[worker_pb2.Revoke(lease=session.ref(job), reason="lost")])
    session.until(lambda: session.reports, "the end of the job that lost its lease")
    session.judge(session.reports[0], worker_pb2.VERDICT_SUPERSEDED)
    session.next_beat()
    session.until(lambda: session.held() == set(), "the lease freed by the verdict")


def test_cancel(session: Session) -> None:
    """Rule 6: a job that is asked to stop stops and reports how it ended."""
    job = grant(1, text="x", hold_s=60)
    session.assign(1, job)
    session.until(lambda: session.started, "the job started")
    session.instruct(cancels=[session.ref(job)])
    session.until(lambda: session.reports, "a report")

    assert session.reports[0].outcome == common_pb2.ATTEMPT_OUTCOME_CANCELLED


def test_old_tokens_are_not_obeyed(session: Session) -> None:
    """A message under any token but the current one is dropped, whatever it says."""
    stale = token(session.token.revision - 1)
    options = common_pb2.JobOptions(name="echo")
    old = worker_pb2.Assignment(number=1, options=[options], grants=[grant(7, text="old")])
    session.instruct(under=stale, assignment=old)
    opened = worker_pb2.PartitionOpened(partition=3, token=stale)
    session.say(worker_pb2.SessionResponse(opened=[opened]))
    session.assign(1, grant(8, text="new"))
    session.until(lambda: session.reports, "a report")

    assert [report.lease.seq for report in session.reports] == [8]
    assert len(session.declared) == 1


def test_failover(master: ScriptedMaster, session: Session) -> None:
    """Rule 8: a stream's end ends no lease; leases and results go to who opens the partition."""
    done, running = grant(1, text="done"), grant(2, text="running", hold_s=3)
    session.assign(1, done, running)
    session.until(lambda: session.reports and len(session.started) >= 1, "a report")
    session.hang_up()
    later = master.session()
    assert later.hello.incarnation == session.hello.incarnation
    later.open(master.next_revision())
    granted_under = session.token.revision

    declared = {row.lease.job_id: row for row in later.declared[0]}
    assert set(declared) == {done.job_id, running.job_id}
    assert declared[running.job_id].started
    assert all(row.lease.token.revision == granted_under for row in declared.values())
    later.until(lambda: len({r.lease.seq for r in later.reports}) == 2, "both reports")
    assert {r.lease.token.revision for r in later.reports} == {granted_under}
    assert {decoded(report) for report in later.reports} == {"done", "running"}


def test_hold_renews_nothing(session: Session) -> None:
    """Rules 3 and 5: through a Hold heartbeats go on; at its deadline the lease counts as lost.

    The worker stops before the master would give the job to another one.
    """
    session.next_beat()
    session.answers = "hold"
    job = grant(1, text="late", hold_s=30)
    session.assign(1, job)
    session.until(lambda: session.started, "the job started")
    assert session.next_beat()
    session.until(lambda: session.reports, "the end of the job that lost its lease")

    assert session.reports[0].outcome == common_pb2.ATTEMPT_OUTCOME_LOST
    assert session.reports[0].run_ms < (LEASE_TTL_S + 1) * 1_000


def test_acks_renew(session: Session) -> None:
    """Rule 5: a job that takes longer than the TTL keeps its lease, one heartbeat after another."""
    job = grant(1, text="slow", hold_s=LEASE_TTL_S + 1)
    session.assign(1, job)
    session.until(lambda: session.reports, "a report")

    assert session.reports[0].outcome == COMPLETED


def test_drain(kind: str, tmp_path: Path) -> None:
    """Rule 9: what runs is finished, what comes late is handed back, Goodbye is the last word."""
    running, late = grant(1, text="running", hold_s=1), grant(2, text="late")
    with ScriptedMaster() as master, started(kind, master, tmp_path) as worker:
        session = master.session()
        session.open(1)
        session.assign(1, running)
        session.until(lambda: session.started, "the job started")
        session.say(worker_pb2.SessionResponse(drain=worker_pb2.Drain()))
        session.until(lambda: session.limit == 1, "no credit beyond what was granted")
        session.assign(2, late)
        session.until(lambda: session.returned == [late.job_id], "the late grant handed back")
        worker.send_signal(signal.SIGTERM)
        session.until(lambda: session.reports, "the report of what ran")
        assert not session.goodbye
        session.judge(session.reports[0], worker_pb2.VERDICT_ACCEPTED)
        session.until(lambda: session.goodbye, "a goodbye")

        assert worker.wait(timeout=PATIENCE_S) == 0
