"""How a worker's process ends, for whoever started it."""

from typing import Final

#: Start me again: nothing is wrong with the application, but this process has served its time.
#: A supervisor does so at once, and counts no crash. (sysexits.h has 75 for "try again".)
EXIT_RESTART: Final = 75
#: A part of the worker has failed that its jobs cannot do without: a crash, in as few words. (The
#: same table has 70 for an error of the software itself.)
EXIT_BROKEN: Final = 70
