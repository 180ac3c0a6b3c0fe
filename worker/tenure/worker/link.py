"""One master's stream, kept up: dialled, read, written, and dialled again.

```
 dial ──► converse ──(end, error, deaf)──► wait (jittered) ──► dial …
```
One task reads and one writes: two writers would break a gRPC call. The writer asks the session for
the next envelope only when the last one is away, so what comes up meanwhile travels together.
"""

import asyncio
import logging
from typing import Final, Protocol

from tenure.client.lane import first_of
from tenure.client.transport import Stream, Transport
from tenure.protocol.cancellation import pass_cancellation
from tenure.protocol.errors import TenureError
from tenure.protocol.refusal import Reason
from tenure.v1 import worker_pb2
from tenure.worker.port import Clock, Rng
from tenure.worker.session import Session

_LOGGER: Final = logging.getLogger(__name__)
METHOD: Final = "/tenure.v1.WorkerService/Session"
#: The first redial comes within this, so that a failover is not waited out.
REDIAL_FIRST_MS: Final = 500
#: And later ones within this: a master that restarts may lead next, and needs its workers.
REDIAL_MS_MAX: Final = 1_000
#: A master that is known by another address already is asked again after this.
ALIAS_MS: Final = 10_000

SessionStream = Stream[worker_pb2.SessionRequest, worker_pb2.SessionResponse]


class Owner(Protocol):
    """Who owns the sessions."""

    def opened(self, address: str) -> Session:
        """A stream is being opened."""

    def received(self, session: Session, said: worker_pb2.SessionResponse) -> bool:
        """Takes an envelope. False: end the stream, its master is served by another one."""

    def closed(self, session: Session) -> None:
        """The stream is gone."""


class MasterLink:
    """The worker's connection to one address.

    Attributes:
        address: Where it dials.
        session: The session of the open stream, if there is one.
    """

    def __init__(
        self, address: str, *, owner: Owner, transport: Transport, clock: Clock, rng: Rng
    ) -> None:
        self.address = address
        self.session: Session | None = None
        self._owner = owner
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._news = asyncio.Event()
        self._stream: SessionStream | None = None
        self._leaving = False
        #: Reasons that this outage has been logged with.
        self._complaints: set[Reason] = set()

    def wake(self) -> None:
        """There may be something to say. A writer that would find nothing is left alone."""
        if self.session is not None and not self.session.silent:
            self._news.set()

    def drop(self) -> None:
        """Breaks the stream: its master does not answer. It is dialled again."""
        if self._stream is not None:
            self._stream.cancel()

    def leave(self) -> None:
        """Lets the stream end for good, after what is still to say."""
        self._leaving = True
        self._news.set()

    async def run(self) -> None:
        """Keeps the stream up until ``leave``."""
        failures = 0
        while not self._leaving:
            welcomed, wait_ms = await self._converse()
            failures = 0 if welcomed else failures + 1
            if wait_ms is None:
                cap_ms = min(REDIAL_MS_MAX, REDIAL_FIRST_MS << min(failures, 8))
                wait_ms = int(self._rng.random() * (cap_ms if failures else REDIAL_FIRST_MS))
            if not self._leaving:
                await self._clock.sleep(wait_ms)

    async def _converse(self) -> tuple[bool, int | None]:
        """One stream from dial to end. Returns whether it was welcomed, and when to redial."""
        session = self.session = self._owner.opened(self.address)
        stream: SessionStream = self._transport.stream(
            self.address, METHOD, worker_pb2.SessionResponse
        )
        self._stream = stream
        wait_ms = None
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(session, stream))
                if not await self._read(session, stream):
                    wait_ms = ALIAS_MS
                writer.cancel()
                # A child that fails once the group's body is over leaves this task marked as
                # cancelled for good (Python before 3.13): so the body waits for it.
                await asyncio.wait((writer,))
        except* TenureError as group:
            self._complain(first_of(group))
        finally:
            stream.cancel()
            self._stream = self.session = None
            self._owner.closed(session)
        pass_cancellation()
        return bool(session.master), wait_ms

    async def _read(self, session: Session, stream: SessionStream) -> bool:
        async for said in stream:
            if not self._owner.received(session, said):
                return False
            if session.master and self._complaints:
                self._complaints.clear()
                _LOGGER.info("reached master %s", session.master, extra={"action": "redial"})
        return True

    async def _write(self, session: Session, stream: SessionStream) -> None:
        while True:
            self._news.clear()
            while (request := session.flush(self._clock.boot_ms())) is not None:
                await stream.send(request)
                if request.HasField("goodbye"):
                    await stream.close_sending()
                    return
            await self._news.wait()

    def _complain(self, error: TenureError) -> None:
        """Logs an outage once for each reason it has; the redials after it are no news.

        A master that could not be reached may refuse the worker when it is there.
        """
        if error.reason in self._complaints or self._leaving:
            return
        self._complaints.add(error.reason)
        _LOGGER.warning(
            "no stream to master %s, still dialling: %s",
            self.address,
            error,
            extra={"action": "redial"},
        )
