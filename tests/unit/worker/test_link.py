"""A worker's link to one master is dialled again, whatever way its stream ended."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator

import pytest
from google.protobuf.message import Message

from tenure.client.transport import M, Stream
from tenure.protocol.errors import Rejected, TenureError, Unavailable
from tenure.protocol.refusal import Reason
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.v1 import worker_pb2
from tenure.worker.link import MasterLink
from tenure.worker.session import Session


class EndingStream:
    """The master ends it cleanly while a write is under way, which fails when it is given up."""

    async def send(self, message: Message) -> None:
        """Hangs; tells its canceller of a broken stream, as a finished gRPC call does."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Unavailable("expected an open stream, but it has ended") from None

    async def _read(self) -> AsyncIterator[worker_pb2.SessionResponse]:
        # Let the write begin first.
        await asyncio.sleep(0)
        for nothing in ():
            yield nothing

    def __aiter__(self) -> AsyncIterator[worker_pb2.SessionResponse]:
        return self._read()

    async def close_sending(self) -> None:
        """Half-close."""

    def cancel(self) -> None:
        """Abandon."""


class Dials:
    """A transport that counts, and says when there were enough."""

    def __init__(self, wanted: int) -> None:
        self.count = 0
        self.enough = asyncio.Event()
        self._wanted = wanted

    def stream(self, address: str, method: str, response_type: type[M]) -> Stream[Message, M]:
        """One more dial."""
        self.count += 1
        if self.count >= self._wanted:
            self.enough.set()
        return EndingStream()  # type: ignore[return-value]

    async def unary(
        self, address: str, method: str, request: Message, response_type: type[M], timeout_s: float
    ) -> M:
        """Links make none."""
        raise Unavailable("expected no call")

    def forget(self, address: str) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is open."""


class FailingStream(EndingStream):
    """The call fails before anything is said."""

    def __init__(self, error: TenureError) -> None:
        self._error = error

    async def _read(self) -> AsyncIterator[worker_pb2.SessionResponse]:
        for nothing in ():
            yield nothing
        raise self._error


class FailingDials(Dials):
    """Each dial fails in its own way."""

    def __init__(self, errors: list[TenureError]) -> None:
        super().__init__(len(errors) + 1)
        self._errors = errors

    def stream(self, address: str, method: str, response_type: type[M]) -> Stream[Message, M]:
        """The next failure; the last one goes on."""
        super().stream(address, method, response_type)
        error = self._errors[min(self.count, len(self._errors)) - 1]
        return FailingStream(error)  # type: ignore[return-value]


class Talkative:
    """An owner whose sessions have something to say at once."""

    def opened(self, address: str) -> Session:
        """A new session: its hello is to be sent."""
        hello = worker_pb2.Hello(incarnation="i", name="w")
        return Session(address, hello, random.Random(1), 0)

    def received(self, session: Session, said: worker_pb2.SessionResponse) -> bool:
        """Nothing is ever received."""
        return True

    def closed(self, session: Session) -> None:
        """Gone."""


def play(dials: Dials) -> None:
    """Runs a link until it has dialled often enough."""

    async def main() -> None:
        clock = SimClock()
        link = MasterLink(
            "m:1", owner=Talkative(), transport=dials, clock=clock, rng=random.Random(1)
        )
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(link.run())
            await asyncio.wait(
                (task, tasks.create_task(dials.enough.wait())),
                return_when=asyncio.FIRST_COMPLETED,
            )
            dials.enough.set()
            task.cancel()

    run_virtual(main)


def test_link_dials_again_after_a_write_that_failed_at_a_clean_end() -> None:
    """Seen in a rolling restart: the write's failure, when it was given up, ended the link."""
    dials = Dials(3)
    play(dials)
    assert dials.count == 3


def test_an_outage_is_logged_once_for_each_reason(caplog: pytest.LogCaptureFixture) -> None:
    """A master that was away and then refuses the worker's token is not silent about it."""
    away = Unavailable("nobody is there", reason=Reason.UNREACHABLE)
    refused = Rejected("no token", reason=Reason.TOKEN_MISSING)
    with caplog.at_level(logging.WARNING):
        play(FailingDials([away, away, refused, away, refused]))

    said = [record.getMessage() for record in caplog.records]
    assert ["nobody is there" in line for line in said] == [True, False]
    assert ["no token" in line for line in said] == [False, True]
