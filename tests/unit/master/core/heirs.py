"""Who comes after a master: replays of its journal, and a standby that follows it all along.

A replay of all, one from a snapshot on, and a standby that takes over must know the same, and begin
a term alike.
"""

from tenure.master.core import command as commands
from tenure.master.core.effect import Decision
from tenure.master.core.partition import Partition
from tests.unit.master.core.audit import audit, gates, holdings, state_of
from tests.unit.master.core.batches import Batches
from tests.unit.master.core.world import CONFIG, JOURNAL


class Heirs(Batches):
    """Replays, and what must come of them."""

    def __init__(self) -> None:
        super().__init__()
        #: What another master makes of the journal meanwhile.
        self.standby = self.replayed([])

    def follow(self) -> None:
        """A standby reads on to what has committed; once it has caught up it keeps all derived."""
        for seq in range(self.standby.next_seq, self.committed + 1):
            self.standby.replay(JOURNAL.decode(self.journal[seq - 1])[0], seq)
        self.standby.pass_time()
        assert not self.standby.drain_answers()
        for command in (
            commands.FireTimers(rows_max=100, jitter=[0.5]),
            commands.ResolveDependents(rows_max=100),
        ):
            decision = self.standby.decide(command, self.now_ms)
            assert isinstance(decision, Decision)
            assert not decision.events
            assert not decision.effects

    def take_over(self, window_ms: int) -> None:
        """The standby reads the rest of the journal and leads; another one follows it then."""
        standby, self.standby = self.standby, self.replayed(self.journal[: self.committed // 2])
        for seq in range(standby.next_seq, len(self.journal) + 1):
            standby.replay(JOURNAL.decode(self.journal[seq - 1])[0], seq)
        standby.finish_replay()
        self.partition = standby
        audit(standby)
        cold = self.replayed(self.journal)
        self.compare(cold)
        assert holdings(standby) == holdings(cold)
        self.open_term(window_ms)
        cold.apply(JOURNAL.decode(self.journal[-1])[0])
        audit(cold)
        assert gates(state_of(standby)) == gates(state_of(cold))

    def replayed(self, journal: list[bytes]) -> Partition:
        """What a replay of all makes of a journal."""
        partition = Partition(CONFIG)
        for seq, data in enumerate(journal, 1):
            partition.replay(JOURNAL.decode(data)[0], seq)
        partition.finish_replay()
        return partition

    def recovered(self) -> Partition:
        """What a replay makes of the slices of a snapshot and of what was journaled since."""
        partition = Partition(CONFIG)
        for part in self.slices:
            partition.load_slice(part)
        for seq, data in enumerate(self.journal, 1):
            if seq > self.snapshot_from:
                partition.replay(JOURNAL.decode(data)[0], seq)
        partition.finish_replay()
        return partition

    def compare(self, other: Partition) -> None:
        """Both know the same."""
        audit(other)
        assert other.state_hash() == self.partition.state_hash()
        assert other.next_seq == self.partition.next_seq
        assert other.counts() == self.partition.counts()
        assert other.stats() == self.partition.stats()
