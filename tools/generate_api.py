"""Writes docs/api.md from the comments of protos/tenure/v1."""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

REPOSITORY: Final = Path(__file__).resolve().parents[1]
REFERENCE: Final = REPOSITORY / "docs" / "api.md"
#: In this order; the journal's records are no API.
FILES: Final = (
    "jobs",
    "workflows",
    "schedules",
    "batches",
    "queues",
    "workers",
    "worker",
    "cluster",
    "common",
)
PACKAGE: Final = ".tenure.v1."
HEAD: Final = """\
# The API

<!-- Made by `make protos` from the comments in protos/tenure/v1; do not edit. -->

Package `tenure.v1`, served by every master. How to call it without an SDK is in
[grpcurl.md](grpcurl.md) and `examples/node`, how a worker uses `WorkerService` in
[protocol.md](protocol.md), what a `filter` may say in [filters.md](filters.md), what errors mean in
[reasons.md](reasons.md), how large things may be in [limits.md](limits.md). Defaults stand in
brackets. Health (`grpc.health.v1`, services `liveness` and `readiness`) and reflection are served,
too.
"""

_Field = FieldDescriptorProto
#: What protoc calls them: TYPE_UINT64 is uint64.
_SCALARS: Final = {
    number: name.removeprefix("TYPE_").lower() for name, number in _Field.Type.items()
}
#: Where descriptors keep their parts: field numbers in descriptor.proto, for paths of comments.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_PARTS: Final = 2

Comments = Mapping[tuple[int, ...], str]


def main() -> None:
    """Writes the reference."""
    argparse.ArgumentParser(prog="python -m tools.generate_api", description=__doc__).parse_args()
    REFERENCE.write_text(reference(), encoding="utf-8")


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for file in _parsed():
        comments = {
            tuple(location.path): " ".join(location.leading_comments.split())
            for location in file.source_code_info.location
        }
        parts.append(f"\n## {Path(file.name).name}\n\n{_intro(file)}\n")
        for index, service in enumerate(file.service):
            parts += _service(service, (_SERVICES, index), comments)
        for index, message in enumerate(file.message_type):
            parts += _message(message, (_MESSAGES, index), comments)
        for index, enum in enumerate(file.enum_type):
            parts += _enum(enum, (_ENUMS, index), comments)
    return "".join(parts)


def _parsed() -> list[FileDescriptorProto]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "all"
        names = [f"tenure/v1/{name}.proto" for name in FILES]
        well_known = Path(protoc.__file__).parent / "_proto"
        options = [f"-I{REPOSITORY / 'protos'}", f"-I{well_known}", "--include_source_info"]
        if protoc.main(["protoc", *options, f"--descriptor_set_out={out}", *names]):
            raise SystemExit("expected protos that protoc can read")
        found = FileDescriptorSet.FromString(out.read_bytes()).file
        by_name = {file.name: file for file in found}
        return [by_name[name] for name in names]


def _intro(file: FileDescriptorProto) -> str:
    """The comment above `syntax`."""
    for location in file.source_code_info.location:
        if list(location.path) == [12]:
            paragraphs = location.leading_comments.split("\n\n")
            return "\n\n".join(" ".join(part.split()) for part in paragraphs)
    return ""


def _service(
    service: ServiceDescriptorProto, path: tuple[int, ...], comments: Comments
) -> Iterator[str]:
    yield f"\n### {service.name}\n\n{_paragraph(comments.get(path, ''))}"
    yield "| method | request | answer | |\n|---|---|---|---|\n"
    for index, method in enumerate(service.method):
        asked = ("stream " if method.client_streaming else "") + _link(method.input_type)
        told = ("stream " if method.server_streaming else "") + _link(method.output_type)
        comment = comments.get((*path, _PARTS, index), "")
        yield f"| `{method.name}` | {asked} | {told} | {_cell(comment)} |\n"


def _message(message: DescriptorProto, path: tuple[int, ...], comments: Comments) -> Iterator[str]:
    yield f"\n### {message.name}\n\n{_paragraph(comments.get(path, ''))}"
    if not message.field:
        yield "It has no fields.\n"
        return
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    yield "| field | type | |\n|---|---|---|\n"
    for index, field in enumerate(message.field):
        comment = comments.get((*path, _PARTS, index), "")
        if field.HasField("oneof_index") and not field.proto3_optional:
            comment = f"(one of `{message.oneof_decl[field.oneof_index].name}`) {comment}"
        yield f"| `{field.name}` = {field.number} | {_type(field, maps)} | {_cell(comment)} |\n"


def _enum(enum: EnumDescriptorProto, path: tuple[int, ...], comments: Comments) -> Iterator[str]:
    yield f"\n### {enum.name}\n\n{_paragraph(comments.get(path, ''))}"
    yield "| value | |\n|---|---|\n"
    for index, value in enumerate(enum.value):
        comment = comments.get((*path, _PARTS, index), "")
        yield f"| `{value.name}` = {value.number} | {_cell(comment)} |\n"


def _type(field: FieldDescriptorProto, maps: Mapping[str, DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = (_type(part, {}) for part in entry.field)
        return f"map of {key} to {value}"
    name = _link(field.type_name) if field.type_name else _SCALARS[field.type]
    if field.label == _Field.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _link(type_name: str) -> str:
    """A type of ours as a link to its section, another by its name."""
    if not type_name.startswith(PACKAGE):
        return type_name.removeprefix(".")
    name = type_name.removeprefix(PACKAGE)
    return f"[{name}](#{name.lower()})"


def _paragraph(comment: str) -> str:
    return f"{comment}\n\n" if comment else ""


def _cell(comment: str) -> str:
    return comment.replace("|", "\\|")


if __name__ == "__main__":
    main()
