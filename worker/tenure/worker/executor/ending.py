"""How a process ended, in words: the signal by its name, the memory, the last that it said."""

import signal
from typing import Final, NamedTuple, Self

from tenure.protocol.limits import TRACEBACK_BYTES_MAX
from tenure.protocol.text import cut
from tenure.protocol.vocabulary import AttemptOutcome, ErrorCategory
from tenure.worker.cgroup import Leaf
from tenure.worker.held import AttemptResult, Fault

#: Of a last line as much as fits into a message that people read.
LINE_BYTES_MAX: Final = 300
#: How ``faulthandler`` begins to tell where Python was.
_STACK: Final = "(most recent call first):\n"
_KIB_PER_MIB: Final = 1024
#: What ends a process without its doing, as people know it.
_MEANINGS: Final = {
    signal.SIGABRT: "it gave up by itself",
    signal.SIGBUS: "it touched memory that is not there",
    signal.SIGFPE: "it divided by zero, or the like",
    signal.SIGILL: "it ran into what is no code for this machine",
    signal.SIGSEGV: "it touched memory that is not its own, or its stack overflowed",
    signal.SIGXCPU: "it used up its CPU time",
    signal.SIGXFSZ: "it wrote a file beyond its limit",
}


class Ending(NamedTuple):
    """The end of a process.

    Attributes:
        status: As of ``os.waitstatus_to_exitcode``: the exit status, or minus the signal.
        peak_kib: The most memory that it had at once.
        words: The last that it wrote to its standard streams.
        killed: Whether this worker has killed it.
        memory_max: The limit on memory, in bytes, that it was killed for; 0: it was not.
    """

    status: int
    peak_kib: int
    words: str
    killed: bool = False
    memory_max: int = 0

    def by_group(self, leaf: Leaf, memory_max: int) -> Self:
        """The same end, as the process's control group tells of it.

        Args:
            leaf: The control group, which nothing has removed yet.
            memory_max: The limit on memory that the job had, in bytes.
        """
        if self.status != -signal.SIGKILL or not leaf.outgrown():
            return self
        peak_kib = max(self.peak_kib, leaf.peak_kib())
        return self._replace(memory_max=memory_max, peak_kib=peak_kib)

    def told(self) -> str:
        """One clause: "was killed by SIGSEGV (…), having had 48 MiB of memory at most"."""
        return f"{self._how()}, having had {self.peak_kib // _KIB_PER_MIB} MiB of memory at most"

    def _how(self) -> str:
        if self.status >= 0:
            return f"ended itself with exit status {self.status}"
        number = -self.status
        name = signal_name(number)
        if self.memory_max:
            return (
                f"was killed by {name} (the kernel's: it and what it had started took more memory "
                f"than the {self.memory_max >> 20} MiB of limits.memory)"
            )
        if number == signal.SIGKILL and not self.killed:
            return (
                f"was killed by {name}, and not by this worker: the kernel does that when memory "
                "runs out (`dmesg` says so), or a person did"
            )
        meaning = _MEANINGS.get(signal.Signals(number)) if name.startswith("SIG") else None
        return f"was killed by {name} ({meaning})" if meaning else f"was killed by {name}"

    def as_result(self, outcome: AttemptOutcome, who: str) -> AttemptResult:
        """The result of the attempt that the process took along; its last words are the traceback.

        Args:
            outcome: What the attempt came to.
            who: The process, for people: "the child process that ran the job".
        """
        words = f"It said last:\n{self.words}" if self.words else ""
        if len(words.encode()) > TRACEBACK_BYTES_MAX:
            words = cut(words, TRACEBACK_BYTES_MAX)
        message = f"{who} {self.told()}"
        last = last_line(self.words)
        if last:
            message += f"; it said last: {cut(last, LINE_BYTES_MAX)}"
        fault = Fault(f"tenure.{outcome.name}", message, words, ErrorCategory.SYSTEM)
        return AttemptResult(outcome, fault=fault)


def signal_name(number: int) -> str:
    """SIGSEGV for 11; the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_line(words: str) -> str:
    """Of what a process wrote the line that says most: where Python was, or else the last one."""
    _, stack, frames = words.rpartition(_STACK)
    return frames.partition("\n")[0].strip() if stack else words.rpartition("\n")[2]
