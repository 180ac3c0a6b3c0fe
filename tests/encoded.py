"""Events as a batch has them, for tests that write batches of their own."""

from collections.abc import Sequence

from tenure.master.core.event import DurableEvent
from tenure.master.journal.codec import encode_event, join_events


def encode_events(events: Sequence[DurableEvent]) -> bytes:
    """A batch's ``events`` field."""
    return join_events([encode_event(event) for event in events])
