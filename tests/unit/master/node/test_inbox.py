"""The inbox: bounded in commands and in bytes, whoever fills it."""

from tenure.master.core.command import AcceptAssignment, CancelJobs, CloseSession
from tenure.master.core.effect import Reply
from tenure.master.node.inbox import Inbox, ignore
from tenure.protocol.errors import TenureError, Unavailable
from tenure.protocol.refusal import Reason

MIB = 1024 * 1024
ASKED = CancelJobs(job_ids=[])
SAID = AcceptAssignment(session_id=1, number=1)


def test_is_bounded_in_bytes() -> None:
    """A few thousand large batches are as much as memory should hold, few as they are."""
    inbox = Inbox()
    taken = 0
    while inbox.put(ASKED, ignore, MIB):
        taken += 1
    assert taken == 64
    # What carries nothing still gets in, and there is room again for each that is taken out.
    assert inbox.put(ASKED, ignore, 0)
    inbox.take()
    assert inbox.put(ASKED, ignore, MIB)
    assert not inbox.put(ASKED, ignore, MIB)


def test_is_bounded_in_commands() -> None:
    """Ends of streams always get in: nobody says them a second time."""
    inbox = Inbox()
    for _ in range(10_000):
        assert inbox.put(ASKED, ignore, 0)
    assert not inbox.put(ASKED, ignore, 0)
    assert inbox.put(CloseSession(session_id=1), ignore, 0)


def test_refuses_only_what_is_asked() -> None:
    """What has an answer ends in the error and frees its room; the rest stays in order."""
    inbox = Inbox()
    answers: list[Reply | TenureError] = []
    error = Unavailable("frozen", reason=Reason.FROZEN)
    inbox.put(SAID, ignore, 1)
    for _ in range(64):
        inbox.put(ASKED, answers.append, MIB - 1)
    inbox.put(CloseSession(session_id=1), ignore, 0)
    inbox.refuse_asked(error)
    assert answers == [error] * 64
    for _ in range(63):
        assert inbox.put(ASKED, answers.append, MIB)
    assert inbox.take() == (SAID, ignore)
    assert inbox.take() == (CloseSession(session_id=1), ignore)
    inbox.refuse(error)
    assert len(inbox) == 0
    assert len(answers) == 64 + 63
