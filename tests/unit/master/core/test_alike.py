"""Jobs that are alike, by themselves."""

import msgspec

from tenure.master.core.alike import pieces
from tests.unit.master.core.test_ready import job


def test_pieces_are_of_one_priority_and_in_order() -> None:
    """What can go into an order as one does; what differs begins another piece."""
    plain = [job(ordinal, 1) for ordinal in (1, 2, 9, 3)]
    for record in plain:
        record.policy = plain[0].policy
    urgent = [
        msgspec.structs.replace(job(n, 1), priority=1, policy=plain[0].policy) for n in (4, 5)
    ]
    found = list(pieces([*plain, *urgent]))
    assert [[record.ordinal for record in piece] for piece in found] == [[1, 2, 9], [3], [4, 5]]
