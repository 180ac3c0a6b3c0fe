"""Settings of every suite: how many examples hypothesis tries, for how long, and who notes it."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tests import recorder

# Both cores may be busy with real clusters, so hypothesis must not judge by the clock.
settings.register_profile(
    "default", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("nightly", settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("TENURE_HYPOTHESIS_PROFILE", "default"))
#: For so long hypothesis looks for a simpler example of what fails, and then some.
SHRINKING_S = 330


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let a property that fails say how: cut off while it is shrunk, it would pass for flaky."""
    limit_s = float(config.getoption("timeout") or config.getini("timeout"))
    for item in items:
        if item.get_closest_marker("hypothesis") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(limit_s + SHRINKING_S))


def pytest_configure(config: pytest.Config) -> None:
    """Record the tests of the fault table if that is asked for."""
    recorder.install(config)
