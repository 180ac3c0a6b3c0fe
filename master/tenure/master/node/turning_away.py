"""What a term tells those that it does not answer."""

from typing import Final

from tenure.master.backend.errors import CorruptJournal
from tenure.master.core.command import (
    BoostJobs,
    CancelJobs,
    Command,
    PurgeJobs,
    RequeueJobs,
    SubmitJobs,
    UpdateSettings,
)
from tenure.master.core.explain import Halt
from tenure.master.core.partition import Partition
from tenure.master.core.record import JobRecord
from tenure.master.core.settings import SettingsKind
from tenure.protocol.errors import WAITED_FOR_METADATA, TenureError, Unavailable
from tenure.protocol.refusal import Reason

#: What cannot be journaled is better not begun.
STORE_FULL: Final = Halt("the store is full, so the leader grants nothing", "space in the store")


def busy(partition: int) -> TenureError:
    """Its inbox is full."""
    return Unavailable(
        f"expected partition {partition} to take the call, but too many wait for it; try again",
        reason=Reason.FROZEN,
        metadata={"partition": str(partition)},
        retry_after_ms=500,
    )


def stale_token(partition: int, refused: TenureError) -> TenureError:
    """A term older than the journal was won: ends the office and halts the partition."""
    return CorruptJournal(
        f"{refused.message}; partition {partition}'s store was set back to an older state than "
        "its journal: restore both from one backup",
        reason=Reason.STORE_MISMATCH,
        metadata={"partition": str(partition)},
    )


def frozen(partition: int) -> TenureError:
    """The office cannot be proved now."""
    return Unavailable(
        f"expected partition {partition} to answer, but its leader cannot prove its office now; "
        "try again",
        reason=Reason.FROZEN,
        metadata={"partition": str(partition)},
        retry_after_ms=500,
    )


def no_space(partition: int) -> TenureError:
    """Its store takes nothing more."""
    return Unavailable(
        f"expected partition {partition} to take the call, but its store has no space left; "
        "free space on its disk (or raise etcd's quota), then try again",
        reason=Reason.STORE_FULL,
        metadata={"partition": str(partition)},
        retry_after_ms=5_000,
    )


def unknown_outcome(partition: int, why: str) -> TenureError:
    """What the call came to may yet commit, or not."""
    return Unavailable(
        f"expected partition {partition} to commit the call, but {why}; send it again: the "
        "same job id is the same job",
        reason=Reason.OUTCOME_UNKNOWN,
        metadata={"partition": str(partition)},
        retry_after_ms=500,
    )


def silent_parents(partition: int) -> TenureError:
    """Jobs wait for word of their parents, whose partition says nothing; this one is well."""
    return Unavailable(
        f"expected partition {partition} to hear whether the jobs' parents exist, but their "
        "partition is silent; send the call again: the same job id is the same job",
        reason=Reason.OUTCOME_UNKNOWN,
        metadata={"partition": str(partition), WAITED_FOR_METADATA: "parents"},
        retry_after_ms=500,
    )


def may_be_held(partition: Partition, committed_seq: int, command: Command) -> bool:
    """Whether a command, sent a second time, may be in the batch that a full store holds."""
    get = partition.get
    if isinstance(command, SubmitJobs):
        return any(get(row.job_id) is not None for row in command.rows)
    if isinstance(command, UpdateSettings):
        entry = partition.settings.get(SettingsKind(type(command.settings)), command.key)
        return entry is not None and entry.seq > committed_seq
    if isinstance(command, CancelJobs | RequeueJobs | PurgeJobs | BoostJobs):
        return any(
            record.seq > committed_seq if isinstance(record, JobRecord) else record is not None
            for record in map(get, command.job_ids)
        )
    return False
