"""What probes are told."""

import pytest

from tenure.master.node.health import Health
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tests.unit.master.node.term_rig import leading

PARTITION = "tenure.partition.0"


def test_a_partition_is_served_while_its_leader_can_prove_its_office() -> None:
    """Neither a frozen leader nor one that was deposed is said to serve; the process lives on."""

    async def main() -> None:
        async with leading() as rig:
            health = Health(rig.roster)
            assert health.serves(PARTITION)
            rig.office.answers = False
            await SimClock().sleep(6_000)
            assert health.serves(PARTITION) is False
            rig.office.answers = True
            await SimClock().sleep(1_000)
            assert health.serves(PARTITION)
            rig.abandon()
            assert health.serves(PARTITION) is False
            assert health.serves("")
            assert health.serves("liveness")

    run_virtual(main)


def test_a_partition_is_not_served_during_its_hand_over() -> None:
    """A term that closes takes nothing more."""

    async def main() -> None:
        async with leading() as rig:
            health = Health(rig.roster)
            rig.term.closing = True
            assert health.serves(PARTITION) is False

    run_virtual(main)


def test_ready_means_that_the_store_answers_and_that_it_does_not_end() -> None:
    """An end in order flips readiness, never liveness: nobody should restart what ends."""

    async def main() -> None:
        async with leading() as rig:
            health = Health(rig.roster)
            assert health.serves("readiness") is False
            health.store_answers = True
            assert health.serves("readiness")
            health.stopping = True
            assert health.serves("readiness") is False
            assert health.serves("liveness")

    run_virtual(main)


@pytest.mark.parametrize(
    "name",
    ["tenure", "tenure.partition.1", "tenure.partition.00", "tenure.partition.", "READINESS"],
)
def test_other_names_are_unknown(name: str) -> None:
    """A misspelt probe fails at once, instead of saying that nothing serves."""

    async def main() -> None:
        async with leading() as rig:
            assert Health(rig.roster).serves(name) is None

    run_virtual(main)


def test_a_name_of_many_digits_is_no_partition() -> None:
    """Anybody may ask: a number that Python refuses to read is answered as any other name is."""

    async def main() -> None:
        async with leading() as rig:
            assert Health(rig.roster).serves("tenure.partition." + "9" * 5_000) is None

    run_virtual(main)
