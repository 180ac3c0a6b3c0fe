"""The text of a filter (docs/filters.md) from what the SDK's methods are given."""

import re
from collections.abc import Iterable
from typing import Final

from tenure.protocol.vocabulary import JobState

_SPECIAL: Final = re.compile(r'(["\\*])')


def filter_text(text: str, states: Iterable[JobState], queue: str, name: str, tenant: str) -> str:
    """All of it joined by AND.

    The caller's own text comes first, so that positions in errors are positions in it; AND binds
    least of all, so it needs no parentheses.
    """
    parts = [text] if text.strip() else []
    parts += [" OR ".join(f"state = {state.name}" for state in states)]
    for field, value in (("queue", queue), ("name", name), ("tenant", tenant)):
        if value:
            escaped = _SPECIAL.sub(r"\\\1", value)
            parts.append(f'{field} = "{escaped}"')
    return " AND ".join(part for part in parts if part)
