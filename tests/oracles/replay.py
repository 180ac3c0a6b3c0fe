"""S9: replaying the journal gives the state that the live leader had.

Here, and only here, the product's core is used: it is what is judged. Three things must agree: what
it makes of the journal's events, what the oracles' own reading makes of them, and the hashes of its
state that leaders left in their traces at the beginning and at the end of their terms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from tenure.master.core.config import PartitionConfig
from tenure.master.core.partition import Partition
from tenure.master.core.record import JobRecord
from tenure.master.journal.codec import decode_events
from tenure.master.journal.frame import Chain
from tenure.master.journal.port import SealedBatch
from tenure.protocol.errors import TenureError
from tenure.protocol.ids import JobId
from tests.oracles.facts import Fact, Settled
from tests.oracles.history import hash_of
from tests.oracles.submits import Present
from tests.oracles.verdict import Violation

ONLY_PARTITION = PartitionConfig(partition=0, partitions=1)


def check_replay(
    batches: Iterable[bytes],
    present: Sequence[Present],
    facts: Iterable[Fact],
    live_hashes: Mapping[int, str],
    *,
    config: PartitionConfig = ONLY_PARTITION,
) -> list[Violation]:
    """Replay a whole journal from batch 0.

    Args:
        batches: What the store has or had, in order.
        present: The jobs by the oracles' own reading.
        facts: The same reading's facts.
        live_hashes: By seq: the hash of a live leader's state right after that event.
        config: Which partition it is the journal of.
    """
    partition = Partition(config)
    chain = Chain.start(config.partition)
    violations: list[Violation] = []
    unseen = dict(live_hashes)
    for number, data in enumerate(batches):
        try:
            batch = chain.follow(SealedBatch(number=number, data=data))
        except TenureError as refused:
            return [*violations, Violation("S9", f"batch {number}", f"not recovered: {refused}")]
        for seq, event in enumerate(decode_events(batch.events), batch.first_seq):
            partition.replay(event, seq)
            live = unseen.pop(seq, None)
            if live is not None and partition.state_hash().hex() != live:
                violations.append(
                    Violation("S9", f"seq {seq}", "the live leader had another state than replay")
                )
    partition.finish_replay()
    violations += [
        Violation("S9", f"seq {seq}", "a leader had a state that the journal does not reach")
        for seq in unseen
    ]
    return violations + _jobs_differ(partition, present, facts)


def _jobs_differ(
    partition: Partition, present: Sequence[Present], facts: Iterable[Fact]
) -> list[Violation]:
    """Where the replayed jobs are not those of the oracles' own reading."""
    ends = {fact.job: fact for fact in facts if isinstance(fact, Settled)}
    violations = []
    kept = [job for job in present if not job.purged]
    for job in kept:
        record = partition.get(JobId(job.job))
        if not isinstance(record, JobRecord):
            violations.append(Violation("S9", job.job, "not there after the replay"))
            continue
        state = record.state.name if job.state else ""
        result = hash_of(msgspec.msgpack.decode(record.result)) if record.result else ""
        end = ends.get(job.job)
        if (state, result) != (job.state, end.content if end else ""):
            violations.append(Violation("S9", job.job, f"replayed as {record.state.name}"))
        reason = record.failure_reason.name if record.failure_reason else ""
        if end and job.state == "FAILED" and reason != end.reason:
            why = f"replayed as FAILED, {reason}, not {end.reason}"
            violations.append(Violation("S9", job.job, why))
    if partition.stats().jobs != len(kept):
        found = partition.stats().jobs
        violations.append(Violation("S9", "jobs", f"{found} after the replay, not {len(kept)}"))
    return violations
