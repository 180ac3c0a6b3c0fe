"""Framing: what was sealed opens again, and nothing that was changed since does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.backend.errors import CorruptJournal, FormatTooNew
from tenure.master.journal import frame
from tenure.master.journal.frame import Chain
from tenure.master.journal.port import SealedBatch, SnapshotRef
from tenure.protocol.fence import Token
from tenure.v1 import journal_pb2

TOKEN = Token(1, 7)


def _journal(count: int, partition: int = 3) -> list[SealedBatch]:
    chain = Chain.start(partition)
    batches = [chain.seal(token=Token(1, 0), stamp_ms=0, events=b"\x90", event_count=0)]
    for number in range(1, count):
        events = b"\x91" + bytes([number])
        batches.append(chain.seal(token=TOKEN, stamp_ms=number, events=events, event_count=2))
    return batches


def _follow(batches: list[SealedBatch], partition: int = 3) -> Chain:
    chain = Chain.start(partition)
    for batch in batches:
        chain.follow(batch)
    return chain


def test_a_reader_ends_where_the_writer_ended() -> None:
    """After following a journal, the next batch connects as if the writer had gone on."""
    writer = Chain.start(3)
    for number in range(4):
        writer.seal(token=TOKEN, stamp_ms=number, events=b"\x91" + bytes([number]), event_count=2)
    reader = Chain.start(3)
    again = Chain.start(3)
    for number in range(4):
        sealed = again.seal(
            token=TOKEN, stamp_ms=number, events=b"\x91" + bytes([number]), event_count=2
        )
        record = reader.follow(sealed)
        assert (record.number, record.first_seq, record.event_count) == (number, 2 * number + 1, 2)
        assert record.events == b"\x91" + bytes([number])
        assert record.stamp_ms == number
    assert reader == writer == again
    assert reader.next_seq == 9


def test_genesis_starts_a_chain() -> None:
    """Batch 0 is whole, empty, and the first seq after it is 1."""
    batch = frame.genesis(5, Token(1, 0), 123)
    chain = Chain.start(5)
    record = chain.follow(batch)
    assert (batch.number, record.event_count, record.stamp_ms) == (0, 0, 123)
    assert (chain.number, chain.next_seq) == (1, frame.FIRST_SEQ)


@given(data=st.data())
def test_every_flipped_bit_is_found(data: st.DataObject) -> None:
    """One flipped bit anywhere in a batch stops the reader at that batch."""
    batches = _journal(4)
    victim = data.draw(st.integers(0, 3))
    raw = bytearray(batches[victim].data)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    batches[victim] = SealedBatch(number=victim, data=bytes(raw))
    with pytest.raises(CorruptJournal, match=f"batch {victim} of partition 3") as caught:
        _follow(batches)
    assert caught.value.metadata["batch"] == str(victim)


@given(cut=st.integers(0, 40))
def test_a_torn_batch_is_found(cut: int) -> None:
    """A batch whose end is missing is refused, down to no bytes at all."""
    batches = _journal(3)
    whole = batches[2].data
    batches[2] = SealedBatch(number=2, data=whole[: min(cut, len(whole) - 1)])
    with pytest.raises(CorruptJournal, match="checksum"):
        _follow(batches)


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ([0, 2], "place"),
        ([0, 1, 1], "place"),
        ([1], "place"),
    ],
)
def test_gap_and_repetition_are_found(order: list[int], why: str) -> None:
    """Batches out of their places are refused by number."""
    batches = _journal(4)
    with pytest.raises(CorruptJournal, match=why):
        _follow([batches[number] for number in order])


def test_a_batch_of_another_history_is_found() -> None:
    """A whole batch with the right number, but after other batches, breaks the hash chain."""
    other = Chain.start(3)
    other.seal(token=Token(1, 0), stamp_ms=99, events=b"\x90", event_count=0)
    foreign = other.seal(token=TOKEN, stamp_ms=1, events=b"\x91\x01", event_count=2)
    with pytest.raises(CorruptJournal, match="previous hash"):
        _follow([_journal(1)[0], foreign])


def test_a_batch_of_another_partition_is_found() -> None:
    """Partitions cannot be mixed up."""
    with pytest.raises(CorruptJournal, match="partition"):
        _follow(_journal(2), partition=4)


def test_a_falling_token_is_found() -> None:
    """No batch may be of an older term than the one before it."""
    chain = Chain.start(0)
    batches = [
        chain.seal(token=token, stamp_ms=0, events=b"\x90", event_count=0)
        for token in (Token(1, 0), Token(1, 9), Token(1, 8))
    ]
    with pytest.raises(CorruptJournal, match=r"its token 1\.8 is older than 1\.9"):
        _follow(batches, partition=0)


def test_a_skipped_seq_is_found() -> None:
    """Events are contiguous across batches."""
    chain = Chain.start(0)
    first = chain.seal(token=TOKEN, stamp_ms=0, events=b"\x90", event_count=0)
    chain.next_seq = 5
    second = chain.seal(token=TOKEN, stamp_ms=0, events=b"\x90", event_count=0)
    with pytest.raises(CorruptJournal, match="first seq"):
        _follow([first, second], partition=0)


def test_a_newer_format_is_no_corruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a newer release wrote is told apart from damage."""
    monkeypatch.setattr(frame, "FORMAT", 2)
    batches = _journal(2)
    monkeypatch.undo()
    with pytest.raises(FormatTooNew, match="upgrade this master"):
        _follow(batches)


def test_the_record_is_one_message() -> None:
    """Other readers can parse a batch as the message of the contract, checksum included."""
    record = journal_pb2.JournalBatch.FromString(_journal(2)[1].data)
    assert record.crc32c != 0
    assert record.token.revision == 7


def _snapshot() -> SnapshotRef:
    slices = [frame.seal_slice(0, "s", index, b"\x91" + bytes([index])) for index in range(3)]
    manifest = frame.seal_manifest(
        partition=0,
        snapshot_id="s",
        slice_count=3,
        first_batch=12,
        previous_hash=b"h" * 16,
        last_seq=99,
        token=TOKEN,
        stamp_ms=5,
    )
    return SnapshotRef(manifest=manifest, slices=slices)


def test_a_snapshot_opens_again() -> None:
    """A whole snapshot gives its records, and the chain that goes on after it."""
    snapshot = frame.open_snapshot(0, _snapshot())
    assert snapshot.slices == [b"\x91\x00", b"\x91\x01", b"\x91\x02"]
    chain = Chain.after_snapshot(snapshot.manifest)
    assert (chain.number, chain.previous_hash, chain.next_seq) == (12, b"h" * 16, None)
    with pytest.raises(ValueError, match="no batch was read yet"):
        chain.seal(token=TOKEN, stamp_ms=0, events=b"\x90", event_count=0)


def test_the_first_batch_after_a_snapshot_says_its_seq() -> None:
    """A fuzzy snapshot does not know the seq of its first batch; that batch does."""
    batches = _journal(4)
    chain = Chain.start(3)
    chain.number, chain.next_seq, chain.previous_hash = 2, None, frame.hash_of(batches[1].data)
    assert chain.follow(batches[2]).first_seq == 3
    assert chain.next_seq == 5


def test_damaged_snapshots_are_refused() -> None:
    """A flipped bit, a missing slice, slices in the wrong order, another partition's: all found."""
    whole = _snapshot()
    flipped = bytearray(whole.slices[1])
    flipped[4] ^= 1
    for slices, why in (
        ([whole.slices[0], bytes(flipped), whole.slices[2]], "slice 1 of snapshot s"),
        (whole.slices[:2], "2 of its 3 slices"),
        ([whole.slices[1], whole.slices[0], whole.slices[2]], "slice 0 of snapshot s"),
    ):
        with pytest.raises(CorruptJournal, match=why):
            frame.open_snapshot(0, SnapshotRef(manifest=whole.manifest, slices=slices))
    with pytest.raises(CorruptJournal, match="it is partition 0's"):
        frame.open_snapshot(1, whole)
