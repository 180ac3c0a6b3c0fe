"""``tenure completion``: scripts that complete commands and options in a shell."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Final

import click

from tenure.cli import exits
from tenure.cli.command import argument, command
from tenure.cli.invocation import Invocation

#: Set by the scripts when they ask for words. click makes the name of the program's.
VARIABLE: Final = "_TENURE_COMPLETE"


class Shell(StrEnum):
    """The shells that a script is there for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


_WHERE: Final = {
    Shell.BASH: "tenure completion bash > ~/.local/share/bash-completion/completions/tenure",
    Shell.ZSH: "tenure completion zsh > ~/.zfunc/_tenure",
    Shell.FISH: "tenure completion fish > ~/.config/fish/completions/tenure.fish",
}


@command(
    "completion",
    role=None,
    examples=[
        ('eval "$(tenure completion bash)"', "for this bash"),
        (_WHERE[Shell.BASH], "for every bash from now on"),
        (_WHERE[Shell.ZSH], "for every zsh, with ~/.zfunc in its fpath"),
        (_WHERE[Shell.FISH], "for every fish"),
    ],
)
def completion(
    cli: Invocation,
    shell: Annotated[
        str,
        argument(
            metavar="SHELL",
            help="bash, zsh or fish.",
            type=click.Choice([shell.value for shell in Shell]),
        ),
    ],
) -> int:
    """Prints a script that completes commands and options."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.BadParameter(f"expected a shell that click knows, got {shell!r}")
    root = click.get_current_context().find_root().command
    # The template alone: `source()` starts a shell to see how old it is.
    script = kind(root, {}, "tenure", VARIABLE)
    print(script.source_template % script.source_vars())
    if sys.stdout.isatty():
        cli.say(f"to keep it: {_WHERE[Shell(shell)]}")
    return exits.OK
