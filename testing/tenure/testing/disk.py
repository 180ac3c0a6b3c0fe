"""A simulated disk with the files of one database.

What it knows beyond files is what faults are made of: which writes have begun by now, and which an
fsync has made durable. SQLite itself reads and writes these files, see ``testing.host``.

Writes take no time, an fsync does: the steps of a database (see ``backend.host``) run at one moment
of the event loop, and the disk counts the time they would have waited. So what they did lies partly
in the future, and a crash in between undoes that part.
"""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Final
from weakref import WeakValueDictionary

import apsw

SECTOR_BYTES: Final = 512
_RESERVE_BYTES: Final = 1024 * 1024
_FSYNC_MS: Final = (0.3, 0.3)


@dataclass(slots=True, eq=False)
class _Write:
    """One write to a file, or its truncation.

    Attributes:
        issued_s: When it was done.
        at: Where it begins; a truncation: the new size.
        data: What was written; None: it is a truncation.
        before: What it has replaced or cut off.
        size: Of the file, before.
        synced_s: When an fsync that covers it returned, or will.
        lost: Such an fsync failed: the system shows it, and will never write it to the disk.
    """

    issued_s: float
    at: int
    data: bytes | None
    before: bytes
    size: int
    synced_s: float = inf
    lost: bool = False

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.at :]
            return
        if len(content) < self.at:
            content.extend(bytes(self.at - len(content)))
        content[self.at : self.at + len(self.data)] = self.data

    def undo(self, content: bytearray) -> None:
        if self.data is None:
            content.extend(self.before)
            return
        content[self.at : self.at + len(self.before)] = self.before
        del content[self.size :]


@dataclass(slots=True, eq=False)
class SimFile:
    """A file: what the system shows, and what the disk has.

    Attributes:
        content: What the system shows.
        durable: What a power loss leaves.
        writes: What is in the first and may not be in the second, in order.
        new: No fsync has reached it yet, so its name may not last either.
    """

    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    writes: list[_Write] = field(default_factory=list)
    new: bool = True

    def settle(self, now_s: float) -> None:
        """Moves what is durable by now to the disk."""
        done = 0
        for write in self.writes:
            if write.lost:
                done += 1
            elif write.synced_s <= now_s:
                write.apply(self.durable)
                done += 1
            else:
                break
        del self.writes[:done]

    def sync(self, done_s: float) -> None:
        """All writes so far are durable from then on."""
        for write in reversed(self.writes):
            if write.lost or write.synced_s < inf:
                break
            write.synced_s = done_s
        self.new = False

    def fail_sync(self) -> None:
        """An fsync failed: the system takes what it could not write for written."""
        for write in reversed(self.writes):
            if write.lost or write.synced_s < inf:
                break
            write.lost = True


@dataclass(slots=True, eq=False)
class _Renaming:
    """A change of the directory: a name got a file, or lost it."""

    issued_s: float
    name: str
    file: SimFile | None
    before: SimFile | None
    synced_s: float = inf


class SimDisk:
    """The disk. It outlives the processes that use it; at most one has a database on it open.

    Attributes:
        fsync_ms: How long an fsync takes: at least, at most.
        free_bytes: How much more fits on it; None: it has no end.
        eio: Every write and every fsync fails.
        refused: How many writes did not fit.
        fsyncs: How many there were.
        failed_fsyncs: How many of them failed.
    """

    def __init__(self, rng: Random) -> None:
        self.fsync_ms = _FSYNC_MS
        self.free_bytes: int | None = None
        self.eio = False
        self.refused = 0
        self.fsyncs = 0
        self.failed_fsyncs = 0
        self.locked = False
        self.reserved = False
        #: Files that were open at the last one are of no use any more.
        self.crashes = 0
        self._number = next(_NUMBERS)
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._busy_until_s = 0.0
        self._failing_fsyncs = 0
        self._files: dict[str, SimFile] = {}
        self._durable_files: dict[str, SimFile] = {}
        self._renamings: list[_Renaming] = []
        _DISKS[self._number] = self

    # Faults.

    @property
    def full(self) -> bool:
        """Whether nothing more fits; set it to take all space, or to give it back."""
        return self.free_bytes is not None and self.free_bytes <= 0

    @full.setter
    def full(self, full: bool) -> None:
        self.free_bytes = 0 if full else None

    def fail_next_fsync(self) -> None:
        """The next fsync fails, those after it work.

        As on Linux, what it should have written is never written: the system shows it, takes it
        for clean, and drops it sooner or later.
        """
        self._failing_fsyncs += 1

    def heal_fsync(self) -> None:
        """The next fsync works, and takes no longer than usual."""
        self._failing_fsyncs = 0
        self.fsync_ms = _FSYNC_MS

    def crash(self) -> None:
        """The process that has a database open dies now; the system lives, with all its caches."""
        now_s = self._loop.time()
        self.crashes += 1
        self.locked = False
        self._busy_until_s = now_s
        for file in self._files.values():
            file.settle(now_s)
            while file.writes and file.writes[-1].issued_s > now_s:
                file.writes.pop().undo(file.content)
        while self._renamings and self._renamings[-1].issued_s > now_s:
            renaming = self._renamings.pop()
            _bind(self._files, renaming.name, renaming.before)

    def power_loss(self, rng: Random) -> None:
        """The machine dies now. Of what no fsync has made durable, anything may be left.

        Args:
            rng: Draws whether nothing is left, the first few writes, or some of them in any order,
                and whether one of them is torn.
        """
        self.crash()
        now_s = self._loop.time()
        self._settle_names(now_s)
        for renaming in self._renamings[: rng.randint(0, len(self._renamings))]:
            _bind(self._durable_files, renaming.name, renaming.file)
        self._renamings.clear()
        self._files = dict(self._durable_files)
        for file in self._files.values():
            for write in _survivors(file.writes, rng):
                write.apply(file.durable)
            file.writes.clear()
            file.content[:] = file.durable

    def flip_bit(self, name: str, at: int, bit: int = 0) -> None:
        """Damages a file: the disk reads another bit than was written. For while none is open."""
        file = self._files[name]
        for content in (file.content, file.durable):
            if at < len(content):
                content[at] ^= 1 << bit

    def heal(self) -> None:
        """Ends every fault that can end."""
        self.free_bytes = None
        self.eio = False
        self.heal_fsync()

    # For looking at it, and for what runs on it.

    def copy(self) -> "SimDisk":
        """A disk with the same files, as the system shows them now."""
        copy = SimDisk(Random(0))
        for name, content in self.files.items():
            copy.create(name).content[:] = content
        return copy

    @property
    def files(self) -> Mapping[str, bytes]:
        """The contents of all files, as the system shows them."""
        return {name: bytes(file.content) for name, file in self._files.items()}

    def address(self, path: str) -> str:
        """How SQLite names a file for the process that runs now."""
        return f"{self._number}:{self.crashes}:{path}"

    def now_s(self) -> float:
        """When what is done next is done: once the disk has finished what it was told to do."""
        return max(self._loop.time(), self._busy_until_s)

    def find(self, name: str) -> SimFile | None:
        """A file that exists."""
        return self._files.get(name)

    def create(self, name: str) -> SimFile:
        """A file; a new one if there is none."""
        file = self._files.get(name)
        if file is None:
            file = SimFile()
            self._rename(name, file)
        return file

    def delete(self, name: str, *, sync: bool) -> None:
        """Removes a file, durably or not."""
        file = self._files[name]
        self._give_back(len(file.content))
        self._rename(name, None)
        if sync:
            self._sync_names(self._pass_fsync())

    def write(self, file: SimFile, data: bytes, at: int) -> None:
        """Writes to a file.

        Raises:
            apsw.Error: It does not fit, or the disk is broken.
        """
        if self.eio:
            raise apsw.exception_for(apsw.SQLITE_IOERR_WRITE)
        content = file.content
        growth = at + len(data) - len(content)
        if self.free_bytes is not None and growth > 0:
            if growth > self.free_bytes:
                self.refused += 1
                raise apsw.exception_for(apsw.SQLITE_FULL)
            self.free_bytes -= growth
        before = bytes(content[at : at + len(data)])
        write = _Write(self.now_s(), at, data, before, len(content))
        write.apply(content)
        file.writes.append(write)

    def truncate(self, file: SimFile, size: int) -> None:
        """Cuts a file off."""
        if size < len(file.content):
            self._give_back(len(file.content) - size)
            cut = bytes(file.content[size:])
            write = _Write(self.now_s(), size, None, cut, len(file.content))
            write.apply(file.content)
            file.writes.append(write)

    def sync(self, file: SimFile) -> None:
        """Makes a file durable, and its name.

        Raises:
            apsw.Error: It may not be.
        """
        self.fsyncs += 1
        file.settle(self._loop.time())
        new = file.new
        done_s = self._pass_fsync()
        if self.eio or self._failing_fsyncs:
            self._failing_fsyncs = max(0, self._failing_fsyncs - 1)
            self.failed_fsyncs += 1
            file.fail_sync()
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        file.sync(done_s)
        if new:
            # SQLite syncs the directory too when it first syncs a journal that it has created.
            self._sync_names(done_s)

    def keep_reserve(self) -> None:
        """Sets the store's reserve aside, if it fits."""
        if self.reserved:
            return
        if self.free_bytes is not None:
            if self.free_bytes < _RESERVE_BYTES:
                return
            self.free_bytes -= _RESERVE_BYTES
        self.reserved = True

    def drop_reserve(self) -> None:
        """Frees it."""
        if self.reserved:
            self.reserved = False
            self._give_back(_RESERVE_BYTES)

    def _pass_fsync(self) -> float:
        self._busy_until_s = self.now_s() + self._rng.uniform(*self.fsync_ms) / 1000
        return self._busy_until_s

    def _give_back(self, size: int) -> None:
        if self.free_bytes is not None:
            self.free_bytes += size

    def _rename(self, name: str, file: SimFile | None) -> None:
        self._renamings.append(_Renaming(self.now_s(), name, file, self._files.get(name)))
        _bind(self._files, name, file)

    def _sync_names(self, done_s: float) -> None:
        self._settle_names(self._loop.time())
        for renaming in self._renamings:
            renaming.synced_s = min(renaming.synced_s, done_s)

    def _settle_names(self, now_s: float) -> None:
        while self._renamings and self._renamings[0].synced_s <= now_s:
            renaming = self._renamings.pop(0)
            _bind(self._durable_files, renaming.name, renaming.file)


def _bind(files: dict[str, SimFile], name: str, file: SimFile | None) -> None:
    if file is None:
        files.pop(name, None)
    else:
        files[name] = file


def _survivors(writes: Sequence[_Write], rng: Random) -> list[_Write]:
    """What a power loss leaves of writes that may or may not have reached the disk."""
    left = [write for write in writes if not write.lost]
    share = rng.choice((0.0, 0.5, 0.9, None))
    if share is None:
        left = left[: rng.randint(0, len(left))]
    else:
        left = [write for write in left if rng.random() < share]
    if left and left[-1].data is not None and rng.random() < 0.5:
        left += _torn(left.pop(), rng)
    return left


def _torn(write: _Write, rng: Random) -> list[_Write]:
    """Some of the sectors of one write."""
    sectors = []
    data = write.data or b""
    at = write.at
    end = at + len(data)
    while at < end:
        stop = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if rng.random() < 0.5:
            part = data[at - write.at : stop - write.at]
            sectors.append(_Write(write.issued_s, at, part, b"", write.size))
        at = stop
    return sectors


_NUMBERS: Final = itertools.count(1)
_DISKS: Final[WeakValueDictionary[int, SimDisk]] = WeakValueDictionary()


def locate(name: str) -> tuple[SimDisk, str]:
    """Disk and name of a file, from what ``SimDisk.address`` gave.

    Raises:
        apsw.Error: The process that asked for it has crashed since.
    """
    number, crashes, path = name.split(":", 2)
    disk = _DISKS[int(number)]
    if disk.crashes != int(crashes):
        raise apsw.exception_for(apsw.SQLITE_IOERR)
    return disk, path
