"""Batches in the machine's world: one thing is done to many jobs, in slices, while all goes on."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition

from tenure.master.core import command as commands
from tenure.master.core.bulk import BatchSpec
from tenure.master.core.query import Filter
from tenure.protocol.vocabulary import BatchKind, JobState
from tests.unit.master.core.almanac import Almanac
from tests.unit.master.core.world import step

PENDING = Filter(frozenset({JobState.PENDING}))


class Batches(Almanac):
    """Rules about batches."""

    @step()
    def create_batch(self) -> None:
        """Somebody wants all jobs cancelled that wait."""
        spec = BatchSpec(kind=BatchKind.CANCEL, filter="state = PENDING", reason="all of them")
        self.minted += 1
        self.do(commands.CreateBatch(batch_id=f"b{self.minted}", spec=spec, matched=0))

    @precondition(lambda self: self.partition.batches())
    @step(data=st.data(), rows_max=st.integers(1, 3))
    def advance_batch(self, data: st.DataObject, rows_max: int) -> None:
        """The node does some jobs of a batch."""
        batch = data.draw(st.sampled_from(self.partition.batches()))
        scan = self.partition.scan(PENDING, before_ordinal=batch.cursor)
        self.do(
            commands.AdvanceBatch(
                batch_id=batch.batch_id, scan=scan, rows_max=rows_max, looks_max=10
            )
        )

    @precondition(lambda self: self.calm > 10 and self.partition.batches())
    @step(data=st.data())
    def cancel_batch(self, data: st.DataObject) -> None:
        """Somebody stops a batch."""
        batch = data.draw(st.sampled_from(self.partition.batches()))
        self.do(commands.CancelBatch(batch_id=batch.batch_id))
