"""What a partition is told once: its place and its limits. Times in milliseconds."""

from dataclasses import dataclass, field

from tenure.protocol.limits import DAY_MS, PAYLOAD_BYTES_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long finished jobs are kept: by age and by count, whichever ends first.

    Attributes:
        completed_ms: COMPLETED and CANCELLED jobs.
        completed_max: How many of them.
        failed_ms: FAILED jobs, the dead letters.
        failed_max: How many of them.
    """

    completed_ms: int = 3_600_000
    completed_max: int = 100_000
    failed_ms: int = 7 * DAY_MS
    failed_max: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionConfig:
    """A partition's place and limits.

    Attributes:
        partition: Its number.
        partitions: How many there are.
        payload_bytes_max: The largest payload and the largest result.
        aging_step_ms: What one step of priority is worth in waiting; 0: priority is strict.
        lease_ttl_ms: How long a lease lives without a heartbeat.
        lease_margin_ms: How much longer than its worker the master waits.
        accept_timeout_ms: An assignment not accepted by then is asked back.
        take_back_ms: A grant not started by then is asked back while others idle.
        timeout_grace_ms: How much longer than its worker the master waits for a timed-out attempt.
        progress_grace_ms: How much later the master may hear of a job's progress: its worker tells
            it with the next heartbeat.
        max_undelivered: Grants in a row that may get lost before the job counts as poison.
        retention: What becomes of finished jobs.
        queue_depth_max: Jobs that may wait in one queue.
        bytes_max: Payloads, results and errors kept in the partition, all together.
        quarantine_failures: Of a worker's last 20 attempts so many failures that others do not have
            put it into quarantine; 0: never (``health``).
        retry_after_ms: When a client should come back to a full partition.
    """

    partition: int
    partitions: int
    payload_bytes_max: int = PAYLOAD_BYTES_DEFAULT
    aging_step_ms: int = 300_000
    lease_ttl_ms: int = 15_000
    lease_margin_ms: int = 1_000
    accept_timeout_ms: int = 5_000
    take_back_ms: int = 1_000
    timeout_grace_ms: int = 1_000
    progress_grace_ms: int = 6_500
    max_undelivered: int = 10
    retention: Retention = field(default_factory=Retention)
    queue_depth_max: int = 1_000_000
    bytes_max: int = 512 * 1024 * 1024
    quarantine_failures: int = 16
    retry_after_ms: int = 1_000
