"""A page of the documents, followed as a reader would: its blocks are written and run in order.

```
 ```python          # the first line, a comment, names the file that the block is written to
 ```toml            # the same
 ```console         # `$ ` begins a command, `> ` continues it; the other lines are what it prints
 ```text            # a picture or an outline: nothing to run
```
All commands of a page run in one shell, so variables, `&` and `$!` work as they do for its reader.
What a command prints is compared line by line: `…` stands for anything, a line of its own for any
lines; ids, fences, times and the width of columns may differ. A command must succeed, unless the
page goes on to show `echo $?`.

Addresses on loopback and of the documents' three machines (10.0.0.1 and so on) become free ports
of loopback, in what is written and run, and back again in what was printed.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from tenure.testing.etcd import EtcdNotFound, find_binary
from tests.chaos.cluster import REPOSITORY
from tests.chaos.ports import free_port

COMMAND_TIMEOUT_S: Final = 60.0
FILES: Final = frozenset({"python", "toml"})
PICTURE: Final = "text"
CONSOLE: Final = "console"

_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_ADDRESS: Final = re.compile(r"(?:127\.0\.0\.1|10\.0\.0\.\d):\d{4}\b")
#: Where things listen unless they are told: other addresses go by these variables.
_DEFAULTS: Final = {
    "TENURE_ADDRESS": "127.0.0.1:7400",
    "TENURE_DEV_LISTEN": "127.0.0.1:7400",
    "TENURE_MASTER_LISTEN": "127.0.0.1:7400",
    "ETCD_LISTEN_CLIENT_URLS": "http://127.0.0.1:2379",
    "ETCD_ADVERTISE_CLIENT_URLS": "http://127.0.0.1:2379",
    "ETCD_LISTEN_PEER_URLS": "http://127.0.0.1:2380",
}
#: Variables of the machine that etcd needs on some of them.
_KEPT: Final = ("ETCD_UNSUPPORTED_ARCH",)
_MARK: Final = re.compile(rb"\n@@ (\d+) @@\n")
#: What differs from run to run, and what is compared in its place.
_VARIES: Final = (
    (re.compile(r"[ \t]{2,}"), "  "),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{48}\b"), "FENCE"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d\.\d{3}\b"), "CLOCK"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:ms|s|min|h) ago\b"), "AGO"),
    # A standby is ready some seconds after a master has begun.
    (re.compile(r"\b\d+ behind\b"), "-"),
    (re.compile(r"\+\d+ ms(?= (?:accepted|started|ended)\b)"), "LATER"),
    (re.compile(r"""(?<=SERVING  )\d+\.\d+|(?<="term": ")\d+\.\d+"""), "TERM"),
    (re.compile(r"[ \t]+$", re.M), ""),
)
#: What a shell says of a process of its own that was killed; terminals show it differently.
_KILLED: Final = re.compile(r"^bash: line \d+: +\d+ Killed .*\n", re.M)
#: What a command that waits for a master, a leader or a worker says on the way if that takes long,
#: and what a program is told by the SDK's log: a matter of how busy the machine is. It has to end
#: with success and to print all that is shown, nevertheless.
_STILL_WAITING: Final = re.compile(
    r"^(?:partition \d+ has not been served for \d+ s; still looking for its leader: .*"
    r"|no master has answered yet; still trying .*"
    r"|(?:still waiting|job \S+ waits): no worker is connected)\n",
    re.M,
)
_ANYTHING: Final = "…"


class Block(NamedTuple):
    """A fenced block: its language and its text."""

    language: str
    text: str

    @property
    def path(self) -> str:
        """Where a block that is a file belongs: it begins with a comment that says so."""
        return self.text.partition("\n")[0].removeprefix("# ")

    def steps(self) -> Iterator[Step]:
        """The commands of a console block."""
        for part in re.split(r"^\$ ", self.text, flags=re.M)[1:]:
            lines = part.splitlines()
            more = 1
            while more < len(lines) and lines[more].startswith("> "):
                more += 1
            command = "\n".join([lines[0], *(line[2:] for line in lines[1:more])])
            # A comment alone tells the reader where to go.
            if not command.startswith("#"):
                yield Step(command, "\n".join(lines[more:]).strip("\n"))


class Step(NamedTuple):
    """A command, and what the page says that it prints."""

    command: str
    shown: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, given by its path in the repository."""
    text = (REPOSITORY / page).read_text("utf-8")
    return [Block(*found) for found in _BLOCK.findall(text)]


def likeness(text: str) -> str:
    """A text without what may differ."""
    for pattern, name in _VARIES:
        text = pattern.sub(name, text)
    return text.strip("\n")


def matches(shown: str, printed: str) -> bool:
    """Whether a command printed what its page shows."""
    lines = [
        r"(?:.*\n)*?" if line == _ANYTHING else re.escape(line).replace(_ANYTHING, ".*") + "\n"
        for line in likeness(shown).splitlines()
    ]
    said = likeness(printed)
    return re.fullmatch("".join(lines), f"{said}\n" if said else "") is not None


class Reader:
    """Somebody who follows a page in a folder of their own, in one shell.

    Args:
        folder: An empty folder.
        page: Its path in the repository; without one, commands are run alone.
    """

    def __init__(self, folder: Path, page: str = "") -> None:
        self.folder = folder
        self._blocks = blocks(page) if page else []
        self._there: dict[str, str] = {}
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._code = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The session is the shell's own, so the group is it and what it started.
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()
        for pipe in (self._shell.stdin, self._shell.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def follow(self, first: int = 0, last: int | None = None) -> None:
        """Writes and runs the blocks of the page, all or from one to before another.

        Raises:
            AssertionError: A command failed, or printed something else.
        """
        for block in self._blocks[first:last]:
            if block.language in FILES:
                self.write(block)
            elif block.language == CONSOLE:
                steps = [*block.steps()]
                for step, after in zip(steps, [*steps[1:], Step("", "")], strict=True):
                    self.take(step, may_fail=after.command == "echo $?")

    def place(self, there: str, here: str) -> None:
        """An address of the page is this one here, where something listens already."""
        self._there[there] = here

    def offer(self, name: str, command: str) -> None:
        """Puts a command on the reader's PATH, unless there is one."""
        if shutil.which(name) is None:
            script = self.folder / ".tools" / name
            script.write_text(f'#!/bin/sh\nexec {command} "$@"\n', "utf-8")
            script.chmod(0o755)

    def write(self, block: Block) -> None:
        """Puts a file where its block says."""
        path = self.folder / block.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._moved(block.text), "utf-8")

    def run(self, command: str) -> str:
        """What a command prints, on either stream."""
        stdin, stdout = self._shell.stdin, self._shell.stdout
        if stdin is None or stdout is None:
            raise AssertionError("expected a shell with pipes")
        line = f"(exit {self._code})\n{{ {self._moved(command)}\n}} 2>&1 </dev/null"
        stdin.write(f'{line}\nprintf "\\n@@ %s @@\\n" $?\n'.encode())
        stdin.flush()
        printed = self._printed(stdout.fileno(), command)
        found = _MARK.search(printed)
        if found is None:
            raise AssertionError(f"`{command}` ended the shell:\n{self._logs()}")
        self._code = int(found[1])
        return self._back(printed[: found.start()].decode("utf-8", "replace"))

    def take(self, step: Step, *, may_fail: bool = False) -> None:
        """Runs a command.

        Raises:
            AssertionError: It failed, or did not print what the page shows.
        """
        printed = self.run(step.command)
        if self._code != 0 and not may_fail:
            raise AssertionError(
                f"expected `{step.command}` to succeed, but it ended with {self._code}:\n"
                f"{printed}\n{self._logs()}"
            )
        if not matches(step.shown, printed):
            raise AssertionError(
                f"expected `{step.command}` to print\n{step.shown}\n"
                f"but it printed\n{printed}\n{self._logs()}"
            )

    def _printed(self, fd: int, command: str) -> bytes:
        """The shell's output up to the next mark."""
        printed = b""
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while not _MARK.search(printed):
                if not selector.select(deadline - time.monotonic()):
                    raise AssertionError(
                        f"expected `{command}` to end within {COMMAND_TIMEOUT_S} s, got\n"
                        f"{printed.decode('utf-8', 'replace')}\n{self._logs()}"
                    )
                more = os.read(fd, 65_536)
                if not more:
                    break
                printed += more
        return printed

    def _environment(self) -> dict[str, str]:
        """A reader's own: nothing of ours but where the commands are."""
        tools = self.folder / ".tools"
        tools.mkdir()
        with suppress(EtcdNotFound):
            (tools / "etcd").symlink_to(find_binary())
        path = [str(Path(sys.executable).parent), str(tools), os.environ["PATH"]]
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return {
            **kept,
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PATH": os.pathsep.join(path),
            **{name: self._moved(value) for name, value in self._defaults()},
        }

    def _defaults(self) -> Iterator[tuple[str, str]]:
        """Etcd wants no variable for what a flag says."""
        flags = "".join(block.text for block in self._blocks)
        for name, value in _DEFAULTS.items():
            if name.removeprefix("ETCD_").lower().replace("_", "-") not in flags:
                yield name, value

    def _moved(self, text: str) -> str:
        """A text with addresses that are free here."""

        def here(found: re.Match[str]) -> str:
            return self._there.setdefault(found[0], f"127.0.0.1:{free_port()}")

        return _ADDRESS.sub(here, text)

    def _back(self, text: str) -> str:
        """A text with the addresses of the page."""
        for there, here in self._there.items():
            text = re.sub(rf"{re.escape(here)}\b", there, text)
        return _STILL_WAITING.sub("", _KILLED.sub("", text))

    def _logs(self) -> str:
        """The ends of the logs in the folder."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text("utf-8").splitlines()[-12:])
            for path in sorted(self.folder.glob("*.log"))
        )
