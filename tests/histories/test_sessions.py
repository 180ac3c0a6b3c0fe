"""Workers and masters of earlier releases are understood: their recorded streams are replayed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tenure.master.core import command as commands
from tenure.protocol.vocabulary import Verdict
from tenure.v1 import worker_pb2
from tests.histories.archive import RELEASES, Entry, read_entries, read_pairs
from tests.histories.judge import Judge, Judged, commands_of, verdict_of, verdicts_of
from tests.histories.player import LeaseKey, Player
from tests.histories.session import record_session

release = pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)

#: What a verdict decides about a job besides times, which are of the moment.
DECIDED = (
    "job_id",
    "lease",
    "outcome",
    "state",
    "result",
    "result_content_type",
    "fault",
    "attempts_charged",
    "losses_charged",
    "undelivered",
    "failure_reason",
)


def entries_of(release: Path) -> list[Entry]:
    """The transcript of a release."""
    return read_entries(release / "session.jsonl")


def batches_of(release: Path) -> list[bytes]:
    """The journal of the masters in the transcript."""
    return [data for _, data in read_pairs(release / "session.journal.jsonl")]


def reports_of(entries: Sequence[Entry]) -> dict[LeaseKey, commands.ReportRow]:
    """The recorded reports, as this release's master reads them."""
    return {
        (row.job_id, row.lease): row
        for command in commands_of(entries)
        if isinstance(command, commands.ReportAttempts)
        for row in command.rows
    }


def decided(row: Any) -> dict[str, Any]:
    """What a row decides about its job."""
    return {name: getattr(row, name) for name in DECIDED if hasattr(row, name)}


@release
def test_worker_says_what_was_recorded(release: Path) -> None:
    """To the recorded masters' messages a worker of this release answers as the recorded one."""
    player = Player(entries_of(release))

    player.play()

    assert Counter(player.said) == Counter(player.recorded)


@release
def test_master_judges_as_recorded(release: Path) -> None:
    """Each recorded report gets the recorded verdict, and decides the same about its job."""
    entries = entries_of(release)
    reports = reports_of(entries)
    judge = Judge(batches_of(release))

    for judged in verdicts_of(entries):
        decision = judge.rule(judged, reports[judged.lease])
        assert verdict_of(decision) is judged.verdict, judged
        closure = judge.closure(judged.lease)
        if judged.verdict is Verdict.ACCEPTED and closure is not None:
            rows = [row for event in decision.events for row in getattr(event, "rows", ())]
            assert [decided(row) for row in rows] == [decided(closure[1])]


@release
def test_master_reads_every_message(release: Path) -> None:
    """All that the recorded worker said of partitions becomes commands."""
    entries = entries_of(release)
    said: Counter[str] = Counter()
    for entry in entries:
        if entry.kind == "up":
            for update in worker_pb2.SessionRequest.FromString(entry.message).updates:
                said["StartLeases"] += len(update.started)
                said["ReturnLeases"] += len(update.returned)
                said["ReportAttempts"] += len(update.reports)
                said["DeclareLeases"] += len(update.declare.leases)
                said["RenewLeases"] += len(update.heartbeat.held.leases)

    read: Counter[str] = Counter()
    for command in commands_of(entries):
        read[type(command).__name__] += len(getattr(command, "rows", ()))

    assert {name: read[name] for name in said} == said


@release
def test_transcript_shows_what_matters(release: Path) -> None:
    """What is replayed is worth replaying."""
    entries = entries_of(release)
    verdicts = {judged.verdict for judged in verdicts_of(entries)}
    player = Player(entries)
    player.play()
    kinds = {claim[0] for claim in player.recorded}

    assert verdicts >= {Verdict.ACCEPTED, Verdict.SUPERSEDED, Verdict.DUPLICATE}
    assert kinds == {"hello", "declare", "heartbeat", "started", "returned", "report", "goodbye"}
    assert any(claim[0] == "declare" and claim[-1] for claim in player.recorded)


def test_recorder_still_records() -> None:
    """The run that the next release will record goes as it should, and the same each time."""
    entries, batches = record_session()

    assert (entries, batches) == record_session()
    player = Player(entries)
    player.play()
    assert Counter(player.said) == Counter(player.recorded)
    assert len(verdicts_of(entries)) > 30


def test_another_answer_is_found() -> None:
    """A master's cancel that the worker does not hear, or a verdict that was another one."""
    entries, batches = record_session()
    deaf = Player([mute(entry) for entry in entries])
    judged = next(j for j in verdicts_of(entries) if j.verdict is Verdict.SUPERSEDED)
    ruling = Judge(batches).rule(judged, reports_of(entries)[judged.lease])
    early = replace(judged, batches=1)
    other = Judge(batches).rule(early, reports_of(entries)[judged.lease])

    deaf.play()

    assert Counter(deaf.said) != Counter(deaf.recorded)
    assert isinstance(judged, Judged)
    assert verdict_of(ruling) is Verdict.SUPERSEDED
    assert verdict_of(other) is Verdict.GONE


def mute(entry: Entry) -> Entry:
    """The entry without what a master says of verdicts."""
    if entry.kind != "down":
        return entry
    said = worker_pb2.SessionResponse.FromString(entry.message)
    for instruction in said.instructions:
        instruction.ClearField("verdicts")
    return msgspec.structs.replace(entry, message=said.SerializeToString())
