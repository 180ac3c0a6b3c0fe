"""``tenure config``: what is set, and by whom."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

from tenure.cli import configuration, exits
from tenure.cli.command import Group, Takes, command, switch
from tenure.cli.configuration import Found
from tenure.cli.invocation import Invocation
from tenure.cli.output import View
from tenure.cli.settings import Setting

app = Group(
    "config",
    help="What is set, and by whom.",
    no_args_is_help=True,
    examples=[("tenure config show --sources", "every setting, and where its value comes from")],
)

#: In a URL: a name and a password before the host.
_CREDENTIALS: Final = re.compile(r"//[^/@]*@")
_HIDDEN: Final = "//********@"

_Row = tuple[Setting, Found]


@command(
    "show",
    group=app,
    role=None,
    takes=Takes.OUTPUT,
    examples=[
        ("tenure config show", "every setting, as commands started here would have it"),
        ("tenure config show --sources", "and where each value comes from"),
        ("tenure config show --config /etc/tenure/config.toml", "check a file"),
    ],
)
def show(
    cli: Invocation,
    sources: Annotated[bool, switch("--sources", help="Where each value comes from, too.")] = False,
) -> int:
    """Shows every setting. Passwords are never shown."""
    found = configuration.load(None, {}, os.environ, config=cli.file)
    for path in found.files:
        cli.say(f"read {path}")
    if sources:
        columns: Sequence[str] = ("SETTING", "VALUE", "SOURCE")
    else:
        columns = ("SETTING", "VALUE")

    def row(pair: _Row) -> Sequence[object]:
        setting, value = pair
        return (setting.name, _shown(setting, value), value.source)[: len(columns)]

    def data(pair: _Row) -> dict[str, Any]:
        setting, value = pair
        source = {"source": value.source} if sources else {}
        return {"setting": setting.name, "value": _hidden(value.value), **source}

    view = View(columns, row=row, data=data, name=lambda pair: pair[0].name)
    cli.show(view, list(found.found.items()))
    return exits.OK


def _hidden(value: Any) -> Any:
    return _CREDENTIALS.sub(_HIDDEN, value) if isinstance(value, str) else value


def _shown(setting: Setting, found: Found) -> str:
    if found.value is None:
        return f"({setting.unset or 'not set'})"
    value = _hidden(found.value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
