"""What is derived, after a replay."""

from tests.unit.master.core.audit import audit
from tests.unit.master.core.test_chunk import recovered


def test_a_large_backlog_is_rebuilt_in_steps() -> None:
    """A leader-to-be can renew its office while it recovers, however much waits."""
    partition, _ = recovered(20_000)
    steps = sum(1 for _ in partition.finish_replay_in_steps())
    assert steps >= 20_000 // 4_096
    assert partition.stats().running == 20_000
    audit(partition)
