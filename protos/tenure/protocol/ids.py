"""Job ids: UUIDv7 (RFC 9562) with the home partition in ``rand_a``, as canonical text.

```
 0                   48   52           64 66                            128
 | unix time in ms    | 7 | partition   |10| random                      |
```
"""

import hashlib
import re
from collections.abc import Callable
from functools import cache
from typing import Final, NewType, TypeGuard, cast

from tenure.protocol.limits import PARTITIONS_MAX

#: Canonical lower-case UUID text, 36 characters.
JobId = NewType("JobId", str)

_JOB_ID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-7%s-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_ANY_JOB_ID: Final = re.compile(_JOB_ID % "[0-9a-f]{3}")
#: Where the text has the partition's digits: ids of one partition have the same.
HOME_DIGITS: Final = slice(15, 18)
#: What a random digit becomes when its upper two bits give way to the variant.
_VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


def mint(partition: int, now_ms: int, random_bits: int) -> JobId:
    """Builds a job id.

    Args:
        partition: The job's home, 0 to 4095.
        now_ms: The cluster's clock, milliseconds since the Unix epoch.
        random_bits: At least 62 random bits; higher ones are dropped.
    """
    if not 0 <= partition < PARTITIONS_MAX:
        raise ValueError(f"expected a partition below {PARTITIONS_MAX}, got {partition}")
    high, low = now_ms & 0xFFFF_FFFF_FFFF, random_bits & 0x3FFF_FFFF_FFFF_FFFF
    # One for each job: this formats in half the time of an f-string.
    text = "%08x-%04x-7%03x-%04x-%012x" % (  # noqa: UP031
        high >> 16,
        high & 0xFFFF,
        partition,
        0x8000 | low >> 48,
        low & 0xFFFF_FFFF_FFFF,
    )
    return JobId(text)


def mint_many(
    partition: int, now_ms: int, count: int, getrandbits: Callable[[int], int]
) -> list[JobId]:
    """Builds ids for a batch of jobs, at a quarter of the price of one by one.

    Args:
        partition: Their home, 0 to 4095.
        now_ms: The cluster's clock, milliseconds since the Unix epoch.
        count: How many.
        getrandbits: Makes as many random bits as it is asked for.
    """
    head = mint(partition, now_ms, 0)[:19]
    digits = f"{getrandbits(64 * count):0{16 * count}x}" if count else ""
    ids = [
        f"{head}{_VARIANT[digits[at]]}{digits[at + 1 : at + 4]}-{digits[at + 4 : at + 16]}"
        for at in range(0, 16 * count, 16)
    ]
    # A call of JobId for each would cost a third of the whole.
    return cast("list[JobId]", ids)


def is_job_id(text: str) -> bool:
    """Whether the text is a job id in canonical form."""
    return _ANY_JOB_ID.fullmatch(text) is not None


@cache
def home_check(partition: int) -> Callable[[str], TypeGuard[JobId]]:
    """A check whether a text is a job id of this partition; it costs one call a job."""
    check = re.compile(_JOB_ID % f"{partition:03x}").fullmatch
    return cast("Callable[[str], TypeGuard[JobId]]", check)


def partition_of(job_id: str) -> int:
    """The home partition that a job id names. The id must have its canonical form."""
    return int(job_id[HOME_DIGITS], 16)


def time_ms_of(job_id: str) -> int:
    """When a job id was minted, milliseconds since the Unix epoch."""
    return int(job_id[:8] + job_id[9:13], 16)


def home_partition(tenant: str, queue: str, partitions: int) -> int:
    """The partition in which a queue lives: BLAKE2b-64(tenant, 0x00, queue) mod partitions."""
    digest = hashlib.blake2b(f"{tenant}\0{queue}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions
