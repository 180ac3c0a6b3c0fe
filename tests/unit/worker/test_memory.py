"""When there is memory for more jobs, and where that is read."""

import os
from pathlib import Path

import pytest

from tenure.client import Rejected
from tenure.worker.memory import Memory, MemoryGate, MemoryReader

MIB = 1024**2
PLENTY = Memory(total=8_000 * MIB, available=4_000 * MIB, resident=60 * MIB)


class Readings:
    """What is read next."""

    def __init__(self) -> None:
        self.now = PLENTY

    def __call__(self) -> Memory:
        return self.now


@pytest.fixture
def readings() -> Readings:
    """Plenty, to begin with."""
    return Readings()


def test_headroom_with_hysteresis(readings: Readings) -> None:
    """Shut below the headroom, open an eighth above it; only a change is news."""
    gate = MemoryGate(800 * MIB, None, readings)
    told = []
    for available in (900, 801, 799, 700, 850, 899, 900, 850, 799):
        readings.now = PLENTY._replace(available=available * MIB)
        told.append((gate.look(), bool(gate.shut)))
    assert told == [
        (False, False),
        (False, False),
        (True, True),
        (False, True),
        (False, True),
        (False, True),
        (True, False),
        (False, False),
        (True, True),
    ]
    assert not gate.too_large
    assert "799 MiB" in gate.shut


def test_size_with_hysteresis(readings: Readings) -> None:
    """Shut above the limit, open an eighth below it, whatever is available."""
    gate = MemoryGate(None, 800 * MIB, readings)
    told = []
    for resident in (799, 801, 750, 701, 700, 750):
        readings.now = PLENTY._replace(resident=resident * MIB)
        told.append((gate.look(), gate.too_large))
    assert told == [
        (False, False),
        (True, True),
        (False, True),
        (False, True),
        (True, False),
        (False, False),
    ]


def test_both_have_to_be_well_again(readings: Readings) -> None:
    """One that is well again does not open what the other keeps shut."""
    gate = MemoryGate(800 * MIB, 800 * MIB, readings)
    readings.now = PLENTY._replace(available=0, resident=900 * MIB)
    assert gate.look()
    readings.now = PLENTY._replace(available=0)
    assert not gate.look()
    assert not gate.too_large
    readings.now = PLENTY
    assert gate.look()
    assert not gate.shut


@pytest.mark.parametrize(
    ("headroom", "largest", "field"),
    [(8_000 * MIB, None, "memory_headroom"), (None, 64 * MIB, "memory_max")],
)
def test_limits_that_could_never_be_kept_are_refused(
    headroom: int | None, largest: int | None, field: str, readings: Readings
) -> None:
    """More headroom than there is memory; a size that the worker has before its first job."""
    with pytest.raises(Rejected) as caught:
        MemoryGate(headroom, largest, readings)
    assert caught.value.field == field


class Machine:
    """Files as the kernel has them."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "meminfo").write_text(
            "MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable: 4000 kB\nHugePages_Total: 0\n"
        )
        (self.proc / "self" / "statm").write_text("5000 100 50 1 0 400 0\n")
        (self.proc / "self" / "cgroup").write_text("1:name=systemd:/x\n0::/jobs/worker\n")

    def group(self, path: str, limit: str, current: int, cache: int) -> None:
        """A control group."""
        folder = self.cgroups / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\nactive_file 7\n")

    def read(self) -> Memory:
        """What is read of it."""
        return MemoryReader(self.proc, self.cgroups)()


def test_the_machine_counts_where_nothing_else_does(tmp_path: Path) -> None:
    """No control group with a limit: what the kernel thinks that there is left."""
    machine = Machine(tmp_path)
    resident = 100 * os.sysconf("SC_PAGE_SIZE")
    assert machine.read() == (8_000 * 1024, 4_000 * 1024, resident)
    machine.group("jobs/worker", "max", 10, 0)
    assert machine.read().available == 4_000 * 1024


def test_the_narrowest_group_counts(tmp_path: Path) -> None:
    """Of its own group and those around it: the limit, less what is taken, plus what can be had."""
    machine = Machine(tmp_path)
    machine.group("jobs/worker", "1000000", 600_000, 100_000)
    assert machine.read()[:2] == (1_000_000, 500_000)
    machine.group("jobs", "900000", 800_000, 0)
    assert machine.read()[:2] == (900_000, 100_000)


def test_a_group_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    """Files that vanish or hold something else do not stop a worker."""
    machine = Machine(tmp_path)
    machine.group("jobs/worker", "a lot", 1, 0)
    assert machine.read().available == 4_000 * 1024
    (machine.proc / "self" / "cgroup").unlink()
    assert machine.read().available == 4_000 * 1024


def test_this_machine_can_be_read() -> None:
    """The real files: a process has a size, and there is more memory than that."""
    now = MemoryReader()()
    assert 1 * MIB < now.resident < now.total
    assert 0 < now.available <= now.total
