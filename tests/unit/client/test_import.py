"""``import tenure.client``: what it leaves to those who need it (``make bench`` holds its time)."""

import json
import subprocess
import sys

PROGRAM = """
import asyncio, json, sys
import grpc.aio, msgspec, google.protobuf.text_format
there = set(sys.modules)
import tenure.client
print(json.dumps(sorted(set(sys.modules) - there)))
"""
#: For TLS and tokens, paths and addresses in arguments, names that resemble, the first connection.
LATER = {
    "difflib",
    "ipaddress",
    "pathlib",
    "random",
    "tenure.protocol.handshake",
    "tenure.protocol.security",
    "urllib.parse",
}


def test_what_few_need_is_imported_by_them() -> None:
    """Beyond what gRPC and msgspec bring, the client imports only what each program uses."""
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    imported = set(json.loads(said.stdout))
    assert "tenure.client.client" in imported
    assert imported & LATER == set()
