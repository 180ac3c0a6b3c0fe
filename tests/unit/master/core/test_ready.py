"""The ready order by itself: lanes, skills and the pick, with more of them than a worker serves."""

import random
from collections.abc import Iterator

from tenure.master.core import command as commands
from tenure.master.core.ready import Lane, Lanes, Skill, pick
from tenure.master.core.record import JobRecord, Policy
from tenure.protocol.vocabulary import JobState
from tests.unit.master.core.audit import state_of
from tests.unit.master.core.rig import Rig

NO_QUEUES: frozenset[str] = frozenset()
#: Entries of jobs that have left, beyond as many as there are jobs, before they are dropped.
GONE_MAX = 1_024


class Everybody:
    """Takes all jobs that somebody with credit can run.

    Args:
        skills: All that there are.
        broke: Those without credit.
    """

    def __init__(self, skills: list[Skill], broke: tuple[Skill, ...] = ()) -> None:
        self._skills = skills
        self._broke = broke

    def skills(self) -> list[Skill]:
        return self._skills

    def has_credit(self, skill: Skill) -> bool:
        return skill not in self._broke

    def wants(self, lane: Lane) -> int:
        return 1_000_000

    def is_met(self) -> bool:
        return False


def job(ordinal: int, name: str = "a", seq: int = 1) -> JobRecord:
    """A PENDING job."""
    return JobRecord(
        job_id=f"job-{ordinal}",
        seq=seq,
        ordinal=ordinal,
        state=JobState.PENDING,
        policy=Policy(name=name),
        priority=5,
        payload=b"",
        key="",
        submitted_ms=0,
        ready_ms=0,
    )


def skill_of(lanes: Lanes, *names: str) -> Skill:
    """Whoever runs these."""
    return lanes.enlist(frozenset(names), NO_QUEUES)


def picked(demand: Everybody) -> Iterator[JobRecord]:
    """All jobs that are picked, one by one."""
    for _, run in pick(demand, 1 << 40):
        yield from run


def test_every_job_is_picked_once_and_in_order() -> None:
    """Over many lanes of many segments, that share keys and are seen through several skills."""
    rng = random.Random(7)
    names = [f"n{number}" for number in range(24)]
    for _ in range(20):
        lanes = Lanes()
        skills = [skill_of(lanes, *names[::2]), skill_of(lanes, *names[1:]), skill_of(lanes, "n0")]
        expected = []
        ordinals = rng.sample(range(1, 1_000), 480)
        for seq in range(1, 121):
            key, name = rng.randrange(6), rng.choice(names)
            own = sorted(ordinals.pop() for _ in range(rng.randint(1, 4)))
            records = [job(ordinal, name, seq) for ordinal in own]
            lanes.push(lanes.of(records[0].policy), key, seq, records)
            expected += [(key, record.ordinal) for record in records]
        got = list(picked(Everybody(skills)))
        assert [record.ordinal for record in got] == [ordinal for _, ordinal in sorted(expected)]


def test_jobs_of_several_lanes_that_alternate_are_picked_in_order() -> None:
    """Each run ends where another lane's next job comes in; what follows in its segment is next."""
    lanes = Lanes()
    skill = skill_of(lanes, "a", "b")
    records = [job(ordinal, "ab"[ordinal % 2], ordinal // 8) for ordinal in range(8, 80)]
    for seq in range(1, 10):
        for name in "ab":
            part = [r for r in records if r.seq == seq and r.policy.name == name]
            lanes.push(lanes.of(part[0].policy), 5, seq, part)
    assert list(picked(Everybody([skill]))) == records


def test_a_skill_without_credit_stops_nobody_else() -> None:
    """Its jobs would be first; the others' are picked all the same."""
    lanes = Lanes()
    first, second = skill_of(lanes, "a"), skill_of(lanes, "b")
    lanes.push(lanes.of(Policy(name="a")), 1, 1, [job(1, "a")])
    lanes.push(lanes.of(Policy(name="b")), 2, 2, [job(2, "b", 2)])
    demand = Everybody([first, second], broke=(first,))
    assert [record.ordinal for record in picked(demand)] == [2]


def test_a_new_queue_is_served_by_who_named_it() -> None:
    """A lane that comes after its worker is found by its queue and its name."""
    rig = Rig()
    rig.open_session(1, queues=("bulk",))
    rig.submit_one()
    job_id = rig.submit_one(Policy(name="job", queue="bulk"))
    assert [row.job_id for row in rig.grant(1, 10)] == [job_id]


def test_a_lane_drops_entries_of_jobs_that_left_from_its_midst() -> None:
    """Once there are many more of them than jobs, and not before; the order stays as it is."""
    rig = Rig()
    rig.open_session(1)
    ids = rig.submit(GONE_MAX + 6)
    (lane,) = state_of(rig.partition).lanes.queues["default", "default"].values()
    kept = [ids[0], ids[500], ids[-1]]
    rig.do(commands.CancelJobs(job_ids=[job_id for job_id in ids if job_id not in kept]))
    assert lane.entries == len(ids)
    rig.do(commands.CancelJobs(job_ids=[kept.pop(1)]))
    assert lane.entries == 2
    assert [row.job_id for row in rig.grant(1, 10)] == kept


def test_a_skill_drops_entries_of_fronts_that_were_overtaken() -> None:
    """Once there are many more of them than lanes, and not before; the order stays as it is."""
    lanes = Lanes()
    skill = skill_of(lanes, "a", "b")
    overtaken = lanes.of(Policy(name="b"))
    lanes.push(overtaken, GONE_MAX + 10, 1, [job(1, "b")])
    lanes.push(lanes.of(Policy(name="a")), 1, 2, [job(2, "a", 2)])
    for ordinal in range(3, GONE_MAX + 5):
        lanes.push(overtaken, GONE_MAX + 10 - ordinal, ordinal, [job(ordinal, "b", ordinal)])
    assert len(skill.fronts) == GONE_MAX + 4
    lanes.push(overtaken, 2, 5_000, [job(5_000, "b", 5_000)])
    assert [entry[:3] for entry in skill.fronts] == [(1, 2, 2), (2, 5_000, 5_000)]
    assert [record.ordinal for record in picked(Everybody([skill]))][:3] == [2, 5_000, GONE_MAX + 4]
