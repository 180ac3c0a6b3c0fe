"""``tenure version``: what is installed, and what it speaks and writes."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenure.cli import exits
from tenure.cli.command import Takes, command
from tenure.cli.invocation import Invocation
from tenure.cli.output import Format, print_json, print_json_line
from tenure.protocol.limits import PROTOCOL_REVISION


@command(
    "version",
    role=None,
    takes=Takes.OUTPUT,
    examples=[
        ("tenure version", "for people"),
        ("tenure version -o json", "for programs and bug reports"),
    ],
)
def version(cli: Invocation) -> int:
    """Prints the versions of Tenure and of what it runs on."""
    from importlib import metadata

    match cli.form:
        case Format.JSON:
            print_json(installed())
        case Format.JSONL:
            print_json_line(installed())
        case Format.NAME:
            print(metadata.version("tenure"))
        case Format.TABLE:
            # All that ``installed`` finds would take longer than who types this wants to wait.
            print(
                f"tenure {metadata.version('tenure')} (Python {platform.python_version()}, "
                f"gRPC {metadata.version('grpcio')}, protobuf {metadata.version('protobuf')})"
            )
    return exits.OK


def installed() -> dict[str, Any]:
    """What ``tenure version -o json`` prints.

    ``commit`` is null for a release (its tag names it) and where git cannot tell;
    ``journal_format`` is null where no master is installed.
    """
    # Costs a fifth of the start of this program, so only who needs it imports it.
    from importlib import metadata

    distribution = metadata.distribution("tenure")
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    return {
        "version": distribution.version,
        "commit": commit_of(origin),
        "python": platform.python_version(),
        "protocol_revision": PROTOCOL_REVISION,
        "journal_format": _journal_format(),
        "grpc": metadata.version("grpcio"),
        "protobuf": metadata.version("protobuf"),
    }


def _journal_format() -> int | None:
    """The format that a master installed here writes."""
    try:
        from tenure.master.journal.frame import FORMAT
    except ModuleNotFoundError:
        return None
    return FORMAT


def commit_of(origin: Mapping[str, Any]) -> str | None:
    """The commit of an installation, from what its installer noted of its origin (PEP 610)."""
    from urllib.parse import unquote, urlsplit

    if "vcs_info" in origin:
        commit: str = origin["vcs_info"]["commit_id"]
        return commit
    if not origin.get("dir_info", {}).get("editable"):
        return None
    checkout = Path(unquote(urlsplit(origin["url"]).path))
    if not (checkout / ".git").exists():
        return None  # A folder of it inside some other repository: git would name that one's.
    import subprocess

    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
