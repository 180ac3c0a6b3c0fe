"""How much memory there is left, and whether the worker should take jobs with that.

What is read: ``MemAvailable`` of the machine, or what is left of the memory of the control groups
(v2) that the process is in, if that is less; and the process's own resident size. Nothing is read
unless a limit is set.

```
 open ──(available < headroom, or resident > limit)──► shut
 shut ──(available ≥ headroom + 1/8 of it, and resident ≤ 7/8 of the limit)──► open
```
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason

#: How much better than its limit memory must be again: one part in so many.
SLACK: Final = 8
_MIB: Final = 1024**2
_ENDLESS: Final = 1 << 62
_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")


class Memory(NamedTuple):
    """A reading, in bytes.

    Attributes:
        total: What there is in all, for this process and others.
        available: What they may still take.
        resident: What this process takes, its children not counted.
    """

    total: int
    available: int
    resident: int


class MemoryGate:
    """Whether a worker takes jobs.

    Attributes:
        shut: Why it takes none; empty: it does.
        too_large: The reason is the worker's own size, which seldom shrinks.
    """

    def __init__(
        self, headroom: int | None, resident_max: int | None, read: Callable[[], Memory]
    ) -> None:
        """Reads once.

        Args:
            headroom: Take no job with less than this available; None: no such limit.
            resident_max: Take no job while the process is larger than this; None: the same.
            read: Reads.

        Raises:
            Rejected: INVALID_ARGUMENT: it would never take one.
        """
        self.shut = ""
        self.too_large = False
        self._headroom = headroom or 0
        self._resident_max = resident_max
        self._read = read
        now = read()
        if self._headroom >= now.total:
            raise Rejected(
                f"expected memory_headroom of less than the {_mib(now.total)} that there are, got "
                f"{_mib(self._headroom)}",
                reason=Reason.INVALID_ARGUMENT,
                field="memory_headroom",
            )
        if resident_max is not None and self._is_large(now, opening=True):
            raise Rejected(
                f"expected memory_max of more than the {_mib(now.resident)} that the worker takes "
                f"with its application alone, and an eighth on top, got {_mib(resident_max)}",
                reason=Reason.INVALID_ARGUMENT,
                field="memory_max",
            )

    def look(self) -> bool:
        """Reads anew. Returns whether the gate has opened or shut by that."""
        before, now = self.shut, self._read()
        opening = bool(before)
        self.too_large = self._is_large(now, opening=opening)
        if self.too_large:
            self.shut = f"the worker takes {_mib(now.resident)} itself (--memory-max)"
        elif self._is_short(now, opening=opening):
            self.shut = f"{_mib(now.available)} of memory are left (--memory-headroom)"
        else:
            self.shut = ""
        return bool(self.shut) is not opening

    def _is_short(self, now: Memory, *, opening: bool) -> bool:
        return now.available < self._headroom + (self._headroom // SLACK if opening else 0)

    def _is_large(self, now: Memory, *, opening: bool) -> bool:
        limit = self._resident_max
        if limit is None:
            return False
        return now.resident > limit - (limit // SLACK if opening else 0)


class MemoryReader:
    """Reads what the kernel says. Linux only."""

    def __init__(self, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> None:
        self._proc = proc
        self._groups = _groups(proc, cgroups)
        self._page = os.sysconf("SC_PAGE_SIZE")

    def __call__(self) -> Memory:
        pages = (self._proc / "self" / "statm").read_bytes().split()
        total, available = self._machine()
        for group in self._groups:
            limit, left = _group(group)
            total, available = min(total, limit), min(available, left)
        return Memory(total, available, int(pages[1]) * self._page)

    def _machine(self) -> tuple[int, int]:
        rows = (line.split() for line in (self._proc / "meminfo").read_bytes().splitlines())
        kib = {row[0]: int(row[1]) for row in rows if len(row) > 1}
        return kib[b"MemTotal:"] * 1024, kib[b"MemAvailable:"] * 1024


def _groups(proc: Path, cgroups: Path) -> list[Path]:
    """The control groups (v2) of this process that may have a limit, its own first."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        return []
    group = cgroups / own.lstrip("/")
    return [
        folder
        for folder in (group, *group.parents)
        if folder.is_relative_to(cgroups) and (folder / "memory.max").exists()
    ]


def _group(group: Path) -> tuple[int, int]:
    """What a control group may take in all, and still: its page cache can be had back."""
    try:
        text = (group / "memory.max").read_text().strip()
        if text == "max":
            return _ENDLESS, _ENDLESS
        limit, current = int(text), int((group / "memory.current").read_text())
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        cache = sum(int(row[1]) for row in rows if row[0] == "inactive_file")
    except (OSError, ValueError):
        # It is on its way out, or not ours to read: it says nothing.
        return _ENDLESS, _ENDLESS
    return limit, limit - current + cache


def _mib(count: int) -> str:
    return f"{count / _MIB:,.0f} MiB"
