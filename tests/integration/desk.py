"""A user's folder, with nodes that run there and commands that are given there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.chaos.process import Event, Process, Timeline

START_TIMEOUT_S = 40.0
COMMAND_TIMEOUT_S = 45.0


class Desk:
    """A reader's folder and terminals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.timeline = Timeline()
        self.address = ""
        self._logs = folder / "logs"
        self._logs.mkdir()
        self._running: list[Process] = []
        self._environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def start(self, name: str, command: str) -> Process:
        """Runs a command in a terminal of its own."""
        shell = ["sh", "-c", f'cd "$0" && exec {command}', str(self.folder)]
        process = Process(name, shell, self._logs, self.timeline, self._environment)
        self._running.append(process)
        return process

    def wait_said(self, process: Process, event: str) -> Event:
        """The first such line of a process that runs."""

        def look(events: list[Event]) -> Event | bool | None:
            for said in events:
                if said.process == process.log.name and said.name == event:
                    return said
            return None if process.running else False

        found = self.timeline.wait(look, START_TIMEOUT_S)
        if not isinstance(found, Event):
            raise AssertionError(f"expected {process.name} to say {event}:\n{process.log_tail()}")
        return found

    def run(self, command: str) -> str:
        """Runs a command to its end; returns its stdout."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env={**os.environ, **self._environment, "TENURE_ADDRESS": self.address},
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(f"expected `{command}` to succeed, got {done}")
        return done.stdout

    def close(self) -> None:
        """Ends what still runs."""
        for process in reversed(self._running):
            process.stop()
