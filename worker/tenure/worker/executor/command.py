"""Commands: programs with arguments, each waited for in a thread.

The launcher starts them and keeps their output (``launcher.py``); here is what they are told, and
what becomes of their ends. A command that is to stop gets SIGTERM, and SIGKILL after the grace, it
and all that it has started.

What it writes goes to its attempt's log while it runs, but for a stdout that is to be the result:
that goes there in the end, if it is none.
"""

import codecs
import os
import signal
from collections.abc import Mapping
from functools import partial
from typing import Any

from tenure.client.command import (
    Command,
    CommandFailed,
    OutputTooLarge,
    not_started,
    run_commands_by,
)
from tenure.client.confinement import Limits
from tenure.client.context import current_job
from tenure.protocol.limits import PAYLOAD_BYTES_DEFAULT
from tenure.protocol.text import cut
from tenure.protocol.vocabulary import LogStream
from tenure.worker.attempt import ThreadClock, log_of
from tenure.worker.cgroup import Groups, Leaf, leaf_for
from tenure.worker.confinement import command_limits
from tenure.worker.executor.ending import LINE_BYTES_MAX, Ending, last_line
from tenure.worker.executor.launch import TROUBLE, Finished, Launch, Said
from tenure.worker.executor.launcher_link import LauncherLink, LauncherLost
from tenure.worker.executor.runner import Stage
from tenure.worker.executor.thread import ThreadExecutor
from tenure.worker.held import AttemptResult, HeldJob


class CommandExecutor(ThreadExecutor):
    """Waits for commands, each in a thread that is told of its end.

    Args:
        stage: Where jobs come from and go to.
        slots: How many run at once at most.
        launcher: Starts them.
        groups: Where those with limits get control groups; None: nowhere.
    """

    def __init__(
        self, stage: Stage, slots: int, launcher: LauncherLink, groups: Groups | None = None
    ) -> None:
        super().__init__(stage, slots)
        self._groups = groups
        self._launcher = launcher
        #: By what the launcher calls the commands of jobs.
        self._numbers: dict[HeldJob, int] = {}

    def terminate(self, job: HeldJob) -> None:
        """Asks a command to end. ``job.stop`` is set: one that has not begun does not begin."""
        self._signal(job, signal.SIGTERM)

    def kill(self, job: HeldJob) -> bool:
        """Ends a command and all that it has started. False: there is none."""
        return self._signal(job, signal.SIGKILL)

    def _signal(self, job: HeldJob, what: int) -> bool:
        number = self._numbers.get(job)
        if number is None:
            return False
        self._launcher.signal(number, what)
        return True

    def _attempt(self, job: HeldJob) -> AttemptResult:
        run_commands_by(partial(self._command, job))
        return super()._attempt(job)

    def _command(self, job: HeldJob, command: Command[Any], wanted: bool) -> bytes:
        """Runs a job's command.

        Raises:
            CommandFailed: It ended with another status than 0.
            CommandNotFound: There is no such program.
            CommandTooLarge: It was given too much.
            OutputTooLarge: It writes too much.
            OSError: It could not be started.
        """
        limits = self._stage.jobs[job.terms.name].limits
        with leaf_for(self._groups, limits) as leaf:
            return self._confined(job, command, wanted, limits or Limits(), leaf)

    def _confined(
        self, job: HeldJob, command: Command[Any], wanted: bool, limits: Limits, leaf: Leaf | None
    ) -> bytes:
        number = self._launcher.number()
        launch = Launch(
            number,
            [*map(os.fsencode, command.argv)],
            {**os.environb, **_encoded(command.env), **_encoded(_environment())},
            os.fsencode(command.cwd or ""),
            command.stdin,
            wanted,
            PAYLOAD_BYTES_DEFAULT,
            command_limits(limits, leaf),
            limits.nice or 0,
            str(leaf.folder) if leaf is not None else "",
        )
        hear = _Transcript(job, self._stage.clock).hear
        # First the note, then the look: a stop that comes meanwhile finds one of the two.
        self._numbers[job] = number
        try:
            finished = self._launcher.run(launch, hear, lambda: job.stop is None)
        finally:
            del self._numbers[job]
        if finished is None:
            raise CommandFailed("it had not begun", status=-signal.SIGTERM)
        words = finished.stderr.decode("utf-8", "replace").strip()
        ending = Ending(finished.status, finished.peak_kib, words, job.stop is not None)
        if leaf is not None and not ending.killed:
            ending = ending.by_group(leaf, limits.memory_bytes)
        return _stdout(command.argv[0], finished, ending)


def _encoded(env: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(name): os.fsencode(value) for name, value in env.items()}


class _Transcript:
    """Writes what a command says to its attempt's log. A command that says nothing has none."""

    def __init__(self, job: HeldJob, clock: ThreadClock) -> None:
        self._job = job
        self._clock = clock
        #: A character may come in two parts.
        self._decoders: dict[LogStream, codecs.IncrementalDecoder] = {}

    def hear(self, said: Said) -> None:
        """Takes what it has said. In the thread that listens to the launcher."""
        log, stream = log_of(self._job), said.stream
        if said.skipped is not None:
            self._decoders.pop(stream, None)
            log.skip(stream, said.skipped)
        decoder = self._decoders.get(stream)
        if decoder is None:
            decoder = self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
        log.write(self._clock.wall_ms(), stream, decoder.decode(said.data))


def _environment() -> dict[str, str]:
    """What a command is told of its job."""
    me = current_job()
    told = {
        "TENURE_JOB_ID": me.id,
        "TENURE_JOB_NAME": me.name,
        "TENURE_ATTEMPT": str(me.attempt),
        "TENURE_FENCE": me.fence,
    }
    if me.deadline is not None:
        told["TENURE_DEADLINE"] = me.deadline.isoformat()
    return told


def _stdout(program: str, finished: Finished, ending: Ending) -> bytes:
    """What a command that has ended gives back."""
    if finished.refusal.startswith(TROUBLE):
        why = finished.refusal.removeprefix(TROUBLE)
        raise LauncherLost(f"expected to start {program}, but {why}")
    if finished.refusal:
        raise not_started(program, finished.refusal)
    if finished.is_cut:
        raise OutputTooLarge(program)
    if finished.status == 0:
        return finished.stdout
    last = last_line(ending.words)
    said = f"; it said last: {cut(last, LINE_BYTES_MAX)}" if last else ""
    raise CommandFailed(
        f"expected {program} to end with exit status 0, but it {ending.told()}{said}",
        status=finished.status,
        stderr=ending.words,
    )
