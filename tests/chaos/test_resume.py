"""A long job whose workers are killed over and over: it gets on, and hardly a step runs twice."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from tenure.client import Client
from tests.chaos import app
from tests.chaos.cluster import Cluster

_LOGGER = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(1_800)

#: A step takes longer than the pause between two checkpoints of a job.
STEP_S = 0.25
WORKERS = ("worker-1", "worker-2", "worker-3")
#: A lease lives 15 s, its job is granted at once then; the rest is for a slow machine.
AGAIN_S = 90.0


def killed(directory: Path, *, steps: int, kills: int) -> tuple[Counter[int], list[str], int]:
    """Runs a job, and kills whichever worker runs it, so often, each time a step is saved.

    Returns:
        How often each step was begun, the workers of all attempts, and the losses that are charged
        in the end.
    """
    trail = directory / "trail"
    with Cluster(directory, f"sqlite://{directory / 'store.db'}") as cluster:
        cluster.start_masters(1)
        for name in WORKERS:
            cluster.wait_said(cluster.start_worker(name), "registered")
        with Client(cluster.addresses) as client:
            handle = client.submit(app.climb, "up", steps, STEP_S, str(trail))
            lease = ""
            for number in range(kills):
                cluster.until(
                    lambda n=number: len(client.describe(handle.id).attempts) == n + 1,  # type: ignore[misc]
                    AGAIN_S,
                    f"attempt {number + 1}",
                )
                saved = client.describe(handle.id).checkpoint_at
                # Some steps on, so that each attempt has done something.
                for _ in range(3):
                    cluster.until(
                        lambda s=saved: client.describe(handle.id).checkpoint_at != s,  # type: ignore[misc]
                        AGAIN_S,
                        "a checkpoint",
                    )
                    saved = client.describe(handle.id).checkpoint_at
                last = client.describe(handle.id).attempts[-1]
                assert last.fence > lease
                lease = last.fence
                cluster.processes[last.worker].kill()
                cluster.start_worker(last.worker)
            assert handle.result(timeout=AGAIN_S + steps * STEP_S * 3) == "up"
            found = client.describe(handle.id)
        cluster.end()
    begun = Counter(int(line.split()[0]) for line in trail.read_text().splitlines())
    fences = dict.fromkeys(line.split()[1] for line in trail.read_text().splitlines())
    return begun, [*fences], found.losses_charged


def check(directory: Path, *, steps: int, kills: int) -> None:
    """Every step ran; so many were repeated as there were kills, at most."""
    begun, fences, losses = killed(directory, steps=steps, kills=kills)
    repeated = sum(begun.values()) - steps
    _LOGGER.info("%d steps, %d attempts, %d steps repeated", steps, len(fences), repeated)
    assert sorted(begun) == [*range(steps)]
    assert len(fences) == kills + 1
    assert repeated <= kills
    # One loss was allowed: each attempt had taken back the one before it.
    assert losses <= 1


def test_a_job_that_is_killed_goes_on_elsewhere(tmp_path: Path) -> None:
    """Three times, though one loss is allowed; at most one step is repeated each time."""
    check(tmp_path, steps=40, kills=3)


@pytest.mark.nightly
def test_a_thousand_steps_and_twenty_kills(tmp_path: Path) -> None:
    """The same for long."""
    check(tmp_path, steps=1_000, kills=20)
