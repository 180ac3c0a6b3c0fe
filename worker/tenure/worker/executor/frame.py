"""What a worker and its child processes say to each other: length-prefixed MessagePack frames.

```
 child ──Ready──► parent ──Run──► child ──Progress…──► Ended ──► parent
                         ──Stop, Lease──►
                         ◄──Ask── the results of its parents
                         ──Answer──►
```
"""

import socket
import struct
from typing import Final

import msgspec

from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory
from tenure.worker.held import AttemptResult, Fault

_LENGTH: Final = struct.Struct(">I")
#: A length beyond this is no frame of ours.
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024


class Run(msgspec.Struct, frozen=True, array_like=True, tag="run"):
    """Run this job. Times and lengths as in ``HeldJob``; ``fence`` is the lease's text."""

    job_id: str
    name: str
    fence: str
    attempt: int
    expires_ms: int
    deadline_ms: int
    timeout_ms: int
    content_type: str
    non_retryable: list[str]
    payload: bytes


class Stop(msgspec.Struct, frozen=True, array_like=True, tag="stop"):
    """End at the next checkpoint, with this outcome."""

    outcome: AttemptOutcome


class Lease(msgspec.Struct, frozen=True, array_like=True, tag="lease"):
    """The lease was renewed or revoked."""

    expires_ms: int
    revoked: bool


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """Final states of the jobs that were asked for, in order, as the contract has them.

    Or, as a refusal of the contract, why they cannot be had.
    """

    results: list[bytes]
    refusal: bytes = b""


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """What did these jobs come to?"""

    job_ids: list[str]


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The application is imported: jobs may come."""


class Progress(msgspec.Struct, frozen=True, array_like=True, tag="progress"):
    """How far the job has come, in percent."""

    pct: float


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """How the attempt ended; ``fault`` is (type, message, traceback, category, retry after)."""

    outcome: AttemptOutcome
    result: bytes
    fault: tuple[str, str, str, ErrorCategory, int | None] | None

    def as_result(self) -> AttemptResult:
        """The same as the parent's own executors say it."""
        fault = Fault(*self.fault) if self.fault is not None else None
        return AttemptResult(self.outcome, self.result, fault)


ToChild = Run | Stop | Lease | Answer
ToParent = Ready | Progress | Ended | Ask

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_to_child: Final = msgspec.msgpack.Decoder(ToChild).decode
_decode_to_parent: Final = msgspec.msgpack.Decoder(ToParent).decode


class BrokenFrame(Exception):
    """The peer is gone, or what it sent is no frame."""


def send(sock: socket.socket, frame: ToChild | ToParent) -> None:
    """Sends one frame.

    Raises:
        BrokenFrame: The peer is gone.
    """
    body = _encode(frame)
    try:
        sock.sendall(_LENGTH.pack(len(body)) + body)
    except OSError as error:
        raise BrokenFrame from error


def send_at_once(sock: socket.socket, frame: ToChild) -> None:
    """Sends one small frame, or nothing, without ever waiting.

    Raises:
        BrokenFrame: The peer is gone, or does not read.
    """
    body = _encode(frame)
    data = _LENGTH.pack(len(body)) + body
    try:
        whole = sock.send(data, socket.MSG_DONTWAIT) == len(data)
    except OSError as error:
        raise BrokenFrame from error
    if not whole:
        # Half a frame makes the rest unreadable: better none at all.
        sock.shutdown(socket.SHUT_RDWR)


def receive_in_child(sock: socket.socket) -> ToChild:
    """The parent's next frame."""
    frame: ToChild = _decode_to_child(_receive(sock))
    return frame


def receive_in_parent(sock: socket.socket) -> ToParent:
    """The child's next frame.

    Raises:
        BrokenFrame: The child is gone, or its answer cannot be read.
    """
    try:
        frame: ToParent = _decode_to_parent(_receive(sock))
    except msgspec.DecodeError as error:
        raise BrokenFrame from error
    return frame


def _receive(sock: socket.socket) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    if length > FRAME_BYTES_MAX:
        raise BrokenFrame
    return _exactly(sock, length)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        try:
            part = sock.recv(min(count - len(data), 1 << 20))
        except OSError as error:
            raise BrokenFrame from error
        if not part:
            raise BrokenFrame
        data += part
    return bytes(data)
