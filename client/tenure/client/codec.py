"""Arguments and results as bytes, and back as the types that the function's annotations name.

A payload is the array ``[args, kwargs]`` in MessagePack (what the SDK writes) or JSON. Values go
through msgspec, so dataclasses, Structs, datetimes, UUIDs, enums, Decimals and bytes come back as
what they were. There is no pickle: a payload can run no code.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tenure.client.errors import invalid
from tenure.protocol.errors import Rejected
from tenure.protocol.limits import DEFAULT_CONTENT_TYPE, PAYLOAD_BYTES_DEFAULT
from tenure.protocol.refusal import Reason

if TYPE_CHECKING:
    from tenure.client.job import JobDef

JSON: Final = "application/json"
MSGPACK: Final = DEFAULT_CONTENT_TYPE

_KINDS: Final[dict[str, type[msgspec.msgpack.Decoder[Any]] | type[msgspec.json.Decoder[Any]]]] = {
    MSGPACK: msgspec.msgpack.Decoder,
    JSON: msgspec.json.Decoder,
}
_encode: Final = msgspec.msgpack.Encoder().encode
_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED: Final = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Signature:
    """What a job's function takes and returns: checks calls, and holds the typed decoders."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        self._signature = inspect.signature(function)
        self._function = function
        parameters = self._signature.parameters.values()
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        #: A call with this many positional arguments and no others needs no further check.
        self._plain_min = sum(p.default is p.empty for p in positional)
        self._plain_max = len(positional)
        if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
            self._plain_max = -1
        self._decoders: dict[str, _Decoders] = {}
        self._hints: dict[str, Any] | None = None

    def takes(self, count: int) -> bool:
        """Whether so many positional arguments, and no others, are a call that it can take."""
        return self._plain_min <= count <= self._plain_max

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuses a call that the function could not take."""
        if not kwargs and self.takes(len(args)):
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise Rejected(
                f"expected arguments that {self.name}{self._signature} takes, but {error}",
                reason=Reason.INVALID_ARGUMENT,
                metadata={"job": self.name},
                field="args",
            ) from None

    def decoders(self, content_type: str) -> _Decoders:
        """The typed decoders for one content type, built once."""
        found = self._decoders.get(content_type)
        if found is None:
            kind = _KINDS.get(content_type)
            if kind is None:
                raise invalid("content_type", f"one of {', '.join(_KINDS)}, got {content_type!r}")
            found = _Decoders(kind, self._signature, self._types())
            self._decoders[content_type] = found
        return found

    def _types(self) -> dict[str, Any]:
        """The annotations, resolved. Late, so that a job may name types defined below it."""
        if self._hints is None:
            try:
                self._hints = typing.get_type_hints(self._function, include_extras=True)
            except NameError as error:
                raise Rejected(
                    f"expected annotations of {self.name} that can be resolved, but {error}; "
                    "import what they name at run time too, not only under TYPE_CHECKING",
                    reason=Reason.INVALID_ARGUMENT,
                    metadata={"job": self.name},
                    field="annotations",
                ) from None
        return self._hints


class _Decoders:
    """A signature's decoders for one content type."""

    def __init__(
        self,
        kind: Callable[..., Any],
        signature: inspect.Signature,
        types: Mapping[str, Any],
    ) -> None:
        any_value = kind(Any).decode
        self.envelope = kind(tuple[list[msgspec.Raw], dict[str, msgspec.Raw]]).decode
        self.positional: list[Callable[[msgspec.Raw], Any]] = []
        self.named: dict[str, Callable[[msgspec.Raw], Any]] = {}
        self.names: list[str] = []
        self.more_positional = any_value
        self.more_named = any_value
        for name, parameter in signature.parameters.items():
            decode = kind(types[name]).decode if name in types else any_value
            if parameter.kind in _POSITIONAL:
                self.positional.append(decode)
                self.names.append(name)
            if parameter.kind in _NAMED:
                self.named[name] = decode
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                self.more_positional = decode
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self.more_named = decode
        self.result = kind(types["return"]).decode if "return" in types else any_value
        usual_args = GenericAlias(tuple, tuple(types.get(name, Any) for name in self.names))
        usual_call = GenericAlias(tuple, (usual_args, dict[str, msgspec.Raw]))
        #: A call with all positional arguments, in one go.
        self.usual = kind(usual_call).decode


_EMPTY: Final = _encode(((), {}))


def encode_args(job: JobDef[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """A call's arguments as a payload.

    Raises:
        Rejected: INVALID_ARGUMENT if the function does not take them or a value cannot be encoded,
            PAYLOAD_TOO_LARGE if they are too many bytes.
    """
    job.signature.check(args, kwargs)
    if not args and not kwargs:
        return _EMPTY
    try:
        payload = _encode((args, kwargs))
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise _unencodable(job.name, args, kwargs) from None
    if len(payload) > PAYLOAD_BYTES_DEFAULT:
        raise _too_large("the arguments", job.name, len(payload))
    return payload


def decode_args(
    payload: bytes, content_type: str, job: JobDef[..., Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments that a payload holds, as the types that the function's annotations name.

    Args:
        payload: The bytes; empty means no arguments.
        content_type: How they are encoded; empty means MessagePack.
        job: The job whose function is to be called.

    Raises:
        Rejected: INVALID_ARGUMENT with the path of the wrong value.
    """
    if not payload or payload == _EMPTY:
        job.signature.check((), {})
        return [], {}
    decoders = job.signature.decoders(content_type or MSGPACK)
    try:
        usual_args, raw_kwargs = decoders.usual(payload)
        if not raw_kwargs and job.signature.takes(len(usual_args)):
            return list(usual_args), {}
    except (msgspec.DecodeError, RecursionError):
        pass  # Taken apart below: the call is another one, or the error is to name its argument.
    return _decode_each(payload, decoders, job)


def _decode_each(
    payload: bytes, decoders: _Decoders, job: JobDef[..., Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Argument by argument."""
    path = ""
    try:
        raw_args, raw_kwargs = decoders.envelope(payload)
        known = decoders.positional
        args: list[Any] = []
        for index, raw in enumerate(raw_args):
            path = decoders.names[index] if index < len(known) else f"args[{index}]"
            args.append((known[index] if index < len(known) else decoders.more_positional)(raw))
        kwargs: dict[str, Any] = {}
        for path, raw in raw_kwargs.items():
            kwargs[path] = (decoders.named.get(path) or decoders.more_named)(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Rejected(
            f"expected arguments of {job.name} as its annotations say, but "
            f"{path or 'the payload'}: {error}",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"job": job.name, "path": path},
            field=path or "payload",
        ) from None
    job.signature.check(tuple(args), kwargs)
    return args, kwargs


def encode_result(value: Any, job_name: str) -> bytes:
    """A job's return value as bytes.

    Raises:
        Rejected: INVALID_ARGUMENT if it cannot be encoded, PAYLOAD_TOO_LARGE if it is too long.
    """
    try:
        result = _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Rejected(
            f"expected a result of {job_name} that can be encoded, but {error}",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"job": job_name},
            field="result",
        ) from None
    if len(result) > PAYLOAD_BYTES_DEFAULT:
        raise _too_large("the result", job_name, len(result))
    return result


def decode_result(result: bytes, content_type: str, job: JobDef[..., Any] | None) -> Any:
    """A job's return value, as the type its function's annotation names; plain without a job.

    Raises:
        Rejected: INVALID_ARGUMENT if it is not of that type.
    """
    if not result:
        return None
    content_type = content_type or MSGPACK
    try:
        if job is None:
            return _KINDS.get(content_type, msgspec.msgpack.Decoder)(Any).decode(result)
        return job.signature.decoders(content_type).result(result)
    except (msgspec.DecodeError, RecursionError) as error:
        name = job.name if job else "the job"
        raise Rejected(
            f"expected a result of {name} as its annotation says, but {error}",
            reason=Reason.INVALID_ARGUMENT,
            field="result",
        ) from None


def _unencodable(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Rejected:
    """Names the argument that cannot be encoded."""
    rows = [*((f"args[{index}]", value) for index, value in enumerate(args)), *kwargs.items()]
    for path, value in rows:
        try:
            _encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            return Rejected(
                f"expected arguments of {name} that can be encoded, but {path}: {error}",
                reason=Reason.INVALID_ARGUMENT,
                metadata={"job": name, "path": path},
                field=path,
            )
    return invalid("args", f"what can be encoded, for job {name}")


def _too_large(what: str, name: str, size: int) -> Rejected:
    return Rejected(
        f"expected {what} of {name} to be at most {PAYLOAD_BYTES_DEFAULT} bytes encoded, got "
        f"{size}; put large data into an object store and pass its address",
        reason=Reason.PAYLOAD_TOO_LARGE,
        metadata={"job": name, "limit": str(PAYLOAD_BYTES_DEFAULT), "bytes": str(size)},
        field="payload",
    )
