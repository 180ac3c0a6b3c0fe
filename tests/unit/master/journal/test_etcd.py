"""The journal in etcd: what it asks of the client, when, and what it says when it is refused.

What comes of lost answers and sick members is stated by the conformance suite; here etcd is its key
space alone, on virtual time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from tenure.etcdapi import etcd_pb2 as pb
from tenure.master.backend.errors import (
    CorruptJournal,
    OfficeLost,
    StoreFull,
    StoreIoError,
    StoreUnavailable,
)
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.errors import Compacted, EtcdError, NoSpace, Refused, Unavailable
from tenure.master.journal import etcd
from tenure.master.journal.etcd import EtcdJournal
from tenure.master.journal.port import HaltRecord, ReplayMark, SealedBatch, SnapshotRef
from tenure.protocol.errors import TenureError
from tenure.protocol.fence import Token
from tenure.protocol.refusal import Reason
from tenure.testing.loop import run_virtual
from tests.unit.master.journal.keyspace import KEYS, STALE, TOKEN, Keyspace, passed


@pytest.fixture
def keyspace() -> Keyspace:
    """A partition with its batch 0 and somebody who leads."""
    return Keyspace()


@pytest.fixture
def journal(keyspace: Keyspace) -> EtcdJournal:
    """Its journal."""
    return EtcdJournal(keyspace, KEYS)  # type: ignore[arg-type]


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """On virtual time."""
    return run_virtual(main)


def batch(number: int, data: bytes = b"") -> SealedBatch:
    """A batch, whatever is in it."""
    return SealedBatch(number=number, data=data or b"batch %d" % number)


async def stored(journal: EtcdJournal, first: int = 0) -> list[SealedBatch]:
    """What is read from a number on."""
    return [found async for found in journal.read(first)]


Call = Callable[[EtcdJournal, Token], Awaitable[object]]

#: Every guarded change, by what it says that it was about to do.
CHANGES: dict[str, Call] = {
    "append batch 1": lambda j, token: j.append(token, batch(1)),
    "write slice 4 of s": lambda j, token: j.write_slice(token, "s", 4, b"data"),
    "publish snapshot s": lambda j, token: j.publish_snapshot(token, "s", b"m"),
    "truncate before batch 0": lambda j, token: j.truncate(token, 0),
    "halt the partition": lambda j, token: j.halt(token, HaltRecord(batch_number=1, detail="d")),
    "mark the replay": lambda j, token: j.mark_replay(token, None),
}
LOOKS: dict[str, Call] = {
    "read": lambda j, _: stored(j),
    "find the last batch": lambda j, _: j.last_number(),
    "read the snapshot's pointer": lambda j, _: j.snapshot_manifest(),
    "read the halt record": lambda j, _: j.halted(),
    "read the replay's mark": lambda j, _: j.replay_mark(),
}


@pytest.mark.parametrize("action", CHANGES)
def test_a_stale_token_is_told_what_it_lacks(journal: EtcdJournal, action: str) -> None:
    """What was about to be done, and under which token."""
    why = f"expected to {action} under token {STALE}, but the office is not its any more"
    with pytest.raises(OfficeLost) as caught:
        run(lambda: CHANGES[action](journal, STALE))  # type: ignore[arg-type, return-value]
    assert caught.value.message == why
    assert caught.value.reason is Reason.FENCED
    assert caught.value.metadata == {"token": str(STALE)}


def _raised(keyspace: Keyspace, error: EtcdError, call: Callable[[], Any]) -> TenureError:
    """What a call raises while etcd ends all of them in this."""
    keyspace.always = error
    with pytest.raises(TenureError) as caught:
        run(call)
    return caught.value


@pytest.mark.parametrize("action", [*CHANGES, *LOOKS])
@pytest.mark.parametrize(
    ("error", "expected", "says"),
    [
        (Refused("no"), StoreIoError, "etcd refused: no"),
        (Unavailable("gone"), StoreUnavailable, "etcd did not do it: gone"),
    ],
)
def test_what_etcd_does_not_do_is_named(
    keyspace: Keyspace,
    journal: EtcdJournal,
    action: str,
    error: EtcdError,
    expected: type[TenureError],
    says: str,
) -> None:
    """Every call says what it was about to do, whether it was refused or never answered."""
    raised = _raised(keyspace, error, lambda: (CHANGES | LOOKS)[action](journal, TOKEN))
    assert type(raised) is expected
    if action.startswith("truncate"):
        action = "find the last batch"
    assert raised.message == f"expected to {action}, but {says}"


@pytest.mark.parametrize(
    ("steps", "action", "call"),
    [
        (1, "find the first batch", lambda j: j.truncate(TOKEN, 1)),
        (2, "truncate before batch 0", lambda j: j.truncate(TOKEN, 0)),
        (2, "truncate before batch 1", lambda j: j.truncate(TOKEN, 1)),
        (0, "read the snapshot's pointer", lambda j: j.load_snapshot()),
        (1, "read the snapshot", lambda j: j.load_snapshot()),
    ],
)
@pytest.mark.parametrize("error", [Refused("no"), Unavailable("gone")])
def test_later_steps_are_named_too(
    keyspace: Keyspace,
    journal: EtcdJournal,
    steps: int,
    action: str,
    call: Callable[[EtcdJournal], Awaitable[object]],
    error: EtcdError,
) -> None:
    """Whichever of a call's steps it is."""
    keyspace.put(KEYS.batch(1))
    keyspace.put(KEYS.snapshot, b"s\0m")
    keyspace.steps = [None] * steps
    assert f"expected to {action}, but" in _raised(keyspace, error, lambda: call(journal)).message


# ---- appending ----------------------------------------------------------------------------------


def test_an_append_is_guarded_and_looks_for_the_reason(
    keyspace: Keyspace, journal: EtcdJournal
) -> None:
    """One transaction; of the batch before only the key is read: it may be large."""
    run(lambda: journal.append(TOKEN, batch(1)))
    ((_, request),) = keyspace.txns
    assert list(request.compare) == [
        *KEYS.guard(TOKEN),
        op.absent(KEYS.batch(1)),
        op.exists(KEYS.batch(0)),
    ]
    assert list(request.success) == [op.put(KEYS.batch(1), b"batch 1")]
    assert list(request.failure) == [
        op.get(KEYS.office),
        op.get(KEYS.epoch),
        op.get(KEYS.batch(1)),
        op.get(KEYS.batch(0), keys_only=True),
    ]


def test_other_changes_look_at_the_office(keyspace: Keyspace, journal: EtcdJournal) -> None:
    """A read makes etcd ask for a majority even where there is nothing to change."""
    run(lambda: journal.truncate(TOKEN, 0))
    ((_, request),) = keyspace.txns
    assert list(request.compare) == KEYS.guard(TOKEN)
    assert list(request.failure) == [op.get(KEYS.office)]


def test_a_number_that_another_has_taken_is_named(keyspace: Keyspace, journal: EtcdJournal) -> None:
    """While this one leads: somebody forged it, or it is the successor's."""
    keyspace.put(KEYS.batch(1), b"another's")
    with pytest.raises(OfficeLost, match="batch 1, but another one has that number") as caught:
        run(lambda: journal.append(TOKEN, batch(1)))
    assert caught.value.reason is Reason.FENCED


def test_a_refusal_without_a_reason_stops_the_process(
    keyspace: Keyspace, journal: EtcdJournal
) -> None:
    """All that was compared holds, and etcd refused: it cannot be trusted."""

    async def refused(_: Any, __: Any, failure: Sequence[pb.RequestOp]) -> pb.TxnResponse:
        look = pb.TxnRequest(success=failure)
        answer = keyspace.mvcc.txn(look, keyspace.mvcc.revision)
        answer.succeeded = False
        return answer

    keyspace.txn = refused  # type: ignore[assignment, method-assign]
    with pytest.raises(StoreIoError, match="batch 1, but etcd refused it without") as caught:
        run(lambda: journal.append(TOKEN, batch(1)))
    assert caught.value.reason is Reason.STORE_IO


def test_a_batch_without_its_predecessor_names_it(journal: EtcdJournal) -> None:
    """Nobody is sending that one: the caller has to."""
    with pytest.raises(StoreUnavailable, match="batch 3, but batch 2 is not stored") as caught:
        run(lambda: journal.append(TOKEN, batch(3)))
    assert caught.value.reason is Reason.STORE_UNAVAILABLE


def test_a_predecessor_that_was_stored_and_is_gone_is_named(
    keyspace: Keyspace, journal: EtcdJournal
) -> None:
    """It is no race: somebody has deleted it."""

    async def main() -> None:
        await journal.append(TOKEN, batch(1))
        keyspace.delete(KEYS.batch(1))
        await journal.append(TOKEN, batch(2))

    with pytest.raises(CorruptJournal) as caught:
        run(main)
    assert caught.value.message == (
        "expected to read batch 1 of partition 3, but it was stored and is gone; nothing was"
        " skipped or deleted"
    )
    assert caught.value.reason is Reason.STORE_CORRUPT
    assert caught.value.metadata == {"partition": "3", "batch": "1"}


def test_batches_in_flight_keep_a_distance(keyspace: Keyspace, journal: EtcdJournal) -> None:
    """Each is sent half a millisecond behind the one before it, without waiting for its answer."""
    keyspace.answer_after_s = [0.02, 0.02, 0.02]

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in (1, 2, 3):
                tasks.create_task(journal.append(TOKEN, batch(number)))

    run(main)
    assert [at_s for at_s, _ in keyspace.txns] == pytest.approx([0, 0.0005, 0.001], abs=1e-7)


def test_a_batch_waits_until_the_one_before_is_sent_again(
    keyspace: Keyspace, journal: EtcdJournal
) -> None:
    """One that was refused is not on its way: whoever follows it would be refused as well."""
    keyspace.answer_after_s = [0.01, 0.02, 0.02, 0.02]

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            # It comes too early: nobody has sent batch 1 yet.
            tasks.create_task(journal.append(TOKEN, batch(2)))
            await passed(0.005)
            tasks.create_task(journal.append(TOKEN, batch(1)))
            await passed(0.006)
            tasks.create_task(journal.append(TOKEN, batch(3)))

    run(main)
    sent = [(round(at_s, 4), r.success[0].request_put.key) for at_s, r in keyspace.txns]
    expected = [(0.0, 2), (0.005, 1), (0.025, 2), (0.0255, 3)]
    assert sent == [(at_s, KEYS.batch(number)) for at_s, number in expected]


def test_appends_return_in_order(keyspace: Keyspace, journal: EtcdJournal) -> None:
    """Though the later answer comes first."""
    keyspace.answer_after_s = [0.05, 0.001]
    returned: list[int] = []

    async def append(number: int) -> None:
        await journal.append(TOKEN, batch(number))
        returned.append(number)

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in (1, 2):
                tasks.create_task(append(number))

    run(main)
    assert returned == [1, 2]


def test_a_batch_that_was_too_early_is_sent_again(keyspace: Keyspace, journal: EtcdJournal) -> None:
    """Its predecessor was stored while its own refusal was on the way."""
    keyspace.answer_after_s = [0.05, 0.001]

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(journal.append(TOKEN, batch(2)))
            await passed(0.01)
            await journal.append(TOKEN, batch(1))

    run(main)
    assert run(lambda: journal.last_number()) == 2


def test_a_batch_that_crossed_the_quota_is_stored(keyspace: Keyspace, journal: EtcdJournal) -> None:
    """Etcd applies the transaction that first crosses it, and then reports it so."""
    keyspace.steps = [(NoSpace("full"),)]
    run(lambda: journal.append(TOKEN, batch(1)))
    assert run(lambda: stored(journal, 1)) == [batch(1)]


@pytest.mark.parametrize("other", [None, b"another's"])
def test_a_batch_without_space_is_not_stored(
    keyspace: Keyspace, journal: EtcdJournal, other: bytes | None
) -> None:
    """What is there, if anything, is not its own."""
    if other:
        keyspace.put(KEYS.batch(1), other)
    keyspace.steps = [NoSpace("full")]
    with pytest.raises(StoreFull, match="append batch 1, but etcd is over its quota"):
        run(lambda: journal.append(TOKEN, batch(1)))


@pytest.mark.parametrize("error", [Refused("no"), Unavailable("gone")])
def test_a_batch_that_cannot_be_read_back_is_unknown(
    keyspace: Keyspace, journal: EtcdJournal, error: EtcdError
) -> None:
    """Whether it crossed the quota cannot be told."""
    keyspace.steps = [NoSpace("full")]
    raised = _raised(keyspace, error, lambda: journal.append(TOKEN, batch(1)))
    assert "expected to read a batch back" in raised.message


# ---- reading ------------------------------------------------------------------------------------


def test_the_ends_of_a_journal_are_found_by_their_keys(
    keyspace: Keyspace, journal: EtcdJournal
) -> None:
    """Not one batch is read for them."""
    for number in (1, 2):
        keyspace.put(KEYS.batch(number))
    assert run(lambda: journal.truncate(TOKEN, 2)) == 2
    end = op.prefix_end(KEYS.batches)
    ask = pb.RangeRequest(key=KEYS.batches, range_end=end, limit=1, keys_only=True)
    last = pb.RangeRequest(sort_order=pb.RangeRequest.DESCEND)
    last.MergeFrom(ask)
    assert keyspace.requests == [last, ask]


def test_a_journal_without_a_batch_is_no_journal(keyspace: Keyspace, journal: EtcdJournal) -> None:
    """Whoever looks for its ends hears that batch 0 is missing."""
    keyspace.delete(KEYS.batch(0))
    with pytest.raises(CorruptJournal, match=r"batch 0 of .* there is no batch at all") as caught:
        run(lambda: journal.last_number())
    assert caught.value.metadata == {"partition": "3", "batch": "0"}
    keyspace.put(KEYS.batch(0))
    keyspace.steps = [None, lambda: keyspace.delete(KEYS.batch(0))]
    with pytest.raises(CorruptJournal, match=r"batch 0 of .* there is no batch at all"):
        run(lambda: journal.truncate(TOKEN, 1))


def test_a_gap_says_what_is_there_instead(keyspace: Keyspace, journal: EtcdJournal) -> None:
    """The number that is missing, and the next one."""
    keyspace.put(KEYS.batch(2))
    with pytest.raises(CorruptJournal, match=r"batch 1 of .* but the next one there is 2"):
        run(lambda: stored(journal))


@pytest.mark.parametrize(("bytes_each", "second"), [(99, 10), (100, 9), (1, 32), (5_000, 1)])
def test_pages_grow_to_what_a_page_may_hold(
    keyspace: Keyspace,
    journal: EtcdJournal,
    monkeypatch: pytest.MonkeyPatch,
    bytes_each: int,
    second: int,
) -> None:
    """By the mean of those on the last page, at most twofold; all pages are of one moment."""
    monkeypatch.setattr(etcd, "_PAGE_BYTES", 1_000)
    monkeypatch.setattr(etcd, "_PAGE_MAX", 40)
    for number in range(160):
        keyspace.put(KEYS.batch(number), bytes(bytes_each))
    revision = keyspace.mvcc.revision
    keyspace.steps = [None, lambda: keyspace.put(KEYS.batch(160))]
    assert len(run(lambda: stored(journal))) == 160
    asked = keyspace.ranges
    assert all(type(limit) is int for _, limit, _ in asked)
    assert [limit for _, limit, _ in asked[:2]] == [16, second]
    assert max(limit for _, limit, _ in asked) == (40 if second == 32 else 16)
    assert [at for _, _, at in asked] == [0] + [revision] * (len(asked) - 1)
    assert asked[1][0] == KEYS.batch(15) + b"\0"


def test_a_page_that_is_not_answered_is_asked_for_in_halves(
    keyspace: Keyspace, journal: EtcdJournal
) -> None:
    """Perhaps it was too much for one deadline."""
    for number in range(7):
        keyspace.put(KEYS.batch(number))
    keyspace.steps = [Unavailable("slow")] * 5
    assert len(run(lambda: stored(journal))) == 7
    asked = [limit for _, limit, _ in keyspace.ranges]
    assert asked == [16, 8, 4, 2, 1, 1, 2, 4]
    assert all(type(limit) is int for limit in asked)


# ---- snapshots ----------------------------------------------------------------------------------


def _published(keyspace: Keyspace, name: bytes, manifest: bytes) -> None:
    """Another has published a snapshot of one slice."""
    keyspace.delete(KEYS.slices, op.prefix_end(KEYS.slices))
    keyspace.put(KEYS.slice(name.decode(), 0), b"slice of " + name)
    keyspace.put(KEYS.snapshot, name + b"\0" + manifest)


def test_a_snapshot_is_read_as_of_one_moment(keyspace: Keyspace, journal: EtcdJournal) -> None:
    """One that is published behind its pointer's read does not take its slices away."""
    _published(keyspace, b"old", b"m\0n")
    keyspace.steps = [None, lambda: _published(keyspace, b"new", b"m")]
    old = SnapshotRef(manifest=b"m\0n", slices=[b"slice of old"])
    assert run(lambda: journal.load_snapshot()) == old
    with pytest.raises(OfficeLost, match="s, but another was published since") as caught:
        run(lambda: journal.publish_snapshot(TOKEN, "s", b"m"))
    assert caught.value.reason is Reason.FENCED


@pytest.mark.parametrize("see", [EtcdJournal.load_snapshot, EtcdJournal.snapshot_manifest])
def test_a_snapshot_that_was_seen_can_be_replaced(
    keyspace: Keyspace, journal: EtcdJournal, see: Callable[[EtcdJournal], Any]
) -> None:
    """None, or another's; however it was seen, and by whom it was published."""

    async def main() -> None:
        assert await see(journal) is None
        await journal.publish_snapshot(TOKEN, "first", b"m")
        await journal.publish_snapshot(TOKEN, "second", b"m")
        _published(keyspace, b"other", b"m\0n")
        seen = await see(journal)
        assert (seen.manifest if isinstance(seen, SnapshotRef) else seen) == b"m\0n"
        await journal.publish_snapshot(TOKEN, "third", b"m")
        keyspace.delete(KEYS.snapshot)
        assert await see(journal) is None
        await journal.publish_snapshot(TOKEN, "fourth", b"m")

    run(main)


@pytest.mark.parametrize("how", ["crossed the quota", "published before"])
def test_a_snapshot_that_is_there_is_published(
    keyspace: Keyspace, journal: EtcdJournal, how: str
) -> None:
    """Its own bytes are in place; and the next one can follow it."""

    async def main() -> None:
        if how == "crossed the quota":
            keyspace.steps = [(NoSpace("full"),)]
        else:
            keyspace.put(KEYS.snapshot, b"s\0m")
        await journal.publish_snapshot(TOKEN, "s", b"m")
        await journal.publish_snapshot(TOKEN, "next", b"m")
        assert await journal.snapshot_manifest() == b"m"

    run(main)


@pytest.mark.parametrize("other", [None, b"other\0m"])
def test_a_snapshot_without_space_is_not_published(
    keyspace: Keyspace, journal: EtcdJournal, other: bytes | None
) -> None:
    """The one that is there, if any, stays."""
    if other:
        keyspace.put(KEYS.snapshot, other)
    keyspace.steps = [NoSpace("full")]
    with pytest.raises(StoreFull, match="publish snapshot s, but etcd is over its quota"):
        run(lambda: journal.publish_snapshot(TOKEN, "s", b"m"))
    keyspace.steps = [NoSpace("full"), Refused("no")]
    with pytest.raises(StoreIoError, match="publish snapshot s, but"):
        run(lambda: journal.publish_snapshot(TOKEN, "s", b"m"))


# ---- truncation and marks -----------------------------------------------------------------------


def test_a_truncation_goes_upwards_in_portions(
    keyspace: Keyspace, journal: EtcdJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Etcd applies a delete at one go; at the end it may forget what was deleted."""
    monkeypatch.setattr(etcd, "_DELETE_MAX", 3)
    for number in range(1, 9):
        keyspace.put(KEYS.batch(number))
    assert run(lambda: journal.truncate(TOKEN, 7)) == 7
    deletes = [request.success[0].request_delete_range for _, request in keyspace.txns]
    assert [delete.range_end for delete in deletes] == [KEYS.batch(n) for n in (3, 6, 7)]
    assert keyspace.compactions == [keyspace.mvcc.revision]
    assert [found.number for found in run(lambda: stored(journal, 7))] == [7, 8]


@pytest.mark.parametrize("error", [Refused("no"), Compacted("done")])
def test_a_compaction_that_fails_is_told_and_made_up_for(
    keyspace: Keyspace,
    journal: EtcdJournal,
    caplog: pytest.LogCaptureFixture,
    error: EtcdError,
) -> None:
    """What was truncated is gone all the same; one that was made already is no failure."""
    keyspace.put(KEYS.batch(1))
    keyspace.steps = [None, None, None, error]
    assert run(lambda: journal.truncate(TOKEN, 1)) == 1
    if isinstance(error, Compacted):
        assert not caplog.records
        return
    (record,) = caplog.records
    revision = keyspace.mvcc.revision
    assert record.getMessage() == f"etcd was not compacted to revision {revision}: no"
    assert (record.levelno, record.__dict__["action"]) == (logging.WARNING, "compact")


def test_what_is_said_of_a_partition_is_read_back(journal: EtcdJournal) -> None:
    """Why it was halted and how far its replay was, as written last."""

    async def main() -> None:
        assert await journal.halted() is None
        assert await journal.replay_mark() is None
        record = HaltRecord(batch_number=9, detail="why")
        await journal.halt(TOKEN, record)
        assert await journal.halted() == record
        for mark in (ReplayMark(crashes=1, seq=2), ReplayMark(crashes=2, seq=70), None):
            await journal.mark_replay(TOKEN, mark)
            assert await journal.replay_mark() == mark

    run(main)


def test_a_mark_that_comes_late_is_none(keyspace: Keyspace, journal: EtcdJournal) -> None:
    """Etcd had it from the recovery's begin, and applied it when the recovery had ended."""

    async def main() -> None:
        await journal.mark_replay(TOKEN, ReplayMark(crashes=0))
        (late,) = keyspace.txns
        await journal.append(TOKEN, batch(1))
        await journal.mark_replay(TOKEN, None)
        keyspace.mvcc.txn(late[1], keyspace.mvcc.revision)
        assert keyspace.mvcc.get(KEYS.replay, 99) is not None
        assert await journal.replay_mark() is None

    run(main)
