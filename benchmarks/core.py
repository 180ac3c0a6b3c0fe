"""One partition by itself, driven as its owner loop would: what the core alone costs.

Every step is ``decide`` and ``apply`` of the batched commands that jobs pass through. No store, no
wire, no effects sent. Time jumps as its driver wants; what is measured is CPU.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from typing import Final, Literal

from tenure.master.core.command import (
    AcceptAssignment,
    Command,
    DeclareLeases,
    LeaseRow,
    OpenSession,
    OpenTerm,
    ReportAttempts,
    ReportRow,
    SendHeld,
    StartLeases,
)
from tenure.master.core.config import PartitionConfig
from tenure.master.core.effect import Decision, SendAssignment
from tenure.master.core.partition import Partition
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId, mint
from tenure.protocol.vocabulary import AttemptOutcome

#: The only job there is.
JOB_NAME: Final = "noop"
_TOKEN: Final = Token(1, 1)
_SESSION: Final = 1

Half = Literal["decide", "apply"]


class Core:
    """A partition with an open term, its clock, and the CPU that each kind of step has taken.

    Args:
        config: The partition's; the only one of its cluster.
        now_ms: When it begins.
    """

    def __init__(self, config: PartitionConfig, now_ms: int = 1_700_000_000_000) -> None:
        self.partition = Partition(config)
        self.partition.finish_replay()
        self.now_ms = now_ms
        self.random = random.Random(7)
        #: Seconds by kind of step, deciding and applying apart.
        self.spent: defaultdict[tuple[str, Half], float] = defaultdict(float)
        #: Of the longest step since this was last set to zero.
        self.longest_ms = 0.0
        self.do(OpenTerm(token=_TOKEN, incarnation="m", window_ms=0))

    def do(self, command: Command, step: str = "set up") -> Decision:
        """Decides and applies one command, and counts what it took."""
        partition = self.partition
        began_s = time.thread_time()
        decision = partition.decide(command, self.now_ms)
        if not isinstance(decision, Decision):
            raise TypeError(decision.message)
        decided_s = time.thread_time()
        for event in decision.events:
            partition.apply(event)
        applied_s = time.thread_time()
        self.spent[step, "decide"] += decided_s - began_s
        self.spent[step, "apply"] += applied_s - decided_s
        self.longest_ms = max(self.longest_ms, (applied_s - began_s) * 1_000)
        return decision

    def new_id(self) -> JobId:
        """Mints a job id."""
        return mint(0, self.now_ms, self.random.getrandbits(62))

    def open_session(self, slots: int, labels: tuple[tuple[str, str], ...] = ()) -> int:
        """Lets a worker in that runs every job; its session."""
        self.do(
            OpenSession(
                session_id=_SESSION,
                incarnation="w",
                worker="w",
                job_names=frozenset({JOB_NAME}),
                queues=frozenset(),
                slots=slots,
                labels=labels,
            )
        )
        self.hear()
        return _SESSION

    def hear(self) -> None:
        """Keeps the worker's session alive."""
        self.do(DeclareLeases(session_id=_SESSION, rows=[]))

    def sent(self, granted: SendAssignment) -> SendAssignment:
        """Sends what was written ahead: it has committed by now."""
        if not granted.write_ahead:
            return granted
        held = SendHeld(session_id=granted.session_id, rows=granted.rows)
        (effect,) = self.do(held, "grant").effects
        if not isinstance(effect, SendAssignment):
            raise TypeError(effect)
        return effect

    def finish(self, sent: SendAssignment) -> None:
        """Plays the worker's part for one assignment: all of it succeeds."""
        leases = [LeaseRow(row.record.job_id, Lease(_TOKEN, row.lease_seq, 0)) for row in sent.rows]
        reports = [
            ReportRow(row.job_id, row.lease, AttemptOutcome.COMPLETED, b"ok", "", None, 1)
            for row in leases
        ]
        self.do(AcceptAssignment(session_id=_SESSION, number=sent.number), "start")
        self.do(StartLeases(session_id=_SESSION, rows=leases), "start")
        self.do(ReportAttempts(session_id=_SESSION, rows=reports, jitter=[0.5]), "report")
