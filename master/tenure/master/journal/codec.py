"""Events as the bytes that a batch carries: one msgpack array of tagged arrays."""

from collections.abc import Sequence

import msgspec

from tenure.master.backend.errors import CorruptJournal
from tenure.master.core.event import DurableEvent
from tenure.protocol.refusal import Reason

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[DurableEvent])


def encode_events(events: Sequence[DurableEvent]) -> bytes:
    """A batch's ``events`` field."""
    return _encoder.encode(events)


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
