"""How a worker's process ends, for whoever started it."""

import logging
import os
from typing import Final, NoReturn

_LOGGER: Final = logging.getLogger(__name__)

#: Start me again: nothing is wrong with the application, but this process has served its time.
#: A supervisor does so at once, and counts no crash. (sysexits.h has 75 for "try again".)
EXIT_RESTART: Final = 75
#: A part of the worker has failed that its jobs cannot do without: a crash, in as few words. (The
#: same table has 70 for an error of the software itself.)
EXIT_BROKEN: Final = 70


def end_broken(part: str, error: BaseException) -> NoReturn:
    """Ends this process at once: a part of it has failed."""
    _LOGGER.critical(
        "%s has failed, and nobody else can say what becomes of its jobs: this worker ends with "
        "status %d",
        part,
        EXIT_BROKEN,
        exc_info=error,
        extra={"action": "broken"},
    )
    os._exit(EXIT_BROKEN)
