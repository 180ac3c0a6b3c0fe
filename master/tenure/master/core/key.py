"""Keys: a (tenant, queue, key) names one job for its window, whatever becomes of the job."""

from heapq import heappop, heappush
from typing import Final, NamedTuple, TypeAlias

from tenure.protocol.ids import JobId

#: (tenant, queue, key)
KeyName: TypeAlias = tuple[str, str, str]

_SWEEP_MAX: Final = 256


class KeyRecord(NamedTuple):
    """Which job a key names, until when, and the seq of the event that wrote it."""

    job_id: JobId
    until_ms: int
    seq: int


class Keys:
    """All keys of a partition. Look-ups answer as of the time that they are given."""

    __slots__ = ("_expiries", "_records")

    def __init__(self) -> None:
        self._records: dict[KeyName, KeyRecord] = {}
        #: (until, name); looked at again if the key has been taken anew.
        self._expiries: list[tuple[int, KeyName]] = []

    def get(self, name: KeyName, now_ms: int) -> JobId | None:
        """The job that a key names now."""
        record = self._records.get(name)
        return record.job_id if record is not None and now_ms < record.until_ms else None

    def put(self, name: KeyName, record: KeyRecord) -> None:
        """Takes a key, unless a newer event has."""
        known = self._records.get(name)
        if known is None:
            heappush(self._expiries, (record.until_ms, name))
        elif known.seq >= record.seq:
            return
        self._records[name] = record

    def release(self, name: KeyName, job_id: JobId, seq: int) -> None:
        """Gives a key free that a job has taken, if it names that job still."""
        known = self._records.get(name)
        if known is not None and known.job_id == job_id and known.seq < seq:
            self._records[name] = KeyRecord(job_id, 0, seq)

    def sweep(self, now_ms: int) -> None:
        """Forgets keys whose windows are over: some now, the others next time."""
        expiries = self._expiries
        for _ in range(_SWEEP_MAX):
            if not expiries or expiries[0][0] > now_ms:
                return
            name = heappop(expiries)[1]
            record = self._records[name]
            if record.until_ms > now_ms:
                heappush(expiries, (record.until_ms, name))
            else:
                del self._records[name]

    def standing(self, now_ms: int) -> list[tuple[KeyName, KeyRecord]]:
        """All keys whose windows are not over, in no special order."""
        return [item for item in self._records.items() if now_ms < item[1].until_ms]
