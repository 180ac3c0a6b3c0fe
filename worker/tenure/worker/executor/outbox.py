"""Facts on their way from the threads of user code to the session's thread: many per wake-up."""

import threading
from collections import deque
from collections.abc import Callable

from tenure.worker.held import Checkpoints, HeldJob
from tenure.worker.port import Fact, FactKind


class Outbox:
    """A queue of facts that wakes its reader once, not once a fact. Thread-safe."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """``wake`` is called from the posting thread when there is something to take."""
        self._wake = wake
        self._facts: deque[Fact] = deque()
        self._signalled = False
        #: For what jobs save: a job may have several threads.
        self._saving = threading.Lock()

    def post(self, kind: FactKind, job: HeldJob) -> None:
        """Adds a fact."""
        self._facts.append((kind, job))
        # A take that clears the flag after this test has yet to empty the queue, and finds it.
        if not self._signalled:
            self._signalled = True
            self._wake()

    def save(self, job: HeldJob, data: bytes) -> None:
        """Keeps what a job has saved. One fact stands for all that it saves until that is sent."""
        with self._saving:
            saved = job.saved
            if saved is None:
                saved = job.saved = Checkpoints()
            saved.newest = (saved.newest[0] + 1, data)
            told, saved.told = saved.told, True
        if not told:
            self.post(FactKind.SAVED, job)

    def take(self) -> list[Fact]:
        """All facts posted so far, in order."""
        self._signalled = False
        facts: list[Fact] = []
        while self._facts:
            facts.append(self._facts.popleft())
        return facts
