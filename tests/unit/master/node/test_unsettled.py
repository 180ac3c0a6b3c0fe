"""Submits that wait for what other partitions say: answered once, whole, and not for ever."""

from tenure.master.core.effect import SubmitReply
from tenure.master.node.turning_away import unknown_outcome
from tenure.master.node.unsettled import Unsettled
from tenure.protocol.errors import TenureError
from tenure.protocol.refusal import Reason, Refusal

WHY = Refusal(reason=Reason.UNKNOWN_PARENT, message="no such parent", field="parents[0]")


def reply(*unsettled: int) -> SubmitReply:
    """What is known of three rows."""
    return SubmitReply(job_ids=["a", "b", "c"], existing=[1], refusals=[], unsettled=unsettled)


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
    unsettled = Unsettled()
    error = unknown_outcome(0, "a parent's partition is silent")
    unsettled.add(reply(0), told.append, 1_000)
    unsettled.add(reply(2), told.append, 3_000)
    assert unsettled.expire(5_999, error) == 6_000
    assert unsettled.expire(6_000, error) == 8_000
    assert told == [error]
    unsettled.settle("a", None)
    unsettled.settle("c", None)
    assert len(told) == 2
    assert unsettled.expire(8_000, error) is None
    assert not unsettled
