"""The committed stubs are what `make protos` would write now."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PATTERNS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")


def stubs_below(folder: Path) -> dict[str, str]:
    """Relative path and text of each generated module below `folder`."""
    found = (path for pattern in PATTERNS for path in folder.rglob(pattern))
    return {str(path.relative_to(folder)): path.read_text() for path in found}


def test_committed_stubs_equal_generated_ones(tmp_path: Path) -> None:
    """No `.proto` was changed without its stubs, and no stub was edited, lost or left behind."""
    subprocess.run(
        [sys.executable, REPOSITORY / "tools" / "generate_stubs.py", tmp_path], check=True
    )
    generated = stubs_below(tmp_path)
    committed = stubs_below(REPOSITORY / "protos")

    stale = sorted(
        name
        for name in generated.keys() | committed.keys()
        if generated.get(name) != committed.get(name)
    )

    assert generated, "expected at least one .proto below protos/tenure"
    assert stale == [], "run `make protos` and commit what it changes"
