"""A seat's life around its terms."""

import asyncio
import random

from tenure.master.backend.errors import OfficeLost
from tenure.master.core.config import PartitionConfig
from tenure.master.election.port import Candidate
from tenure.master.node.hub import WorkerHub
from tenure.master.node.roster import Roster
from tenure.master.node.seat import Seat, Surroundings
from tenure.master.node.trace import Trace
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tests.unit.master.node.fakes import FakeOffice, settle


class WonElection:
    """Gives an office to whoever asks."""

    def __init__(self) -> None:
        self.campaigns = 0

    async def campaign(self) -> FakeOffice:
        self.campaigns += 1
        return FakeOffice()


class HangingJournal:
    """Never answers; says that the office is lost when it is no longer waited for."""

    async def halted(self) -> None:
        return None

    async def load_snapshot(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OfficeLost("lost at the same moment") from None


def _seat(election: WonElection) -> Seat:
    clock = SimClock()
    me = Candidate(incarnation="i", name="m", address="127.0.0.1:1")
    roster = Roster(cluster_id="c", partitions=1, me=me, clock=clock)
    around = Surroundings(
        roster=roster,
        hub=WorkerHub(),
        clock=clock,
        rng=random.Random(1),
        trace=Trace(None, clock),
        announce=lambda event, fields: None,
        config=lambda partition: PartitionConfig(partition=partition, partitions=1),
    )
    return Seat(
        partition=0,
        election=election,  # type: ignore[arg-type]
        journal=HangingJournal(),  # type: ignore[arg-type]
        around=around,
    )


def test_a_cancelled_seat_ends_even_if_its_office_is_lost_at_that_moment() -> None:
    """A cancellation that arrives together with an error ends the seat: it campaigns no more."""

    async def main() -> None:
        election = WonElection()
        async with asyncio.TaskGroup() as tasks:
            seat = tasks.create_task(_seat(election).run())
            await settle()
            assert election.campaigns == 1
            seat.cancel()
            await settle()
            ended, campaigns = seat.done(), election.campaigns
            seat.cancel()
        assert (ended, campaigns) == (True, 1)

    run_virtual(main, limit_s=60)
