"""Generates the Python stubs of every `.proto` under `protos/tenure`.

Usage: `python tools/generate_stubs.py [OUT]`. OUT defaults to `protos`, where the committed stubs
live; the freshness test passes a temporary folder and compares. The generator's release is pinned
in the `dev` dependency group, because its output names the release.
"""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parent.parent
PROTOS = REPOSITORY / "protos"


def generate(out: Path) -> list[Path]:
    """Writes `*_pb2.py`, `*_pb2.pyi` and `*_pb2_grpc.py` below `out`; returns the sources.

    Raises:
        RuntimeError: the compiler refused a source (it has printed why).
    """
    sources = sorted((PROTOS / "tenure").rglob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={PROTOS}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--pyi_out={out}",
        f"--grpc_python_out={out}",
        *(str(source) for source in sources),
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed; its message is above")
    return sources


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS
    print(f"generated stubs of {len(generate(target))} files into {target}")
