"""What a job takes, as its workers publish it: who knows it by its name only is refused at submit.

A schema is JSON Schema of a call by names, an object, with two words of our own: ``x-positional``
names what may be given by position, in order, and ``x-rest`` says what more of that has to be. What
a check does not know it lets pass: the worker decides in the end.
"""

# Values of any type are looked at here, so that the type of their parts is not known.
# pyright: reportUnknownArgumentType=none, reportUnknownMemberType=none
# pyright: reportUnknownVariableType=none

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from tenure.client.fidelity import Flaw
from tenure.client.router import Router
from tenure.client.signature import Signature
from tenure.protocol.errors import Rejected, TenureError
from tenure.protocol.limits import ARGUMENT_SCHEMA_BYTES_MAX
from tenure.protocol.refusal import Reason
from tenure.v1 import queues_pb2

_LOG: Final = logging.getLogger(__name__)

#: How long what workers have said is good for, and how long a client tries to hear it.
_GOOD_FOR_S: Final = 30.0
_ASK_S: Final = 2.0
_KNOWN_MAX: Final = 1_000
_METHOD: Final = "/tenure.v1.JobTypeService/GetArgumentSchema"
_TEMPLATE: Final = "#/$defs/{name}"
#: What plain data is called in a schema; whatever else is in an argument is the worker's to judge.
_TYPES: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    tuple: "array",
    dict: "object",
}

Schema = Mapping[str, Any]


def schema_of(signature: Signature) -> str:
    """What a worker publishes of a job; "" if it cannot be said, or is too long to be."""
    try:
        hints = {name: signature.hint_of(name) for name in signature.parameters}
    except Rejected:
        return ""
    told = {name: hint for name, hint in hints.items() if _can_be_told(hint)}
    found, defs = msgspec.json.schema_components(list(told.values()), ref_template=_TEMPLATE)
    schemas = dict(zip(told, found, strict=True))
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
        "x-positional": [],
    }
    for name, parameter in signature.parameters.items():
        of_it = schemas.get(name, {})
        if parameter.kind is parameter.VAR_POSITIONAL:
            schema["x-rest"] = of_it
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            schema["additionalProperties"] = of_it
            continue
        schema["properties"][name] = of_it
        if parameter.kind is not parameter.KEYWORD_ONLY:
            schema["x-positional"].append(name)
        if parameter.default is inspect.Parameter.empty:
            schema["required"].append(name)
    if defs:
        schema["$defs"] = defs
    text = json.dumps(schema, separators=(",", ":"))
    return text if len(text) <= ARGUMENT_SCHEMA_BYTES_MAX else ""


def _can_be_told(hint: Any) -> bool:
    try:
        msgspec.json.schema_components([hint], ref_template=_TEMPLATE)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def check_call(
    schema: Schema, job_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    """Refuses arguments that no worker takes.

    Raises:
        Rejected: INVALID_ARGUMENT, with the path of the value.
    """
    for flaw in _flaws_of_call(schema, args, kwargs):
        raise Rejected(
            f"expected arguments that workers of {job_name} take, but {flaw.path}: {flaw.why}",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"job": job_name, "path": flaw.path},
            field=flaw.path,
        )


def _flaws_of_call(
    schema: Schema, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[Flaw]:
    defs: Schema = schema.get("$defs", {})
    properties: Schema = schema["properties"]
    names: Sequence[str] = schema["x-positional"]
    for index, value in enumerate(args):
        if index < len(names):
            if names[index] in kwargs:
                yield Flaw(names[index], "it is given twice, by position and by name")
            yield from _flaws(properties[names[index]], value, names[index], defs)
        elif "x-rest" in schema:
            yield from _flaws(schema["x-rest"], value, f"args[{index}]", defs)
        else:
            yield Flaw(f"args[{index}]", f"there are {len(names)} by position at most")
    for name, value in kwargs.items():
        of_it = properties.get(name, schema["additionalProperties"])
        if of_it is False:
            yield Flaw(name, f"there is no such argument; there are {', '.join(properties)}")
        else:
            yield from _flaws(of_it, value, name, defs)
    given = {*names[: len(args)], *kwargs}
    for name in schema["required"]:
        if name not in given:
            yield Flaw(name, "it is missing")


def _flaws(schema: Schema, value: Any, path: str, defs: Schema) -> Iterator[Flaw]:
    """What of a value a schema does not allow; what is no plain data is not looked at."""
    kind = _TYPES.get(type(value))
    if kind is None:
        return
    if "$ref" in schema:
        yield from _flaws(defs[schema["$ref"].rpartition("/")[2]], value, path, defs)
        return
    choices: Sequence[Schema] = schema.get("anyOf") or schema.get("oneOf") or ()
    if choices:
        found = [next(_flaws(choice, value, path, defs), None) for choice in choices]
        if all(found):
            # Of several the one that looked deepest is most likely what was meant.
            yield max((flaw for flaw in found if flaw), key=lambda flaw: len(flaw.path))
        return
    if "enum" in schema and value not in schema["enum"]:
        yield Flaw(path, f"expected one of {json.dumps(schema['enum'])}, got {value!r:.80}")
        return
    wanted = schema.get("type")
    if wanted is not None and not _fits(wanted, kind, value, schema):
        yield Flaw(path, f"expected {wanted}, got {kind}")
        return
    if kind == "array":
        yield from _flaws_of_items(schema, value, path, defs)
    elif kind == "object":
        yield from _flaws_of_fields(schema, value, path, defs)


def _fits(wanted: str, kind: str, value: Any, schema: Schema) -> bool:
    if wanted == kind or (wanted == "number" and kind == "integer"):
        return True
    if wanted == "integer":
        return kind == "number" and float(value).is_integer()
    # Dates, decimals and the like have other forms, too, which their worker may take.
    return wanted == "string" and "format" in schema and kind in ("integer", "number")


def _flaws_of_items(
    schema: Schema, value: Sequence[Any], path: str, defs: Schema
) -> Iterator[Flaw]:
    first: Sequence[Schema] = schema.get("prefixItems", ())
    rest = schema.get("items", {})
    for index, item in enumerate(value):
        where = f"{path}[{index}]"
        if index < len(first):
            yield from _flaws(first[index], item, where, defs)
        elif rest is False:
            yield Flaw(where, f"expected {len(first)} items, got {len(value)}")
        else:
            yield from _flaws(rest, item, where, defs)
    if len(value) < schema.get("minItems", 0):
        yield Flaw(path, f"expected {schema['minItems']} items, got {len(value)}")


def _flaws_of_fields(
    schema: Schema, value: Mapping[Any, Any], path: str, defs: Schema
) -> Iterator[Flaw]:
    properties: Schema = schema.get("properties", {})
    rest = schema.get("additionalProperties", {})
    for name, field in value.items():
        if name in properties:
            yield from _flaws(properties[name], field, f"{path}.{name}", defs)
        elif rest is False:
            yield Flaw(f"{path}.{name}", "there is no such field")
        elif rest:
            yield from _flaws(rest, field, f"{path}[{name!r}]", defs)
    for name in schema.get("required", ()):
        if name not in value:
            yield Flaw(f"{path}.{name}", "it is missing")


class Published:
    """What workers say that jobs take, as the cluster tells it.

    Args:
        router: Finds a master.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        #: By the name of the job: until when it is good, and the schema; None: there is none.
        self._known: dict[str, tuple[float, Schema | None]] = {}

    async def check(self, job_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuses arguments that no worker takes; lets pass what nobody can judge here.

        Raises:
            Rejected: INVALID_ARGUMENT, with the path of the value.
            Unavailable: There is no cluster.
        """
        schema = await self.schema(job_name)
        if schema is None:
            return
        try:
            check_call(schema, job_name, args, kwargs)
        except (AttributeError, KeyError, RecursionError, TypeError) as error:
            # A worker that is not ours may publish what is no such schema.
            _LOG.debug("cannot check arguments of %s: %s", job_name, error)

    async def schema(self, job_name: str) -> Schema | None:
        """What the workers of a job say that it takes; None: nobody says."""
        now_s = asyncio.get_running_loop().time()
        until_s, schema = self._known.get(job_name, (0.0, None))
        if now_s >= until_s:
            schema = await self._ask(job_name)
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[job_name] = (now_s + _GOOD_FOR_S, schema)
        return schema

    async def _ask(self, job_name: str) -> Schema | None:
        try:
            response = await self._router.call(
                0,
                _METHOD,
                queues_pb2.GetArgumentSchemaRequest(name=job_name),
                queues_pb2.GetArgumentSchemaResponse,
                _ASK_S,
            )
            found = json.loads(response.schema) if response.schema else None
        except (TenureError, ValueError):
            # No leader just now, or one of an earlier release: the worker decides.
            return None
        return found if isinstance(found, dict) else None
