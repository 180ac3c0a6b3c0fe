"""Control groups: what has to be so that limits are held by them, and how they come and go."""

import errno
import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tenure.client import Limits
from tenure.protocol.vocabulary import AttemptOutcome
from tenure.worker import cgroup
from tenure.worker.cgroup import Groups, Leaf, NotDelegated, take_over, take_over_for
from tenure.worker.confinement import command_limits
from tests.unit.worker.executor.bench import bench
from tests.unit.worker.kernel import ME, Kernel

OOM = "low 0\noom 1\noom_kill 3\n"
CONFINED = "tests.unit.worker.confined"
MIB = 1 << 20


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """One that has delegated a group."""
    return Kernel(tmp_path)


def taken(kernel: Kernel) -> Groups:
    """The group that it has delegated, taken over."""
    return take_over(kernel.proc, kernel)


class TestTakeOver:
    """What has to be so, and what is done."""

    def test_the_worker_moves_into_a_leaf_and_its_leaves_have_the_controllers(
        self, kernel: Kernel
    ) -> None:
        """No group with processes may hand controllers down."""
        groups = taken(kernel)
        assert groups.folder == kernel.unit
        assert groups.controllers == {"memory", "pids", "cpu"}
        assert kernel.members == {kernel.unit: set(), kernel.unit / cgroup.SELF: {ME}}
        leaf = groups.leaf()
        assert leaf.folder.parent == kernel.unit
        assert leaf.controllers == groups.controllers
        assert (leaf.folder / "memory.oom.group").read_text() == "1"

    def test_some_controllers_are_better_than_none(self, tmp_path: Path) -> None:
        """What is held is said, and is what the leaves have."""
        kernel = Kernel(tmp_path, "io pids")
        groups = taken(kernel)
        assert groups.controllers == groups.leaf().controllers == {"pids"}
        assert "(pids: all processes of an attempt together)" in cgroup.told(groups)

    def test_a_worker_of_a_supervisor_finds_it_done(self, kernel: Kernel) -> None:
        """It begins in its supervisor's leaf, and divides the same group."""
        taken(kernel)
        assert taken(kernel).folder == kernel.unit
        assert kernel.members == {kernel.unit: set(), kernel.unit / cgroup.SELF: {ME}}

    def test_others_in_the_group_keep_it_from_being_divided(self, kernel: Kernel) -> None:
        """Then all is as it was, and the reason says so."""
        kernel.put("1", kernel.unit)
        with pytest.raises(NotDelegated, match="other processes than this worker's are in it"):
            taken(kernel)
        assert kernel.members == {kernel.unit: {"1", ME}}
        assert [path for path in kernel.unit.iterdir() if path.is_dir()] == []

    def test_a_group_of_somebody_else_is_left_alone(
        self, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The reason says what a unit has to have."""

        def refuse(folder: Path) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(kernel, "make", refuse)
        with pytest.raises(NotDelegated, match=r"Permission denied .has its unit Delegate=yes"):
            taken(kernel)
        assert kernel.members == {kernel.unit: {ME}}

    @pytest.mark.parametrize(
        ("spoil", "why"),
        [
            (lambda own, unit: own.write_text("4:memory:/a\n"), "no control groups v2"),
            (lambda own, unit: own.unlink(), "cannot be read"),
            (lambda own, unit: own.write_text("0::/../else\n"), "no mounted hierarchy shows"),
            (lambda own, unit: (own.parent / "mountinfo").write_text(""), "no mounted hierarchy"),
            (lambda own, unit: (unit / "cgroup.controllers").unlink(), "cannot be read"),
            (lambda own, unit: (unit / "cgroup.controllers").write_text("io"), "has none of"),
            (lambda own, unit: (unit / "cgroup.events").unlink(), "the machine's root"),
        ],
    )
    def test_what_is_missing_is_said(
        self, kernel: Kernel, spoil: Callable[[Path, Path], object], why: str
    ) -> None:
        """Whatever it is, nothing is touched."""
        spoil(kernel.proc / "self" / "cgroup", kernel.unit)
        with pytest.raises(NotDelegated, match=why):
            taken(kernel)
        assert kernel.members == {kernel.unit: {ME}}

    @pytest.mark.parametrize("mark", [b"1", b"0", None])
    def test_root_takes_nothing_that_systemd_keeps(
        self, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, mark: bytes | None
    ) -> None:
        """It may write there, but systemd stops services whose groups have killed a process."""

        def marks(group: Path, name: str) -> bytes:
            if mark is None or name != "user.delegate":
                raise OSError(errno.ENODATA, "No data available")
            return mark

        monkeypatch.setattr(cgroup, "_SYSTEMD", kernel.mount)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(os, "getxattr", marks)
        if mark == b"1":
            assert taken(kernel).folder == kernel.unit
        else:
            with pytest.raises(NotDelegated, match="its unit needs Delegate=yes"):
                taken(kernel)

    def test_what_a_killed_worker_has_left_goes(self, kernel: Kernel) -> None:
        """The next one removes it; what belongs to the living it does not touch."""
        taken(kernel)
        dead, living = kernel.unit / "tenure.815-1", kernel.unit / "tenure.816-1"
        kernel.make(dead)
        kernel.make(living)
        (kernel.proc / "816").mkdir()
        taken(kernel)
        assert not dead.exists()
        assert living.exists()

    def test_without_limits_nothing_is_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A worker whose jobs have none stays where it is."""

        def never() -> Groups:
            raise AssertionError("it was not wanted")

        monkeypatch.setattr(cgroup, "take_over", never)
        assert take_over_for(wanted=False) is None


class TestLeaf:
    """One group, from its limits to its end."""

    def test_limits_are_on_top_of_what_is_there(self, kernel: Kernel) -> None:
        """They are lifted again for the next job."""
        leaf = taken(kernel).leaf()
        (leaf.folder / "memory.current").write_text(str(40 * MIB))
        (leaf.folder / "pids.current").write_text("3")
        leaf.hold(Limits(memory="64MiB", processes=9, cpus=1.5))
        assert _limits(leaf) == {
            "memory.max": str(104 * MIB),
            "memory.swap.max": "0",
            "pids.max": "12",
            "cpu.max": "150000 100000",
        }
        leaf.lift()
        assert set(_limits(leaf).values()) == {"max"}

    def test_what_no_limit_names_is_not_held(self, kernel: Kernel) -> None:
        """Nor does the kernel get numbers that it refuses."""
        leaf = taken(kernel).leaf()
        leaf.hold(Limits(nice=3))
        assert set(_limits(leaf).values()) == {"max", "max 100000"}
        (leaf.folder / "pids.current").write_text("3")
        leaf.hold(Limits(processes=1 << 22, cpus=0.01))
        assert _limits(leaf)["pids.max"] == str(1 << 22)
        assert _limits(leaf)["cpu.max"] == "1000 100000"

    def test_the_kernel_without_swap_or_peak(self, kernel: Kernel) -> None:
        """Files that it does not have are done without."""
        leaf = taken(kernel).leaf()
        (leaf.folder / "memory.swap.max").unlink()
        leaf.hold(Limits(memory="64MiB"))
        assert _limits(leaf)["memory.max"] == str(64 * MIB)
        assert leaf.peak_kib() == 0

    @pytest.mark.parametrize(
        ("events", "outgrown"),
        [(OOM, True), ("oom 0\noom_kill 1\n", False), ("oom 2\noom_kill 0\n", False), ("", False)],
    )
    def test_only_its_own_limit_counts(self, kernel: Kernel, events: str, outgrown: bool) -> None:
        """Who was killed because the machine has no memory left has not outgrown a limit."""
        leaf = taken(kernel).leaf()
        (leaf.folder / "memory.events").write_text(events)
        assert leaf.outgrown() is outgrown

    def test_a_busy_leaf_goes_with_a_later_one(self, kernel: Kernel) -> None:
        """Nobody waits for what has not died yet."""
        groups = taken(kernel)
        first, second = groups.leaf(), groups.leaf()
        kernel.put("7", first.folder)
        kernel.put("8", second.folder)
        kernel.stubborn.add("7")
        groups.end(first)
        assert first.folder.exists()
        kernel.stubborn.clear()
        kernel.members[first.folder].clear()
        groups.end(second)
        assert not first.folder.exists()
        assert not second.folder.exists()

    def test_an_old_kernel_kills_one_by_one(
        self, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where it cannot kill a group as a whole."""
        leaf = taken(kernel).leaf()
        (leaf.folder / "cgroup.kill").unlink()
        (leaf.folder / "cgroup.procs").write_text("7\n8\n")
        killed: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
        leaf.kill()
        assert killed == [(7, 9), (8, 9)]

    def test_groups_that_jobs_have_made_inside_go_too(self, tmp_path: Path) -> None:
        """The deepest first."""
        (tmp_path / "leaf" / "inner" / "most").mkdir(parents=True)
        assert Leaf(tmp_path / "leaf").remove()
        assert not (tmp_path / "leaf").exists()
        assert Leaf(tmp_path / "leaf").remove()

    def test_rlimits_that_count_worse_are_not_set(self, kernel: Kernel) -> None:
        """Address space is no memory, and others' processes are not this job's."""
        limits = Limits(memory="64MiB", processes=9, files=8)
        leaf = taken(kernel).leaf()
        kinds = {kind for kind, _, _ in command_limits(limits, leaf)}
        assert kinds == {resource.RLIMIT_DATA, resource.RLIMIT_NOFILE}
        assert {kind for kind, _, _ in command_limits(limits)} == kinds | {
            resource.RLIMIT_AS,
            resource.RLIMIT_NPROC,
        }


class TestJobs:
    """Real processes, over files that nobody holds them to."""

    def test_a_command_is_in_a_leaf_of_its_own(self, kernel: Kernel) -> None:
        """With its limits, from before its program begins to its end."""
        groups = taken(kernel)
        with bench("held_script", groups=groups) as pool:
            names = "cgroup.procs memory.max pids.max cpu.max"
            told = pool.result("held_script", f"cd '{kernel.unit}'/tenure.*-1 && tail -n 1 {names}")
            assert told.outcome is AttemptOutcome.COMPLETED, told.fault
            for line in ("0", str(64 * MIB), "9", "50000 100000"):
                assert line in msgspec.msgpack.decode(told.result).split("\n")
            assert not [*kernel.unit.glob("tenure.*-*")]

    def test_a_command_that_outgrows_its_limit_says_so(self, kernel: Kernel) -> None:
        """It has failed, and the error names the limit and the peak."""
        groups = taken(kernel)
        with bench("held_script", groups=groups) as pool:
            folder = f"cd '{kernel.unit}'/tenure.*"
            result = pool.result(
                "held_script",
                f"{folder}-1; printf 'oom 1\\noom_kill 1\\n' > memory.events; "
                f"echo {66 * MIB} > memory.peak; kill -KILL $$",
            )
            assert result.outcome is AttemptOutcome.FAILED
            assert result.fault is not None
            assert "more memory than the 64 MiB of limits.memory" in result.fault.message
            assert "having had 66 MiB of memory at most" in result.fault.message
            result = pool.result("held_script", "kill -KILL $$")
            assert result.fault is not None
            assert "a person did" in result.fault.message

    def test_a_leaf_that_cannot_be_had_costs_an_attempt(self, kernel: Kernel) -> None:
        """The command does not run without its limits, and is not to blame."""
        groups = taken(kernel)
        with bench("held_script", groups=Groups(kernel.mount / "gone", groups.controllers)) as pool:
            result = pool.result("held_script", "echo on")
            assert result.outcome is AttemptOutcome.FAILED
            assert result.fault is not None
            assert result.fault.type == "FileNotFoundError"

    def test_a_child_is_in_a_leaf_with_limits_for_one_job_at_a_time(self, kernel: Kernel) -> None:
        """The next one in the same child has none."""
        groups = taken(kernel)
        names = ("limits_in_child", "files_in_child")
        with bench(*names, slots=1, module=CONFINED, groups=groups) as pool:
            for _ in range(2):
                result = pool.result("limits_in_child")
                assert result.outcome is AttemptOutcome.COMPLETED, result.fault
                held, is_space_bounded = msgspec.msgpack.decode(result.result)
                assert held == {
                    "cgroup.procs": "0",
                    "memory.max": str(64 * MIB),
                    "memory.swap.max": "0",
                    "pids.max": "9",
                    "cpu.max": "50000 100000",
                }
                assert not is_space_bounded
                files = msgspec.msgpack.decode(pool.result("files_in_child").result)
                assert {text.split()[0] for text in files.values()} == {"max"}
        assert not [*kernel.unit.glob("tenure.*-*")]

    def test_a_job_that_outgrows_its_limit_takes_its_child_along(self, kernel: Kernel) -> None:
        """That is its own failure, and no lost worker; a kill by others is."""
        groups = taken(kernel)
        with bench("outgrow_in_child", slots=1, module=CONFINED, groups=groups) as pool:
            result = pool.result("outgrow_in_child", OOM)
            assert result.outcome is AttemptOutcome.FAILED
            assert result.fault is not None
            assert "more memory than the 64 MiB of limits.memory" in result.fault.message
            assert f"{1 << 20} MiB of memory at most" in result.fault.message
            result = pool.result("outgrow_in_child", "oom 0\noom_kill 1\n")
            assert result.outcome is AttemptOutcome.LOST

    def test_children_without_limited_jobs_have_no_leaf(self, kernel: Kernel) -> None:
        """Who asks for no limit pays for none."""
        with bench("files_in_child", slots=1, module=CONFINED, groups=taken(kernel)) as pool:
            assert msgspec.msgpack.decode(pool.result("files_in_child").result) == {}
            assert not [*kernel.unit.glob("tenure.*-*")]


class TestTold:
    """What the log says."""

    def test_who_holds_the_limits(self, kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
        """The group, or why there is none."""
        caplog.set_level(logging.INFO)
        for groups, expected in (
            (taken(kernel), f"{kernel.unit} (memory, pids, cpu: all processes of an attempt"),
            (NotDelegated("nobody did"), "no control group is delegated: nobody did"),
            (None, "by rlimits, each of their processes by itself"),
        ):
            caplog.clear()
            with bench("held_script", groups=groups):
                pass
            (line,) = [row.message for row in caplog.records if row.levelno == logging.INFO]
            assert expected in line
            warnings = [row.message for row in caplog.records if row.levelno == logging.WARNING]
            assert len(warnings) == (0 if isinstance(groups, Groups) else 1)
            for warning in warnings:
                assert "expected to hold held_script to limits.cpus, but only" in warning


def _limits(leaf: Leaf) -> dict[str, str]:
    names = ("memory.max", "memory.swap.max", "pids.max", "cpu.max")
    files = [leaf.folder / name for name in names]
    return {file.name: file.read_text() for file in files if file.exists()}
