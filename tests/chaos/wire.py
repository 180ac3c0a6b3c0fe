"""What a test tells the proxy: lines of JSON on its stdin, each answered by one on its stdout."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

import msgspec

#: ``up``: from who dialled; ``down``: back to it.
Way = Literal["up", "down", "both"]


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happens to bytes between two processes for as long as the rule stands.

    Attributes:
        name: By which it is taken back.
        source: Who dialled: a name or a pattern.
        target: Who was dialled: a name or a pattern.
        way: Which bytes.
        delay_ms: They come that much later; as many come at once as before.
        hold: They wait until the rule is taken back; then all come, late.
        bytes_per_s: No more than so many pass on each connection.
        cut_after: After so many more bytes of one connection, to the byte, it breaks. Happens once.
        reset: Connections that break are reset: what is on the way back is lost too.
        refuse: New connections are reset at once.
    """

    name: str
    source: str = "*"
    target: str = "*"
    way: Way = "both"
    delay_ms: int = 0
    hold: bool = False
    bytes_per_s: int = 0
    cut_after: int | None = None
    reset: bool = False
    refuse: bool = False

    def is_for(self, source: str, target: str) -> bool:
        """Whether it is about these two."""
        return fnmatchcase(source, self.source) and fnmatchcase(target, self.target)


class Open(msgspec.Struct, frozen=True, tag=True):
    """Listen, and connect who comes with a target at an address; the answer has the ``port``."""

    id: int
    target: str
    host: str
    port: int


class Know(msgspec.Struct, frozen=True, tag=True):
    """A process by its pid or, from another network namespace, by its address."""

    id: int
    name: str
    pid: int = 0
    address: str = ""


class Make(msgspec.Struct, frozen=True, tag=True):
    """A rule holds from now on."""

    id: int
    rule: Rule


class Drop(msgspec.Struct, frozen=True, tag=True):
    """The rule of that name holds no more."""

    id: int
    name: str


class Reset(msgspec.Struct, frozen=True, tag=True):
    """Reset all connections between two; the answer has their ``count``."""

    id: int
    source: str
    target: str


Order = Open | Know | Make | Drop | Reset
