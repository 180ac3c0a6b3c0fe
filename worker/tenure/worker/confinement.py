"""Limits as the kernel knows them: those of commands, and those of process jobs, for a while.

Limits of a process job are set before it begins, on what it uses besides what its child has
already, and are taken back when it ends. Only soft ones are lowered, so that they can be raised
again. Memory is what the process has of its own (RLIMIT_DATA); a bound on address space stops what
is mapped besides. A control group (``cgroup.py``) counts that by itself, and processes, too.
"""

import math
import os
import resource
from pathlib import Path
from typing import Final

from tenure.client.confinement import Limits
from tenure.worker.cgroup import Leaf

#: Address space beyond the memory of its own that a process may have: for its libraries, what it
#: maps, and what runtimes set aside and never touch.
ADDRESS_SLACK: Final = 4 << 30
#: A program that handles SIGXCPU has so long to end.
CPU_GRACE_S: Final = 2
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Confinement:
    """The limits of one job, in the thread that runs it.

    Args:
        limits: What it may use.
        leaf: The control group of this process, if it has one of its own.

    Raises:
        OSError: They cannot be set.
        ValueError: The same: the worker itself may not have as much.
    """

    def __init__(self, limits: Limits, leaf: Leaf | None = None) -> None:
        self._before: list[tuple[int, tuple[int, int]]] = []
        self._nice = os.getpriority(os.PRIO_PROCESS, 0)
        self._leaf = leaf
        if leaf is not None:
            leaf.hold(limits)
        for kind, soft in _soft_limits(limits, _held(leaf)):
            before = resource.getrlimit(kind)
            most = before[1]
            if most != resource.RLIM_INFINITY:
                soft = min(soft, most)
            resource.setrlimit(kind, (soft, most))
            self._before.append((kind, before))
        if limits.nice:
            os.setpriority(os.PRIO_PROCESS, 0, self._nice + limits.nice)

    def lift(self) -> bool:
        """Takes the limits back. False: not all could be; only root becomes less nice."""
        try:
            if self._leaf is not None:
                self._leaf.lift()
            for kind, before in self._before:
                resource.setrlimit(kind, before)
            if os.getpriority(os.PRIO_PROCESS, 0) != self._nice:
                os.setpriority(os.PRIO_PROCESS, 0, self._nice)
        except (OSError, ValueError):
            return False
        return True


def _held(leaf: Leaf | None) -> frozenset[str]:
    """What a control group holds by itself."""
    return leaf.controllers if leaf is not None else frozenset()


def _soft_limits(limits: Limits, held: frozenset[str]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    if memory := limits.memory_bytes:
        pages = [int(field) for field in Path("/proc/self/statm").read_bytes().split()]
        space, data = pages[0] * _PAGE_BYTES, pages[5] * _PAGE_BYTES
        found.append((resource.RLIMIT_DATA, data + memory))
        if "memory" not in held:
            found.append((resource.RLIMIT_AS, space + memory + ADDRESS_SLACK))
    if limits.cpu_s:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        used_s = math.ceil(usage.ru_utime + usage.ru_stime)
        found.append((resource.RLIMIT_CPU, used_s + limits.cpu_s))
    if limits.files:
        open_files = (int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        found.append((resource.RLIMIT_NOFILE, max(open_files) + 1 + limits.files))
    if limits.processes and "pids" not in held:
        found.append((resource.RLIMIT_NPROC, limits.processes))
    return found


def command_limits(limits: Limits, leaf: Leaf | None = None) -> list[tuple[int, int, int]]:
    """Limits as the kernel knows them, for a process that begins with nothing.

    Args:
        limits: What it may use.
        leaf: The control group that it is going to be in, if it gets one.
    """
    held = _held(leaf)
    found: list[tuple[int, int, int]] = []
    if memory := limits.memory_bytes:
        found.append((resource.RLIMIT_DATA, memory, memory))
        if "memory" not in held:
            space = memory + ADDRESS_SLACK
            found.append((resource.RLIMIT_AS, space, space))
    if cpu_s := limits.cpu_s:
        found.append((resource.RLIMIT_CPU, cpu_s, cpu_s + CPU_GRACE_S))
    if limits.files:
        found.append((resource.RLIMIT_NOFILE, limits.files, limits.files))
    if limits.processes and "pids" not in held:
        found.append((resource.RLIMIT_NPROC, limits.processes, limits.processes))
    return found
