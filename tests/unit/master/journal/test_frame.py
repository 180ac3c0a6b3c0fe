"""Framing: what was sealed opens again, and nothing that was changed since does."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import pytest
from google_crc32c import value as crc32c
from hypothesis import given
from hypothesis import strategies as st

from tenure.master.backend.errors import CorruptJournal, FormatTooNew
from tenure.master.journal import frame
from tenure.master.journal.frame import Chain
from tenure.master.journal.port import SealedBatch, SnapshotRef
from tenure.protocol.fence import NO_TOKEN, Token
from tenure.protocol.refusal import Reason
from tenure.v1 import common_pb2, journal_pb2

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


def test_a_newer_format_is_no_corruption() -> None:
    """What a newer release wrote is told apart from damage."""
    batches = _journal(1)
    newer = frame.FORMAT + 1
    batches.append(
        _follow(batches).seal(token=TOKEN, stamp_ms=1, events=b"\x90", event_count=0, format_=newer)
    )
    with pytest.raises(FormatTooNew, match="upgrade this master") as caught:
        _follow(batches)
    assert caught.value.reason is Reason.FORMAT_TOO_NEW
    assert caught.value.metadata == {"partition": "3", "format": str(newer)}


def test_the_record_is_one_message() -> None:
    """Other readers can parse a batch as the message of the contract, checksum included."""
    record = journal_pb2.JournalBatch.FromString(_journal(2)[1].data)
    assert record.crc32c != 0
    assert record.token.revision == 7


def _snapshot() -> SnapshotRef:
    slices = [frame.seal_slice(2, "s", index, b"\x91" + bytes([index])) for index in range(3)]
    manifest = frame.seal_manifest(
        partition=2,
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
    snapshot = frame.open_snapshot(2, _snapshot())
    assert snapshot.slices == [b"\x91\x00", b"\x91\x01", b"\x91\x02"]
    chain = Chain.after_snapshot(snapshot.manifest)
    assert chain == Chain(
        partition=2, number=12, next_seq=None, previous_hash=b"h" * 16, token=NO_TOKEN
    )
    with pytest.raises(ValueError, match="no batch was read yet"):
        chain.seal(token=TOKEN, stamp_ms=0, events=b"\x90", event_count=0)


def test_a_snapshots_records_are_messages() -> None:
    """Other readers can parse slices and manifest as the messages of the contract."""
    stored = _snapshot()
    record = journal_pb2.SnapshotSlice.FromString(stored.slices[1])
    record.ClearField("crc32c")
    assert record == journal_pb2.SnapshotSlice(
        format=frame.FORMAT, partition=2, snapshot_id="s", index=1, records=b"\x91\x01"
    )
    manifest = journal_pb2.SnapshotManifest.FromString(stored.manifest)
    manifest.ClearField("crc32c")
    assert manifest == journal_pb2.SnapshotManifest(
        format=frame.FORMAT,
        partition=2,
        snapshot_id="s",
        slice_count=3,
        first_batch=12,
        previous_hash=b"h" * 16,
        last_seq=99,
        token=common_pb2.Token(epoch=1, revision=7),
        stamp_ms=5,
    )


def test_the_first_batch_after_a_snapshot_says_its_seq() -> None:
    """A fuzzy snapshot does not know the seq of its first batch; that batch does."""
    batches = _journal(4)
    chain = Chain.start(3)
    chain.number, chain.next_seq, chain.previous_hash = 2, None, frame.hash_of(batches[1].data)
    assert chain.follow(batches[2]).first_seq == 3
    assert chain.next_seq == 5


@contextmanager
def refused(partition: int, record: str, batch: int, why: str) -> Iterator[None]:
    """Expects the error that stops a reader: it names the record, the place, and the reason."""
    with pytest.raises(CorruptJournal) as caught:
        yield
    error = caught.value
    said = f"expected to read {record} of partition {partition}, but {why}; nothing was skipped"
    assert str(error).startswith(said)
    assert error.reason is Reason.STORE_CORRUPT
    assert error.metadata == {
        "partition": str(partition),
        "record": record,
        "batch": str(batch),
    }


def test_damaged_snapshots_are_refused() -> None:
    """A flipped bit, a missing slice, slices in the wrong order, another partition's: all found."""
    whole = _snapshot()
    flipped = bytearray(whole.slices[1])
    flipped[4] ^= 1
    first, second, third = whole.slices
    for slices, record, why in (
        ([first, bytes(flipped), third], "slice 1 of snapshot s", "its checksum is wrong"),
        ([first, second], "snapshot s", "it has 2 of its 3 slices"),
        ([second, first, third], "slice 0 of snapshot s", "it is slice 1 of s, partition 2"),
    ):
        with refused(2, record, 12, why):
            frame.open_snapshot(2, SnapshotRef(manifest=whole.manifest, slices=slices))
    with refused(1, "the snapshot's manifest", 12, "it is partition 2's"):
        frame.open_snapshot(1, whole)
    with refused(2, "the snapshot's manifest", 0, "its checksum is wrong"):
        frame.open_snapshot(2, SnapshotRef(manifest=whole.manifest[1:], slices=whole.slices))


def test_a_record_of_nothing_is_refused() -> None:
    """The right checksum of no bytes is no manifest of an empty snapshot."""
    nothing = frame._seal(journal_pb2.SnapshotManifest())
    with refused(0, "the snapshot's manifest", 0, "its checksum is wrong"):
        frame.open_snapshot(0, SnapshotRef(manifest=nothing, slices=[]))


def test_other_bytes_with_the_right_checksum_are_refused() -> None:
    """What is no message at all is told as such, by the place it lies at."""
    trailer = journal_pb2.JournalBatch(crc32c=1).SerializeToString()[:1]
    body = b"\xff\xff\xff"
    other = body + trailer + crc32c(body).to_bytes(4, "little")
    chain = _follow(_journal(2))
    with refused(3, "batch 2", 2, "it is no record of a journal"):
        chain.follow(SealedBatch(number=2, data=other))


def test_what_does_not_connect_is_named() -> None:
    """Each way in which a whole batch can be the wrong one is told, with what should be there."""
    batches = _journal(3)
    misplaced = SealedBatch(number=4, data=batches[2].data)
    with refused(3, "batch 2", 2, "its place is 4 where 2 should be"):
        _follow([*batches[:2], misplaced])
    renumbered = SealedBatch(number=2, data=batches[1].data)
    with refused(3, "batch 2", 2, "its number is 1 where 2 should be"):
        _follow([*batches[:2], renumbered])
    with refused(4, "batch 0", 0, "its partition is 3 where 4 should be"):
        _follow(batches, partition=4)
    chain = Chain.start(3)
    fallen = [
        chain.seal(token=token, stamp_ms=0, events=b"\x90", event_count=0)
        for token in (Token(1, 9), Token(1, 8))
    ]
    why = "its token 1.8 is older than 1.9, the one of the batch before it"
    with refused(3, "batch 1", 1, why):
        _follow(fallen)


def test_the_chain_begins_with_nothing_and_goes_on_with_short_hashes() -> None:
    """Batch 0 has no predecessor; the others hold 128 bits of theirs."""
    first, second = (journal_pb2.JournalBatch.FromString(b.data) for b in _journal(2))
    assert first.previous_hash == b""
    assert second.previous_hash == blake2b(_journal(1)[0].data, digest_size=16).digest()
    assert (first.format, second.format) == (frame.FORMAT, frame.FORMAT)
    genesis = journal_pb2.JournalBatch.FromString(frame.genesis(3, TOKEN, 0).data)
    assert (genesis.events, genesis.format) == (b"\x90", 1)
