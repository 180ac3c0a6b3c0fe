"""Arguments and results as bytes, and back as the types that the function's annotations name.

A payload is the array ``[args, kwargs]``. What does not come back as it was, in value and type, is
refused before it leaves the process: it is encoded, decoded and compared, except for the plain
values that no format changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tenure.client.content_type import JSON, MSGPACK, format_of
from tenure.client.fidelity import TOO_DEEP, Flaw, first_unencodable, flaw_of
from tenure.client.parent_result import NOWHERE, Filling, Results, slots_of, vacated
from tenure.client.signature import Slot
from tenure.protocol.errors import Rejected
from tenure.protocol.limits import PAYLOAD_BYTES_DEFAULT
from tenure.protocol.refusal import Reason

if TYPE_CHECKING:
    from tenure.client.job import JobDef
    from tenure.client.signature import Plan

__all__ = ["JSON", "MSGPACK", "decode_args", "decode_result", "encode_args", "encode_result"]

#: What msgspec says of where it stumbled.
_WHERE: Final = re.compile(r" - at `(?:key in |value in )?\$(?P<path>[^`]*)`$")
_NO_ARGS: Final = msgspec.msgpack.encode(((), {}))
#: What values raise that a format cannot pack.
_UNENCODABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)


def encode_args(job: JobDef[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """A call's arguments as a payload.

    Raises:
        Rejected: INVALID_ARGUMENT if the function does not take them or a value would not arrive as
            it is, with the path of the value; PAYLOAD_TOO_LARGE if they are too many bytes.
    """
    signature, content_type = job.signature, job.settings.content_type
    plan = signature.plans.get(content_type) or signature.plan(content_type)
    types = (*map(type, args),)
    sure = not kwargs and types in plan.sure_calls
    call: tuple[Any, ...] = (args, kwargs)
    if not sure:
        signature.check(args, kwargs)
        slots = slots_of(args, kwargs)
        if slots:
            args = tuple(map(vacated, args))
            kwargs = {name: vacated(arg) for name, arg in kwargs.items()}
            call = (args, kwargs, slots)
        sure = signature.stands_in or (not kwargs and plan.note_call(types))
    try:
        payload = plan.format.pack(call)
    except _UNENCODABLE as error:
        raise _unencodable_args(plan, job.name, args, kwargs, error) from None
    if not sure:
        got_args, got_kwargs = _unpack_args(payload, plan, job, NOWHERE)
        _compare(job.name, plan, args, kwargs, got_args, got_kwargs)
    if plan.format.seal is not None:
        payload = plan.format.seal(payload)
    if len(payload) > PAYLOAD_BYTES_DEFAULT:
        raise _too_large("the arguments", job.name, len(payload))
    return payload


def decode_args(
    payload: bytes, content_type: str, job: JobDef[..., Any], results: Results | None = None
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments that a payload holds, as the types that the function's annotations name.

    Args:
        payload: The bytes; empty means no arguments.
        content_type: How they are encoded; empty means MessagePack.
        job: The job whose function is to be called.
        results: Where those of other jobs come from that arguments stand for.

    Raises:
        Rejected: UNKNOWN_CODEC, or INVALID_ARGUMENT with the path of the wrong value; or a result
            that an argument stands for is not there.
        ResultsNeeded: There are such arguments, and no ``results``.
    """
    signature = job.signature
    plan = signature.plans.get(content_type) or signature.plan(content_type)
    if not payload or (payload == _NO_ARGS and plan.format.name == MSGPACK):
        job.signature.check((), {})
        return [], {}
    if plan.format.unseal is not None:
        payload = plan.format.unseal(payload)
    return _unpack_args(payload, plan, job, results)


def _unpack_args(
    packed: bytes, plan: Plan, job: JobDef[..., Any], results: Results | None
) -> tuple[list[Any], dict[str, Any]]:
    try:
        usual_args, raw_kwargs = plan.usual(packed)
        if not raw_kwargs and job.signature.takes(len(usual_args)):
            return list(usual_args), {}
    except (msgspec.DecodeError, RecursionError):
        pass  # Taken apart below: the call is another one, or the error is to name its argument.
    return _unpack_each(packed, plan, job, results)


def _unpack_each(
    packed: bytes, plan: Plan, job: JobDef[..., Any], results: Results | None
) -> tuple[list[Any], dict[str, Any]]:
    """Argument by argument."""
    path = ""
    try:
        raw_args, raw_kwargs, slots = _open(packed, plan)
        filling = Filling(job, slots, results)
        args: list[Any] = []
        for index, raw in enumerate(raw_args):
            path = _path_of(plan, index)
            if index in filling:
                args.append(filling.value(index))
                continue
            known = index < len(plan.positional)
            args.append((plan.positional[index] if known else plan.more_positional)(raw))
        kwargs: dict[str, Any] = {}
        for path, raw in raw_kwargs.items():
            if path in filling:
                kwargs[path] = filling.value(path)
            else:
                kwargs[path] = (plan.named.get(path) or plan.more_named)(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        flaw = _flaw_told(error)
        raise _refused_args(job.name, Flaw((path or "payload") + flaw.path, flaw.why)) from None
    job.signature.check(tuple(args), kwargs)
    return args, kwargs


def _open(
    packed: bytes, plan: Plan
) -> tuple[list[msgspec.Raw], dict[str, msgspec.Raw], list[Slot]]:
    """A call's parts, each still packed."""
    try:
        return (*plan.envelope(packed), [])
    except msgspec.DecodeError:
        try:
            parts: tuple[list[msgspec.Raw], dict[str, msgspec.Raw], list[Slot]]
            parts = plan.envelope_with_slots(packed)
            return parts
        except msgspec.DecodeError:
            pass
        raise


def encode_result(value: Any, job: JobDef[..., Any], content_type: str = MSGPACK) -> bytes:
    """A job's return value as bytes.

    Args:
        value: What its function returned.
        job: The job.
        content_type: That of its arguments.

    Raises:
        Rejected: INVALID_ARGUMENT with the path in the result if it would not arrive as it is,
            PAYLOAD_TOO_LARGE if it is too long.
    """
    signature = job.signature
    plan = signature.plans.get(content_type) or signature.plan(content_type)
    try:
        result = plan.format.pack(value)
    except _UNENCODABLE as error:
        flaw = first_unencodable(value, plan.format.pack) or Flaw("", str(error))
        raise _refused_result(job.name, flaw) from None
    if type(value) not in plan.sure_results and not signature.stands_in:
        try:
            flaw_found = flaw_of(value, plan.result(result))
        except (msgspec.DecodeError, RecursionError) as error:
            flaw_found = _flaw_told(error)
        if flaw_found is not None:
            raise _refused_result(job.name, flaw_found)
    if plan.format.seal is not None:
        result = plan.format.seal(result)
    if len(result) > PAYLOAD_BYTES_DEFAULT:
        raise _too_large("the result", job.name, len(result))
    return result


def decode_result(result: bytes, content_type: str, job: JobDef[..., Any] | None) -> Any:
    """A job's return value, as the type its function's annotation names; plain without a job.

    Raises:
        Rejected: UNKNOWN_CODEC, or INVALID_ARGUMENT if it is not of that type.
    """
    if not result:
        return None
    if job is None:
        form = format_of(content_type)
        unpack: Callable[[bytes], Any] = form.unpacker(Any)
    else:
        plan = job.signature.plan(content_type)
        form, unpack = plan.format, plan.result
    try:
        return unpack(form.open(result))
    except (msgspec.DecodeError, RecursionError) as error:
        raise _refused_result(job.name if job else "the job", _flaw_told(error)) from None


def _compare(
    job_name: str,
    plan: Plan,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    got_args: list[Any],
    got_kwargs: Mapping[str, Any],
) -> None:
    """Refuses arguments that are others after they have been encoded and decoded."""
    for index, (sent, got) in enumerate(zip(args, got_args, strict=True)):
        flaw = flaw_of(sent, got)
        if flaw is not None:
            raise _refused_args(job_name, Flaw(_path_of(plan, index) + flaw.path, flaw.why))
    for name, sent in kwargs.items():
        flaw = flaw_of(sent, got_kwargs[name])
        if flaw is not None:
            raise _refused_args(job_name, Flaw(name + flaw.path, flaw.why))


def _path_of(plan: Plan, index: int) -> str:
    """What a positional argument is called."""
    return plan.names[index] if index < len(plan.names) else f"args[{index}]"


def _flaw_told(error: Exception) -> Flaw:
    """Where and why a decoder gave up."""
    if isinstance(error, RecursionError):
        return Flaw("", TOO_DEEP)
    text = str(error)
    where = _WHERE.search(text)
    return Flaw("", text) if where is None else Flaw(where["path"], text[: where.start()])


def _unencodable_args(
    plan: Plan,
    job_name: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    error: Exception,
) -> Rejected:
    """Names the part of the argument that cannot be encoded."""
    rows = [*((_path_of(plan, index), value) for index, value in enumerate(args)), *kwargs.items()]
    for path, value in rows:
        flaw = first_unencodable(value, plan.format.pack)
        if flaw is not None:
            return _refused_args(job_name, Flaw(path + flaw.path, flaw.why))
    return _refused_args(job_name, Flaw("args", str(error)))


def _refused_args(job_name: str, flaw: Flaw) -> Rejected:
    return Rejected(
        f"expected arguments of {job_name} that arrive as they are, of the types that its "
        f"annotations name, but {flaw.path}: {flaw.why}",
        reason=Reason.INVALID_ARGUMENT,
        metadata={"job": job_name, "path": flaw.path},
        field=flaw.path,
    )


def _refused_result(job_name: str, flaw: Flaw) -> Rejected:
    path = f"result{flaw.path}"
    return Rejected(
        f"expected a result of {job_name} that arrives as it is, of the type that its annotation "
        f"names, but {path}: {flaw.why}",
        reason=Reason.INVALID_ARGUMENT,
        metadata={"job": job_name, "path": path},
        field=path,
    )


def _too_large(what: str, name: str, size: int) -> Rejected:
    return Rejected(
        f"expected {what} of {name} to be at most {PAYLOAD_BYTES_DEFAULT} bytes encoded, got "
        f"{size}; put large data into an object store and pass its address",
        reason=Reason.PAYLOAD_TOO_LARGE,
        metadata={"job": name, "limit": str(PAYLOAD_BYTES_DEFAULT), "bytes": str(size)},
        field="payload",
    )
