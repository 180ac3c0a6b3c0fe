"""S6: the journal oracle passes a whole store and refuses each corrupted one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import google_crc32c
import msgspec
import pytest

from tenure.v1.common_pb2 import Token
from tenure.v1.journal_pb2 import JournalBatch, SnapshotManifest
from tests.oracles.journal import (
    BatchDeleted,
    BatchWritten,
    Change,
    OfficeTaken,
    OfficeVacated,
    SnapshotPublished,
    check_chain,
    check_journal,
)

FIRST, SECOND = 10, 20


def seal(number: int, revision: int, first_seq: int, events: int, before: bytes) -> bytes:
    """A batch as the store has it."""
    body = JournalBatch(
        format=1,
        partition=0,
        token=Token(epoch=1, revision=revision),
        number=number,
        first_seq=first_seq,
        event_count=events,
        previous_hash=hashlib.blake2b(before, digest_size=16).digest() if before else b"",
        events=msgspec.msgpack.encode([["event", index] for index in range(events)]),
    ).SerializeToString(deterministic=True)
    return body + bytes([10 << 3 | 5]) + int(google_crc32c.value(body)).to_bytes(4, "little")


def batches() -> list[bytes]:
    """Batch 0 of the bootstrap, two of the first term, two of the second."""
    chain = [seal(0, 0, 1, 0, b"")]
    for number, revision, seq, events in (
        (1, FIRST, 1, 2),
        (2, FIRST, 3, 1),
        (3, SECOND, 4, 1),
        (4, SECOND, 5, 3),
    ):
        chain.append(seal(number, revision, seq, events, chain[-1]))
    return chain


def manifest(first_batch: int, last_seq: int, revision: int = SECOND) -> bytes:
    """A snapshot's manifest."""
    return SnapshotManifest(
        format=1,
        snapshot_id="s",
        first_batch=first_batch,
        last_seq=last_seq,
        token=Token(epoch=1, revision=revision),
    ).SerializeToString()


def changes() -> list[Change]:
    """Two terms; the second publishes a snapshot and truncates what it replaces."""
    zero, one, two, three, four = batches()
    return [
        BatchWritten(1, 0, 0, True, zero),
        OfficeTaken(FIRST, 0, 1),
        BatchWritten(11, 0, 1, True, one),
        BatchWritten(12, 0, 2, True, two),
        OfficeVacated(15, 0),
        OfficeTaken(SECOND, 0, 1),
        BatchWritten(21, 0, 3, True, three),
        SnapshotPublished(22, 0, manifest(3, 4)),
        BatchDeleted(23, 0, 0),
        BatchDeleted(23, 0, 1),
        BatchDeleted(23, 0, 2),
        BatchWritten(24, 0, 4, True, four),
    ]


def test_whole_store_passes() -> None:
    """Every change keeps the rules; so does what is left, and each partition by itself."""
    assert check_journal(changes()) == []
    assert check_chain(0, batches()) == []
    assert check_chain(0, batches()[2:]) == []


def lose_a_batch(found: list[Change]) -> None:
    """Batch 2 never came, and the journal went on."""
    del found[3]


def duplicate_a_batch(found: list[Change]) -> None:
    """Batch 2 was put again over itself."""
    found.insert(4, BatchWritten(13, 0, 2, False, batches()[2]))


def reorder_batches(found: list[Change]) -> None:
    """Batch 2 came before batch 1."""
    found[2], found[3] = found[3], found[2]


def write_after_successor(found: list[Change]) -> None:
    """A batch of the first term came after the second had begun."""
    zombie = seal(4, FIRST, 5, 3, batches()[3])
    found[11] = BatchWritten(24, 0, 4, True, zombie)


def write_while_vacant(found: list[Change]) -> None:
    """The first term wrote a batch after its key was gone."""
    found[3], found[4] = found[4], found[3]


def fall_back_to_an_old_token(found: list[Change]) -> None:
    """The second term's token is below the first one's."""
    found[5] = OfficeTaken(FIRST - 5, 0, 1)


def begin_beside_another(found: list[Change]) -> None:
    """The second term began with the first one's key still there."""
    del found[4]


def break_the_chain(found: list[Change]) -> None:
    """Batch 4 carries another batch's hash."""
    found[11] = BatchWritten(24, 0, 4, True, seal(4, SECOND, 5, 3, batches()[2]))


def skip_a_seq(found: list[Change]) -> None:
    """Batch 4 begins one seq too late."""
    found[11] = BatchWritten(24, 0, 4, True, seal(4, SECOND, 6, 3, batches()[3]))


def repeat_a_seq(found: list[Change]) -> None:
    """A blind retry with the same seq in a new batch."""
    found[11] = BatchWritten(24, 0, 4, True, seal(4, SECOND, 4, 3, batches()[3]))


def flip_a_byte(found: list[Change]) -> None:
    """One byte of batch 4's events differs."""
    data = bytearray(batches()[4])
    data[-10] ^= 1
    found[11] = BatchWritten(24, 0, 4, True, bytes(data))


def delete_the_last_batch(found: list[Change]) -> None:
    """A truncation left nothing to find the end by."""
    found.append(BatchDeleted(25, 0, 4))


def delete_what_nothing_replaces(found: list[Change]) -> None:
    """A truncation came without its snapshot."""
    del found[7]


def delete_for_a_term_that_is_over(found: list[Change]) -> None:
    """A deposed leader truncates late: its own snapshot replaces what it deletes."""
    found.insert(4, SnapshotPublished(13, 0, manifest(2, 3, FIRST)))
    del found[8]
    del found[10]


def delete_while_vacant(found: list[Change]) -> None:
    """A zombie deleted when nobody held the office."""
    found.insert(9, OfficeVacated(22, 0))


def publish_as_a_zombie(found: list[Change]) -> None:
    """The first term's snapshot was published in the second."""
    found[7] = SnapshotPublished(22, 0, manifest(3, 4, FIRST))


def publish_what_is_not_committed(found: list[Change]) -> None:
    """The snapshot shows an event of a batch that is still to come."""
    found[7] = SnapshotPublished(22, 0, manifest(3, 5))


CORRUPTIONS: list[Callable[[list[Change]], None]] = [
    lose_a_batch,
    duplicate_a_batch,
    reorder_batches,
    write_after_successor,
    write_while_vacant,
    fall_back_to_an_old_token,
    begin_beside_another,
    break_the_chain,
    skip_a_seq,
    repeat_a_seq,
    flip_a_byte,
    delete_the_last_batch,
    delete_what_nothing_replaces,
    delete_for_a_term_that_is_over,
    delete_while_vacant,
    publish_as_a_zombie,
    publish_what_is_not_committed,
]


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: str(corrupt.__name__))
def test_corrupted_store_is_refused(corrupt: Callable[[list[Change]], None]) -> None:
    """One lost, doubled, reordered, forged or damaged entry, each alone, is found."""
    corrupted = changes()
    corrupt(corrupted)

    assert {violation.invariant for violation in check_journal(corrupted)} == {"S6"}


def test_corrupted_remains_are_refused() -> None:
    """What a store at rest keeps is judged by the same rules."""
    kept = batches()

    assert check_chain(0, [kept[0], kept[1], kept[3], kept[4]]) != []
    assert check_chain(0, [kept[0], kept[2], kept[1], *kept[3:]]) != []
    assert check_chain(0, [*kept, kept[-1]]) != []
    assert check_chain(1, kept) != []
