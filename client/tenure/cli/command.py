"""How a command is made: its own parameters, the flags of its settings, and what all have.

```
 @command(app, role=Role.CLIENT, takes=Takes.OUTPUT | Takes.LIMIT, examples=(…))
 def list_jobs(cli: Invocation, queue: Queue = "") -> int: …
                └ made here of the settings and common options; the rest is the command's own
```
Help leads with examples. Nothing here imports rich, gRPC or asyncio: ``--help`` must be quick.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Flag, auto
from typing import Annotated, Any, ClassVar, Final

import typer
from typer.core import TyperCommand, TyperGroup

from tenure.cli import configuration
from tenure.cli.invocation import Invocation
from tenure.cli.output import Format
from tenure.cli.settings import SETTINGS, Kind, Role, Setting, settings_of

#: A command line, and what it does.
Example = tuple[str, str]

WATCH_INTERVAL_S: Final = 2.0
LIMIT: Final = 100


class Takes(Flag):
    """Which of the common options a command has, besides those that all have."""

    NOTHING = 0
    OUTPUT = auto()
    LIMIT = auto()
    WATCH = auto()
    CONFIRM = auto()
    DRY_RUN = auto()


def _switch(help_text: str, *names: str) -> Any:
    return Annotated[bool, typer.Option(*names, help=help_text, show_default=False)]


#: Parameter -> who has it, its annotation, its default. In the order of the help.
_COMMON: Final[Mapping[str, tuple[Takes, Any, object]]] = {
    "output": (
        Takes.OUTPUT,
        Annotated[
            Format,
            typer.Option(
                "--output",
                "-o",
                metavar="FORMAT",
                help="table, json, jsonl, or name (ids only).",
                show_default=False,
            ),
        ],
        Format.TABLE,
    ),
    "no_headers": (Takes.OUTPUT, _switch("Tables without their headings.", "--no-headers"), False),
    "limit": (
        Takes.LIMIT,
        Annotated[
            int | None,
            typer.Option("--limit", min=1, metavar="N", help="At most so many.  [default: 100]"),
        ],
        None,
    ),
    "watch": (Takes.WATCH, _switch("Show it again and again.", "--watch", "-w"), False),
    "interval": (
        Takes.WATCH,
        Annotated[
            float,
            typer.Option(
                "--interval",
                min=0.1,
                metavar="SECONDS",
                help="With --watch: how often.  [default: 2]",
                show_default=False,
            ),
        ],
        WATCH_INTERVAL_S,
    ),
    "dry_run": (Takes.DRY_RUN, _switch("Say what would be done.", "--dry-run"), False),
    "yes": (Takes.CONFIRM, _switch("Do not ask.", "--yes", "-y"), False),
    "no_input": (Takes.CONFIRM, _switch("Never ask: refuse instead.", "--no-input"), False),
    "quiet": (Takes.NOTHING, _switch("Only errors on stderr.", "--quiet", "-q"), False),
    "verbose": (
        Takes.NOTHING,
        Annotated[
            int,
            typer.Option("--verbose", "-v", count=True, metavar="", help="Log more, to stderr."),
        ],
        0,
    ),
    "no_color": (Takes.NOTHING, _switch("No colours, as with NO_COLOR.", "--no-color"), False),
    "config": (
        Takes.NOTHING,
        Annotated[
            str | None,
            typer.Option(
                "--config",
                metavar="FILE",
                help="Read this file instead of tenure.toml and the user's and the system's."
                "  [env: TENURE_CONFIG]",
            ),
        ],
        None,
    ),
}
_PREFIX: Final = "setting_"


class Command(TyperCommand):
    """A command whose help leads with examples, and has common options last."""

    examples: ClassVar[Sequence[Example]] = ()

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Arguments as their metavars say them."""
        arguments = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return ["[OPTIONS]", *(str(argument.metavar) for argument in arguments)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Usage, what it does, examples, arguments, options."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        _write_examples(formatter, self.examples)
        _write_parameters(formatter, self.get_params(ctx), ctx)


class Group(TyperGroup):
    """A group of commands that says which one may be meant."""

    examples: ClassVar[Sequence[Example]] = ()
    #: Printed last.
    notes: ClassVar[str] = ""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Usage, what it is about, examples, commands, options."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        _write_examples(formatter, self.examples)
        rows = [(name, self.line_about(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        _write_parameters(formatter, self.get_params(ctx), ctx)
        if self.notes:
            formatter.write_paragraph()
            formatter.write_text(self.notes)

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which they were added."""
        return list(self.commands)

    def line_about(self, ctx: Any, name: str) -> str:
        """One line about a command."""
        command = self.get_command(ctx, name)
        return first_line(command.help if command is not None else None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As usual; an unknown name is refused with the one that may be meant."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """A group whose commands are imported when they are run.

    Attributes:
        lazy: Command -> the module, its ``typer.Typer``, and the line in the group's help.
    """

    lazy: ClassVar[Mapping[str, tuple[str, str, str]]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of the table."""
        return list(self.lazy)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Imports it."""
        if cmd_name in self.lazy and cmd_name not in self.commands:
            module, attribute, _ = self.lazy[cmd_name]
            found = typer.main.get_command(getattr(importlib.import_module(module), attribute))
            found.name = cmd_name
            self.commands[cmd_name] = found
        return self.commands.get(cmd_name)

    def line_about(self, ctx: Any, name: str) -> str:
        """From the table: nothing is imported for it."""
        return self.lazy[name][2]


def group(help_text: str, examples: Sequence[Example] = ()) -> typer.Typer:
    """A group to put commands in."""
    kind = type("_Group", (Group,), {"examples": examples})
    app = typer.Typer(cls=kind, help=help_text, no_args_is_help=True, **STYLE)
    # With a callback it stays a group even if it has one command only.
    app.callback()(_nothing)
    return app


def _nothing() -> None: ...


def single() -> typer.Typer:
    """What holds one command of the tree's first level."""
    return typer.Typer(**STYLE)


STYLE: Final[dict[str, Any]] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


def command(
    app: typer.Typer,
    name: str | None = None,
    *,
    role: Role | None = Role.CLIENT,
    takes: Takes = Takes.NOTHING,
    examples: Sequence[Example],
    **context: Any,
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Adds a command to a group.

    Args:
        app: The group.
        name: What it is called; None: as the function.
        role: Whose settings it reads; None: none.
        takes: Which common options it has.
        examples: At least one.
        **context: Settings of its click context.
    """

    def add(function: Callable[..., int]) -> Callable[..., int]:
        settings = [] if role is None else settings_of(role)
        common = {
            key: row for key, row in _COMMON.items() if row[0] in takes or row[0] is Takes.NOTHING
        }
        own = _own_parameters(function)

        def run(**values: Any) -> int:
            given = {setting.name: values[_parameter_name(setting)] for setting in settings}
            cli = _invocation(role, given, {key: values[key] for key in common})
            return function(cli, **{parameter.name: values[parameter.name] for parameter in own})

        parameters = [*own]
        parameters += [_setting_parameter(setting, role) for setting in settings if role]
        parameters += [_parameter(key, row[1], row[2]) for key, row in common.items()]
        _disguise(run, function, parameters)
        kind = type("_Command", (Command,), {"examples": examples})
        app.command(name, cls=kind, context_settings=context)(run)
        return function

    return add


def first_line(text: str | None) -> str:
    """The first sentence of a help text."""
    return " ".join((text or "").partition("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."


def _invocation(
    role: Role | None, given: Mapping[str, object], common: Mapping[str, Any]
) -> Invocation:
    if common["no_color"]:
        os.environ["NO_COLOR"] = "1"
    config = (
        configuration.Configuration({})
        if role is None
        else configuration.load(role, given, os.environ, config=common["config"])
    )
    cli = Invocation(
        config=config,
        file=common["config"],
        form=common.get("output", Format.TABLE),
        headers=not common.get("no_headers"),
        limit=common.get("limit") or LIMIT,
        watch_s=common["interval"] if common.get("watch") else None,
        dry_run=common.get("dry_run", False),
        yes=common.get("yes", False),
        no_input=common.get("no_input", False),
        quiet=common["quiet"],
        verbose=common["verbose"],
    )
    for name, meant in configuration.stray_variables(os.environ):
        cli.say(f"tenure: {name} is no setting and was not read; did you mean {meant}?")
    if role is not None:
        config.require(role)
    return cli


# --------------------------------------------------------------------- parameters of the function


def _own_parameters(function: Callable[..., int]) -> list[inspect.Parameter]:
    """The command's own, with annotations that typer can read; the first one is ``cli``."""
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in parameters
    ]


def _disguise(
    run: Callable[..., int], function: Callable[..., int], parameters: list[inspect.Parameter]
) -> None:
    """Makes typer see the given parameters, and the function's name and docstring."""
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # Typer asks inspect, and that asks this first; mypy does not know the attribute.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]


def _parameter(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


def _parameter_name(setting: Setting) -> str:
    return _PREFIX + setting.name.replace(".", "_")


def _setting_parameter(setting: Setting, role: Role) -> inspect.Parameter:
    """The flag (or argument) of a setting. What it is given as is parsed with other sources."""
    flag, text = setting.flag(role), setting_help(setting)
    info: Any
    if not flag:
        metavar = setting.metavar if setting.required else f"[{setting.metavar}]"
        info = typer.Argument(metavar=metavar, help=text, show_default=False)
    elif setting.kind is Kind.SWITCH:
        info = typer.Option(f"{flag}/--no-{flag[2:]}", help=text, show_default=False)
    else:
        names = [flag, setting.short] if setting.short else [flag]
        info = typer.Option(*names, metavar=setting.metavar, help=text, show_default=False)
    kinds: dict[Kind, Any] = {Kind.SWITCH: bool | None, Kind.PAIRS: list[str] | None}
    kind = kinds.get(setting.kind, str | None)
    return _parameter(_parameter_name(setting), Annotated[kind, info], None)


def setting_help(setting: Setting) -> str:
    """The sentence, the variable, the default."""
    notes = [f"env: {setting.variable}"]
    if setting.required:
        notes.append("required")
    elif setting.kind is not Kind.SWITCH:
        default = setting.default
        shown = f"{default:g}" if isinstance(default, float) else default
        notes.append(f"default: {setting.unset if default is None else shown}")
    return f"{setting.help}  [{'; '.join(notes)}]"


# -------------------------------------------------------------------------------------- help pages


def _write_examples(formatter: Any, examples: Sequence[Example]) -> None:
    if not examples:
        return
    with formatter.section("Examples"):
        for line, meaning in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
            formatter.indent()
            formatter.indent()
            formatter.write_text(meaning)
            formatter.dedent()
            formatter.dedent()


def _write_parameters(formatter: Any, parameters: Sequence[Any], ctx: Any) -> None:
    """Arguments, the command's own options, then those that others have too."""
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], "Common": []}
    shared = {_parameter_name(setting) for setting in SETTINGS if Role.CLIENT in setting.roles}
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            name = parameter.metavar.strip("[]")
            sections["Arguments"].append((name, parameter.help or ""))
        else:
            usual = parameter.name in _COMMON or parameter.name in shared
            kind = "Common" if usual or parameter.name == "help" else "Options"
            sections[kind].append((_option_names(parameter), parameter.help or ""))
    titles = {"Common": "Common options" if sections["Options"] else "Options"}
    for title, rows in sections.items():
        if rows:
            with formatter.section(titles.get(title, title)):
                formatter.write_dl(rows)


def _option_names(option: Any) -> str:
    names = sorted(option.opts, key=len)
    text = ", ".join(names) + "".join(f" / {name}" for name in option.secondary_opts)
    takes_value = not (option.is_flag or option.count)
    return f"{text} {option.metavar or option.name.upper()}" if takes_value else text


__all__ = [
    "STYLE",
    "Command",
    "Example",
    "Group",
    "LazyGroup",
    "Takes",
    "command",
    "first_line",
    "group",
    "setting_help",
    "single",
]
