"""A trace: jobs that came at certain times and ran for so long, as JSON Lines.

One object a line; only ``at_ms`` and ``run_ms`` must be there. An example:

    {"at_ms": 1200, "queue": "mail", "priority": 3, "run_ms": 180, "requires": {"zone": ["eu"]}}
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import msgspec

from tenure.protocol import limits
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._/-]{1,128}$")]
_Span = Annotated[int, msgspec.Meta(ge=0, le=366 * limits.DAY_MS)]

#: Wire default of a job's priority.
PRIORITY_DEFAULT: Final = 5


class Arrival(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One job of a trace. Times in milliseconds."""

    #: When it was submitted, by any clock that all lines share.
    at_ms: int
    #: For how long it kept a slot busy: all of its attempts together.
    run_ms: _Span
    queue: _Name = limits.DEFAULT_QUEUE
    tenant: _Name = limits.DEFAULT_TENANT
    name: _Name = "job"
    priority: Annotated[int, msgspec.Meta(ge=0, le=limits.PRIORITY_MAX)] = PRIORITY_DEFAULT
    #: How long after its submit it was due.
    delay_ms: _Span = 0
    limit_key: str = ""
    sticky_key: str = ""
    #: Labels that its worker must have: each with any of these values, or (none) with any at all.
    requires: dict[str, list[str]] = {}
    #: Labels that its worker had better have.
    prefers: dict[str, list[str]] = {}
    #: From when it was due until it started, as it was measured.
    wait_ms: int | None = None


_DECODE: Final = msgspec.json.Decoder(Arrival).decode


def read(lines: Iterable[bytes], source: str) -> list[Arrival]:
    """The jobs of a trace; empty lines are passed over.

    Args:
        lines: Of the file.
        source: What to call it when something is wrong.

    Raises:
        Rejected: INVALID_ARGUMENT with the line's number and the path in it.
    """
    found: list[Arrival] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(_DECODE(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Rejected(
                f"expected a job of a trace at {source}:{number}, but {error}",
                reason=Reason.INVALID_ARGUMENT,
                field=f"trace[{number}]",
            ) from error
    return found


def write(arrivals: Iterable[Arrival]) -> Iterator[bytes]:
    """The lines of a trace, oldest first."""
    for arrival in sorted(arrivals, key=lambda each: each.at_ms):
        yield msgspec.json.encode(arrival) + b"\n"
