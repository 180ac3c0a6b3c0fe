"""The pick by itself: with more lanes and kinds of workers than a worker serves."""

import random
from dataclasses import replace

import pytest

from tenure.master.core import command as commands
from tenure.master.core.command import Dispatch
from tenure.master.core.ready import order_key
from tenure.master.core.record import JobRecord, Policy
from tenure.protocol.vocabulary import JobState
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.rig import CONFIG, Rig

#: Leases that outlive every pause of these tests.
LASTING = replace(CONFIG, lease_ttl_ms=1 << 40, accept_timeout_ms=1 << 40)
NAMES = [f"n{number}" for number in range(24)]
#: What each session serves: lanes that only one of them sees, and lanes that several do.
SERVED = {1: frozenset(NAMES[::2]), 2: frozenset(NAMES[1:]), 3: frozenset(["n0"])}


def place(record: JobRecord) -> tuple[int, int]:
    """A job's place in its queue."""
    key = order_key(record.priority, record.ready_ms, CONFIG.aging_step_ms)
    return key, record.ordinal


def waiting(rig: Rig, session_id: int) -> list[JobRecord]:
    """What a session could run, in order."""
    jobs = state_of(rig.partition).jobs.values()
    pending = [record for record in jobs if record.state is JobState.PENDING]
    own = [record for record in pending if record.policy.name in SERVED[session_id]]
    return sorted(own, key=place)


@pytest.fixture(params=range(5))
def rig(request: pytest.FixtureRequest) -> Rig:
    """Many lanes of many segments, with equal keys, jobs that came late, and jobs that left."""
    rng = random.Random(request.param)
    rig = Rig(LASTING, audited=False)
    for session_id, names in SERVED.items():
        rig.open_session(session_id, names=tuple(sorted(names)), slots=1_000)
    for _ in range(120):
        # A step of aging is worth a priority, so jobs of different ones have equal keys.
        rig.now_ms += rng.choice((0, 0, CONFIG.aging_step_ms))
        policy = Policy(name=rng.choice(NAMES))
        ids = rig.submit(rng.randint(1, 4), policy, priority=rng.randint(0, 4))
        if rng.random() < 0.3:
            rig.do(commands.CancelJobs(job_ids=rng.sample(ids, 1)))
    return rig


def test_every_job_is_picked_once_and_in_order(rig: Rig) -> None:
    """Each session gets exactly the first jobs of those that it can run, whoever took before."""
    rng = random.Random(7)
    while any(waiting(rig, session_id) for session_id in SERVED):
        session_id, credit = rng.choice(list(SERVED)), rng.randint(1, 40)
        expected = [record.job_id for record in waiting(rig, session_id)[:credit]]
        assert [row.job_id for row in rig.grant(session_id, credit)] == expected
    audit(rig.partition)


def test_a_decision_changes_nothing(rig: Rig) -> None:
    """Asked again, it says the same; so what a decision has taken is kept beside the state."""
    credits = [(session_id, 60) for session_id in SERVED]
    command = Dispatch(
        credits=credits, committed_seq=rig.partition.next_seq - 1, grants_max=1_000_000
    )
    first = rig.decide(command)
    audit(rig.partition)
    assert first.events == rig.decide(command).events
    assert len({job_id for event in first.events for job_id in getattr(event, "job_ids", ())}) > 100
