"""What the garbage collector finds: nothing, for a master stands still while it looks."""

import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import LeaseRow
from tenure.master.core.config import Retention
from tenure.master.core.effect import SendAssignment
from tenure.master.core.event import JobsPurged
from tenure.master.core.record import JobFault, LabelSelector, Policy
from tenure.master.core.settings import QueueSettings
from tenure.protocol.vocabulary import AttemptOutcome
from tests.unit.master.core.rig import CONFIG, Rig, held, leases_of, report_row

#: Finished jobs are purged while it goes on.
SHORTLY_KEPT = replace(CONFIG, retention=Retention(completed_ms=50, failed_ms=50))
FAULT = JobFault("app.Error", "it broke")
#: Sessions, what they serve and where they are.
SERVED = {1: ("job",), 2: ("job", "other"), 3: ("job", "wish")}
LIMITED = Policy(name="other", queue="limited")
WISHING = Policy(name="wish", prefers=(LabelSelector("disk", ("ssd",)),))


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Workers of three skills; the collector runs only when it is asked to."""
    rig = Rig(SHORTLY_KEPT, audited=False)
    rig.configure(("default", "limited"), QueueSettings(concurrency=5))
    for session_id, names in SERVED.items():
        rig.open_session(session_id, names=names, slots=20, labels={"disk": f"d{session_id}"})
    gc.disable()
    yield rig
    gc.enable()


def live_a_round(rig: Rig) -> None:
    """All kinds of jobs come, are granted, are renewed, end in all ways, and are purged."""
    rig.submit(30)
    rig.submit(5, limit_key="key")
    rig.submit(5, sticky_key="cache")
    rig.submit(5, WISHING)
    rig.submit(8, LIMITED)
    rig.submit(2, delay_ms=10)
    doomed = rig.submit(2)
    rig.do(commands.CancelJobs(job_ids=doomed))
    for session_id in SERVED:
        # All three compete, one with more room than the others.
        credits = [(other, 14 if other == session_id else 4) for other in SERVED]
        for effect in rig.dispatch(*credits).effects:
            if isinstance(effect, SendAssignment):
                live_with(rig, effect.session_id, leases_of([effect]))
    rig.pass_time(100)


def live_with(rig: Rig, session_id: int, rows: list[LeaseRow]) -> None:
    """A worker runs some jobs: of ten it hands one back, fails one and completes the others."""
    rig.start(*rows, session_id=session_id)
    rig.renew(session_id, 0, *map(held, rows))
    rig.give_back(*rows[::10], session_id=session_id)
    reports = [report_row(row) for row in rows]
    reports[1::10] = [report_row(row, AttemptOutcome.FAILED, fault=FAULT) for row in rows[1::10]]
    del reports[::10]
    jitter = [0.5] * len(reports)
    rig.do(commands.ReportAttempts(session_id=session_id, rows=reports, jitter=jitter))


def test_a_life_of_jobs_leaves_no_cyclic_garbage(rig: Rig) -> None:
    """What was made for a decision is gone with it, without the collector."""
    for _ in range(3):
        live_a_round(rig)
    gc.collect()
    for _ in range(20):
        live_a_round(rig)
    assert gc.collect() == 0
    purged = [event for event in rig.events() if isinstance(event, JobsPurged)]
    assert len(purged) > 20, "no job was ever forgotten"
