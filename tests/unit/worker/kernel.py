"""A control group and its kernel, in plain files: the rules that ``cgroup`` has to keep to."""

import errno
import os
import shutil
from pathlib import Path

from tenure.worker.cgroup import Files

#: The files of a group, by controller, and what is in them at first.
_FILES = {
    "": {"cgroup.procs": "", "cgroup.subtree_control": "", "cgroup.events": "", "cgroup.kill": ""},
    "memory": {
        "memory.max": "max",
        "memory.swap.max": "max",
        "memory.oom.group": "0",
        "memory.current": "0",
        "memory.events": "oom 0\noom_kill 0\n",
    },
    "pids": {"pids.max": "max", "pids.current": "0"},
    "cpu": {"cpu.max": "max 100000"},
}
ME = "4711"


class Kernel(Files):
    """Groups in a folder; process 4711 is in ``unit``, and asks.

    Args:
        folder: Where there is nothing yet.
        offered: The controllers that ``unit`` has.
    """

    def __init__(self, folder: Path, offered: str = "memory pids cpu") -> None:
        self.proc = folder / "proc"
        self.mount = folder / "a mount"
        (self.proc / "self").mkdir(parents=True)
        where = str(self.mount).replace(" ", "\\040")
        (self.proc / "self" / "mountinfo").write_text(
            f"31 23 0:28 / /sys rw,relatime - tmpfs tmpfs rw\n"
            f"38 31 0:28 / {where} rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
        )
        #: Who is in which group.
        self.members: dict[Path, set[str]] = {}
        self.unit = self.mount / "unit"
        self.mount.mkdir()
        self._found(self.unit, offered)
        #: Processes that do not die at once.
        self.stubborn: set[str] = set()
        self.put(ME, self.unit)

    def put(self, pid: str, group: Path) -> None:
        """A process is in this group now."""
        for members in self.members.values():
            members.discard(pid)
        self.members[group].add(pid)
        if pid == ME:
            own = "/" + str(group.relative_to(self.mount))
            (self.proc / "self" / "cgroup").write_text(f"4:memory:/elsewhere\n0::{own}\n")

    def make(self, folder: Path) -> None:
        if folder not in self.members:
            self._found(folder, (folder.parent / "cgroup.subtree_control").read_text())

    def remove(self, folder: Path) -> None:
        if folder not in self.members:
            raise _error(errno.ENOENT)
        if self.members[folder]:
            raise _error(errno.EBUSY)
        del self.members[folder]
        shutil.rmtree(folder)

    def write(self, file: Path, text: str) -> None:
        group = file.parent
        if not file.exists():
            raise _error(errno.EACCES)
        if file.name == "cgroup.procs":
            if (group / "cgroup.subtree_control").read_text():
                raise _error(errno.EBUSY)
            self.put(ME if text == "0" else text, group)
        elif file.name == "cgroup.subtree_control":
            self._enable(group, text.removeprefix("+"))
        elif file.name == "cgroup.kill":
            self.members[group] &= self.stubborn
        else:
            super().write(file, text)

    def _found(self, group: Path, controllers: str) -> None:
        group.mkdir()
        self.members[group] = set()
        (group / "cgroup.controllers").write_text(controllers)
        for name in ("", *controllers.split()):
            self._fill(group, name)

    def _fill(self, group: Path, controller: str) -> None:
        for name, text in _FILES.get(controller, {}).items():
            (group / name).write_text(text)

    def _enable(self, group: Path, controller: str) -> None:
        if controller not in (group / "cgroup.controllers").read_text().split():
            raise _error(errno.ENOENT)
        if self.members[group]:
            # No internal processes.
            raise _error(errno.EBUSY)
        file = group / "cgroup.subtree_control"
        if controller in file.read_text().split():
            return
        file.write_text(f"{file.read_text()} {controller}".strip())
        for leaf in self.members:
            if leaf.parent == group:
                self._fill(leaf, controller)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
