"""The table of settings, held against what it describes."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import pytest

from tenure.cli.configuration import OTHER_VARIABLES
from tenure.cli.dev import DevConfig
from tenure.cli.settings import (
    SETTINGS,
    TABLES,
    Kind,
    Role,
    Setting,
    settings_of,
)
from tenure.cli.texts import parse
from tenure.master.main import MasterConfig
from tenure.worker.config import WorkerConfig

REPOSITORY = Path(__file__).resolve().parents[3]
CONFIGS = {Role.MASTER: MasterConfig, Role.WORKER: WorkerConfig, Role.DEV: DevConfig}
#: What a node is told that is no setting of its own table.
OTHER_FIELDS = {
    Role.MASTER: set[str](),
    Role.WORKER: {"masters", "token", "tls"},
    Role.DEV: {"verbose", "quiet"},
}


def own(role: Role) -> list[Setting]:
    """The settings of a node's own table."""
    return [setting for setting in settings_of(role) if setting.table == role.value]


def test_names_are_unique() -> None:
    """No two settings share a variable, and no role has a flag twice."""
    variables = Counter(setting.variable for setting in SETTINGS)
    assert [name for name, count in variables.items() if count > 1] == []
    assert not OTHER_VARIABLES & variables.keys()
    for role in Role:
        flags = Counter(setting.flag(role) for setting in settings_of(role))
        assert [flag for flag, count in flags.items() if count > 1] == []


@pytest.mark.parametrize("role", CONFIGS)
def test_settings_are_the_fields_of_the_node(role: Role) -> None:
    """Each setting arrives at its node, and nothing that a node can be told is no setting."""
    fields = {field.name for field in dataclasses.fields(CONFIGS[role])} - OTHER_FIELDS[role]
    assert {setting.attribute for setting in own(role)} == fields


@pytest.mark.parametrize("role", [Role.MASTER, Role.WORKER])
def test_defaults_are_those_of_the_node(role: Role) -> None:
    """What the table says is what happens when nobody says anything."""
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(CONFIGS[role])
        if field.default is not dataclasses.MISSING
    }
    for setting in own(role):
        if setting.default is not None:
            assert setting.default == defaults[setting.attribute], setting.name
        else:
            assert setting.required or setting.unset, setting.name
            assert defaults.get(setting.attribute) in (None, ""), setting.name


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_examples_and_defaults_are_valid(setting: Setting) -> None:
    """What the reference file shows can be taken as it is; names are TOML's and a shell's."""
    for value in (setting.default, setting.example):
        if value is not None:
            taken = parse(setting, value)
            # A size is shown with its unit.
            assert taken == value or (setting.kind is Kind.BYTES and isinstance(taken, int))
    assert setting.table in TABLES
    assert re.fullmatch(r"[a-z_]+", setting.key)
    # Kubernetes sets TENURE_PORT and TENURE_MASTER_SERVICE_… for services of these names.
    assert not re.match(r"port|service", setting.key)


def test_every_variable_that_is_read_is_known() -> None:
    """Nobody reads a TENURE_ variable that the table, or its list of others, does not have."""
    known = {setting.variable for setting in SETTINGS} | OTHER_VARIABLES
    read = set()
    for folder in ("protos", "client", "worker", "master", "testing"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            read |= set(re.findall(r'["\'](TENURE_[A-Z_]+)["\']', path.read_text("utf-8")))
    assert sorted(read - known) == []
