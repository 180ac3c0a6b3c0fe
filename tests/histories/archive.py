"""The files of a recorded release, and how they are read and written.

```
 tests/histories/VERSION/manifest.json   the release, its commit, and what ran
                         sqlite.db       a SQLite store whose master has ended
                         sqlite.json     the state that it held
                         etcd.jsonl      an etcd store: keys below the prefix, and their values
                         etcd.json       the state that it held
                         session.jsonl   a worker's streams: all messages both ways
                         session.journal.jsonl  the batches of the leaders that it talked to
```
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

HISTORIES = Path(__file__).parent
#: Every recorded release, oldest first.
RELEASES = sorted(path.parent for path in HISTORIES.glob("*/manifest.json"))

#: ``up`` is from the worker to the master.
Kind = Literal["opened", "up", "down", "closed"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened on one of a worker's streams.

    Attributes:
        at_ms: The worker's boot clock.
        stream: Streams are numbered as they are opened.
        kind: What happened.
        address: Of an opened stream: the master's.
        message: Of a message: a serialized SessionRequest (up) or SessionResponse (down).
        batches: How many batches the journal had by then.
    """

    at_ms: int
    stream: int
    kind: Kind
    address: str = ""
    message: bytes = b""
    batches: int = 0


def write_json(path: Path, content: Any) -> None:
    """One value, for people too."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What ``write_json`` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_entries(path: Path, entries: Iterable[Entry]) -> None:
    """A transcript, a line an entry."""
    path.write_bytes(msgspec.json.Encoder().encode_lines(entries))


def read_entries(path: Path) -> list[Entry]:
    """What ``write_entries`` wrote."""
    return msgspec.json.Decoder(Entry).decode_lines(path.read_bytes())


def write_pairs(path: Path, pairs: Iterable[tuple[bytes, bytes]]) -> None:
    """Keys (as text) and values (in base64), a line each."""
    lines = [json.dumps([key.decode(), b64encode(value).decode()]) for key, value in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_pairs(path: Path) -> list[tuple[bytes, bytes]]:
    """What ``write_pairs`` wrote."""
    pairs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(key.encode(), b64decode(value)) for key, value in pairs]
