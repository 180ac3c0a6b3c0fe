"""A segment by itself: who can be taken out of it, and what stays."""

from tenure.master.core.segment import Segment
from tests.unit.master.core.test_ready import job


def test_a_job_is_taken_out_once_and_the_others_stay() -> None:
    """It has left wherever it was; and what the segment does not have is not found in it."""
    records = [job(ordinal, 3) for ordinal in (2, 4, 6)]
    segment = Segment(1, 3, list(records), 2)
    for stranger in (job(1, 3), job(4, 3), job(7, 3)):
        assert not segment.take_out(stranger)
    assert segment.take_out(records[1])
    assert not segment.take_out(records[1])
    assert segment.left() == [records[0], records[2]]
    assert [record.seq for record in records] == [3, 3, 3]


def test_nothing_is_found_where_all_have_left() -> None:
    """What has been passed over is not looked at again."""
    records = [job(ordinal, 3) for ordinal in (2, 4)]
    segment = Segment(1, 3, list(records), 2)
    first = records[0]
    first.seq = 9
    assert segment.skip_gone() == 1
    first.seq = 3
    assert not segment.take_out(first)
    assert segment.left() == [records[1]]


def test_a_job_taken_out_of_the_first_event_has_left_it_too() -> None:
    """No event has its seq."""
    record = job(2, 1)
    segment = Segment(1, 1, [record], 2)
    assert segment.take_out(record)
    assert segment.left() == []
