"""The socket between a supervisor and its workers."""

from __future__ import annotations

import threading

from tenure.worker import lifeline
from tenure.worker.lifeline import Lifeline
from tenure.worker.pulse import Phase, Pulse, Refusal

READY = Pulse(phase=Phase.READY, slots=10, busy=3, backlog=7, ended={"COMPLETED": 5})


def test_messages_arrive_whole_and_in_order() -> None:
    """Everything that a worker says of itself, its refusal with it."""
    ours, theirs = lifeline.pair()
    end = Lifeline(theirs.detach())
    end.when_lost(lambda: None)
    refused = Pulse(phase=Phase.STARTING, refusal=Refusal(message="no", reason="R", code=2))
    end.tell(READY)
    end.tell(refused)
    with ours:
        assert lifeline.read(ours) == [READY, refused]
        assert lifeline.read(ours) == []


def test_a_supervisor_that_does_not_read_blocks_nobody() -> None:
    """What it misses is gone; what it finds is whole."""
    ours, theirs = lifeline.pair()
    end = Lifeline(theirs.detach())
    end.when_lost(lambda: None)
    for _ in range(10_000):
        end.tell(READY)
    with ours:
        said = lifeline.read(ours)
    assert said
    assert {*map(repr, said)} == {repr(READY)}


def test_what_is_no_message_is_passed_over() -> None:
    """A job may have found the socket: it ends no supervisor."""
    ours, theirs = lifeline.pair()
    with ours, theirs:
        theirs.send(b"{]")
        theirs.send(b'{"phase": "ready"}')
        assert lifeline.read(ours) == [Pulse(phase=Phase.READY)]


def test_a_worker_that_is_gone_is_told() -> None:
    """What it said last is read before."""
    ours, theirs = lifeline.pair()
    theirs.send(b'{"phase": "draining"}')
    theirs.close()
    with ours:
        assert lifeline.read(ours) == [Pulse(phase=Phase.DRAINING)]
        assert lifeline.read(ours) is None


def test_a_worker_learns_that_its_supervisor_is_gone() -> None:
    """At once, whether it asks before or after."""
    for asks_first in (True, False):
        ours, theirs = lifeline.pair()
        end = Lifeline(theirs.detach())
        lost = threading.Event()
        first = threading.Event()
        end.when_lost(lost.set if asks_first else first.set)
        assert not lost.is_set()
        ours.close()
        if not asks_first:
            assert first.wait(10)
            end.when_lost(lost.set)
        assert lost.wait(10)
