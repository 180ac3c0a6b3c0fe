"""Fuzzes the targets by coverage, with atheris: ``make fuzz MINUTES=10``."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from google.protobuf.message import Message

_MEMORY_MIB = 2_048
_INPUT_BYTES_MAX = 8_192
_SEEDS = 60


def main() -> int:
    """Gives each target its share of the time, in a process of its own: atheris never returns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", help="one of them, in this process")
    flags = parser.parse_args()
    if flags.target:
        return _fuzz(flags.target, flags.minutes)
    from tests.unit.fuzz.targets import TARGETS

    failed = []
    for name in TARGETS:
        command = [sys.executable, "-m", "tests.unit.fuzz", "--target", name]
        share = ["--minutes", str(flags.minutes / len(TARGETS))]
        if subprocess.run([*command, *share]).returncode:
            failed.append(name)
    found = f"failed: {', '.join(failed) or 'none'}"
    sys.stdout.write(f"fuzz: {len(TARGETS)} targets, {flags.minutes:g} minutes, {found}\n")
    return 1 if failed else 0


def _fuzz(name: str, minutes: float) -> int:
    import atheris

    with atheris.instrument_imports(include=["tenure.master", "tenure.worker", "tenure.protocol"]):
        from tests.unit.fuzz import targets

    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(_seeds(name)):
            (Path(folder) / str(number)).write_bytes(seed)
        arguments = [
            sys.argv[0],
            f"-max_total_time={max(1, int(60 * minutes))}",
            f"-max_len={_INPUT_BYTES_MAX}",
            f"-rss_limit_mb={_MEMORY_MIB}",
            f"-artifact_prefix={tempfile.gettempdir()}/tenure-fuzz-{name}-",
            "-print_final_stats=1",
            folder,
        ]
        atheris.Setup(arguments, targets.TARGETS[name])
        atheris.Fuzz()
    return 0


def _seeds(name: str) -> list[bytes]:
    """Inputs that reach deep already."""
    from tenure.v1 import worker_pb2
    from tests.unit.fuzz.seeds import fill
    from tests.unit.fuzz.test_fuzz import BATCHES

    kinds: dict[str, type[Message]] = {
        "master_session": worker_pb2.SessionRequest,
        "worker_session": worker_pb2.SessionResponse,
    }
    if name in kinds:
        messages = [fill(kinds[name](), Random(seed)) for seed in range(_SEEDS)]
        return [message.SerializeToString() for message in messages]
    if name == "journal":
        return BATCHES[:_SEEDS]
    return [b"state=FAILED AND (queue:mail OR NOT name=app.*)", b'labels.a = "x" -priority>=3']


if __name__ == "__main__":
    sys.exit(main())
