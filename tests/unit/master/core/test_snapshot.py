"""Snapshots taken while the partition goes on, loaded with the rest of the journal."""

from collections.abc import Callable

import msgspec
import pytest

from tenure.master.core import command as commands
from tenure.master.core.event import DurableEvent
from tenure.master.core.partition import Partition
from tenure.master.core.record import JobFault, Policy
from tenure.master.core.snapshot import SnapshotCursor, UnknownSlice
from tenure.master.core.state import State
from tenure.protocol.fence import Token
from tenure.protocol.vocabulary import AttemptOutcome
from tests.unit.master.core.audit import audit, state_of
from tests.unit.master.core.rig import START_MS, Rig

_JOURNAL = msgspec.msgpack.Decoder(list[DurableEvent])


def recovered(rig: Rig, slices: list[bytes], first_seq: int) -> Partition:
    """A partition from slices and the journal from ``first_seq`` on."""
    partition = Partition(rig.config)
    for data in slices:
        partition.load_slice(msgspec.msgpack.decode(data))
    for seq, data in enumerate(rig.journal, 1):
        if seq >= first_seq:
            partition.replay(_JOURNAL.decode(data)[0], seq)
    partition.finish_replay()
    audit(partition)
    return partition


def take(cursor: SnapshotCursor, rows_max: int) -> bytes | None:
    """The next slice as the journal stores it."""
    part = cursor.next_slice(rows_max)
    return None if part is None else msgspec.msgpack.encode(part)


def _life(rig: Rig, round_: int) -> None:
    """Something of everything happens."""
    rig.now_ms += 1_000
    policy = Policy(name="job", labels=(("round", str(round_ % 3)),), key_window_ms=3_000)
    ids = rig.submit(6, policy, key=f"k{round_ % 2}" if round_ % 2 else "", payload=b"\x00\xff")
    rows = rig.grant(1, 4)
    for row, outcome in zip(rows, AttemptOutcome, strict=False):
        fault = None if outcome is AttemptOutcome.COMPLETED else JobFault("E", "message")
        rig.report(row, outcome, fault=fault)
    rig.renew(1, 1_000)
    rig.do(commands.CancelJobs(job_ids=ids[:1]))
    ended = [r.job_id for r in rig.partition.scan().take(9, 1_000) if r.state >= 6]
    rig.do(commands.PurgeJobs(job_ids=ended[:2]))
    rig.pass_time(10)


def test_a_replay_tells_the_changes_that_were_told_live() -> None:
    """Whoever watched before a failover is told the same by the successor, snapshot or not."""
    rig = Rig()
    rig.partition.watch_changes(True)
    rig.open_session(1)
    for round_ in range(4):
        _life(rig, round_)
    cursor = rig.partition.snapshot()
    first_seq = rig.partition.next_seq
    slices = []
    while (data := take(cursor, 5)) is not None:
        slices.append(data)
        _life(rig, 9)
    snapshot_seq = rig.partition.next_seq - 1
    for round_ in range(4):
        _life(rig, round_)
    told = rig.partition.drain_changes()
    assert len({change.state for change in told}) > 5
    for begin, parts, after_seq in ((1, [], 0), (first_seq, slices, snapshot_seq)):
        partition = Partition(rig.config)
        for data in parts:
            partition.load_slice(msgspec.msgpack.decode(data))
        partition.watch_changes(True)
        for seq, data in enumerate(rig.journal[begin - 1 :], begin):
            partition.replay(_JOURNAL.decode(data)[0], seq)
        found = [change for change in partition.drain_changes() if change.seq > after_seq]
        assert found == [change for change in told if change.seq > after_seq]
        assert found


@pytest.mark.parametrize("rows_max", [1, 3, 1_000])
@pytest.mark.parametrize("behind", [0, 5])
def test_fuzzy_snapshot_and_the_rest_equal_the_live_state(rows_max: int, behind: int) -> None:
    """Slices taken between commands, and the events since they began, give the live state."""
    rig = Rig()
    rig.open_session(1)
    for round_ in range(8):
        _life(rig, round_)
    first_seq = rig.partition.next_seq - behind
    cursor = rig.partition.snapshot()
    slices = []
    round_ = 8
    while (data := take(cursor, rows_max)) is not None:
        slices.append(data)
        if round_ < 40:
            _life(rig, round_)
            round_ += 1
    for _ in range(3):
        _life(rig, round_)
    other = recovered(rig, slices, first_seq)
    assert other.state_hash() == rig.partition.state_hash()
    assert other.counts() == rig.partition.counts()
    assert other.stats() == rig.partition.stats()
    assert other.stamp_ms == rig.partition.stamp_ms


def test_whole_life_between_the_slices() -> None:
    """A job that came and went while the snapshot was taken has one tombstone, and is no job."""
    rig = Rig()
    rig.submit(3)
    cursor = rig.partition.snapshot()
    first_seq = rig.partition.next_seq
    slices = [take(cursor, 1)]
    (job_id,) = rig.submit(1, key="k")
    rig.do(commands.CancelJobs(job_ids=[job_id]))
    rig.do(commands.PurgeJobs(job_ids=[job_id]))
    while (data := take(cursor, 1)) is not None:
        slices.append(data)
    other = recovered(rig, [data for data in slices if data], first_seq)
    assert other.state_hash() == rig.partition.state_hash()


def test_an_event_writes_those_that_are_still_there() -> None:
    """A replayed event passes over jobs that the snapshot shows gone, not over those after them."""
    rig = Rig()
    rig.open_session(1)
    ended, running = rig.submit(2), rig.submit(2)
    rig.do(commands.CancelJobs(job_ids=ended))
    rows = rig.grant(1, 2)
    cursor = rig.partition.snapshot()
    first_seq = rig.partition.next_seq
    slices = [take(cursor, 1) for _ in range(2)]
    rig.do(commands.PurgeJobs(job_ids=ended[::-1]))
    slices.append(take(cursor, 1))
    rig.do(commands.CancelJobs(job_ids=running[::-1]))
    rig.report(rows[1], AttemptOutcome.CANCELLED)
    rig.do(commands.PurgeJobs(job_ids=running[1:]))
    while (data := take(cursor, 1)) is not None:
        slices.append(data)
    other = recovered(rig, [data for data in slices if data], first_seq)
    assert list(state_of(other).jobs) == running[:1]
    assert other.state_hash() == rig.partition.state_hash()


def test_tombstones_in_the_snapshot_and_in_the_journal_are_one() -> None:
    """Jobs that were purged while the snapshot was taken have one tombstone each, packed or not."""
    rig = Rig()
    ids = rig.submit(700)
    rig.do(commands.CancelJobs(job_ids=ids))
    cursor = rig.partition.snapshot()
    first_seq = rig.partition.next_seq
    slices = [take(cursor, 1_000) for _ in range(2)]
    rig.do(commands.PurgeJobs(job_ids=ids))
    while (data := take(cursor, 1_000)) is not None:
        slices.append(data)
    other = recovered(rig, [data for data in slices if data], first_seq)
    assert other.state_hash() == rig.partition.state_hash()


def test_slices_are_bounded() -> None:
    """A slice has about as many rows as it was asked for."""
    rig = Rig()
    rig.submit(25)
    cursor = rig.partition.snapshot()
    sizes = []
    while (part := cursor.next_slice(10)) is not None:
        if part[0] == "jobs":
            sizes.append(len(part[2]))
    assert sizes == [10, 10, 5]


@pytest.mark.parametrize(("rows_max", "slices"), [(0, 5), (1, 5), (2, 3), (5, 1)])
def test_every_key_is_in_one_slice(rows_max: int, slices: int) -> None:
    """Keys come in slices of as many as were asked for, at least one, and none is forgotten."""
    rig = Rig()
    for number in range(5):
        rig.submit(1, Policy(name="job", key_window_ms=60_000), key=f"k{number}")
    cursor = rig.partition.snapshot()
    parts = []
    while (part := cursor.next_slice(rows_max)) is not None:
        parts.append(part)
    assert [part[0] for part in parts].count("keys") == slices
    other = Partition(rig.config)
    for part in parts:
        other.load_slice(part)
    assert other.state_hash() == rig.partition.state_hash()


def test_recovered_partition_goes_on() -> None:
    """After recovery the same commands come to the same events as in the live partition."""
    rig = Rig()
    rig.open_session(1)
    for round_ in range(5):
        _life(rig, round_)
    cursor = rig.partition.snapshot()
    slices = []
    while (data := take(cursor, 100)) is not None:
        slices.append(data)
    other = recovered(rig, slices, rig.partition.next_seq)
    assert other.next_seq == rig.partition.next_seq
    rig.partition = other
    rig.open_term()
    rig.open_session(2)
    assert rig.grant(2, 100)
    assert rig.replayed().state_hash() == rig.partition.state_hash()


def test_hash_tells_states_apart() -> None:
    """Any persistent difference changes the hash."""
    rig = Rig()
    seen = {rig.partition.state_hash()}
    rig.open_session(1)
    assert rig.partition.state_hash() in seen
    (job_id,) = rig.submit(1, key="k")
    for step in (
        lambda: rig.grant_one(),
        lambda: rig.do(commands.CancelJobs(job_ids=[job_id])),
        lambda: rig.renew(1, 1),
        lambda: rig.do(commands.PurgeJobs(job_ids=[job_id])),
    ):
        step()
        assert rig.partition.state_hash() not in seen
        seen.add(rig.partition.state_hash())


def _more_tombstones(state: State) -> None:
    state.tombstones.bury(next(iter(state.jobs.values())), START_MS, replayed=False)


def _other_key(state: State) -> None:
    (name,) = state.keys._records
    state.keys._records[name] = state.keys._records[name]._replace(until_ms=START_MS + 9_999)


@pytest.mark.parametrize(
    "differ",
    [
        lambda state: setattr(state, "next_seq", state.next_seq + 1),
        lambda state: setattr(state, "next_ordinal", state.next_ordinal + 1),
        lambda state: setattr(state, "stamp_ms", state.stamp_ms + 1),
        lambda state: setattr(state, "token", Token(9, 9)),
        lambda state: setattr(next(iter(state.jobs.values())), "payload", b"other"),
        lambda state: state.jobs.popitem(),
        lambda state: state.keys._records.clear(),
        _other_key,
        _more_tombstones,
    ],
)
def test_hash_covers_all_that_is_persistent(differ: Callable[[State], object]) -> None:
    """Two states whose counters, jobs, keys or tombstones differ have two hashes of 128 bits."""
    rig = Rig()
    rig.submit(2, Policy(name="job", key_window_ms=60_000), key="k")
    before = rig.partition.state_hash()
    assert len(before) == 16
    differ(state_of(rig.partition))
    assert rig.partition.state_hash() != before


def test_unknown_slice_is_refused() -> None:
    """A slice of an unknown kind stops the recovery."""
    with pytest.raises(UnknownSlice, match="known kind"):
        Partition(Rig().config).load_slice(["riddle", 1])
