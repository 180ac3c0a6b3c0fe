"""Where settings come from: flags, then ``TENURE_*`` variables, then TOML files, then defaults.

The files are ``tenure.toml`` in the current folder, ``tenure/config.toml`` of the user
($XDG_CONFIG_HOME, else ~/.config) and of the system (/etc). An earlier one wins key by key.
``--config FILE`` or TENURE_CONFIG names one file that is read instead of the three.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tenure.cli.settings import SETTINGS, TABLES, Role, Setting, Value, settings_of
from tenure.cli.texts import parse

CONFIG_VARIABLE: Final = "TENURE_CONFIG"
PROJECT_FILE: Final = "tenure.toml"
#: Variables of ours that are no settings: tests and tools read them, they name a file of them, or
#: tell a command of its job.
_OTHERS: Final = ("CONFIG", "ETCD_BINARY", "HYPOTHESIS_PROFILE", "TOKEN", "TRACE")
_OF_JOBS: Final = ("ATTEMPT", "DEADLINE", "FENCE", "JOB_ID", "JOB_NAME")
OTHER_VARIABLES: Final = frozenset(f"TENURE_{name}" for name in _OTHERS + _OF_JOBS)
_FILE: Final = Path("tenure") / "config.toml"
_SYSTEM: Final = Path("/etc")

_TABLE_LINE: Final = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
_KEY_LINE: Final = re.compile(r"""\s*(["']?)([^"'=\s]+)\1\s*=""")


class BadSetting(Exception):
    """What a setting is given as cannot be taken; the message says where, and what to do."""


@dataclass(frozen=True, slots=True)
class Found:
    """A setting's value, and who gave it.

    Attributes:
        value: By the setting's kind.
        source: For people: ``--slots``, ``TENURE_WORKER_SLOTS``, ``tenure.toml:3``, ``default``.
    """

    value: Value
    source: str


class Configuration:
    """The settings of one role, each with its source."""

    def __init__(self, found: Mapping[Setting, Found], files: Sequence[Path] = ()) -> None:
        """Args:
        found: What was found, for every setting of the role.
        files: The files that were read.
        """
        self.found = found
        self.files = files

    def values(self, table: str) -> dict[str, Any]:
        """What is set in a table, by ``Setting.attribute``; what is not set is left out."""
        return {
            setting.attribute: found.value
            for setting, found in self.found.items()
            if setting.table == table and found.value is not None
        }

    def require(self, role: Role) -> None:
        """Refuses a role that lacks what it cannot start without.

        Raises:
            BadSetting: It is missing; the message says all the ways to give it.
        """
        for setting, found in self.found.items():
            if setting.required and found.value is None:
                flag = setting.flag(role) or setting.metavar
                raise BadSetting(
                    f"expected {flag}: give it, set {setting.variable}, or write "
                    f"{setting.key} under [{setting.table}] in {PROJECT_FILE}"
                )


def load(
    role: Role | None,
    given: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    settings: Sequence[Setting] = SETTINGS,
    config: str | None = None,
) -> Configuration:
    """Finds the value of each setting of a role.

    Args:
        role: Who asks; None: all settings, without flags.
        given: What flags said, by ``Setting.name``; None or absent: not given.
        environ: The environment.
        settings: The table.
        config: The file that ``--config`` names.

    Raises:
        BadSetting: A value, a key or a file cannot be taken.
    """
    files = [_File(path, settings) for path in _paths(environ, config)]
    wanted = settings if role is None else settings_of(role, settings)
    found = {s: _find(s, role, given.get(s.name), environ, files) for s in wanted}
    return Configuration(found, [file.path for file in files])


def stray_variables(
    environ: Mapping[str, str], settings: Iterable[Setting] = SETTINGS
) -> list[tuple[str, str]]:
    """Variables that look like a mistyped setting, each with the name that may be meant.

    Others are let alone: Kubernetes sets TENURE_SERVICE_HOST and more for a service `tenure`.
    """
    known = {setting.variable for setting in settings}
    strays = [
        name
        for name in environ
        if name.startswith("TENURE_") and name not in known | OTHER_VARIABLES
    ]
    pairs = [(name, _near(name, known, cutoff=0.9)) for name in strays]
    return sorted((name, near[0]) for name, near in pairs if near)


def _near(text: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """The known name that may be meant, or nothing. Only who has mistyped pays for the import."""
    import difflib

    return difflib.get_close_matches(text, list(known), n=1, cutoff=cutoff)


# ------------------------------------------------------------------------------------- the layers


def _find(
    setting: Setting,
    role: Role | None,
    flag: object,
    environ: Mapping[str, str],
    files: Sequence[_File],
) -> Found:
    if flag is not None and role is not None:
        return _parsed(setting, flag, setting.flag(role) or setting.metavar)
    # A variable that is set to nothing is how shells and containers unset one.
    if environ.get(setting.variable):
        return _parsed(setting, environ[setting.variable], setting.variable)
    if setting.overruled_by and environ.get(setting.overruled_by):
        return Found(setting.default, setting.overruled_by)
    for file in files:
        if setting in file.values:
            return _parsed(setting, file.values[setting], file.where(setting.table, setting.key))
    return Found(setting.default, "default")


def _parsed(setting: Setting, given: object, source: str) -> Found:
    try:
        return Found(parse(setting, given), source)
    except ValueError as error:
        raise BadSetting(f"expected {error} for {setting.name}, got {given!r} ({source})") from None


def _paths(environ: Mapping[str, str], config: str | None) -> list[Path]:
    named = config or environ.get(CONFIG_VARIABLE)
    if named:
        return [Path(named)]
    user = environ.get("XDG_CONFIG_HOME", "")
    if not user.startswith("/"):
        # The XDG specification has relative paths ignored.
        user = str(Path(environ["HOME"]) / ".config") if environ.get("HOME") else ""
    paths = [Path(PROJECT_FILE), *([Path(user) / _FILE] if user else []), _SYSTEM / _FILE]
    return [path for path in paths if path.is_file()]


class _File:
    """A TOML file: its values by setting, and where in the text they are."""

    def __init__(self, path: Path, settings: Sequence[Setting]) -> None:
        import tomllib

        self.path = path
        try:
            self._text = path.read_text("utf-8")
            tables = tomllib.loads(self._text)
        except OSError as error:
            raise BadSetting(f"cannot read {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise BadSetting(f"expected UTF-8 text in {path}") from None
        except tomllib.TOMLDecodeError as error:
            raise BadSetting(f"expected TOML in {path}, but: {error}") from None
        known = {(setting.table, setting.key): setting for setting in settings}
        self.values: dict[Setting, object] = {}
        for table, keys in tables.items():
            if table not in TABLES or not isinstance(keys, dict):
                raise self._stray_name(table, keys, settings)
            for key, value in keys.items():
                if (table, key) not in known:
                    raise self._stray_key(table, key, settings)
                self.values[known[table, key]] = value

    def where(self, table: str, key: str = "") -> str:
        """File and line, if the line can be found: TOML has more spellings than we look for."""
        current = ""
        for number, line in enumerate(self._text.splitlines(), 1):
            heading = _TABLE_LINE.match(line)
            if heading is not None:
                current = heading[1].strip("\"'")
                if current == (f"{table}.{key}" if key else table):
                    return f"{self.path}:{number}"
                continue
            found = _KEY_LINE.match(line)
            if found is not None:
                name = f"{current}.{found[2]}" if current else found[2]
                wanted = f"{table}.{key}" if key else table
                if name == wanted or name.startswith(f"{wanted}."):
                    return f"{self.path}:{number}"
        return str(self.path)

    def _stray_name(self, name: str, value: object, settings: Sequence[Setting]) -> BadSetting:
        homes = [f"{s.key} under [{s.table}]" for s in settings if s.key == name]
        near = _near(name, TABLES)
        if near and isinstance(value, dict):
            hint = f"did you mean [{near[0]}]?"
        elif homes:
            hint = f"did you mean {' or '.join(homes)}?"
        else:
            hint = f"there are {', '.join(f'[{table}]' for table in TABLES)}"
        return BadSetting(f"{self.where(name)}: unknown name {name!r}; {hint}")

    def _stray_key(self, table: str, key: str, settings: Sequence[Setting]) -> BadSetting:
        here = [setting.key for setting in settings if setting.table == table]
        near = _near(key, here)
        elsewhere = [s.table for s in settings if s.key == key]
        if near:
            hint = f"did you mean {near[0]!r}?"
        elif elsewhere:
            hint = f"it belongs under [{elsewhere[0]}]"
        else:
            hint = f"there are {', '.join(here)}"
        return BadSetting(f"{self.where(table, key)}: unknown key {key!r} in [{table}]; {hint}")
