"""Checkpoints: what running jobs save, so that their next attempts need not begin anew.

```
 worker ──SaveCheckpoints──► CheckpointsSaved ──commit──► acknowledged
                                    │
                     the record's checkpoint ──► each grant of this run, until the job ends
```
One counts if the job runs under its lease; what comes under any other is dropped without a word,
for a newer attempt may have begun with what was there. Numbers rise within a lease, and leases
rise: so the record's checkpoint only goes forward, however late and however often something comes.
"""

from tenure.master.core.chunk import chunks
from tenure.master.core.command import CheckpointRow, SaveCheckpoints
from tenure.master.core.effect import Decision, SendCheckpointAcks
from tenure.master.core.event import CheckpointsSaved, Event, SavedRow
from tenure.master.core.record import Checkpoint, JobRecord
from tenure.master.core.state import State
from tenure.protocol.fence import Lease
from tenure.protocol.ids import JobId
from tenure.protocol.limits import CHECKPOINT_BYTES_MAX
from tenure.protocol.vocabulary import JobState


def decide_save(state: State, command: SaveCheckpoints, now_ms: int) -> Decision:
    """Keeps what is news, and says of all that counts that it is safe.

    What there is no room for is not kept and not acknowledged: the worker offers it again.
    """
    if not state.serving:
        return Decision()
    bytes_max = state.config.bytes_max if command.bytes_max is None else command.bytes_max
    room = bytes_max - state.stored_bytes
    saved: dict[JobId, SavedRow] = {}
    acks: list[tuple[JobId, Lease, int]] = []
    for row in command.rows:
        record = state.jobs.get(row.job_id)
        if record is None or record.state is not JobState.RUNNING or record.lease != row.lease:
            continue
        known = record.checkpoint
        earlier = saved.get(row.job_id)
        before = earlier.data if earlier is not None else b"" if known is None else known.data
        if _is_news(row, known, earlier):
            grows = len(row.data) - len(before)
            if len(row.data) > CHECKPOINT_BYTES_MAX or grows > max(room, 0):
                continue
            room -= grows
            saved[row.job_id] = _saved(row, record, earlier, is_other=row.data != before)
        acks.append((row.job_id, row.lease, row.number))
    events: list[Event] = [
        CheckpointsSaved(now_ms=now_ms, rows=list(rows))
        for rows in chunks(list(saved.values()), _data_bytes)
    ]
    effects = (SendCheckpointAcks(session_id=command.session_id, rows=acks),) if acks else ()
    return Decision(events=tuple(events), effects=effects)


def _is_news(row: CheckpointRow, known: Checkpoint | None, earlier: SavedRow | None) -> bool:
    if earlier is not None:
        return row.number > earlier.number
    return known is None or (row.lease, row.number) > (known.lease, known.number)


def _saved(
    row: CheckpointRow, record: JobRecord, earlier: SavedRow | None, *, is_other: bool
) -> SavedRow:
    losses = record.losses_charged if earlier is None else earlier.losses_charged
    # One that saves the same over and over, and then takes its worker along, gets nowhere.
    return SavedRow(row.job_id, row.lease, row.number, row.data, 0 if is_other else losses)


def _data_bytes(row: SavedRow) -> int:
    return len(row.data)


def apply_saved(state: State, event: CheckpointsSaved, seq: int) -> None:
    """Replaces what jobs had saved before; a job that saves something gets on."""
    for row in event.rows:
        record = state.jobs.get(row.job_id)
        if record is None or record.seq >= seq:
            continue
        record.seq = seq
        before = 0 if record.checkpoint is None else len(record.checkpoint.data)
        record.checkpoint = Checkpoint(row.lease, row.number, row.data, event.now_ms)
        record.losses_charged = row.losses_charged
        if not state.live:
            continue
        state.stored_bytes += len(row.data) - before
        holding = state.holding_of(record)
        if holding is not None:
            holding.progress_ms = event.now_ms
