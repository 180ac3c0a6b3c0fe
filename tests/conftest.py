"""Settings of every suite: how many examples hypothesis tries, and who notes what came out."""

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


def pytest_configure(config: pytest.Config) -> None:
    """Record the tests of the fault table if that is asked for."""
    recorder.install(config)
