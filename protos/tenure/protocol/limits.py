"""Every limit that clients and masters both know (the documentation's table of limits)."""

from typing import Final

PAYLOAD_BYTES_DEFAULT: Final = 256 * 1024
BATCH_JOBS_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 400 * 1024

NAME_CHARS_MAX: Final = 128
#: Queues, jobs, tenants and labels.
NAME_PATTERN: Final = r"[A-Za-z0-9._/-]{1,128}"
KEY_CHARS_MAX: Final = 256
#: Jobs that one job waits for.
PARENTS_MAX: Final = 1_000
#: Workflows of one partition.
WORKFLOWS_MAX: Final = 100_000
SEAL_WITHIN_MS_DEFAULT: Final = 3_600_000
SEAL_WITHIN_MS_MAX: Final = 7 * 86_400_000
#: A workflow is forgotten so long after it was sealed or cancelled, if all its members have ended.
WORKFLOW_KEPT_MS: Final = 7 * 86_400_000
#: A job's options, serialized: labels, error types and all.
OPTIONS_BYTES_MAX: Final = 16 * 1024
#: What a worker publishes of a job's arguments.
ARGUMENT_SCHEMA_BYTES_MAX: Final = 16 * 1024

PRIORITY_MIN: Final = 0
PRIORITY_MAX: Final = 10
PRIORITY_DEFAULT: Final = 5

DAY_MS: Final = 86_400_000
DELAY_MS_MAX: Final = 366 * DAY_MS
TIMEOUT_MS_MAX: Final = 7 * DAY_MS
ATTEMPTS_MAX: Final = 1_000
MAX_ATTEMPTS_DEFAULT: Final = 4
MAX_LOST_DEFAULT: Final = 3
BACKOFF_BASE_MS_DEFAULT: Final = 1_000
BACKOFF_FACTOR_DEFAULT: Final = 2.0
BACKOFF_CAP_MS_DEFAULT: Final = 60_000
KEY_WINDOW_MS_DEFAULT: Final = DAY_MS
KEY_WINDOW_MS_MAX: Final = 7 * DAY_MS

#: Of a queue or a tenant.
WEIGHT_MAX: Final = 1_000_000
RATE_PER_MS_MAX: Final = 366 * DAY_MS
BREAKER_WINDOW_MS_MAX: Final = 3_600_000
PROBES_MAX: Final = 1_000
#: Limit keys of a queue whose breakers an operator holds open or closed.
KEY_OVERRIDES_MAX: Final = 100
#: Queues, tenants and job types of a partition that have settings of their own, all together.
SETTINGS_MAX: Final = 100_000
#: Labels that a job requires, and as many that it prefers; values that one of them may have.
SELECTORS_MAX: Final = 16

#: Schedules of one partition.
SCHEDULES_MAX: Final = 100_000
CATCH_UP_MS_DEFAULT: Final = 3_600_000
#: A tick that could not be looked at for so long was missed: what a misfire policy is about.
MISFIRE_MS: Final = 5_000
JITTER_MS_MAX: Final = DAY_MS
NOTE_BYTES_MAX: Final = 1_024
UPCOMING_DEFAULT: Final = 5
UPCOMING_MAX: Final = 100

PARTITIONS_MAX: Final = 4_096
#: An unknown job id older than this is refused; tombstones outlive it.
RETRY_WINDOW_MS: Final = 300_000
#: A job id further ahead than this is refused.
ID_AHEAD_MS_MAX: Final = 60_000

#: What a job saves for its next attempt.
CHECKPOINT_BYTES_MAX: Final = 64 * 1024
#: A worker sends no more than one of a job in this time, unless its attempt ends.
CHECKPOINT_MS_MIN: Final = 200

#: What a text that was cut to its limit ends in.
CUT: Final = "[cut]"
ERROR_MESSAGE_BYTES_MAX: Final = 4 * 1024
TRACEBACK_BYTES_MAX: Final = 32 * 1024
#: One line of a job's log.
LOG_LINE_BYTES_MAX: Final = 4 * 1024
#: What is kept of one attempt's log, and of all of a job's, encoded.
ATTEMPT_LOG_BYTES_MAX: Final = 16 * 1024
JOB_LOGS_BYTES_MAX: Final = 64 * 1024

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1_000
FILTER_CHARS_MAX: Final = 4_096
#: Parentheses inside parentheses.
FILTER_DEPTH_MAX: Final = 16

DEFAULT_TENANT: Final = "default"
DEFAULT_QUEUE: Final = "default"
DEFAULT_CONTENT_TYPE: Final = "application/msgpack"

DEFAULT_ADDRESS: Final = "127.0.0.1:7400"
#: The revision of the worker protocol spoken.
PROTOCOL_REVISION: Final = 1
