"""Control groups (v2): limits that the kernel holds for all processes of an attempt together.

A worker needs a group that was delegated to it (``Delegate=yes`` in a unit of systemd). Only leaves
may have processes, so it moves into one before it hands controllers down:
```
 its group ─┬─ tenure.self     the worker, its launcher, and its supervisor, which comes first
            └─ tenure.PID-N    one command with limits, or one child that may run jobs with them
```
Where anything of that fails it goes back, nothing is left, and limits are held by rlimits alone.

A leaf is made by the worker; whoever is to be in it joins by itself, before it runs user code. Its
end kills whatever is in it, also what has left its process group. Source of the rules:
Documentation/admin-guide/cgroup-v2.rst of Linux.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenure.client.confinement import Limits

#: What of a group this module has a use for.
CONTROLLERS: Final = ("memory", "pids", "cpu")
#: The leaf of the worker itself.
SELF: Final = "tenure.self"
_LEAF: Final = re.compile(r"tenure\.(\d+)-\d+")
_PROC: Final = Path("/proc")
_SYSTEMD: Final = Path("/run/systemd/system")
#: How systemd marks what it has delegated.
_MARKS: Final = ("user.delegate", "trusted.delegate")
_NO_LIMIT: Final = "max"
_CPU_PERIOD_US: Final = 100_000
#: The kernel takes no less.
_CPU_QUOTA_US_MIN: Final = 1_000
#: And no more of these.
_PIDS_MAX: Final = 1 << 22
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


class NotDelegated(Exception):
    """This process has no control group to divide; the text says why."""


class Files:
    """What is done with the kernel's files and folders."""

    def read(self, file: Path) -> str:
        return file.read_text()

    def write(self, file: Path, text: str) -> None:
        file.write_text(text)

    def make(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)

    def remove(self, folder: Path) -> None:
        """Removes a group, and those that jobs have made inside it."""
        for inner, _, _ in os.walk(folder, topdown=False):
            Path(inner).rmdir()


FILES: Final = Files()


class Leaf:
    """The group of one command, or of one child.

    Args:
        folder: Where it is.
        files: The kernel's.

    Attributes:
        controllers: What it can hold: some of ``CONTROLLERS``.
    """

    def __init__(self, folder: Path, files: Files = FILES) -> None:
        self.folder = folder
        self._files = files
        # The controllers that a group has are those whose files it has.
        self.controllers = frozenset(
            name for name in CONTROLLERS if (folder / f"{name}.max").exists()
        )

    def join(self) -> None:
        """Brings this process in.

        Raises:
            OSError: The group has gone, or takes nobody.
        """
        self._files.write(self.folder / "cgroup.procs", "0")

    def hold(self, limits: Limits) -> None:
        """Sets limits, on top of what there is in it already.

        Raises:
            OSError: The kernel does not take them.
        """
        if (memory := limits.memory_bytes) and "memory" in self.controllers:
            self._set("memory.swap.max", "0")
            self._set("memory.max", str(self._now("memory.current") + memory))
        if limits.processes and "pids" in self.controllers:
            most = self._now("pids.current") + limits.processes
            self._set("pids.max", str(min(most, _PIDS_MAX)))
        if limits.cpus and "cpu" in self.controllers:
            quota_us = max(_CPU_QUOTA_US_MIN, round(limits.cpus * _CPU_PERIOD_US))
            self._set("cpu.max", f"{quota_us} {_CPU_PERIOD_US}")

    def lift(self) -> None:
        """Takes all limits back.

        Raises:
            OSError: They stay.
        """
        for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max"):
            self._set(name, _NO_LIMIT)

    def outgrown(self) -> bool:
        """Whether the kernel has killed in it because of its own limit on memory."""
        # Killed for want of the machine's memory, or by the limit of a group above, has "oom 0".
        try:
            rows = self._files.read(self.folder / "memory.events").splitlines()
        except OSError:
            return False
        events = dict(row.split(maxsplit=1) for row in rows)
        return events.get("oom", "0") != "0" and events.get("oom_kill", "0") != "0"

    def peak_kib(self) -> int:
        """The most memory that all in it had at once; 0: this kernel does not say."""
        try:
            return self._now("memory.peak") // 1024
        except (OSError, ValueError):
            return 0

    def kill(self) -> None:
        """Kills whatever is in it. Does not wait for that."""
        with suppress(OSError):
            if (self.folder / "cgroup.kill").exists():
                self._files.write(self.folder / "cgroup.kill", "1")
                return
            for pid in self._files.read(self.folder / "cgroup.procs").split():
                os.kill(int(pid), signal.SIGKILL)

    def remove(self) -> bool:
        """Removes it. False: something in it has not ended yet."""
        try:
            self._files.remove(self.folder)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _set(self, name: str, value: str) -> None:
        file = self.folder / name
        # A kernel without swap does not limit it, and one of another age has other files.
        if file.exists():
            self._files.write(file, value)

    def _now(self, name: str) -> int:
        return int(self._files.read(self.folder / name))


class Groups:
    """A group that is this worker's, and its leaves. Thread-safe; nothing here waits.

    Args:
        folder: Where the group is.
        controllers: Those that its leaves have.
        files: The kernel's.
    """

    def __init__(self, folder: Path, controllers: frozenset[str], files: Files = FILES) -> None:
        self.folder = folder
        self.controllers = controllers
        self._files = files
        self._numbers = count(1)
        self._lock = threading.Lock()
        #: Leaves in which something has not ended yet.
        self._ending: list[Leaf] = []

    def leaf(self) -> Leaf:
        """Makes a leaf.

        Raises:
            OSError: There can be no more.
        """
        folder = self.folder / f"tenure.{os.getpid()}-{next(self._numbers)}"
        self._files.make(folder)
        leaf = Leaf(folder, self._files)
        if (folder / "memory.oom.group").exists():
            # What is left of a job of which the kernel has killed a part is of no use.
            self._files.write(folder / "memory.oom.group", "1")
        return leaf

    def end(self, leaf: Leaf) -> None:
        """Kills what is in a leaf, and removes it, with a later one's end if it is busy now."""
        leaf.kill()
        with self._lock:
            self._ending = [ended for ended in (*self._ending, leaf) if not ended.remove()]

    def sweep(self, proc: Path = _PROC) -> None:
        """Removes what workers have left that were killed."""
        for folder in self.folder.glob("tenure.*-*"):
            match = _LEAF.fullmatch(folder.name)
            # Those of the living are not looked at: somebody may be about to join an empty one.
            if match is not None and not (proc / match[1]).exists():
                Leaf(folder, self._files).remove()


@contextmanager
def leaf_for(groups: Groups | None, limits: Limits | None) -> Iterator[Leaf | None]:
    """A leaf with limits for a while; none where there are no groups, or no limits.

    Raises:
        OSError: It cannot be made.
    """
    if groups is None or limits is None:
        yield None
        return
    leaf = groups.leaf()
    try:
        leaf.hold(limits)
        yield leaf
    finally:
        groups.end(leaf)


def take_over(proc: Path = _PROC, files: Files = FILES) -> Groups:
    """Makes the group of this process one for its jobs, and moves the process into a leaf of it.

    Args:
        proc: Where processes are told of.
        files: The kernel's.

    Raises:
        NotDelegated: That is not possible. All is as it was.
    """
    own = own_group(proc)
    # A worker that a supervisor has started is in the leaf already, and its group is divided.
    is_in = own.name == SELF
    group = own.parent if is_in else own
    try:
        offered = files.read(group / "cgroup.controllers").split()
    except OSError as error:
        raise NotDelegated(f"{group} cannot be read: {error.strerror}") from None
    wanted = [name for name in CONTROLLERS if name in offered]
    if not wanted:
        raise NotDelegated(f"{group} has none of the controllers {', '.join(CONTROLLERS)}")
    if not (group / "cgroup.events").exists():
        raise NotDelegated(f"{group} is the machine's root, which is nobody's to divide")
    if not is_in and _is_kept(group):
        raise NotDelegated(f"systemd keeps {group} for itself: its unit needs Delegate=yes")
    leaf = group / SELF
    enabled: list[str] = []
    why = ""
    try:
        if not is_in:
            files.make(leaf)
            files.write(leaf / "cgroup.procs", "0")
        for name in wanted:
            why = _tried(group / "cgroup.subtree_control", f"+{name}", files) or why
            if name in files.read(group / "cgroup.subtree_control").split():
                enabled.append(name)
    except OSError as error:
        why = f"{error.strerror} (has its unit Delegate=yes?)"
    if enabled:
        groups = Groups(group, frozenset(enabled), files)
        groups.sweep(proc)
        return groups
    if not is_in:
        with suppress(OSError):
            files.write(group / "cgroup.procs", "0")
        Leaf(leaf, files).remove()
    raise NotDelegated(f"{group} cannot be divided: {why}")


def take_over_for(*, wanted: bool) -> Groups | NotDelegated | None:
    """The same; gives the reason back instead of raising it, and None if it is not wanted."""
    if not wanted:
        return None
    try:
        return take_over()
    except NotDelegated as why:
        return why


def told(found: Groups | NotDelegated | None) -> str:
    """Who holds jobs to their limits, for people."""
    if isinstance(found, Groups):
        names = ", ".join(name for name in CONTROLLERS if name in found.controllers)
        return (
            f"the control group {found.folder} ({names}: all processes of an attempt together) "
            "and, for the rest, by rlimits (each process by itself)"
        )
    why = f": {found}" if found is not None else ""
    return f"rlimits, each of their processes by itself; no control group is delegated{why}"


def _is_kept(group: Path) -> bool:
    """Whether systemd has not delegated this group, though root may write to it."""
    # It would stop a service whose limits have killed a process, unless it has delegated the group.
    if os.geteuid() != 0 or not _SYSTEMD.exists():
        return False
    for mark in _MARKS:
        with suppress(OSError):
            if os.getxattr(group, mark) == b"1":
                return False
    return True


def _tried(file: Path, text: str, files: Files) -> str:
    """Why this cannot be written; empty: it was."""
    try:
        files.write(file, text)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return "other processes than this worker's are in it"
        return error.strerror or str(error)
    return ""


def own_group(proc: Path = _PROC) -> Path:
    """The folder of this process's group.

    Raises:
        NotDelegated: There is none, or it cannot be seen.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
        mounts = (proc / "self" / "mountinfo").read_text().splitlines()
    except OSError as error:
        raise NotDelegated(f"{error.filename} cannot be read: {error.strerror}") from None
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        raise NotDelegated("this kernel has no control groups v2")
    for mount in mounts:
        # 38 31 0:28 ROOT POINT rw,relatime OPTIONAL… - cgroup2 cgroup2 rw
        before, _, after = mount.partition(" - ")
        if after.split()[:1] == ["cgroup2"]:
            root, point = map(_unescaped, before.split()[3:5])
            # What is outside of this process's namespace begins with "/..".
            if Path(own).is_relative_to(root) and ".." not in Path(own).parts:
                return Path(point) / Path(own).relative_to(root)
    raise NotDelegated(f"no mounted hierarchy shows this process's group {own}")


def _unescaped(path: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), path)
