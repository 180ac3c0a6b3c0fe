"""Batches in the machine's world: one thing is done to many jobs, in slices, while all goes on."""

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition

from tenure.master.core import command as commands
from tenure.master.core.bulk import BatchRecord, BatchSpec
from tenure.master.core.query import Filter
from tenure.protocol.vocabulary import BatchKind, BatchState, JobState
from tests.unit.master.core.almanac import Almanac
from tests.unit.master.core.world import step

#: What is done to which jobs.
MATCHES: Final = {
    BatchKind.CANCEL: Filter(frozenset({JobState.PENDING})),
    BatchKind.REQUEUE: Filter(frozenset({JobState.FAILED, JobState.CANCELLED})),
}


class Batches(Almanac):
    """Rules about batches."""

    @step()
    def create_batch(self) -> None:
        """Somebody wants all jobs cancelled that wait, or requeued that have no result."""
        self.minted += 1
        spec = BatchSpec(kind=list(MATCHES)[self.minted % 2], filter="all of them")
        self.do(commands.CreateBatch(batch_id=f"b{self.minted}", spec=spec, matched=0))

    @precondition(lambda self: self.partition.batches())
    @step(data=st.data(), rows_max=st.integers(1, 3))
    def advance_batch(self, data: st.DataObject, rows_max: int) -> None:
        """The node does some jobs of a batch."""
        batch = data.draw(st.sampled_from(self.partition.batches()))
        self.do(self._next_slice(batch, rows_max))

    def _next_slice(self, batch: BatchRecord, rows_max: int) -> commands.AdvanceBatch:
        wanted = MATCHES[batch.spec.kind]
        scan = self.partition.scan(wanted, before_ordinal=batch.cursor)
        return commands.AdvanceBatch(
            batch_id=batch.batch_id, scan=scan, rows_max=rows_max, looks_max=10
        )

    @precondition(lambda self: self.calm > 10 and self.partition.batches())
    @step(data=st.data())
    def cancel_batch(self, data: st.DataObject) -> None:
        """Somebody stops a batch."""
        batch = data.draw(st.sampled_from(self.partition.batches()))
        self.do(commands.CancelBatch(batch_id=batch.batch_id))

    def heal_batches(self) -> None:
        """The node goes on with those that are under way until they are done."""
        for batch in self.partition.batches():
            # Slices without a match are not journaled: one look goes on through all of them.
            command = self._next_slice(batch, 10)
            while batch.state is BatchState.RUNNING:
                self.do(command)
