"""Settings of every suite: how many examples hypothesis tries."""

import os

from hypothesis import HealthCheck, settings

# Both cores may be busy with real clusters, so hypothesis must not judge by the clock.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", settings.get_profile("default"), max_examples=5_000)
settings.load_profile(os.environ.get("TENURE_HYPOTHESIS_PROFILE", "default"))
