"""Codecs: names, versions, and what becomes of payloads that nobody here can read."""

import json
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from tenure.client import Reason, Rejected, job, named, register_codec
from tenure.client.codec import (
    JSON,
    MSGPACK,
    decode_args,
    decode_result,
    encode_args,
    encode_result,
)
from tenure.client.content_type import content_type_of


class Deflated:
    """JSON, compressed."""

    def __init__(self, content_type: str, version: int = 1) -> None:
        self.content_type = content_type
        self.version = version

    def encode(self, data: Any) -> bytes:
        return bytes([self.version]) + zlib.compress(json.dumps(data).encode())

    def decode(self, payload: bytes) -> Any:
        assert payload[0] == self.version
        return json.loads(zlib.decompress(payload[1:]))


@dataclass
class Line:
    """An argument."""

    at: datetime
    raw: bytes
    amounts: dict[int, float]


LINE = Line(datetime(2026, 1, 1, tzinfo=UTC), b"\xff", {1: 2.5})


@job(name="t.line")
def take(line: Line, *, more: set[int] | None = None) -> Line:
    """Takes and returns one."""
    return line


def test_a_codec_of_ones_own_carries_every_type() -> None:
    """It is given JSON data; what the annotations name comes out of it again."""
    sealed = take.options(codec=Deflated("application/vnd.t.own"))
    name = sealed.settings.content_type
    assert name == sealed.wire.content_type == "application/vnd.t.own"

    payload = encode_args(sealed, (LINE,), {"more": {1, 2}})
    assert payload[0] == 1
    assert decode_args(payload, name, sealed) == ([LINE], {"more": {1, 2}})
    result = encode_result(LINE, sealed, name)
    assert result[0] == 1
    assert decode_result(result, name, sealed) == LINE


def test_an_older_version_stays_readable() -> None:
    """A new version is another name; payloads of both are read for as long as both are known."""
    old, new = Deflated("application/vnd.t.versions"), Deflated("application/vnd.t.versions", 2)
    before, after = take.options(codec=old), take.options(codec=new)
    assert after.settings.content_type == "application/vnd.t.versions;version=2"
    for defined, first in ((before, 1), (after, 2)):
        payload = encode_args(defined, (LINE,), {})
        assert payload[0] == first
        assert decode_args(payload, defined.settings.content_type, take) == ([LINE], {})


def test_a_codec_goes_by_name_once_it_is_registered() -> None:
    """The same object may be registered again; ``named`` jobs take codecs too."""
    codec = Deflated("application/vnd.t.by-name")
    assert register_codec(codec) == register_codec(codec) == "application/vnd.t.by-name"
    assert (
        take.options(codec="application/vnd.t.by-name").settings
        == take.options(codec=codec).settings
    )
    assert named("t.x", codec=codec).settings.content_type == "application/vnd.t.by-name"
    assert content_type_of(JSON) == JSON


@pytest.mark.parametrize(
    ("codec", "field"),
    [
        (Deflated("no type"), "codec.content_type"),
        (Deflated("application/Upper"), "codec.content_type"),
        (Deflated("application/x;version=2"), "codec.content_type"),
        (Deflated("application/vnd.t.zero", 0), "codec.version"),
        (Deflated(JSON), "codec"),
        (Deflated(MSGPACK), "codec"),
    ],
)
def test_a_codec_with_an_unusable_name_is_refused(codec: Deflated, field: str) -> None:
    """Names are lower case, versions count from 1, and what is built in stays what it is."""
    with pytest.raises(Rejected) as caught:
        register_codec(codec)
    assert caught.value.field == field


def test_a_name_belongs_to_one_codec() -> None:
    """Two libraries cannot take each other's payloads over."""
    register_codec(Deflated("application/vnd.t.taken"))
    with pytest.raises(Rejected, match="taken"):
        register_codec(Deflated("application/vnd.t.taken"))


def test_an_unknown_name_is_refused_where_the_job_is_defined() -> None:
    """A typo does not wait for the first submit."""
    with pytest.raises(Rejected) as caught:
        take.options(codec="application/vnd.t.typo")
    assert caught.value.reason is Reason.UNKNOWN_CODEC


@pytest.mark.parametrize("payload", [b"", b"\x92\x90\x80", b"x"])
def test_a_payload_of_an_unknown_codec_is_refused(payload: bytes) -> None:
    """Before anything is run, also when there are no arguments to decode: the result needs it."""
    for read in (
        lambda: decode_args(payload, "application/vnd.t.elsewhere;version=3", take),
        lambda: decode_result(b"x", "application/vnd.t.elsewhere;version=3", take),
        lambda: decode_result(b"x", "application/vnd.t.elsewhere;version=3", None),
    ):
        with pytest.raises(Rejected) as caught:
            read()
        assert caught.value.reason is Reason.UNKNOWN_CODEC
        assert caught.value.metadata == {"content_type": "application/vnd.t.elsewhere;version=3"}


def test_what_a_codec_raises_reaches_the_caller() -> None:
    """A key that cannot be had is no wrong argument."""

    class Locked(Deflated):
        """Has lost its key."""

        def encode(self, data: Any) -> bytes:
            raise PermissionError("no key")

    with pytest.raises(PermissionError):
        encode_args(take.options(codec=Locked("application/vnd.t.locked")), (LINE,), {})
