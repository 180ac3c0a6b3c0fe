"""Submits that wait for what other partitions say: answered once, and not for ever."""

from collections.abc import Sequence

from tenure.master.core.effect import SubmitReply
from tenure.master.node.turning_away import silent_parents
from tenure.master.node.unsettled import Unsettled
from tenure.protocol.errors import TenureError
from tenure.protocol.refusal import Reason, Refusal

WHY = Refusal(reason=Reason.UNKNOWN_PARENT, message="no such parent", field="parents[0]")
SILENT = silent_parents(0)


def reply(*unsettled: int) -> SubmitReply:
    """What is known of three rows."""
    return SubmitReply(job_ids=["a", "b", "c"], existing=[1], refusals=[], unsettled=unsettled)


class Parts:
    """Who is told of rows, one by one."""

    def __init__(self) -> None:
        self.told: list[tuple[list[int], Reason | None]] = []

    def __call__(self, rows: Sequence[int], refusal: Refusal | None) -> None:
        self.told.append((list(rows), refusal and refusal.reason))


def test_an_answer_waits_for_all_rows() -> None:
    """It comes when the last one is settled; a refused row has no id and is no existing one."""
    told: list[SubmitReply | TenureError] = []
    unsettled = Unsettled()
    unsettled.add(reply(0, 1), told.append, 0)
    unsettled.settle("a", None)
    unsettled.settle("c", None)
    assert told == []
    unsettled.settle("b", WHY)
    unsettled.settle("b", WHY)
    assert told == [
        SubmitReply(job_ids=["a", "", "c"], existing=[], refusals=[(1, WHY)], unsettled=())
    ]


def test_an_answer_in_parts_waits_for_no_other_row() -> None:
    """Each row is told when its own job is settled; an answer with none left waits for nothing."""
    parts, unsettled = Parts(), Unsettled()
    unsettled.add_late(reply(), parts, 0)
    assert not unsettled
    unsettled.add_late(reply(0, 1), parts, 0)
    unsettled.settle("b", WHY)
    assert parts.told == [([1], Reason.UNKNOWN_PARENT)]
    unsettled.settle("a", None)
    unsettled.settle("a", None)
    assert parts.told[1:] == [([0], None)]


def test_a_submit_sent_again_is_answered_as_well() -> None:
    """Whoever waits for the job hears of it."""
    told: list[str] = []
    unsettled = Unsettled()
    for name in ("first", "second"):
        unsettled.add(reply(0), lambda _, name=name: told.append(name), 0)  # type: ignore[misc]
    unsettled.settle("a", None)
    assert told == ["first", "second"]


def test_nobody_waits_for_ever() -> None:
    """After 5 s the outcome is unknown: it is sent again; what comes then is told to nobody."""
    told: list[SubmitReply | TenureError] = []
    parts, unsettled = Parts(), Unsettled()
    unsettled.add(reply(0), told.append, 1_000)
    unsettled.add(reply(2), told.append, 3_000)
    unsettled.add_late(reply(0, 1), parts, 3_000)
    assert unsettled.expire(5_999, SILENT) == 6_000
    assert unsettled.expire(6_000, SILENT) == 8_000
    assert told == [SILENT]
    unsettled.settle("a", None)
    unsettled.settle("c", None)
    assert len(told) == 2
    assert unsettled.expire(8_000, SILENT) is None
    assert parts.told == [([0], None), ([1], Reason.OUTCOME_UNKNOWN)]
    assert not unsettled


def test_the_end_of_a_term_leaves_nobody_waiting() -> None:
    """Whole answers and parts end at once, each once."""
    told: list[SubmitReply | TenureError] = []
    parts, unsettled = Parts(), Unsettled()
    unsettled.add(reply(0, 2), told.append, 0)
    unsettled.add_late(reply(0, 1), parts, 0)
    unsettled.abandon(SILENT)
    assert (told, parts.told) == ([SILENT], [([0, 1], Reason.OUTCOME_UNKNOWN)])
    unsettled.settle("a", None)
    assert not unsettled
    assert unsettled.expire(99_000, SILENT) is None
    assert (len(told), len(parts.told)) == (1, 1)
