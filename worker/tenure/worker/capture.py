"""What the code of jobs logs and prints goes to their attempts' logs, too.

Whose code it is tells the context: so tasks belong to the job that made them, and threads that run
in a copy of its context (``asyncio.to_thread``, ``contextvars.copy_context().run``). Everything
also goes where it went before. A job that says nothing never comes here.
"""

import logging
import sys
from collections.abc import Iterable
from typing import Any, Final, TextIO, cast

from tenure.client.context import listener
from tenure.protocol.vocabulary import LogStream

_LOGGING: Final = LogStream.LOGGING
_TRACES: Final = logging.Formatter()


def install() -> None:
    """Listens to this process's logging and standard streams. Idempotent.

    Call it when the application is imported, so that its own setup of logging stays as it is.
    """
    root = logging.getLogger()
    if not any(isinstance(handler, _Records) for handler in root.handlers):
        root.addHandler(_Records())
    if not isinstance(sys.stdout, _Stream):
        sys.stdout = cast(TextIO, _Stream(sys.stdout, LogStream.STDOUT))
    if not isinstance(sys.stderr, _Stream):
        sys.stderr = cast(TextIO, _Stream(sys.stderr, LogStream.STDERR))


class _Records(logging.Handler):
    """Hears every record that its logger lets through to the root."""

    def emit(self, record: logging.LogRecord) -> None:
        listen = listener()
        if listen is not None:
            listen(_LOGGING, record.levelno, _text_of(record))


def _text_of(record: logging.LogRecord) -> str:
    """A record's message and, below it, its traceback."""
    try:
        text = record.getMessage()
    except Exception as broken:  # noqa: BLE001  (user code: arguments' __str__ may do anything)
        text = f"(a message that could not be made: {type(broken).__name__})"
    if record.exc_info and record.exc_info[0] is not None:
        try:
            text += "\n" + _TRACES.formatException(record.exc_info)
        except Exception as broken:  # noqa: BLE001  (the same)
            text += f"\n(no traceback: formatting it raised {type(broken).__name__})"
    return text


class _Stream:
    """A standard stream that tells jobs' listeners what they write; all else is the stream's."""

    def __init__(self, stream: TextIO, number: LogStream) -> None:
        self._stream = stream
        self._number = number

    def write(self, text: str) -> int:
        """Writes, as the stream does."""
        written = self._stream.write(text)
        listen = listener()
        if listen is not None:
            listen(self._number, 0, text)
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
