"""Control groups of the real kernel: the only tests that a machine may leave out.

It does so where nobody may make groups, or where nobody has handed down what limits them. Then they
say what is missing.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from tenure.worker.cgroup import NotDelegated, own_group

WAIT_S = 30.0


def _place(*wanted: str) -> tuple[Path | None, frozenset[str], str]:
    """Where groups can be made that have one of these controllers; or why nowhere."""
    try:
        own = own_group()
    except NotDelegated as why:
        return None, frozenset(), str(why)
    told = ""
    for group in (own, *own.parents):
        control = group / "cgroup.subtree_control"
        if not control.exists():
            break
        enabled = control.read_text().split()
        if os.access(group, os.W_OK) and os.access(group / "cgroup.procs", os.W_OK):
            if not wanted or set(wanted) & set(enabled):
                return group, frozenset(enabled), ""
            told += f"; {group} hands down {' '.join(enabled) or 'nothing'}"
        else:
            told += f"; {group} is somebody else's"
    want = " or ".join(wanted) or "groups"
    return None, frozenset(), f"expected a control group (v2) with {want} to make others in{told}"


@contextmanager
def made(*wanted: str) -> Iterator[tuple[Path, frozenset[str]]]:
    """A group for the test's processes alone, and its controllers."""
    place, controllers, why = _place(*wanted)
    if place is None:
        pytest.skip(why)
    folder = place / f"tenure-test-{os.getpid()}"
    folder.mkdir()
    with suppress(OSError):
        # As systemd marks what it has delegated.
        os.setxattr(folder, "user.delegate", b"1")
    try:
        yield folder, controllers
    finally:
        with suppress(OSError):
            (folder / "cgroup.kill").write_text("1")
        for inner, _, _ in os.walk(folder, topdown=False):
            _remove(Path(inner))


def _remove(group: Path) -> None:
    """Removes a group when all in it have ended."""
    tick, end = threading.Event(), time.monotonic() + WAIT_S
    while "populated 1" in (group / "cgroup.events").read_text():
        assert time.monotonic() < end, f"something in {group} lives"
        tick.wait(0.005)
    group.rmdir()


def _run(folder: Path, *names: str) -> dict[str, tuple[str, str, object]]:
    """Jobs of a worker in this group: their outcomes, errors and results."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.delegated", str(folder), *names],
        stdout=subprocess.PIPE,
        timeout=WAIT_S,
        check=True,
    )
    return {
        name: (outcome, message, msgspec.msgpack.decode(bytes.fromhex(result) or b"\xc0"))
        for name, (outcome, message, result) in json.loads(done.stdout).items()
    }


def test_what_has_left_its_process_group_ends_with_its_control_group() -> None:
    """Commands and children are in groups of their own, and leave nothing behind."""
    with made() as (folder, _):
        for outcome, message, told in _run(folder, "stray", "stray_in_child").values():
            assert outcome == "COMPLETED", message
            assert re.search(rf"0::/.*{folder.name}/tenure\.\d+-\d+\n", str(told))
        for leaf in folder.glob("tenure.*-*"):
            _remove(leaf)


def test_the_kernel_holds_all_processes_of_an_attempt_together() -> None:
    """Also root's: who wants more processes gets none, and who wants more memory is killed."""
    with made("memory", "pids") as (folder, controllers):
        sprees = ["spree", "spree_in_child"] if "pids" in controllers else []
        meals = ["overeat", "overeat_in_child"] if "memory" in controllers else []
        said = _run(folder, *sprees, *meals)
    for name in sprees:
        assert int(str(said[name][2])) == 8, said[name]
    for name in meals:
        outcome, message, _ = said[name]
        assert outcome == "FAILED"
        assert "more memory than the 64 MiB of limits.memory" in message
