"""How a command is made: its own parameters, the flags of its settings, and what all have.

```
 @command("list", group=jobs, role=Role.CLIENT, takes=Takes.OUTPUT | Takes.LIMIT, examples=[…])
 def list_jobs(cli: Invocation, queue: Queue = "") -> int: …
                │                └ the command's own: Annotated[str, option("--queue", …)]
                └ made here of the role's settings and of the common options
```
Help leads with examples. Nothing here imports rich, gRPC or asyncio: ``--help`` must be quick.
"""

from __future__ import annotations

import importlib
import inspect
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any, Final

import click

from tenure.cli import configuration
from tenure.cli.invocation import Invocation
from tenure.cli.output import Format
from tenure.cli.settings import SETTINGS, Kind, Role, Setting, settings_of

#: A command line, and what it does.
Example = tuple[str, str]

WATCH_INTERVAL_S: Final = 2.0
LIMIT: Final = 100


class ReaderGone(Exception):
    """Whoever read stdout has seen enough, as ``head`` does."""


class NoSuchOption(click.NoSuchOption):
    """An option that a command does not have, in an argument's place; ``why`` says what to do."""

    def __init__(self, option_name: str, *, why: str) -> None:
        super().__init__(option_name, ctx=click.get_current_context())
        self.why = why


class Takes(Flag):
    """Which of the common options a command has, besides those that all have."""

    NOTHING = 0
    OUTPUT = auto()
    LIMIT = auto()
    WATCH = auto()
    CONFIRM = auto()
    DRY_RUN = auto()


@dataclass(frozen=True, slots=True)
class Parameter:
    """An option or an argument, as an annotation of a command's function: ``Annotated[T, …]``.

    Attributes:
        names: Of an option; none for an argument.
        metavar: What its value is called.
        help: One sentence.
        settings: Further settings of the click object.
    """

    names: tuple[str, ...]
    metavar: str
    help: str
    settings: Mapping[str, Any]

    def made(self, name: str, default: object) -> click.Parameter:
        """The click object."""
        settings = dict(self.settings)
        if self.names:
            if self.metavar:  # click takes one for a flag, too, and then shows it.
                settings["metavar"] = self.metavar
            return click.Option([*self.names, name], help=self.help, default=default, **settings)
        # A default of None would make click think that there is one.
        if default is not inspect.Parameter.empty:
            settings["required"] = False
            if settings.get("nargs") != -1:
                # Of any number none are the default; click before 8.3 takes no other word for it.
                settings["default"] = default
        made = click.Argument([name], metavar=self.metavar, **settings)
        made.help = self.help  # Not in the constructor: older releases of click lack it.
        return made


def option(*names: str, metavar: str, help: str, **settings: Any) -> Parameter:
    """An option with a value."""
    return Parameter(names, metavar, help, settings)


def switch(*names: str, help: str) -> Parameter:
    """An option without one."""
    return Parameter(names, "", help, {"is_flag": True})


def argument(*, metavar: str, help: str, **settings: Any) -> Parameter:
    """An argument; required if its parameter has no default."""
    return Parameter((), metavar, help, settings)


#: Parameter -> who has it, what it is, its default. In the order of the help.
_COMMON: Final[Mapping[str, tuple[Takes, Parameter, object]]] = {
    "output": (
        Takes.OUTPUT,
        option(
            "--output",
            "-o",
            metavar="FORMAT",
            help="table, json, jsonl, or name (ids only).",
            type=click.Choice([form.value for form in Format]),
        ),
        Format.TABLE.value,
    ),
    "no_headers": (
        Takes.OUTPUT,
        switch("--no-headers", help="Tables without their headings."),
        False,
    ),
    "limit": (
        Takes.LIMIT,
        option(
            "--limit",
            metavar="N",
            help=f"At most so many.  [default: {LIMIT}]",
            type=click.IntRange(min=1),
        ),
        LIMIT,
    ),
    "watch": (Takes.WATCH, switch("--watch", "-w", help="Show it again and again."), False),
    "interval": (
        Takes.WATCH,
        option(
            "--interval",
            metavar="SECONDS",
            help=f"With --watch: how often.  [default: {WATCH_INTERVAL_S:g}]",
            type=click.FloatRange(min=0.1),
        ),
        WATCH_INTERVAL_S,
    ),
    "dry_run": (Takes.DRY_RUN, switch("--dry-run", help="Say what would be done."), False),
    "yes": (Takes.CONFIRM, switch("--yes", "-y", help="Do not ask."), False),
    "no_input": (
        Takes.CONFIRM,
        switch("--no-input", help="Never ask: refuse instead."),
        False,
    ),
    "quiet": (Takes.NOTHING, switch("--quiet", "-q", help="Only errors on stderr."), False),
    "verbose": (
        Takes.NOTHING,
        Parameter(("--verbose", "-v"), "", "Log more, to stderr.", {"count": True}),
        0,
    ),
    "no_color": (
        Takes.NOTHING,
        switch("--no-color", help="No colours, as with NO_COLOR."),
        False,
    ),
    "config": (
        Takes.NOTHING,
        option(
            "--config",
            metavar="FILE",
            help="Read this file instead of tenure.toml and the user's and the system's."
            f"  [env: {configuration.CONFIG_VARIABLE}]",
            type=click.Path(),
        ),
        None,
    ),
}
_PREFIX: Final = "setting_"


class Command(click.Command):
    """A command whose help leads with examples, and has common options last."""

    def __init__(self, *args: Any, examples: Sequence[Example], **settings: Any) -> None:
        """As click's; ``examples`` are lines of the command, and what they do."""
        super().__init__(*args, **settings)
        self.examples = examples

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Arguments as their metavars say them."""
        arguments = [each for each in self.params if isinstance(each, click.Argument)]
        return ["[OPTIONS]", *(str(each.metavar) for each in arguments)]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Usage, what it does, examples, arguments, options."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        _write_examples(formatter, self.examples)
        _write_parameters(formatter, self.get_params(ctx))


class Group(click.Group):
    """A group of commands that says which one may be meant."""

    def __init__(
        self, *args: Any, examples: Sequence[Example] = (), notes: str = "", **settings: Any
    ) -> None:
        """As click's; ``notes`` are printed last."""
        super().__init__(*args, **settings)
        self.examples = examples
        self.notes = notes

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Usage, what it is about, examples, commands, options."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        _write_examples(formatter, self.examples)
        rows = [(name, self.line_about(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        _write_parameters(formatter, self.get_params(ctx))
        if self.notes:
            formatter.write_paragraph()
            formatter.write_text(self.notes)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added."""
        return list(self.commands)

    def line_about(self, ctx: click.Context, name: str) -> str:
        """One line about a command."""
        found = self.get_command(ctx, name)
        return first_line(found.help if found is not None else None)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As usual; an unknown name is refused with the one that may be meant."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """A group whose commands are imported when they are run."""

    def __init__(
        self, *args: Any, lazy: Mapping[str, tuple[str, str, str]], **settings: Any
    ) -> None:
        """As a group; ``lazy``: command -> its module, its name there, its line in the help."""
        super().__init__(*args, **settings)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports it."""
        if cmd_name in self.lazy and cmd_name not in self.commands:
            module, attribute, _ = self.lazy[cmd_name]
            self.commands[cmd_name] = getattr(importlib.import_module(module), attribute)
        return self.commands.get(cmd_name)

    def line_about(self, ctx: click.Context, name: str) -> str:
        """From the table: nothing is imported for it."""
        return self.lazy[name][2]


def command(
    name: str,
    *,
    group: Group | None = None,
    role: Role | None = Role.CLIENT,
    takes: Takes = Takes.NOTHING,
    examples: Sequence[Example],
    **context: Any,
) -> Callable[[Callable[..., int]], Command]:
    """Makes a command of a function.

    Args:
        name: What it is called.
        group: Where it belongs; None: on the tree's first level.
        role: Whose settings it reads; None: none.
        takes: Which common options it has.
        examples: At least one.
        **context: Settings of its click context.
    """

    def made(function: Callable[..., int]) -> Command:
        settings = [] if role is None else settings_of(role)
        common = {
            key: row for key, row in _COMMON.items() if row[0] in takes or row[0] is Takes.NOTHING
        }

        def run(**values: Any) -> int:
            given = {
                setting.name: _given(values.pop(_parameter_name(setting))) for setting in settings
            }
            cli = _invocation(role, given, {key: values.pop(key) for key in common})
            try:
                return function(cli, **values)
            except BrokenPipeError:
                # click would end the process by itself, with an error's exit code.
                raise ReaderGone from None

        parameters = _own_parameters(function)
        parameters += [_setting_parameter(setting, role) for setting in settings if role]
        parameters += [each.made(key, default) for key, (_, each, default) in common.items()]
        result = Command(
            name,
            callback=run,
            params=parameters,
            help=function.__doc__,
            examples=examples,
            context_settings=context,
        )
        if group is not None:
            group.add_command(result)
        return result

    return made


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
        form=Format(common.get("output", Format.TABLE)),
        headers=not common.get("no_headers"),
        limit=common.get("limit", LIMIT),
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


def _own_parameters(function: Callable[..., int]) -> list[click.Parameter]:
    """The command's own, from the annotations of all parameters but ``cli``."""
    hints = typing.get_type_hints(function, include_extras=True)
    made = []
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        (described,) = hints[parameter.name].__metadata__
        made.append(described.made(parameter.name, parameter.default))
    return made


def _given(value: object) -> object:
    """What a flag that may be given several times holds, as a list; None if it was not given."""
    return (list(value) or None) if isinstance(value, tuple) else value


def _parameter_name(setting: Setting) -> str:
    return _PREFIX + setting.name.replace(".", "_")


def _setting_parameter(setting: Setting, role: Role) -> click.Parameter:
    """The flag (or argument) of a setting. What it is given as is parsed with other sources."""
    flag, text = setting.flag(role), setting_help(setting)
    if not flag:
        metavar = setting.metavar if setting.required else f"[{setting.metavar}]"
        described = argument(metavar=metavar, help=text)
    elif setting.kind is Kind.SWITCH:
        described = switch(f"{flag}/--no-{flag[2:]}", help=text)
    else:
        several = setting.kind in (Kind.PAIRS, Kind.COUNTS)
        more: dict[str, Any] = {"multiple": True} if several else {}
        if setting.kind is Kind.PATH:
            more["type"] = click.Path()
        names = [flag, setting.short] if setting.short else [flag]
        described = option(*names, metavar=setting.metavar, help=text, **more)
    return described.made(_parameter_name(setting), None)


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


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[Example]) -> None:
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


def _write_parameters(
    formatter: click.HelpFormatter, parameters: Sequence[click.Parameter]
) -> None:
    """Arguments, the command's own options, then those that others have too."""
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], "Common": []}
    shared = {_parameter_name(setting) for setting in SETTINGS if Role.CLIENT in setting.roles}
    for parameter in parameters:
        text = getattr(parameter, "help", "") or ""
        if isinstance(parameter, click.Option):
            usual = parameter.name in _COMMON or parameter.name in shared
            kind = "Common" if usual or "--help" in parameter.opts else "Options"
            sections[kind].append((_option_names(parameter), text))
        else:
            sections["Arguments"].append((str(parameter.metavar).strip("[]"), text))
    titles = {"Common": "Common options" if sections["Options"] else "Options"}
    for title, rows in sections.items():
        if rows:
            with formatter.section(titles.get(title, title)):
                formatter.write_dl(rows)


def _option_names(option: click.Option) -> str:
    text = ", ".join(sorted(option.opts, key=len))
    text += "".join(f" / {name}" for name in option.secondary_opts)
    return text if option.is_flag or option.count else f"{text} {option.metavar}"
