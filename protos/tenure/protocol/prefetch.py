"""How many jobs a worker wants beyond its slots, so that these need not wait for the network."""

from typing import Final

#: How much work may wait at a worker unstarted.
PREFETCH_MS: Final = 50
PREFETCH_JOBS_MAX: Final = 512
#: The clock's grain: shorter runs count as this.
RUN_MS_MIN: Final = 0.5
#: How much one more run moves the mean.
MEAN_WEIGHT: Final = 0.05


def mean_after(mean_ms: float | None, run_ms: float) -> float:
    """The mean of run times after one more; None: there was none before."""
    run_ms = max(RUN_MS_MIN, run_ms)
    return run_ms if mean_ms is None else mean_ms + (run_ms - mean_ms) * MEAN_WEIGHT


def prefetch(slots: int, mean_run_ms: float | None) -> int:
    """Jobs beyond the slots that are worth having: none until run times are known."""
    if mean_run_ms is None:
        return 0
    return min(PREFETCH_JOBS_MAX, int(slots * PREFETCH_MS / mean_run_ms))
