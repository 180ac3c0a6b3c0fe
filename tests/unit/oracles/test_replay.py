"""S9: the checker passes a journal that its leaders' states agree with, and refuses the others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tenure.client.codec import encode_args
from tenure.client.job import job
from tenure.master.core.command import CancelJobs, OpenTerm, SubmitJobs, SubmitRow, SubmitSetting
from tenure.master.core.config import PartitionConfig
from tenure.master.core.effect import Decision
from tenure.master.core.event import DurableEvent
from tenure.master.core.partition import Partition
from tenure.master.core.record import Policy
from tenure.master.journal.frame import Chain
from tenure.protocol.fence import Token
from tenure.protocol.ids import JobId, mint
from tests.encoded import encode_events
from tests.oracles.facts import Fact
from tests.oracles.journal_facts import journal_facts
from tests.oracles.replay import check_replay
from tests.oracles.submits import Present, present_jobs

NOW_MS = 1_800_000_000_000
TOKEN = Token(1, 7)
JOBS = [mint(0, NOW_MS, number) for number in (1, 2, 3)]


@job(name="echo")
def echo(text: str) -> str:
    """A job that returns its argument."""
    return text


class Leader:
    """A leader's core, with the events and hashes that it leaves."""

    def __init__(self) -> None:
        self.partition = Partition(PartitionConfig(partition=0, partitions=1))
        self.events: list[DurableEvent] = []
        self.hashes: dict[int, str] = {}
        self.partition.finish_replay()
        self.do(OpenTerm(token=TOKEN, incarnation="m", window_ms=0))
        for job_id in JOBS:
            self.do(self.submit(job_id))
        self.do(CancelJobs(job_ids=[JOBS[1]]))

    def submit(self, job_id: JobId) -> SubmitJobs:
        """One job with a content of its own."""
        setting = SubmitSetting(policy=Policy(name="echo"), priority=5, delay_ms=0, at_ms=0)
        payload = encode_args(echo, (f"text {job_id}",), {})
        return SubmitJobs(settings=[setting], rows=[SubmitRow(job_id, 0, payload, "")])

    def do(self, command: OpenTerm | SubmitJobs | CancelJobs) -> None:
        """Decide and apply, and note the state after it."""
        decision = self.partition.decide(command, NOW_MS)
        assert isinstance(decision, Decision)
        for event in decision.events:
            before = self.partition.next_seq
            self.partition.apply(event)
            if self.partition.next_seq > before:
                self.events.append(event)  # type: ignore[arg-type]
        self.hashes[self.partition.next_seq - 1] = self.partition.state_hash().hex()


def sealed(events: Sequence[DurableEvent]) -> list[bytes]:
    """One batch an event."""
    chain = Chain.start(0)
    return [
        chain.seal(token=TOKEN, stamp_ms=NOW_MS, events=encode_events([event]), event_count=1).data
        for event in events
    ]


def read(batches: Sequence[bytes]) -> tuple[list[Present], list[Fact]]:
    """What the oracles' own reading makes of a journal."""
    facts = journal_facts(batches)
    return present_jobs(facts), facts


def invariants(events: Sequence[DurableEvent], hashes: dict[int, str]) -> set[str]:
    """What the checker says of a journal and the hashes beside it."""
    batches = sealed(events)
    return {found.invariant for found in check_replay(batches, *read(batches), hashes)}


@pytest.fixture
def leader() -> Leader:
    """Three jobs, one of them cancelled."""
    return Leader()


def test_whole_journal_passes(leader: Leader) -> None:
    """The replayed state is the live one after every single event."""
    assert len(leader.hashes) == 5
    assert invariants(leader.events, leader.hashes) == set()


def test_one_lost_event_is_found(leader: Leader) -> None:
    """The journal lacks what its leader had done."""
    for lost in range(1, 5):
        events = leader.events[:lost] + leader.events[lost + 1 :]
        assert invariants(events, leader.hashes) == {"S9"}, lost


def test_reordered_events_are_found(leader: Leader) -> None:
    """Two submits changed places."""
    events = list(leader.events)
    events[1], events[2] = events[2], events[1]

    assert invariants(events, leader.hashes) == {"S9"}


def test_one_duplicated_event_is_found(leader: Leader) -> None:
    """An event that was applied once is there twice."""
    assert invariants([*leader.events[:3], *leader.events[2:]], leader.hashes) == {"S9"}


def test_state_beyond_the_journal_is_found(leader: Leader) -> None:
    """A leader that knew more than was ever committed acknowledged it too, perhaps."""
    assert invariants(leader.events[:-1], leader.hashes) == {"S9"}


def test_state_that_is_not_the_oracles_reading_is_found(leader: Leader) -> None:
    """The core and the oracles' own reading must come to the same jobs."""
    batches = sealed(leader.events)
    present, facts = read(batches)
    cancelled = next(job for job in present if job.state == "CANCELLED")
    others = [job for job in present if job is not cancelled]

    for wrong in (others, [*others, cancelled._replace(state="COMPLETED")], [*present, UNKNOWN]):
        assert check_replay(batches, wrong, facts, {}) != []


UNKNOWN = Present("018f0000-0000-7000-8000-000000000000", "x", "")
