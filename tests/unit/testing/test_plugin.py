"""``tenure_cluster``: what a user's project gets by installing ``tenure[testing]``."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

JOBS = """
from datetime import timedelta

import pytest

from tenure.client import current_job, job

@job(queue="media")
def resize(url: str, width: int = 640) -> str:
    return f"{url}?w={width}"

@job
async def named_elsewhere() -> int:
    return 7
"""


def run_tests(folder: Path, text: str, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Runs a test module as a project's own pytest would, with warnings as errors."""
    (folder / "test_project.py").write_text(text, "utf-8")
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "--strict-markers", *flags, "test_project.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_the_fixture_is_there_by_installing(tmp_path: Path) -> None:
    """The example of the documentation, with nothing but an import of the project's own jobs."""
    done = run_tests(
        tmp_path,
        JOBS
        + """
def test_cluster(tenure_cluster):
    h = tenure_cluster.client.submit(resize.options(delay=timedelta(hours=1)), "x")
    tenure_cluster.advance(timedelta(hours=1))
    assert h.result(timeout=1).endswith("640")

@pytest.mark.tenure_cluster(masters=2, workers=2, partitions=2, seed=9)
def test_shape(tenure_cluster):
    assert tenure_cluster.client.cluster.topology().partition_count == 2
    assert [*tenure_cluster.sim.masters] == ["m1", "m2"]

class TestJobsByName:
    @pytest.fixture
    def tenure_jobs(self):
        return [named_elsewhere]

    def test_jobs(self, tenure_cluster):
        assert tenure_cluster.sim.jobs == {named_elsewhere.name: named_elsewhere}
""",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_a_project_that_does_not_use_it_pays_nothing(tmp_path: Path) -> None:
    """Neither gRPC nor a portion of Tenure is imported for tests that ask for no cluster."""
    done = run_tests(
        tmp_path,
        """
import sys

def test_imports():
    heavy = {"grpc", "google.protobuf", "msgspec", "asyncio.runners"} & set(sys.modules)
    mine = {name for name in sys.modules if name.startswith("tenure.")}
    assert not heavy - {"asyncio.runners"}
    assert mine == {"tenure.testing", "tenure.testing.plugin"}
""",
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_mark_is_an_error_of_that_test_alone(tmp_path: Path) -> None:
    """Other tests of the project go on."""
    done = run_tests(
        tmp_path,
        """
import pytest

@pytest.mark.tenure_cluster(leaders=3)
def test_wrong(tenure_cluster): ...

def test_right(): ...
""",
    )

    assert "1 passed, 1 error" in done.stdout
    assert "leaders" in done.stdout


def test_an_extra_that_is_missing_is_named(tmp_path: Path) -> None:
    """Whoever has Tenure without ``testing`` and asks for the fixture is told what to install."""
    done = run_tests(
        tmp_path,
        """
import sys

sys.modules["apsw"] = None

def test_cluster(tenure_cluster): ...
""",
    )

    assert "pip install 'tenure[testing]'" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_entry_point_is_declared() -> None:
    """pytest finds it by the distribution's own metadata."""
    (found,) = (point for point in entry_points(group="pytest11") if point.name == "tenure")

    assert found.value == "tenure.testing.plugin"


@pytest.mark.parametrize("name", ["tenure_cluster", "tenure_jobs"])
def test_the_fixtures_have_descriptions(name: str, tmp_path: Path) -> None:
    """`pytest --fixtures` tells what they are."""
    done = run_tests(tmp_path, "", "--fixtures")

    described = done.stdout.partition(f"\n{name}")[2].splitlines()
    assert described
    assert described[1].strip()
