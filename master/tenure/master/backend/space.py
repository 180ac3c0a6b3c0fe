"""How full a store is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Of a store with several copies, the fullest one's.

    Attributes:
        used_bytes: What holds data. Space that was freed inside the file does not count.
        file_bytes: What the file takes.
        quota_bytes: Beyond that, the store takes nothing.
        file_counts: Whether the file is held against the quota, though it never shrinks by itself.
    """

    used_bytes: int
    file_bytes: int
    quota_bytes: int
    file_counts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Freed:
    """What was made free in one member of etcd: bytes of its file, before and after."""

    address: str
    before: int
    after: int
