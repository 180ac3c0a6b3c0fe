"""``Limits``: what one attempt of a job may use of its machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from tenure.client.errors import invalid

__all__ = ["Limits"]

_SIZE: Final = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)?")
_UNITS: Final = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_MEMORY_MIN: Final = 1024**2
_NICE_MAX: Final = 19
#: The kernel shares out no less.
_CPUS_MIN: Final = 0.01
_CPUS_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an attempt may use, for jobs that run in a process: ``process`` and ``command``.

    The kernel holds them for each process by itself; memory and processes for all of an attempt
    together where a control group is delegated to the worker, which says so at its start. None: as
    much as the worker may.

    Attributes:
        memory: Bytes of its own, or text as ``"512MiB"``: for a process job on top of what its
            child has when it begins. An allocation beyond it fails (``MemoryError``); processes
            that have more together than a control group may are killed.
        cpu: CPU time, in whole seconds; what uses more is killed (SIGXCPU).
        files: How many files and sockets it may have open, for a process job besides its child's.
        cpus: How many cores' worth of CPU it may take at once, as ``0.5``. Only a control group
            can hold it: a worker without one warns at its start, and goes without.
        processes: How many processes and threads the worker's user may have in all, before no more
            can be started. The kernel does not hold root to it. In a control group: those of the
            attempt, for a process job besides its child's; there root is held, too.
        nice: How much others come first: 1 to 19.
    """

    memory: int | str | None = None
    cpu: timedelta | None = None
    cpus: float | None = None
    files: int | None = None
    processes: int | None = None
    nice: int | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory_bytes < _MEMORY_MIN:
            raise invalid("limits.memory", f"1 MiB at least, got {self.memory!r}")
        if self.cpu is not None and not (
            isinstance(self.cpu, timedelta) and self.cpu >= timedelta(seconds=1)
        ):
            raise invalid("limits.cpu", f"a timedelta of a second at least, got {self.cpu!r}")
        if self.cpus is not None and not (
            type(self.cpus) in (int, float) and _CPUS_MIN <= self.cpus <= _CPUS_MAX
        ):
            raise invalid("limits.cpus", f"from {_CPUS_MIN} to {_CPUS_MAX}, got {self.cpus!r}")
        for name, most in (("files", 1 << 20), ("processes", 1 << 22), ("nice", _NICE_MAX)):
            value: Any = getattr(self, name)
            if value is not None and (type(value) is not int or not 1 <= value <= most):
                raise invalid(f"limits.{name}", f"from 1 to {most}, got {value!r}")

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes; 0: no limit."""
        if self.memory is None:
            return 0
        if type(self.memory) is int:
            return self.memory
        match = _SIZE.fullmatch(self.memory) if isinstance(self.memory, str) else None
        if match is None:
            raise invalid("limits.memory", f"a number or text as '512MiB', got {self.memory!r}")
        return int(match[1]) * _UNITS[match[2] or "B"]

    @property
    def cpu_s(self) -> int:
        """The CPU time in whole seconds, rounded up; 0: no limit."""
        return 0 if self.cpu is None else -(-self.cpu // timedelta(seconds=1))
