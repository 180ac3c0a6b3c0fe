"""A page of memory that a worker shares with a child: how jobs are taken back from it for sure.

A child may have jobs waiting behind the one that runs, and may be in no state to answer: stopped,
or in C code that holds the interpreter's lock. So the two agree on two numbers only:

1. the child writes the number of the job whose turn has come to ``begun``, and then reads
   ``taken``; if that is not lower, it skips the job;
2. the parent writes the number of the last job it has sent to ``taken``, and then reads ``begun``:
   what is higher has not begun, and will not.

Between its write and its read each side does what makes its write visible to the other (a locked
instruction in the child, a system call in the parent), so that one of the two sees the other's. If
both do, the child skips a job that the parent takes for begun, and says so (``Skipped``).
"""

import mmap
import os
import threading
from typing import Final

_PAGE_BYTES: Final = 4096
_BEGUN, _TAKEN = 0, 1


class Board:
    """The shared page. Numbers begin at 1."""

    def __init__(self, descriptor: int) -> None:
        """Maps the page behind a descriptor, which is closed."""
        self._page = mmap.mmap(descriptor, _PAGE_BYTES)
        os.close(descriptor)
        self._numbers = memoryview(self._page).cast("Q")
        self._barrier = threading.Lock()

    @property
    def begun(self) -> int:
        """The number of the last job whose turn has come."""
        return self._numbers[_BEGUN]

    def begin(self, number: int) -> bool:
        """In the child: this job's turn has come. False: it was taken back."""
        self._numbers[_BEGUN] = number
        with self._barrier:
            pass
        return number > self._numbers[_TAKEN]

    def take_back(self, last: int) -> int:
        """In the parent: takes back all jobs up to this number that have not begun.

        Returns:
            The number of the last job that has begun.
        """
        self._numbers[_TAKEN] = last
        os.sched_yield()
        return self._numbers[_BEGUN]

    def close(self) -> None:
        """Unmaps the page."""
        self._numbers.release()
        self._page.close()


def new_page() -> int:
    """A descriptor of an empty page."""
    descriptor = os.memfd_create("tenure-board")
    os.ftruncate(descriptor, _PAGE_BYTES)
    return descriptor
