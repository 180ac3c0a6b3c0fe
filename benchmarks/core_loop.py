"""What one job costs in the core: µs of CPU for each step, with a small and a large backlog.

Runs one partition alone, as its owner loop would: every step is ``decide`` and ``apply`` of the
batched commands that a job passes through. No store, no wire, no effects sent.

    python benchmarks/core_loop.py [--jobs 100000] [--backlog 1000 1000000]
"""

import argparse
import gc
import random
import time
from collections import defaultdict

from tenure.master.core.command import (
    AcceptAssignment,
    Command,
    DeclareLeases,
    Dispatch,
    FireTimers,
    LeaseRow,
    OpenSession,
    OpenTerm,
    ReportAttempts,
    ReportRow,
    StartLeases,
    SubmitJobs,
    SubmitRow,
    SubmitSetting,
)
from tenure.master.core.config import PartitionConfig, Retention
from tenure.master.core.effect import Decision, SendAssignment
from tenure.master.core.partition import Partition
from tenure.master.core.record import Policy
from tenure.protocol.fence import Lease, Token
from tenure.protocol.ids import JobId, mint
from tenure.protocol.vocabulary import AttemptOutcome

TOKEN = Token(1, 1)
PAYLOAD = b"x" * 100
SUBMIT_BATCH = 256
GRANT_BATCH = 64
RETAINED = 20_000


class Loop:
    """A partition, its clock, and the CPU that each step has taken."""

    def __init__(self) -> None:
        """Opens a term and one session."""
        retention = Retention(completed_max=RETAINED)
        config = PartitionConfig(
            partition=0, partitions=1, retention=retention, queue_depth_max=10_000_000
        )
        self.partition = Partition(config)
        self.partition.finish_replay()
        self.now_ms = 1_700_000_000_000
        self.spent: dict[str, float] = defaultdict(float)
        self.random = random.Random(7)
        self.setting = SubmitSetting(Policy(name="noop"), 5, 0, 0)
        self.step("open", OpenTerm(token=TOKEN, incarnation="m", window_ms=0))
        self.step(
            "open",
            OpenSession(
                session_id=1,
                incarnation="w",
                worker="w",
                job_names=frozenset({"noop"}),
                queues=frozenset(),
                slots=GRANT_BATCH,
            ),
        )
        self.hear()

    def hear(self) -> None:
        """Keeps the session alive."""
        self.step("open", DeclareLeases(session_id=1, rows=[]))

    def step(self, name: str, command: Command) -> Decision:
        """Decides and applies one command, and counts what it cost."""
        partition = self.partition
        begin = time.process_time()
        decision = partition.decide(command, self.now_ms)
        if not isinstance(decision, Decision):
            raise TypeError(decision.message)
        decided = time.process_time()
        for event in decision.events:
            partition.apply(event)
        applied = time.process_time()
        self.spent[f"{name} decide"] += decided - begin
        self.spent[f"{name} apply"] += applied - decided
        return decision

    def submit(self, count: int) -> None:
        """Submits jobs in batches."""
        for first in range(0, count, SUBMIT_BATCH):
            self.now_ms += 5
            rows = [
                SubmitRow(self.new_id(), 0, PAYLOAD, "")
                for _ in range(min(SUBMIT_BATCH, count - first))
            ]
            self.step("submit", SubmitJobs(settings=[self.setting], rows=rows))
        self.hear()

    def new_id(self) -> JobId:
        """Mints a job id."""
        return mint(0, self.now_ms, self.random.getrandbits(62))

    def run_jobs(self, count: int) -> None:
        """Grants, accepts, starts and reports jobs in batches; purges what is too many."""
        done = 0
        while done < count:
            self.now_ms += 2
            committed = self.partition.next_seq - 1
            credit = [(1, GRANT_BATCH)]
            grant = Dispatch(credits=credit, committed_seq=committed, grants_max=GRANT_BATCH)
            effects = self.step("grant", grant).effects
            for effect in effects:
                if isinstance(effect, SendAssignment):
                    done += len(effect.rows)
                    self.finish(effect)
            due = self.partition.next_timer_ms()
            if due is not None and due <= self.now_ms:
                self.step("purge", FireTimers(rows_max=256, jitter=[0.5]))

    def finish(self, sent: SendAssignment) -> None:
        """Plays the worker's part for one assignment."""
        leases = [LeaseRow(row.record.job_id, Lease(TOKEN, row.lease_seq, 0)) for row in sent.rows]
        reports = [
            ReportRow(row.job_id, row.lease, AttemptOutcome.COMPLETED, b"ok", "", None, 1)
            for row in leases
        ]
        self.step("start", AcceptAssignment(session_id=1, number=sent.number))
        self.step("start", StartLeases(session_id=1, rows=leases))
        self.step("report", ReportAttempts(session_id=1, rows=reports, jitter=[0.5]))
        self.hear()


def measure(backlog: int, jobs: int) -> dict[str, float]:
    """µs of CPU per job of each step, with ``backlog`` jobs queued all the time."""
    loop = Loop()
    loop.submit(backlog)
    # Fills the retained jobs, so that each further success is followed by a purge.
    loop.submit(RETAINED)
    loop.run_jobs(RETAINED)
    gc.collect()
    gc.freeze()
    loop.spent.clear()
    for _ in range(0, jobs, SUBMIT_BATCH):
        loop.submit(SUBMIT_BATCH)
        loop.run_jobs(SUBMIT_BATCH)
    gc.unfreeze()
    ran = -(-jobs // SUBMIT_BATCH) * SUBMIT_BATCH
    steps = ("submit", "grant", "start", "report", "purge")
    return {
        f"{step} {half}": loop.spent[f"{step} {half}"] / ran * 1e6
        for step in steps
        for half in ("decide", "apply")
    }


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--backlog", type=int, nargs="+", default=[1_000, 1_000_000])
    arguments = parser.parse_args()
    columns = [measure(backlog, arguments.jobs) for backlog in arguments.backlog]
    print(f"{'µs per job, backlog':20}" + "".join(f"{b:>12,}" for b in arguments.backlog))
    for step in columns[0]:
        print(f"{step:20}" + "".join(f"{column[step]:12.2f}" for column in columns))
    print(f"{'all':20}" + "".join(f"{sum(column.values()):12.2f}" for column in columns))


if __name__ == "__main__":
    main()
