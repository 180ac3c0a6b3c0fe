"""Generates the Python stubs of every `.proto` under `protos/tenure`.

The generator's release is pinned in the `dev` dependency group, because its output names the
release.
"""

import argparse
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


def main() -> None:
    """Parses the command line and generates."""
    parser = argparse.ArgumentParser(description=__doc__)
    # The freshness test gives a temporary folder, and compares.
    parser.add_argument("out", nargs="?", type=Path, default=PROTOS, help="default: protos")
    out: Path = parser.parse_args().out
    print(f"generated stubs of {len(generate(out))} files into {out}")


if __name__ == "__main__":
    main()
