"""Jobs with limits that a control group can hold, as a user would define them."""

import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tenure.client import Command, Limits, job

#: Memory that processes take together, each less than it may by itself.
GREED = """
import os, sys, time
for _ in range(3):
    if os.fork() == 0:
        held = b"x" * (40 << 20)
        time.sleep(600)
os.wait()
"""
#: Starts a process that leaves its group of processes.
STRAY = "setsid sleep 600 & cat /proc/$!/cgroup"
#: Starts processes until it may not; each of them leaves the group of processes.
SPREE = """
import os, time
count = 0
try:
    while count < 40:
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
        count += 1
except BlockingIOError:
    pass
print(count)
"""


@job(
    name="limits_in_child", limits=Limits(memory="64MiB", processes=9, cpus=0.5), executor="process"
)
def limits_in_child() -> tuple[dict[str, str], bool]:
    """What holds this process: its control group, and whether its address space is bounded."""
    leaf = Path(sys.argv[-1])
    names = ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "cgroup.procs")
    held = {name: (leaf / name).read_text() for name in names}
    return held, resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


@job(name="files_in_child", executor="process")
def files_in_child() -> dict[str, str]:
    """The limits of its process's control group."""
    leaf = Path(sys.argv[-1])
    return {file.name: file.read_text() for file in leaf.glob("*.max")}


@job(name="outgrow_in_child", limits=Limits(memory="64MiB"), executor="process")
def outgrow_in_child(events: str) -> None:
    """Is killed as if by the kernel, which tells of it in these words."""
    leaf = Path(sys.argv[-1])
    (leaf / "memory.events").write_text(events)
    (leaf / "memory.peak").write_text(str(1 << 40))
    os.kill(os.getpid(), signal.SIGKILL)


@job(name="overeat_in_child", limits=Limits(memory="64MiB"), executor="process")
def overeat_in_child() -> None:
    """Takes too much, with others, each of them less than it may by itself."""
    subprocess.run([sys.executable, "-S", "-c", GREED], check=True)


@job(name="stray", limits=Limits(nice=1))
def stray() -> Command[str]:
    """Leaves a process behind that has left its group of processes; says in which groups it is."""
    return Command("sh", "-c", STRAY)


@job(name="stray_in_child", limits=Limits(nice=1), executor="process")
def stray_in_child() -> str:
    """The same."""
    with tempfile.TemporaryFile() as said:
        subprocess.run(["sh", "-c", STRAY], check=True, stdout=said)
        said.seek(0)
        return said.read().decode()


@job(name="spree", limits=Limits(processes=9))
def spree() -> Command[str]:
    """Starts processes until it may not, and leaves them behind."""
    return Command(sys.executable, "-S", "-c", SPREE)


@job(name="spree_in_child", limits=Limits(processes=9), executor="process")
def spree_in_child() -> int:
    """The same."""
    # Those that are left behind hold a pipe open: what they say goes to a file.
    with tempfile.TemporaryFile() as said:
        subprocess.run([sys.executable, "-S", "-c", SPREE], check=True, stdout=said)
        said.seek(0)
        return int(said.read())


@job(name="overeat", limits=Limits(memory="64MiB"))
def overeat() -> Command[str]:
    """Takes too much, with others, each of them less than it may by itself."""
    return Command(sys.executable, "-S", "-c", GREED)


@job(name="held_script", limits=Limits(memory="64MiB", processes=9, cpus=0.5))
def held_script(text: str) -> Command[str]:
    """Whatever a shell can do, held to limits."""
    return Command("sh", "-c", text)
