"""Tells the parent of a child process what its jobs say: now and then, and the rest at the end."""

import threading
from collections.abc import Callable
from typing import Final

from tenure.worker.executor import frame
from tenure.worker.held import HeldJob

#: Words that come within this time go together.
PAUSE_S: Final = 0.1


class Teller:
    """What was said of one job after the other, and told. A job that says nothing costs nothing.

    Args:
        send: Sends frames to the parent, in one write.
    """

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send
        self._number = 0
        self._job: HeldJob | None = None
        self._told = 0
        #: Held while something is sent, so that a job's lines come before its end.
        self._telling = threading.Lock()
        self._news = threading.Event()
        self._thread: threading.Thread | None = None

    def word(self) -> None:
        """The job has said something. From any thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._tell_on, name="tenure-teller", daemon=True)
            self._thread.start()
        self._news.set()

    def begin(self, number: int, job: HeldJob) -> None:
        """The next job begins."""
        with self._telling:
            self._number, self._job, self._told = number, job, 0

    def end(self, ended: frame.Ended) -> None:
        """Tells how the job ended, after all that it has said."""
        with self._telling:
            job, self._job = self._job, None
            if job is not None and job.log is not None:
                job.log.end_lines()
                self._send(*self._untold(job), ended)
            else:
                self._send(ended)

    def _untold(self, job: HeldJob) -> list[frame.Said]:
        lines = [] if job.log is None else job.log.after(self._told)
        if not lines:
            return []
        self._told = lines[-1].number
        return [frame.Said(self._number, lines)]

    def _tell_on(self) -> None:
        pause = threading.Event()
        while True:
            self._news.wait()
            pause.wait(PAUSE_S)
            self._news.clear()
            with self._telling:
                job = self._job
                if job is None:
                    continue
                try:
                    self._send(*self._untold(job))
                except frame.BrokenFrame:
                    return  # The thread that listens to the parent ends the process.
