"""What is refused, by reason, and how each way in provokes it: the SDK, the command line, the wire.

The wire is one for grpcurl and Node: both send what the row says. Where a way cannot provoke a
refusal, the row has the reason why in place of the way.
"""

from __future__ import annotations

from tests.integration.refusals import cluster, ids, jobs, queues, requests, schedules, settings
from tests.integration.refusals.row import Facts, Row


def rows(facts: Facts) -> list[Row]:
    """The whole table."""
    parts = (settings, requests, ids, jobs, queues, schedules, cluster)
    return [row for part in parts for row in part.rows(facts)]
