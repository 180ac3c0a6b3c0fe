"""Writes what the documents say of commands and settings, from the code: ``make reference``.

- ``docs/cli.md``: every command's help.
- ``docs/tenure.toml``: every setting, commented.
- ``docs/configuration.md``: the table between its two marks; the rest of it is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from tenure.cli import main
from tenure.cli.configuration import PROJECT_FILE
from tenure.cli.settings import SETTINGS, TABLES, Kind, Role, Setting, Value

REPOSITORY: Final = Path(__file__).resolve().parents[1]
WIDTH: Final = 96
BEGIN: Final = "<!-- settings: written by `make reference` -->\n"
END: Final = "<!-- /settings -->\n"

_CLI_INTRODUCTION: Final = """# The command line

Written by `make reference` from the code; `tenure COMMAND --help` says the same. Settings, that is
options with an `env:`, are explained in [configuration.md](configuration.md).

What all commands have in common:

- Data goes to stdout, everything else to stderr. `-o` says how: `table` for people, `json` and
  `jsonl` (one document a line) for programs, `name` for ids alone. JSON is the proto3 JSON of the
  API's message. A table is cut to the width of a terminal, never in a pipe or a file.
- Colours, progress bars and `--watch`'s redrawing are for terminals only. NO_COLOR, `--no-color`
  and `TERM=dumb` turn colours off.
- What cannot be undone asks first. `--yes` answers, `--no-input` refuses instead of asking, and
  so does a stdin that is no terminal. `--dry-run` says what would be done.
- ID arguments may be `-`: ids are then read from stdin, as `-o name` prints them.
- An interrupt (Ctrl-C) ends a command with 130; a second one does not wait for anything. A job
  that is waited for goes on. A reader that closes the pipe (`| head`) ends a command quietly.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the job failed or was cancelled; a node failed |
| 2 | usage: an option, an argument, a setting or a file is wrong |
| 3 | not found, or its result has expired |
| 4 | unavailable: no master answered in time, or the store is away |
| 5 | permission |
| 6 | conflict: the state of the job or of the store does not allow it |
| 124 | the time to wait is over |
| 130 | interrupted |

[reasons.md](reasons.md) has the exit code of every reason.
"""


def cli_page() -> str:
    """``docs/cli.md``."""
    parts = [_CLI_INTRODUCTION]
    for path, command in commands(main.app, "tenure", None):
        context = click.Context(
            command,
            info_name=path,
            terminal_width=WIDTH,
            help_option_names=main.app.context_settings["help_option_names"],
        )
        parts.append(f"## {path}\n```text\n{command.get_help(context).rstrip()}\n```\n")
    return "\n".join(parts)


def commands(
    command: click.Command, path: str, parent: click.Context | None
) -> Iterator[tuple[str, click.Command]]:
    """Each command with what is typed for it, groups before what is in them."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path, parent=parent)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from commands(found, f"{path} {name}", context)


def example_file() -> str:
    """``docs/tenure.toml``: each setting with its default, commented out."""
    lines = [
        "# Settings of Tenure, all of them, each with its default or with an example.",
        "# Written by `make reference` from the code.",
        "#",
        f"# Copy what you need to {PROJECT_FILE} in the folder that you start `tenure` in, to",
        "# ~/.config/tenure/config.toml or to /etc/tenure/config.toml. A flag wins over a",
        "# variable, a variable over a file, the first file over the next, key by key.",
    ]
    for table, about in TABLES.items():
        lines += ["", f"# {about}", f"[{table}]"]
        for setting in SETTINGS:
            if setting.table == table:
                lines += _commented(setting)
    return "\n".join(lines) + "\n"


def _commented(setting: Setting) -> list[str]:
    flag = setting.flag(setting.roles[0]) or f"the argument {setting.metavar}"
    notes = [flag, setting.variable]
    if setting.required:
        notes.append("required")
    elif setting.default is None:
        notes.append(f"not set: {setting.unset}")
    value = setting.example if setting.default is None else setting.default
    return [
        "",
        f"# {setting.help}",
        f"# ({'; '.join(notes)})",
        f"#{setting.key} = {_toml(value)}",
    ]


def _toml(value: Value) -> str:
    """As TOML writes it, which for our kinds is as JSON does, but for tables."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{key} = {json.dumps(each)}" for key, each in value.items())
        return f"{{ {pairs} }}"
    return json.dumps(value, ensure_ascii=False)


def settings_table() -> str:
    """The table in ``docs/configuration.md``."""
    rows = ["| setting | flag | variable | default | meaning |", "|---|---|---|---|---|"]
    for setting in SETTINGS:
        flags = [_flag_of(setting, role) for role in setting.roles]
        default = setting.unset if setting.default is None else f"`{_toml(setting.default)}`"
        rows.append(
            f"| `{setting.name}` | {', '.join(dict.fromkeys(flags))} | `{setting.variable}` "
            f"| {'required' if setting.required else default} | {setting.help} |"
        )
    return "\n".join(rows) + "\n"


def _flag_of(setting: Setting, role: Role) -> str:
    flag = setting.flag(role)
    if not flag:
        return f"`{setting.metavar}`"
    return f"`{flag}`" if setting.kind is Kind.SWITCH else f"`{flag} {setting.metavar}`"


def configuration_page(text: str) -> str:
    """``docs/configuration.md`` with a fresh table.

    Raises:
        ValueError: Its marks are missing.
    """
    page, count = re.subn(
        re.escape(BEGIN) + ".*?" + re.escape(END),
        lambda _: BEGIN + settings_table() + END,
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError("expected the marks of the table once in docs/configuration.md")
    return page


def pages() -> dict[Path, str]:
    """What each document should be."""
    docs = REPOSITORY / "docs"
    configuration = docs / "configuration.md"
    return {
        docs / "cli.md": cli_page(),
        docs / "tenure.toml": example_file(),
        configuration: configuration_page(configuration.read_text("utf-8")),
    }


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m tools.generate_reference",
        description="Writes what the documents say of commands and settings, from the code.",
    ).parse_args()
    for path, text in pages().items():
        path.write_text(text, "utf-8")
