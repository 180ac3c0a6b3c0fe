"""The settings of a replay from a document: tables of queues, tenants and job types.

Each entry has a ``name``, a ``tenant`` where it belongs to one, and ``settings`` as the API's JSON
has them; whatever else the API's answers have beside them is passed over.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from tenure.master.core.settings import AnySettings, SettingsKey, refuse
from tenure.master.node.settings_wire import job_type_from_wire, queue_from_wire, tenant_from_wire
from tenure.protocol.errors import Rejected
from tenure.protocol.limits import DEFAULT_TENANT
from tenure.protocol.refusal import Reason
from tenure.v1 import queues_pb2

_Wire = TypeVar("_Wire", bound=Message)
#: Tables and what else they may be called: TOML writes names one way and the API's JSON another.
_TABLES: Final = {"queues": "queues", "tenants": "tenants", "jobTypes": "job_types"}


def read_settings(document: object) -> list[tuple[SettingsKey, AnySettings]]:
    """What a document says; a list alone is one of queues.

    Raises:
        Rejected: INVALID_ARGUMENT with the path of what cannot be.
    """
    if isinstance(document, list):
        document = {"queues": document}
    if not isinstance(document, Mapping):
        _refuse("", "a table of queues, tenants and job_types")
    found: list[tuple[SettingsKey, AnySettings]] = []
    for name, entries in document.items():
        given = str(name)
        table = _TABLES.get(given, given)
        if table not in _TABLES.values():
            _refuse(given, "one of queues, tenants, job_types")
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            _refuse(given, f"a list, as by [[{table}]] in TOML")
        found += [_entry(table, f"{given}[{at}]", entry) for at, entry in enumerate(entries)]
    return found


def _entry(table: str, path: str, entry: object) -> tuple[SettingsKey, AnySettings]:
    if not isinstance(entry, Mapping):
        _refuse(path, "a table with name and settings")
    name, tenant = entry.get("name"), entry.get("tenant", DEFAULT_TENANT)
    if not isinstance(name, str) or not name:
        _refuse(f"{path}.name", "a name")
    if not isinstance(tenant, str) or not tenant:
        _refuse(f"{path}.tenant", "a tenant's name")
    given, where = entry.get("settings", {}), f"{path}.settings"
    if not isinstance(given, Mapping):
        _refuse(where, "a table")
    key: SettingsKey
    settings: AnySettings
    if table == "queues":
        wire = _parsed(where, given, queues_pb2.QueueSettings())
        key, settings = (tenant, name), _read(path, queue_from_wire, wire, list(given))
    elif table == "tenants":
        tenant_wire = _parsed(where, given, queues_pb2.TenantSettings())
        key, settings = (name,), _read(path, tenant_from_wire, tenant_wire, list(given))
    else:
        type_wire = _parsed(where, given, queues_pb2.JobTypeSettings())
        key, settings = (tenant, name), _read(path, job_type_from_wire, type_wire, list(given))
    refusal = refuse(settings)
    if refusal is not None:
        _refuse(f"{path}.{refusal.field}", refusal.message.partition("but ")[2])
    return key, settings


def _parsed(path: str, given: Mapping[str, Any], wire: _Wire) -> _Wire:
    try:
        return json_format.ParseDict(dict(given), wire)
    except json_format.ParseError as error:
        _refuse(path, str(error))


_Settings = TypeVar("_Settings", bound=AnySettings)


def _read(
    path: str,
    reader: Callable[[_Wire, Sequence[str]], _Settings],
    wire: _Wire,
    fields: Sequence[str],
) -> _Settings:
    try:
        return reader(wire, fields)
    except Rejected as error:
        _refuse(f"{path}.{error.field}", error.message)


def _refuse(path: str, why: str) -> NoReturn:
    raise Rejected(
        f"expected valid settings, but {path or 'the document'}: {why}",
        reason=Reason.INVALID_ARGUMENT,
        metadata={"field": path},
        field=path or "queue_config",
    )
