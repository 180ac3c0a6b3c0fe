"""The journal's formats: which releases have a place for what a partition keeps.

A leader writes the lowest format that has a place for all of it. So a release of before can lead
the same store again, until something is used that it does not know. From then on it gives the
office back: at what it cannot read it would fail, and what it passes over (the parents of a job,
the labels that it asks for) would be lost with the first snapshot that it takes.

Nobody goes through events to look for such things. What came later raises ``State.format`` where
it is applied: an event that is new where its function is found (``partition``), a kind of slice
where it is loaded (``snapshot``), an option when its policy is interned and a tie when it is made
(``state``), a new run that is not like the one before (``control``). It never falls: a snapshot
says which one it is of.
"""

from typing import Final

from tenure.master.core.record import Policy
from tenure.protocol.vocabulary import KeyConflict, ParentFailure, RunIf

#: What 0.1.0 knows; batch 0 and all that nobody needs more for.
FIRST: Final = 1
#: What came after it: checkpoints, logs, settings, schedules, dependencies, workflows, batches,
#: keys of limits and of stickiness, labels that are asked for, priorities that change.
NEWEST: Final = 2


def format_of(policy: Policy) -> int:
    """The first format that has a place for all of a policy."""
    plain = (
        policy.key_conflict is KeyConflict.RETURN
        and not policy.requires
        and not policy.prefers
        and policy.run_if is RunIf.ALL_SUCCEEDED
        and policy.on_parent_failure is ParentFailure.FAIL
    )
    return FIRST if plain else NEWEST
