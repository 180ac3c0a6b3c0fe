"""Commands that worker tests run, as a user would define them."""

import sys
from datetime import timedelta

from tenure.client import Command, Limits, job


@job(name="echo")
def echo(*words: str) -> Command[str]:
    """Says its arguments."""
    return Command("echo", *words)


@job(name="shout")
def shout(text: str) -> Command[bytes]:
    """Its stdin in capitals, as bytes."""
    return Command("tr", "a-z", "A-Z", stdin=text)


@job(name="shout_file")
def shout_file(size: int) -> Command[None]:
    """So many bytes, as its stdin."""
    return Command("tr", "a-z", "A-Z", stdin=bytes(size))


@job(name="told")
def told(name: str) -> Command[str]:
    """What a command is told in a variable."""
    return Command("sh", "-c", f'printf %s "${name}"', env={"OWN": "mine"})


@job(name="script", limits=Limits(nice=3))
def script(text: str, cwd: str = "") -> Command[str]:
    """Whatever a shell can do."""
    return Command("sh", "-c", text, cwd=cwd or None)


@job(name="mute_script")
def mute_script(text: str) -> Command[None]:
    """The same, and nobody wants to hear of it."""
    return Command("sh", "-c", text)


@job(name="small_python", limits=Limits(memory="64MiB", cpu=timedelta(seconds=1), files=32))
def small_python(text: str) -> Command[str]:
    """A program that may not have much."""
    return Command(sys.executable, "-S", "-c", text)


@job(name="no_such_command")
def no_such_command() -> Command[str]:
    """There is none."""
    return Command("/no/such/program-4711")
