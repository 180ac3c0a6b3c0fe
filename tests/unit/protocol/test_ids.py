"""Job ids: what their text says, however they are minted."""

import random

import pytest

from tenure.protocol.ids import is_job_id, mint, mint_many, partition_of, time_ms_of
from tenure.protocol.limits import PARTITIONS_MAX

NOW_MS = 1_760_000_000_123


@pytest.mark.parametrize("count", [0, 1, 1_000])
@pytest.mark.parametrize("partition", [0, 7, PARTITIONS_MAX - 1])
def test_ids_of_a_batch_are_ids_like_any_other(count: int, partition: int) -> None:
    """Each is canonical and its own, and names the partition and the time."""
    ids = mint_many(partition, NOW_MS, count, random.Random(5).getrandbits)
    assert len(set(ids)) == len(ids) == count
    assert all(map(is_job_id, ids))
    assert {(partition_of(i), time_ms_of(i)) for i in ids} <= {(partition, NOW_MS)}


@pytest.mark.parametrize("bit", [0, 1, 63])
def test_ids_of_a_batch_use_all_random_bits(bit: int) -> None:
    """The 62 bits that are not the variant come through as they were drawn, zeros in front too."""
    drawn = 1 << bit
    (minted,) = mint_many(3, NOW_MS, 1, lambda _: drawn)
    assert minted == mint(3, NOW_MS, drawn)


def test_no_batch_is_minted_for_a_partition_that_cannot_be() -> None:
    """A number that does not fit into the id is refused."""
    with pytest.raises(ValueError, match="partition"):
        mint_many(PARTITIONS_MAX, NOW_MS, 1, random.Random(5).getrandbits)
