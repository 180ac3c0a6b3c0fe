"""The commit gate."""

import asyncio
import json
from pathlib import Path

import pytest

from tenure.master.backend.errors import OfficeLost, StoreFull, StoreUnavailable
from tenure.master.journal.codec import decode_events
from tenure.master.journal.frame import Chain
from tenure.master.node.trace import Trace
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.v1 import journal_pb2
from tests.unit.master.node.fakes import TOKEN, HeldJournal, event, make_gate, settle


def test_what_waits_goes_into_one_batch() -> None:
    """While a batch commits, all that comes meanwhile becomes the next one (group commit)."""

    async def main() -> None:
        journal = HeldJournal()
        gate = make_gate(journal)
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(gate.run())
            gate.add(event("a"))
            await settle()
            for text in "bcd":
                gate.add(event(text))
            await settle()
            assert len(journal.batches) == 1
            await journal.commit(1)
            assert len(journal.batches) == 2
            record = journal_pb2.JournalBatch.FromString(journal.batches[1].data)
            assert [e.job_ids for e in decode_events(record.events)] == [["b"], ["c"], ["d"]]
            assert (record.first_seq, record.event_count) == (2, 3)
            run.cancel()

    run_virtual(main)


def test_a_decision_goes_into_one_batch() -> None:
    """Its events are not torn apart, unless no batch could hold them all."""

    async def main() -> None:
        journal = HeldJournal()
        gate = make_gate(journal)
        half = "x" * 300 * 1024
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(gate.run())
            for texts in (["a"], [half, "b"], [half, "c"], [half, half]):
                gate.add(*map(event, texts))
            for number in range(1, 6):
                await settle()
                await journal.commit(number)
            found = [
                [e.job_ids[0][:1] for e in decode_events(record.events)]
                for record in (journal_pb2.JournalBatch.FromString(b.data) for b in journal.batches)
            ]
            assert found == [["a", "x", "b"], ["x", "c"], ["x"], ["x"]]
            run.cancel()

    run_virtual(main)


def test_a_batch_is_of_the_format_that_its_events_need() -> None:
    """That at its sealing: what was added by then has said what it needs."""

    async def main() -> None:
        journal = HeldJournal()
        needed = 1
        gate = make_gate(journal, format_=lambda: needed)
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(gate.run())
            gate.add(event("a"))
            await settle()
            needed = 2
            gate.add(event("b"))
            await journal.commit(1)
            await settle()
            sealed = [journal_pb2.JournalBatch.FromString(b.data) for b in journal.batches]
            assert [batch.format for batch in sealed] == [1, 2]
            run.cancel()

    run_virtual(main)


def test_nothing_is_released_before_its_commit() -> None:
    """A release waits for its seq's batch, and releases keep the order of their holds."""

    async def main() -> None:
        journal = HeldJournal()
        gate = make_gate(journal)
        released: list[str] = []
        gate.hold(0, lambda: released.append("at once"))
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(gate.run())
            gate.add(event("a"))
            gate.hold(1, lambda: released.append("first"))
            await settle()
            gate.add(event("b"))
            gate.hold(2, lambda: released.append("second"))
            gate.hold(2, lambda: released.append("third"))
            await settle()
            assert released == ["at once"]
            await journal.commit(1)
            assert released == ["at once", "first"]
            await journal.commit(2)
            assert released == ["at once", "first", "second", "third"]
            run.cancel()

    run_virtual(main)


def test_pipelined_batches_release_in_order() -> None:
    """A later batch that commits first releases nothing until the earlier one has committed."""

    async def main() -> None:
        journal = HeldJournal(pipeline_depth=2)
        gate = make_gate(journal)
        released: list[int] = []
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(gate.run())
            for seq in (1, 2):
                gate.add(event("x" * 50_000))
                gate.hold(seq, lambda seq=seq: released.append(seq))  # type: ignore[misc]
                await settle()
            assert [batch.number for batch in journal.batches] == [1, 2]
            await journal.commit(2)
            assert released == []
            await journal.commit(1)
            assert released == [1, 2]
            assert gate.committed_seq == 2
            run.cancel()

    run_virtual(main)


def test_batches_chain() -> None:
    """What the gate seals is what recovery demands: numbers, seqs and hashes connect."""

    async def main() -> list[bytes]:
        journal = HeldJournal()
        gate = make_gate(journal)
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(gate.run())
            for number in (1, 2, 3):
                gate.add(event(str(number)))
                await settle()
                await journal.commit(number)
            run.cancel()
        chain = Chain.start(0)
        chain.seal(token=TOKEN, stamp_ms=1, events=b"\x90", event_count=0)
        return [chain.follow(batch).events for batch in journal.batches]

    assert len(run_virtual(main)) == 3


def test_a_full_store_keeps_the_batch() -> None:
    """No space: the same batch is sent again until it gets in; nothing is released meanwhile."""

    async def main() -> None:
        journal = HeldJournal()
        journal.errors = [StoreFull("full"), StoreFull("full")]
        gate = make_gate(journal)
        released: list[str] = []
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(gate.run())
            gate.add(event("a"))
            gate.hold(1, lambda: released.append("a"))
            await settle()
            assert gate.full
            assert gate.stuck_ms() == 0
            await SimClock().sleep(1_000)
            assert released == []
            await journal.commit(1)
            assert released == ["a"]
            assert not gate.full
            assert len({batch.data for batch in journal.batches}) == 1
            run.cancel()

    run_virtual(main)


def test_an_unknown_outcome_is_repeated_with_the_same_bytes() -> None:
    """No answer: the very same batch is sent again."""

    async def main() -> None:
        journal = HeldJournal()
        journal.errors = [StoreUnavailable("?")]
        gate = make_gate(journal)
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(gate.run())
            gate.add(event("a"))
            await SimClock().sleep(1_000)
            assert [batch.data for batch in journal.batches] == [journal.batches[0].data] * 2
            assert gate.stuck_ms() == 1_000
            await journal.commit(1)
            run.cancel()

    run_virtual(main)


def test_a_fenced_commit_ends_the_term() -> None:
    """A refused guard is raised to the term, and nothing that waited is released."""

    async def main() -> None:
        journal = HeldJournal()
        journal.errors = [OfficeLost("fenced")]
        gate = make_gate(journal)
        released: list[str] = []
        gate.add(event("a"))
        gate.hold(1, lambda: released.append("a"))
        with pytest.raises(ExceptionGroup) as caught:
            await gate.run()
        assert caught.group_contains(OfficeLost)
        assert released == []

    run_virtual(main)


def test_settled_waits_for_its_seq() -> None:
    """A reader of seq n goes on when n has committed."""

    async def main() -> None:
        journal = HeldJournal()
        gate = make_gate(journal)
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(gate.run())
            await gate.settled(0)
            gate.add(event("a"))
            reader = tasks.create_task(gate.settled(1))
            await settle()
            assert not reader.done()
            await journal.commit(1)
            assert reader.done()
            run.cancel()

    run_virtual(main)


def test_the_trace_shows_a_batch_in_flight(tmp_path: Path) -> None:
    """A sent batch without its commit line is what a kill -9 left uncommitted."""
    path = tmp_path / "trace.jsonl"

    async def main() -> None:
        journal, trace = HeldJournal(), Trace(path, SimClock())
        gate = make_gate(journal, trace)
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(gate.run())
            gate.add(event("a"))
            await settle()
            await journal.commit(1)
            gate.add(event("b"))
            await settle()
            run.cancel()
        trace.close()

    run_virtual(main)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["event"], row["number"]) for row in rows] == [
        ("append_sent", 1),
        ("append_committed", 1),
        ("append_sent", 2),
    ]
