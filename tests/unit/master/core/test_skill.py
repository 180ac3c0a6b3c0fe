"""Skills by themselves: what a kind of worker can run, and that nothing is left when it is gone."""

import pytest

from tenure.master.core import command as commands
from tenure.master.core.record import LabelSelector, Policy
from tenure.master.core.settings import QueueSettings, TenantSettings
from tenure.master.core.skill import Skill, satisfies
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig

EU = LabelSelector("region", ("eu", "us"))
GPU = LabelSelector("gpu")


@pytest.mark.parametrize(
    ("labels", "selector", "expected"),
    [
        ({"region": "us"}, EU, True),
        ({"region": "asia"}, EU, False),
        ({"gpu": "eu"}, EU, False),
        ({"gpu": ""}, GPU, True),
        ({}, GPU, False),
    ],
)
def test_labels_satisfy_a_selector(
    labels: dict[str, str], selector: LabelSelector, expected: bool
) -> None:
    """The key must be there, with one of the values if any is named."""
    assert satisfies(labels, selector) is expected


@pytest.mark.parametrize(
    ("queue", "name", "requires", "expected"),
    [
        ("q", "a", (), True),
        ("q", "b", (), False),
        ("other", "a", (), False),
        ("q", "a", (EU,), True),
        ("q", "a", (EU, GPU), False),
    ],
)
def test_a_skill_serves_what_it_names(
    queue: str, name: str, requires: tuple[LabelSelector, ...], expected: bool
) -> None:
    """Its job names, its queues, and all that is asked of its labels."""
    skill = Skill(frozenset({"a"}), frozenset({"q"}), {"region": "eu"})
    assert skill.serves(queue, name, requires) is expected


def test_no_queues_are_all_queues() -> None:
    """A worker that names none serves each, and as many wishes as its labels fulfil."""
    skill = Skill(frozenset({"a"}), frozenset(), {"region": "eu"})
    assert skill.serves("anything", "a")
    assert [skill.fitness(wishes) for wishes in ((), (GPU,), (EU, GPU), (EU, EU))] == [0, 0, 1, 2]


def test_who_comes_late_finds_what_is_there() -> None:
    """Lanes that were there before a kind of worker are served by it, with all that waits."""
    rig = Rig()
    rig.submit(3, Policy(name="a"))
    rig.submit(2, Policy(name="b", queue="other"))
    rig.submit(1, Policy(name="c"))
    rig.open_session(1, names=("a", "b"))
    (skill,) = state_of(rig.partition).lanes.skills()
    assert skill.backlog() == 5
    rig.configure(("default", "other"), QueueSettings(paused=True))
    assert skill.backlog() == 3
    rig.configure(("default",), TenantSettings(paused=True))
    assert skill.backlog() == 0


def test_nothing_hangs_on_a_kind_of_worker_that_is_gone() -> None:
    """Its last session ends: lanes, queues and tenants know no share of it any more."""
    rig = Rig()
    rig.open_session(1)
    rig.open_session(2)
    rig.open_session(3, names=("job", "other"))
    rig.submit(3)
    lanes = state_of(rig.partition).lanes
    (lane,) = lanes.lanes()
    for session_id, left in ((1, 2), (2, 1), (3, 0)):
        rig.do(commands.CloseSession(session_id=session_id))
        assert len(lanes.skills()) == len(lane.places) == left
        assert len(lane.queue.under) == len(lane.queue.tenant.under) == left
    rig.open_session(4)
    assert len(rig.grant(4, 10)) == 3


def test_a_queue_without_jobs_leaves_no_share() -> None:
    """Its last job is forgotten, and so is it; the tenant's others stay."""
    rig = Rig()
    rig.open_session(1)
    (first,) = rig.submit(1, Policy(name="job", tenant="t", queue="a"))
    (second,) = rig.submit(1, Policy(name="job", tenant="t", queue="b"))
    rig.submit(1)
    lanes = state_of(rig.partition).lanes
    (skill,) = lanes.skills()
    for job_id, left in ((first, 2), (second, 1)):
        rig.do(commands.CancelJobs(job_ids=[job_id]))
        rig.do(commands.PurgeJobs(job_ids=[job_id]))
        assert len(skill.shares()) == len(lanes.queues) == left
    assert {share.queue.name for share in skill.shares()} == {"default"}
    assert len(rig.grant(1, 10)) == 1
