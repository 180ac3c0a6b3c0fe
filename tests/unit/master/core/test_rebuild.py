"""What is derived, after a replay."""

import pytest

from tenure.master.core import command as commands
from tenure.master.core import rebuild
from tenure.master.core.command import SubmitRow, SubmitSetting
from tenure.master.core.record import Policy
from tests.unit.master.core.audit import audit
from tests.unit.master.core.planner import put
from tests.unit.master.core.rig import Rig
from tests.unit.master.core.test_chunk import replaying


def steps_of(rig: Rig) -> int:
    """In how many steps a successor recovers."""
    partition = rig.replaying()
    steps = sum(1 for _ in partition.finish_replay_in_steps())
    audit(partition)
    return steps


def test_a_large_backlog_is_rebuilt_in_steps() -> None:
    """A leader-to-be can renew its office while it recovers, however much waits."""
    partition, _ = replaying(20_000)
    steps = sum(1 for _ in partition.finish_replay_in_steps())
    assert steps >= 20_000 // 512
    assert partition.stats().running == 20_000
    audit(partition)


def test_many_small_events_are_rebuilt_in_steps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits, and what has ended, comes in portions, however few jobs each event wrote; so do
    schedules.
    """
    monkeypatch.setattr(rebuild, "_STEP_ROWS", 8)
    rig = Rig()
    few = steps_of(rig)
    groups = [rig.submit(2) for _ in range(8)]
    assert steps_of(rig) == few + 2 + 2
    for group in groups:
        rig.do(commands.CancelJobs(job_ids=group))
    assert steps_of(rig) == few + 2 + 2
    for number in range(15):
        put(rig, name=f"s{number}")
    assert steps_of(rig) == few + 2 + 2 + 1


def test_what_one_event_made_ready_goes_back_to_where_it_was() -> None:
    """Jobs of other names and queues, too, that stood at one place of the order."""
    rig = Rig()
    policies = [Policy(name=name, queue=queue) for name in ("a", "b") for queue in ("q", "r")]
    settings = [SubmitSetting(policy, 5, 0, 0) for policy in policies]
    rows = [SubmitRow(rig.mint(), index % 4, b"", "") for index in range(8)]
    rig.do(commands.SubmitJobs(settings=settings, rows=rows))
    rig.crash(window_ms=0)
    rig.open_session(1, names=("a",), queues=("r",))
    assert [row.job_id for row in rig.grant(1, 9)] == [rows[1].job_id, rows[5].job_id]
