"""What pytest loads of Tenure in every project where it is installed: as little as can be.

The cluster is imported by the first test that asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tenure.client import JobDef
    from tenure.testing.virtual import VirtualCluster

_MARKER = "tenure_cluster"


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(masters=1, workers=1, partitions=1, slots=4, seed=0): "
        "how the cluster of the fixture of that name is made",
    )


@pytest.fixture
def tenure_jobs() -> Sequence[JobDef[..., Any]]:
    """Jobs that the workers of ``tenure_cluster`` serve besides those that its clients submit.

    Define a fixture of this name for jobs that no test submits itself.
    """
    return ()


@pytest.fixture
def tenure_cluster(
    request: pytest.FixtureRequest, tenure_jobs: Sequence[JobDef[..., Any]]
) -> Iterator[VirtualCluster]:
    """A Tenure cluster in this process on virtual time: ``client``, ``advance(timedelta)``, …"""
    try:
        from tenure.testing.virtual import Shape, VirtualCluster
    except ModuleNotFoundError as error:
        pytest.fail(f"{error}; the fixture needs: pip install 'tenure[testing]'", pytrace=False)
    marker = request.node.get_closest_marker(_MARKER)
    shape = Shape() if marker is None else Shape(*marker.args, **marker.kwargs)
    with VirtualCluster(shape, tenure_jobs) as cluster:
        yield cluster
