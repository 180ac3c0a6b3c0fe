"""Tombstones: what they say, how long they stand, what they cost."""

import random
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from tenure.master.core.record import JobRecord, Policy
from tenure.master.core.tombstone import Tombstone, Tombstones
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId, mint
from tenure.protocol.limits import RETRY_WINDOW_MS
from tenure.protocol.vocabulary import AttemptOutcome, JobState

NOW_MS = 1_700_000_000_000


def record_of(job_id: JobId, *, lease: Lease | None = None, result: bytes = b"") -> JobRecord:
    """A job that has ended."""
    return JobRecord(
        job_id=job_id,
        seq=1,
        ordinal=1,
        state=JobState.COMPLETED if lease else JobState.CANCELLED,
        policy=Policy(name="job"),
        priority=5,
        payload=b"",
        key="",
        submitted_ms=0,
        ready_ms=0,
        lease=lease,
        outcome=AttemptOutcome.COMPLETED if lease else None,
        result=result,
    )


@given(
    ids=st.lists(
        st.tuples(st.integers(0, 2_000), st.integers(0, (1 << 62) - 1)), unique=True, max_size=60
    ),
    leases=st.data(),
)
def test_what_was_buried_is_found(ids: list[tuple[int, int]], leases: st.DataObject) -> None:
    """Every tombstone is found with all that it says, packed or not; nothing else is."""
    tombstones = Tombstones()
    buried = {}
    for at_ms, bits in ids:
        job_id = mint(5, NOW_MS + at_ms, bits)
        token = Token(leases.draw(st.integers(1, 9)), leases.draw(st.integers(1, 1 << 60)))
        lease = leases.draw(st.sampled_from([None, Lease(token, 1 << 40, 3)]))
        record = record_of(job_id, lease=lease, result=str(bits).encode())
        tombstones.bury(record, NOW_MS + 5_000, replayed=False)
        buried[job_id] = record
    for job_id, record in buried.items():
        found = tombstones.get(job_id, NOW_MS + 5_000)
        assert isinstance(found, Tombstone)
        assert (found.job_id, found.state, found.lease) == (job_id, record.state, record.lease)
        assert found.outcome is record.outcome
    for at_ms, bits in ids:
        other = mint(5, NOW_MS + at_ms, bits ^ 1)
        assert (tombstones.get(other, NOW_MS) is not None) == (other in buried)


def test_packed_rows_are_found() -> None:
    """Ten thousand tombstones of one bucket and of many are all found after packing."""
    tombstones = Tombstones()
    draw = random.Random(1)
    ids = [mint(0, NOW_MS + n // 5_000 * 300, draw.getrandbits(62)) for n in range(10_000)]
    draw.shuffle(ids)
    for job_id in ids:
        tombstones.bury(record_of(job_id), NOW_MS, replayed=False)
    assert all(tombstones.get(job_id, NOW_MS) for job_id in ids)
    assert sum(1 for _ in tombstones.standing(NOW_MS)) == len(ids)


def test_ids_with_the_same_random_half_are_told_apart() -> None:
    """Ids that differ only in their time lie side by side in a pack, and each is found."""
    tombstones = Tombstones()
    ids = [mint(0, NOW_MS, bits) for bits in range(505)]
    ids += [mint(0, NOW_MS + later, 250) for later in range(1, 8)]
    for number, job_id in enumerate(ids):
        tombstones.bury(record_of(job_id, result=b"r" * number), NOW_MS, replayed=False)
    (bucket,) = tombstones._buckets.values()
    assert not bucket.latest
    found = [tombstones.get(job_id, NOW_MS) for job_id in ids]
    assert [t.job_id for t in found if t is not None] == ids


def test_packs_of_one_bucket_are_merged_like_a_binary_counter() -> None:
    """Each 512 rows make a pack, and a look-up has to search few of them."""
    tombstones = Tombstones()
    sizes = []
    for bits in range(5 * 512):
        tombstones.bury(record_of(mint(0, NOW_MS, bits)), NOW_MS, replayed=False)
        if (bits + 1) % 512 == 0:
            (bucket,) = tombstones._buckets.values()
            assert not bucket.latest
            sizes.append([len(run.keys) for run in bucket.runs])
    assert sizes == [[512], [1_024], [1_024, 512], [2_048], [2_048, 512]]


def test_the_oldest_of_many_buckets_is_packed() -> None:
    """No more than 64 buckets hold rows that are not packed, and those are known."""
    tombstones = Tombstones()
    for number in range(66):
        open_before = [b for b in tombstones._buckets.values() if b.latest]
        assert len(open_before) == min(number, 64)
        assert list(tombstones._unsealed.values()) == [None] * len(open_before)
        tombstones.bury(record_of(mint(0, NOW_MS + 256 * number, 1)), NOW_MS, replayed=False)
    opened = [prefix for prefix, bucket in tombstones._buckets.items() if bucket.latest]
    assert list(tombstones._unsealed) == opened == tombstones.prefixes()[2:]
    assert [len(tombstones.rows(prefix)) for prefix in tombstones.prefixes()] == [1] * 66


def test_buckets_that_are_swept_leave_nothing_behind() -> None:
    """Packed or not, a bucket that goes is forgotten everywhere."""
    tombstones = Tombstones()
    for bits in range(512):
        tombstones.bury(record_of(mint(0, NOW_MS, bits)), NOW_MS, replayed=False)
    tombstones.bury(record_of(mint(0, NOW_MS + 1_000, 1)), NOW_MS, replayed=False)
    gone, opened = tombstones.prefixes()
    assert list(tombstones._unsealed) == [opened]
    tombstones.sweep(NOW_MS + 3_000 + RETRY_WINDOW_MS)
    assert not tombstones.prefixes()
    assert not tombstones._unsealed
    assert tombstones.rows(gone) == []


def test_stands_for_the_retry_window() -> None:
    """A tombstone stands until max(purge, id's time) + 5 min, and is then forgotten."""
    for id_ms, purged_ms in ((NOW_MS, NOW_MS + 70_000), (NOW_MS + 50_000, NOW_MS)):
        tombstones = Tombstones()
        job_id = mint(0, id_ms, 7)
        tombstones.bury(record_of(job_id), purged_ms, replayed=False)
        end_ms = max(id_ms, purged_ms) + RETRY_WINDOW_MS
        assert tombstones.get(job_id, end_ms - 1)
        assert tombstones.get(job_id, end_ms) is None
        assert len(list(tombstones.standing(end_ms - 1))) == 1
        assert not list(tombstones.standing(end_ms))
        tombstones.sweep(end_ms - 1)
        assert tombstones.prefixes()
        tombstones.sweep(end_ms + 256)
        assert not tombstones.prefixes()


def test_sweep_keeps_buckets_with_later_rows() -> None:
    """A bucket goes only when its last tombstone may."""
    tombstones = Tombstones()
    early, late = mint(0, NOW_MS, 1), mint(0, NOW_MS, 2)
    tombstones.bury(record_of(early), NOW_MS, replayed=False)
    tombstones.bury(record_of(late), NOW_MS + 200_000, replayed=False)
    at_ms = NOW_MS + RETRY_WINDOW_MS + 1_000
    tombstones.sweep(at_ms)
    assert tombstones.get(early, at_ms) is None
    assert tombstones.get(late, at_ms) is not None


def test_replayed_tombstone_stands_once() -> None:
    """Tombstones that a snapshot brought, packed or not, are not put up again by the replay."""
    tombstones = Tombstones()
    records = [record_of(mint(0, NOW_MS, bits)) for bits in range(700)]
    for record in records * 2:
        tombstones.bury(record, NOW_MS, replayed=True)
    assert sum(1 for _ in tombstones.standing(NOW_MS)) == len(records)


def test_rows_travel() -> None:
    """Rows loaded elsewhere give the same tombstones."""
    here, there = Tombstones(), Tombstones()
    for bits in range(700):
        here.bury(record_of(mint(0, NOW_MS, bits)), NOW_MS, replayed=False)
    for prefix in here.prefixes():
        for row in here.rows(prefix):
            there.load(row)
    assert sorted(there.standing(NOW_MS)) == sorted(here.standing(NOW_MS))


def test_cost() -> None:
    """A tombstone takes at most 100 bytes when there are many."""
    draw = random.Random(1)
    count = 60_000
    records = [record_of(mint(0, NOW_MS + n // 4, draw.getrandbits(62))) for n in range(count)]
    tracemalloc.start()
    try:
        tombstones = Tombstones()
        before = tracemalloc.get_traced_memory()[0]
        for record in records:
            tombstones.bury(record, NOW_MS + 60_000, replayed=False)
        spent = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert spent / count <= 100
