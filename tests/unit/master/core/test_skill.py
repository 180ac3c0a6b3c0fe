"""Skills by themselves: what a kind of worker can run, and that nothing is left when it is gone."""

import pytest

from tenure.master.core import command as commands
from tenure.master.core.record import LabelSelector, Policy
from tenure.master.core.settings import QueueSettings, TenantSettings
from tenure.master.core.skill import Skill, satisfies
from tenure.protocol.vocabulary import FairBy
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


def test_what_is_taken_counts_for_the_tenant_and_for_its_queue() -> None:
    """For the tenant a job is one, for its queue what it costs; each by its weight."""
    rig = Rig()
    rig.configure(("default",), TenantSettings(weight=2.0))
    rig.configure(("default", "q"), QueueSettings(weight=4.0, fair_by=FairBy.TIME))
    rig.open_session(1)
    rig.submit(1, Policy(name="job", queue="q"))
    lanes = state_of(rig.partition).lanes
    (skill,), queue = lanes.skills(), lanes.queues["default", "q"]
    queue.mean_run_ms = 2_000
    skill.charge(queue, 40)
    share = skill.known_share(queue)
    assert share is not None
    assert (share.tenant.tag, share.tag) == (20.0, 20.0)
    assert (skill.level.virtual, share.tenant.level.virtual) == (16.0, 16.0)
    for cost, debt in ((6.0, 1.5), (-2.0, 1.0)):
        skill.owe(queue, cost)
        assert share.debt == debt
    heir = Skill(frozenset({"job"}), frozenset(), {})
    assert heir.known_share(queue) is None
    heir.inherit(skill)
    own = heir.known_share(queue)
    assert own is not None
    assert own is not share
    assert (own.tag, own.debt, own.tenant.tag) == (20.0, 1.0, 20.0)
    assert (heir.level.virtual, own.tenant.level.virtual) == (16.0, 16.0)
    assert heir.shares() == [own]
    other = lanes.queue("another", "q")
    assert heir.known_share(other) is None


def test_a_queue_that_is_forgotten_leaves_its_tenants_others() -> None:
    """With a tenant's last queue its share goes, too; what is not known is nobody's."""
    rig = Rig()
    for tenant, queue in (("t", "a"), ("t", "b"), ("u", "a")):
        rig.submit(1, Policy(name="job", tenant=tenant, queue=queue))
    lanes = state_of(rig.partition).lanes
    first, second, third = lanes.queues.values()
    skill = Skill(frozenset({"job"}), frozenset(), {})
    shares = [skill.share_of(queue) for queue in (first, second)]
    assert skill.share_of(first) is shares[0]
    assert skill.shares() == shares
    under = (first.under, first.tenant.under, third.tenant.under)
    assert [len(held) for held in under] == [1, 1, 0]
    skill.forget(third)
    skill.forget(first)
    assert skill.shares() == shares[1:]
    assert len(second.tenant.under) == 1
    skill.forget(second)
    assert skill.shares() == []
    assert len(second.tenant.under) == 0
    skill.share_of(second)
    skill.end()
    assert (len(second.under), len(second.tenant.under)) == (1, 0)
