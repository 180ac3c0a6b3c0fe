"""Length-prefixed MessagePack frames in a stream of bytes, for processes on one machine."""

import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import msgspec

T = TypeVar("T")
_LENGTH: Final = struct.Struct(">I")
#: A length beyond this is no frame of ours.
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
#: What one read takes at most.
READ_BYTES: Final = 256 * 1024

_encode: Final = msgspec.msgpack.Encoder().encode


class BrokenFrame(Exception):
    """The peer is gone, or what it sent is no frame."""


def packed(frame: msgspec.Struct) -> bytes:
    """A frame as it travels. Several, one after the other, are a stream."""
    body = _encode(frame)
    return _LENGTH.pack(len(body)) + body


class Inflow(Generic[T]):
    """Takes frames out of a stream of bytes."""

    def __init__(self, decode: Callable[[memoryview], T]) -> None:
        self._decode = decode
        self._rest = b""

    def frames(self, data: bytes) -> list[T]:
        """The frames that are whole with these bytes.

        Raises:
            BrokenFrame: They are none of ours.
        """
        if self._rest:
            data = self._rest + data
        view, at, found = memoryview(data), 0, list[T]()
        while len(data) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > FRAME_BYTES_MAX:
                raise BrokenFrame
            end = at + _LENGTH.size + length
            if end > len(data):
                break
            try:
                found.append(self._decode(view[at + _LENGTH.size : end]))
            except msgspec.DecodeError as error:
                raise BrokenFrame from error
            at = end
        self._rest = data[at:]
        return found


def waiting_bytes(descriptor: int) -> int:
    """How much a pipe holds that nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def send(sock: socket.socket, *frames: msgspec.Struct) -> None:
    """Sends frames in one write.

    Raises:
        BrokenFrame: The peer is gone.
    """
    try:
        sock.sendall(b"".join(map(packed, frames)))
    except OSError as error:
        raise BrokenFrame from error


def receive(sock: socket.socket, inflow: Inflow[T]) -> list[T]:
    """The next frames, one at least.

    Raises:
        BrokenFrame: The peer is gone, or what it sent is no frame.
    """
    frames: list[T] = []
    while not frames:
        try:
            data = sock.recv(READ_BYTES)
        except OSError as error:
            raise BrokenFrame from error
        if not data:
            raise BrokenFrame
        frames = inflow.frames(data)
    return frames
