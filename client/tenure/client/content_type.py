"""Codecs: how payloads become bytes, by content type and version.

MessagePack and JSON are built in. One of the user's own turns JSON data into bytes and back:
another serializer, compression, encryption. Its name travels with each job, so that whoever opens a
payload knows how; none is guessed, and there is no pickle: a payload can run no code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from tenure.client.errors import invalid
from tenure.client.foreign import from_json, from_plain, to_json, to_plain
from tenure.protocol.errors import Rejected
from tenure.protocol.limits import DEFAULT_CONTENT_TYPE
from tenure.protocol.refusal import Reason

JSON: Final = "application/json"
MSGPACK: Final = DEFAULT_CONTENT_TYPE

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*")
_NAME_CHARS_MAX: Final = 128


class Codec(Protocol):
    """Data as bytes and back, under a name.

    Data is what JSON has: None, bool, int, float, str, lists, and dicts with text keys. ``decode``
    must return what ``encode`` was given. What either raises reaches the caller of ``submit`` or
    ``result``, or fails the attempt as if the job had raised it.
    """

    @property
    def content_type(self) -> str:
        """For example ``application/vnd.acme.sealed``; lower case, without parameters."""
        ...

    @property
    def version(self) -> int:
        """From 1; another number is another codec, so that older payloads stay readable."""
        ...

    def encode(self, data: Any, /) -> bytes:
        """The data as bytes."""
        ...

    def decode(self, payload: bytes, /) -> Any:
        """The data that the bytes hold."""
        ...


class Format:
    """A codec as payloads go through it.

    Attributes:
        name: As it travels: the content type, and the version unless it is 1.
        pack: A value as MessagePack or JSON.
        unpacker: Makes what turns that back into a value of a type.
        scalars: Values of exactly these types come back as they are without any look at them, also
            where nothing is annotated.
        seal: What else has to be done before it travels; None: nothing.
        unseal: The inverse.
    """

    __slots__ = ("name", "pack", "scalars", "seal", "unpacker", "unseal")

    def __init__(
        self,
        name: str,
        pack: Callable[[Any], bytes],
        unpacker: Callable[[Any], Callable[[bytes | msgspec.Raw], Any]],
        scalars: frozenset[type],
        seal: Callable[[bytes], bytes] | None = None,
        unseal: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.name: Final = name
        self.pack: Final = pack
        self.unpacker: Final = unpacker
        self.scalars: Final = scalars
        self.seal: Final = seal
        self.unseal: Final = unseal

    def open(self, payload: bytes) -> bytes:
        """A payload that has travelled, for the unpackers."""
        return payload if self.unseal is None else self.unseal(payload)


def _msgpack_unpacker(kind: Any) -> Callable[[bytes | msgspec.Raw], Any]:
    return msgspec.msgpack.Decoder(kind, dec_hook=from_plain).decode


def _json_unpacker(kind: Any) -> Callable[[bytes | msgspec.Raw], Any]:
    return msgspec.json.Decoder(kind, dec_hook=from_json).decode


_json_pack: Final = msgspec.json.Encoder(enc_hook=to_json).encode
#: Infinite floats and NaN are not in it: JSON has none.
_JSON_SCALARS: Final = frozenset({type(None), bool, int, str})

_formats: Final[dict[str, Format]] = {
    MSGPACK: Format(
        MSGPACK,
        msgspec.msgpack.Encoder(enc_hook=to_plain).encode,
        _msgpack_unpacker,
        _JSON_SCALARS | {float, bytes},
    ),
    JSON: Format(JSON, _json_pack, _json_unpacker, _JSON_SCALARS),
}
_registered: Final[dict[str, Codec]] = {}


def register_codec(codec: Codec) -> str:
    """Makes a codec known to this process: to its clients, and to a worker that runs in it.

    Call it where the jobs are defined: clients, workers and their children import that. Whoever
    passes the codec to ``job`` needs no call: what is left are versions that are only read.

    Args:
        codec: Its content type and version must be free, or its own already.

    Returns:
        The name by which payloads refer to it.

    Raises:
        Rejected: They are malformed, or another codec has them.
    """
    name = _name_of(codec)
    known = _registered.setdefault(name, codec)
    if name in (MSGPACK, JSON) or known is not codec:
        raise invalid("codec", f"one whose content type and version are free; {name} is taken")
    _formats[name] = Format(
        name,
        _json_pack,
        _json_unpacker,
        _JSON_SCALARS,
        seal=lambda raw: codec.encode(msgspec.json.decode(raw)),
        unseal=lambda payload: msgspec.json.encode(codec.decode(payload)),
    )
    return name


def content_type_of(codec: Codec | str) -> str:
    """The name of a codec; one that is not registered yet is.

    Raises:
        Rejected: It is a name that nothing is registered under (UNKNOWN_CODEC), or it cannot be
            registered.
    """
    if isinstance(codec, str):
        return format_of(codec).name
    return register_codec(codec)


def format_of(name: str) -> Format:
    """How payloads with this content type are read and written; empty means MessagePack.

    Raises:
        Rejected: UNKNOWN_CODEC: this process has no such codec.
    """
    found = _formats.get(name or MSGPACK)
    if found is None:
        raise Rejected(
            f"expected to have the codec {name}, but only {', '.join(sorted(_formats))} are "
            "registered here: import what registers it, in the application too",
            reason=Reason.UNKNOWN_CODEC,
            metadata={"content_type": name},
            field="content_type",
        )
    return found


def _name_of(codec: Codec) -> str:
    kind, version = codec.content_type, codec.version
    if not isinstance(kind, str) or len(kind) > _NAME_CHARS_MAX or not _NAME.fullmatch(kind):
        raise invalid("codec.content_type", f"lower-case text as application/name, got {kind!r}")
    if not isinstance(version, int) or version < 1:
        raise invalid("codec.version", f"a whole number from 1 on, got {version!r}")
    return kind if version == 1 else f"{kind};version={version}"
