"""What the other end of stdout and stderr is: a terminal, how wide, with colours or without."""

import os
import shutil
import sys
from typing import Final, TextIO

_COLOURS: Final = {
    "COMPLETED": "32",
    "SERVING": "32",
    "RUNNING": "36",
    "FAILED": "31",
    "HALTED": "31",
    "CANCELLED": "33",
    "RETRYING": "33",
    "FROZEN": "33",
}
#: What moves cursors, changes titles or worse; ends of lines and tabs do not.
_CONTROLS: Final = [code for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"]
#: Halves of characters, as of a word that was not UTF-8: nothing can be written that holds one.
_HALVES: Final = range(0xD800, 0xE000)
_SHOWN: Final = {
    **{code: f"\\x{code:02x}" for code in _CONTROLS},
    **{code: f"\\u{code:04x}" for code in _HALVES},
}
_IN_JSON: Final = {code: f"\\u{code:04x}" for code in _CONTROLS}


def harmless(text: str) -> str:
    """A text with control characters and halves of others spelled out: it may be anybody's."""
    return text if text.isprintable() else text.replace("\r\n", "\n").translate(_SHOWN)


def harmless_json(document: str) -> str:
    """A JSON document without those control characters that JSON lets pass."""
    return document.translate(_IN_JSON)


def is_lively(stream: TextIO) -> bool:
    """Whether text there can be drawn over: a terminal that knows how to move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def has_colours(stream: TextIO) -> bool:
    """Whether colours are wanted there (https://no-color.org: any text in NO_COLOR says no)."""
    return is_lively(stream) and not os.environ.get("NO_COLOR")


def is_unicode(stream: TextIO) -> bool:
    """Whether every character can be written there; JSON has its own way for those that cannot."""
    return (stream.encoding or "utf-8").lower().replace("-", "").startswith("utf")


def width() -> int | None:
    """Columns that a line of stdout may have; None: it goes to a file or to a program."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def paint(text: str, *, by: str) -> str:
    """Colours a text by the state that it stands for, where colours are wanted."""
    code = _COLOURS.get(by)
    return text if code is None or not has_colours(sys.stdout) else f"\x1b[{code}m{text}\x1b[0m"


def log_to_stderr(level: str) -> None:
    """Logs go to stderr; stdout is for data."""
    import logging

    logging.basicConfig(
        stream=sys.stderr,
        level=level,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
