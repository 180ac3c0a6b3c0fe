"""Events as the bytes that a batch carries: one msgpack array of tagged arrays."""

from collections.abc import Sequence
from typing import Final, get_args

import msgspec

from tenure.master.backend.errors import CorruptJournal, FormatTooNew
from tenure.master.core.event import DurableEvent
from tenure.protocol.refusal import Reason

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[DurableEvent])
_TAGS: Final = frozenset(event.__struct_config__.tag for event in get_args(DurableEvent))


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


def decode_events(data: bytes) -> list[DurableEvent]:
    """The events of a batch whose checksum was right.

    Raises:
        FormatTooNew: A release wrote them that knows more kinds of events, and did not say so.
        CorruptJournal: They are no events.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        unknown = _unknown_tags(data)
        if unknown:
            raise FormatTooNew(
                "expected to decode a batch's events, but only a newer release knows"
                f" {', '.join(unknown)}; upgrade this master",
                reason=Reason.FORMAT_TOO_NEW,
                metadata={"events": ",".join(unknown)},
            ) from error
        raise CorruptJournal(
            f"expected to decode a batch's events, but {error}; it was written by a release that"
            " this one cannot read, or by a broken one: run the release that wrote it",
            reason=Reason.STORE_CORRUPT,
            metadata={"detail": str(error)},
        ) from error


def _unknown_tags(data: bytes) -> list[str]:
    """The kinds of events in a batch that this release does not know; none if they are no events.

    The record's checksum was right, so they are as somebody wrote them.
    """
    try:
        rows = msgspec.msgpack.decode(data, type=list[list[msgspec.Raw]])
        tags = {msgspec.msgpack.decode(row[0], type=str) for row in rows if row}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return sorted(tags - _TAGS)
