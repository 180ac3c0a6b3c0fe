"""``tenure completion``: scripts that complete commands and options in a shell."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
import typer.completion

from tenure.cli import exits
from tenure.cli.command import command, single
from tenure.cli.invocation import Invocation

app = single()

#: Typer's own; it does not list these names as exported, though its releases all have had them.
_SCRIPTS: Final[Any] = typer.completion

#: Set by the scripts when they ask for words.
VARIABLE: Final = "_TENURE_COMPLETE"


class Shell(StrEnum):
    """The shells that a script is there for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


_WHERE: Final = {
    Shell.BASH: "tenure completion bash > ~/.local/share/bash-completion/completions/tenure",
    Shell.ZSH: "tenure completion zsh > ~/.zfunc/_tenure   (with ~/.zfunc in fpath)",
    Shell.FISH: "tenure completion fish > ~/.config/fish/completions/tenure.fish",
}


@command(
    app,
    role=None,
    examples=[
        ('eval "$(tenure completion bash)"', "for this shell"),
        (_WHERE[Shell.BASH], "for every bash from now on"),
        (_WHERE[Shell.ZSH], "for every zsh"),
        (_WHERE[Shell.FISH], "for every fish"),
    ],
)
def completion(
    cli: Invocation,
    shell: Annotated[
        Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)
    ],
) -> int:
    """Prints a script that completes commands and options."""
    print(
        _SCRIPTS.get_completion_script(prog_name="tenure", complete_var=VARIABLE, shell=shell.value)
    )
    if sys.stdout.isatty():
        cli.say(f"to keep it: {_WHERE[shell]}")
    return exits.OK


def prepare() -> None:
    """Teaches click how to answer the _SCRIPTS."""
    _SCRIPTS.completion_init()
