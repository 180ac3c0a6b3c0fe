"""What the benchmark jobs carry, and how a result proves that it came through unharmed."""

from __future__ import annotations

import zlib
from typing import Final

import msgspec

PAYLOAD_BYTES: Final = 100
_FILL: Final = bytes(range(256))


def payload(number: int) -> bytes:
    """The payload of job `number`: 100 bytes, different for each."""
    start = number % 150
    return number.to_bytes(8, "big") + _FILL[start : start + PAYLOAD_BYTES - 8]


def checksum(data: bytes) -> int:
    """What the job returns."""
    return zlib.crc32(data)


def encoded_checksum(data: bytes) -> bytes:
    """The checksum as a result on the wire."""
    return msgspec.msgpack.encode(zlib.crc32(data))
