"""Events as the bytes that a batch carries: one msgpack array of tagged arrays."""

from collections.abc import Sequence

import msgspec

from tenure.master.backend.errors import CorruptJournal
from tenure.master.core.event import DurableEvent
from tenure.protocol.refusal import Reason

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[DurableEvent])


def encode_event(event: DurableEvent) -> bytes:
    """One event, to be joined with others into a batch."""
    return _encoder.encode(event)


def join_events(encoded: Sequence[bytes]) -> bytes:
    """A batch's ``events`` field: a msgpack array of events that are already encoded."""
    count = len(encoded)
    if count < 16:
        head = bytes([0x90 | count])
    elif count < 1 << 16:
        head = b"\xdc" + count.to_bytes(2, "big")
    else:
        head = b"\xdd" + count.to_bytes(4, "big")
    return head + b"".join(encoded)


def encode_events(events: Sequence[DurableEvent]) -> bytes:
    """A batch's ``events`` field."""
    return join_events([_encoder.encode(event) for event in events])


def decode_events(data: bytes) -> list[DurableEvent]:
    """The events of a batch whose checksum was right.

    Raises:
        CorruptJournal: They are none that this release knows.
    """
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise CorruptJournal(
            f"expected to decode a batch's events, but {error}; it was written by a release that"
            " this one cannot read, or by a broken one: run the release that wrote it",
            reason=Reason.STORE_CORRUPT,
            metadata={"detail": str(error)},
        ) from error
