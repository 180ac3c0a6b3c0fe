"""What a job's function takes and returns, by its annotations."""

# Values of any type are looked at here, so that the type of their parts is not known.
# pyright: reportUnknownArgumentType=none, reportUnknownMemberType=none
# pyright: reportUnknownVariableType=none

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from types import GenericAlias, NoneType, UnionType
from typing import Any, Final

import msgspec

from tenure.client.command import output_of
from tenure.client.content_type import Format, format_of
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED: Final = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_CONTAINS: Final = frozenset.__contains__
#: Functions without annotations may be called in many ways.
_SURE_CALLS_MAX: Final = 256

#: An argument by its place or its name, and whose results it stands for: one job's, or a list.
Slot = tuple[int | str, str | list[str]]
Unpacker = Callable[[bytes | msgspec.Raw], Any]


class Signature:
    """What a job's function takes and returns: checks calls, and holds a plan for each format."""

    def __init__(self, name: str, function: Callable[..., Any], *, stands_in: bool = False) -> None:
        """Resolves nothing yet.

        Args:
            name: The job's name.
            function: Its function.
            stands_in: The function only stands for one that is not here, so what can be encoded
                may be passed: the worker's own annotations decide.
        """
        self.name = name
        self.stands_in = stands_in
        self._signature = inspect.signature(function)
        self._function = function
        parameters = self._signature.parameters.values()
        positional = [p for p in parameters if p.kind in _POSITIONAL]
        #: A call with this many positional arguments and no others needs no further check.
        self._plain_min = sum(p.default is p.empty for p in positional)
        self._plain_max = len(positional)
        if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
            self._plain_max = -1
        #: By content type: those that ``plan`` has made.
        self.plans: dict[str, Plan] = {}
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

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The function's parameters, in order."""
        return self._signature.parameters

    def hint_of(self, parameter: str) -> Any:
        """What a parameter is annotated with; Any if it is not."""
        return self._types().get(parameter, Any)

    def hint(self, where: int | str) -> Any:
        """What the parameter that takes an argument is annotated with; Any if it is not."""
        parameter = self._parameter(where)
        return Any if parameter is None else self._types().get(parameter.name, Any)

    def path(self, where: int | str) -> str:
        """What an argument is called."""
        parameter = self._parameter(where)
        if isinstance(where, str):
            return where
        named = parameter is not None and parameter.kind in _POSITIONAL
        return parameter.name if parameter is not None and named else f"args[{where}]"

    def _parameter(self, where: int | str) -> inspect.Parameter | None:
        parameters = self._signature.parameters
        if isinstance(where, str):
            found = parameters.get(where)
            if found is not None and found.kind in _NAMED:
                return found
            kind: object = inspect.Parameter.VAR_KEYWORD
        else:
            positional = [p for p in parameters.values() if p.kind in _POSITIONAL]
            if where < len(positional):
                return positional[where]
            kind = inspect.Parameter.VAR_POSITIONAL
        return next((p for p in parameters.values() if p.kind is kind), None)

    def plan(self, content_type: str) -> Plan:
        """How values go through a format, worked out once.

        Raises:
            Rejected: UNKNOWN_CODEC; or an annotation names what cannot travel.
        """
        found = self.plans.get(content_type)
        if found is None:
            found = Plan(format_of(content_type), self.name, self._signature, self._types())
            self.plans[content_type] = found
        return found

    def _types(self) -> dict[str, Any]:
        """The annotations, resolved. Late, so that a job may name types defined below it."""
        if self._hints is None:
            try:
                self._hints = typing.get_type_hints(self._function, include_extras=True)
                if "return" in self._hints:
                    self._hints["return"] = output_of(self._hints["return"])
            except NameError as error:
                raise Rejected(
                    f"expected annotations of {self.name} that can be resolved, but {error}; "
                    "import what they name at run time too, not only under TYPE_CHECKING",
                    reason=Reason.INVALID_ARGUMENT,
                    metadata={"job": self.name},
                    field="annotations",
                ) from None
        return self._hints


class Plan:
    """How one signature's values go through one format.

    Attributes:
        format: The format.
        envelope: Takes a call apart: positional arguments and named ones, each still packed.
        envelope_with_slots: The same of a call whose arguments stand for results of other jobs.
        usual: Unpacks a call with all positional arguments in one go.
        positional: An unpacker for each positional parameter; ``names`` are theirs.
        named: One for each parameter that may be named.
        more_positional: That of ``*args``.
        more_named: That of ``**kwargs``.
        result: That of what is returned.
        sure_calls: The types of positional arguments that have been found to need no trial: calls
            that the function takes, of values that certainly arrive as they are.
        sure_results: Results of these types certainly arrive as they are.
    """

    def __init__(
        self,
        format: Format,
        job_name: str,
        signature: inspect.Signature,
        types: Mapping[str, Any],
    ) -> None:
        self.format = format
        self.envelope = format.unpacker(tuple[list[msgspec.Raw], dict[str, msgspec.Raw]])
        self.envelope_with_slots = format.unpacker(
            tuple[list[msgspec.Raw], dict[str, msgspec.Raw], list[Slot]]
        )
        self.positional: list[Unpacker] = []
        self.named: dict[str, Unpacker] = {}
        self.names: list[str] = []
        self.more_positional = self.more_named = format.unpacker(Any)
        for name, parameter in signature.parameters.items():
            unpack = _unpacker(format, job_name, name, types.get(name, Any))
            if parameter.kind in _POSITIONAL:
                self.positional.append(unpack)
                self.names.append(name)
            if parameter.kind in _NAMED:
                self.named[name] = unpack
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                self.more_positional = unpack
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                self.more_named = unpack
        returned = types.get("return", Any)
        if returned in (typing.NoReturn, typing.Never):
            returned = Any
        self.result = _unpacker(format, job_name, "return", returned)
        hints = [types.get(name, Any) for name in self.names]
        usual_call = GenericAlias(
            tuple, (GenericAlias(tuple, tuple(hints)), dict[str, msgspec.Raw])
        )
        self.usual = format.unpacker(usual_call)
        self._sure_args = [_sure_types(hint, format.scalars) for hint in hints]
        self.sure_calls: set[tuple[type, ...]] = set()
        self.sure_results: Final = _sure_types(returned, format.scalars)

    def note_call(self, types: tuple[type, ...]) -> bool:
        """Whether positional arguments of these types certainly arrive as they are.

        If so, it is remembered. The function must take so many.
        """
        sure = self._sure_args
        if len(types) > len(sure) or not all(map(_CONTAINS, sure, types)):
            return False
        if len(self.sure_calls) < _SURE_CALLS_MAX:
            self.sure_calls.add(types)
        return True


def _unpacker(format: Format, job_name: str, parameter: str, hint: Any) -> Unpacker:
    try:
        return format.unpacker(hint)
    except TypeError as error:
        what = "return value" if parameter == "return" else f"parameter {parameter}"
        raise Rejected(
            f"expected the {what} of {job_name} to be annotated with a type that can travel, but "
            f"{error}; see docs/payloads.md for those that can",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"job": job_name, "path": parameter},
            field=parameter,
        ) from None


def _sure_types(hint: Any, scalars: frozenset[type]) -> frozenset[type]:
    """The types whose values certainly arrive as they are where this is annotated."""
    if hint is Any or hint is object:
        return scalars
    if hint is None:
        hint = NoneType
    if isinstance(hint, type) and hint in scalars:
        return frozenset({hint})
    if typing.get_origin(hint) in (typing.Union, UnionType):
        members = [_sure_types(member, scalars) for member in typing.get_args(hint)]
        return frozenset().union(*members) if all(members) else frozenset()
    return frozenset()
