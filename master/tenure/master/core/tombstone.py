"""Tombstones: what stays of a purged job, so that its id and its reports are still understood.

Ids carry their time, so tombstones lie in buckets by it: 256 ms each, named by the first eleven
characters of an id. A new id's bucket is almost always absent, and the look-up of a submit costs
one miss in a dict. A bucket keeps its latest rows in a dict and packs them, sorted, when they are
many or old: 62 bytes a row, found by bisection. Packed runs are merged like a binary counter.

A tombstone stays until ``max(purged, id's time) + RETRY_WINDOW_MS``: for that long a re-sent submit
of its id cannot pass for a new one.
"""

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final
from zlib import crc32

import msgspec

from tenure.master.core.record import JobRecord
from tenure.protocol.fence import NO_TOKEN, Lease, Token
from tenure.protocol.ids import JobId, time_ms_of
from tenure.protocol.limits import RETRY_WINDOW_MS
from tenure.protocol.vocabulary import AttemptOutcome, JobState

#: Id (its halves swapped: the random one sorts), state, outcome, lease (epoch, revision, seq, run),
#: CRC of the result, time of the purge.
_ROW: Final = struct.Struct(">16sBBIQQIIQ")
_NO_LEASE: Final = Lease(NO_TOKEN, 0, 0)
_PREFIX_CHARS: Final = 11
_BUCKET_MS: Final = 256
_OPEN_ROWS_MAX: Final = 512
_OPEN_BUCKETS_MAX: Final = 64
#: Buckets forgotten with one event: many more than one event can fill.
_SWEEP_MAX: Final = 16


class Tombstone(msgspec.Struct, frozen=True, gc=False):
    """What is left of a purged job."""

    job_id: JobId
    state: JobState
    #: Of its last attempt; None if there was none.
    outcome: AttemptOutcome | None
    lease: Lease | None
    result_crc: int
    purged_ms: int

    @property
    def expires_ms(self) -> int:
        """When it may be forgotten."""
        return max(self.purged_ms, time_ms_of(self.job_id)) + RETRY_WINDOW_MS


def _swapped(job_id: JobId) -> bytes:
    """An id's random half, then the half with its time: how rows are sorted."""
    return bytes.fromhex(job_id[19:23] + job_id[24:] + job_id[:8] + job_id[9:13] + job_id[14:18])


def _pack(record: JobRecord, now_ms: int) -> bytes:
    """The packed tombstone of a job that is purged now."""
    lease = record.lease or _NO_LEASE
    return _ROW.pack(
        _swapped(record.job_id),
        record.state,
        record.outcome or 0,
        *lease.token,
        lease.seq,
        lease.run,
        crc32(record.result),
        now_ms,
    )


def _unpack(row: bytes) -> Tombstone:
    raw, state, outcome, epoch, revision, seq, run, crc, purged_ms = _ROW.unpack(row)
    text = raw[8:].hex() + raw[:8].hex()
    token = Token(epoch, revision)
    return Tombstone(
        JobId(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"),
        JobState(state),
        AttemptOutcome(outcome) if outcome else None,
        None if token == NO_TOKEN else Lease(token, seq, run),
        crc,
        purged_ms,
    )


class _Run:
    """Rows sorted by the random half of their ids, packed."""

    __slots__ = ("keys", "rows")

    def __init__(self, rows: list[bytes]) -> None:
        rows.sort()
        halves = b"".join([row[:8] for row in rows])
        self.keys = array("Q", struct.unpack(f">{len(rows)}Q", halves))
        self.rows = b"".join(rows)

    def find(self, swapped_id: bytes) -> bytes | None:
        keys, size = self.keys, _ROW.size
        key = int.from_bytes(swapped_id[:8], "big")
        index = bisect_left(keys, key)
        while index < len(keys) and keys[index] == key:
            row = self.rows[index * size : (index + 1) * size]
            if row[:16] == swapped_id:
                return row
            index += 1
        return None

    def unpacked(self) -> list[bytes]:
        size = _ROW.size
        return [self.rows[at : at + size] for at in range(0, len(self.rows), size)]


class _Bucket:
    """The tombstones of ids from one span of 256 ms."""

    __slots__ = ("ends_ms", "latest", "purged_ms", "runs")

    def __init__(self, ends_ms: int) -> None:
        #: None of its ids is later.
        self.ends_ms = ends_ms
        #: When the last of its jobs was purged.
        self.purged_ms = 0
        self.latest: dict[JobId, bytes] = {}
        self.runs: list[_Run] = []

    def seal(self) -> None:
        """Packs the latest rows; runs of like size are merged, so that there are few."""
        rows = list(self.latest.values())
        self.latest = {}
        while self.runs and len(self.runs[-1].keys) < 2 * len(rows):
            rows += self.runs.pop().unpacked()
        self.runs.append(_Run(rows))

    def find(self, job_id: JobId) -> bytes | None:
        row = self.latest.get(job_id)
        if row is not None or not self.runs:
            return row
        swapped_id = _swapped(job_id)
        for run in reversed(self.runs):
            row = run.find(swapped_id)
            if row is not None:
                return row
        return None

    def rows(self) -> list[bytes]:
        """All rows, in no special order."""
        return [row for run in self.runs for row in run.unpacked()] + list(self.latest.values())


class Tombstones:
    """All tombstones of a partition. Look-ups answer as of the time that they are given."""

    __slots__ = ("_buckets", "_expiries", "_unsealed")

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        #: (when a bucket may go, its prefix); looked at again if the bucket has got newer rows.
        self._expiries: list[tuple[int, str]] = []
        #: Prefixes of buckets with rows that are not packed, in order of their first such row.
        self._unsealed: dict[str, None] = {}

    def get(self, job_id: JobId, now_ms: int) -> Tombstone | None:
        """The tombstone of a job, if it still stands."""
        bucket = self._buckets.get(job_id[:_PREFIX_CHARS])
        if bucket is None:
            return None
        row = bucket.find(job_id)
        if row is None:
            return None
        tombstone = _unpack(row)
        return tombstone if now_ms < tombstone.expires_ms else None

    def bury(self, record: JobRecord, now_ms: int, *, replayed: bool) -> None:
        """Puts up the tombstone of a purged job; only in a replay it may be there already."""
        row = _pack(record, now_ms)
        if replayed:
            self.load(row)
        else:
            self._add(record.job_id, row, now_ms)

    def sweep(self, now_ms: int) -> None:
        """Forgets buckets of which no tombstone stands any more: some now, others next time."""
        expiries = self._expiries
        for _ in range(_SWEEP_MAX):
            if not expiries or expiries[0][0] > now_ms:
                return
            prefix = heappop(expiries)[1]
            bucket = self._buckets[prefix]
            expires_ms = max(bucket.purged_ms, bucket.ends_ms) + RETRY_WINDOW_MS
            if expires_ms > now_ms:
                heappush(expiries, (expires_ms, prefix))
            else:
                del self._buckets[prefix]
                self._unsealed.pop(prefix, None)

    def prefixes(self) -> list[str]:
        """The names of the buckets."""
        return list(self._buckets)

    def rows(self, prefix: str) -> list[bytes]:
        """A bucket's packed rows, in no special order; none if it is gone."""
        bucket = self._buckets.get(prefix)
        return [] if bucket is None else bucket.rows()

    def load(self, row: bytes) -> None:
        """Puts up a tombstone from a packed row (see ``rows``) unless it is there."""
        tombstone = _unpack(row)
        bucket = self._buckets.get(tombstone.job_id[:_PREFIX_CHARS])
        if bucket is None or bucket.find(tombstone.job_id) is None:
            self._add(tombstone.job_id, row, tombstone.purged_ms)

    def standing(self, now_ms: int) -> Iterator[bytes]:
        """The packed rows of all tombstones that stand, in no special order."""
        for bucket in self._buckets.values():
            for row in bucket.rows():
                if now_ms < _unpack(row).expires_ms:
                    yield row

    def _add(self, job_id: JobId, row: bytes, purged_ms: int) -> None:
        prefix = job_id[:_PREFIX_CHARS]
        bucket = self._buckets.get(prefix)
        if bucket is None:
            bucket = self._buckets[prefix] = _Bucket(time_ms_of(job_id) + _BUCKET_MS)
            heappush(self._expiries, (max(purged_ms, bucket.ends_ms) + RETRY_WINDOW_MS, prefix))
        bucket.purged_ms = max(bucket.purged_ms, purged_ms)
        bucket.latest[job_id] = row
        self._unsealed[prefix] = None
        if len(bucket.latest) >= _OPEN_ROWS_MAX:
            bucket.seal()
            del self._unsealed[prefix]
        if len(self._unsealed) > _OPEN_BUCKETS_MAX:
            oldest = next(iter(self._unsealed))
            del self._unsealed[oldest]
            self._buckets[oldest].seal()
