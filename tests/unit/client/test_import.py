"""``import tenure.client``: what it leaves to those who need it (``make bench`` holds its time)."""

import ast
import inspect
import json
import subprocess
import sys

import pytest

import tenure.client

PROGRAM = """
import asyncio, json, sys
import grpc.aio, msgspec, google.protobuf.text_format
there = set(sys.modules)
import tenure.client
print(json.dumps(sorted(set(sys.modules) - there)))
"""
#: For TLS and tokens, paths and addresses in arguments, names that resemble, the first connection;
#: then what operates a cluster, and what tells of it.
LATER = {
    "difflib",
    "ipaddress",
    "pathlib",
    "random",
    "tenure.protocol.handshake",
    "tenure.protocol.security",
    "urllib.parse",
    "tenure.client.argument_schema",
    "tenure.client.batches",
    "tenure.client.explain",
    "tenure.client.frontier",
    "tenure.client.logs",
    "tenure.client.picture",
    "tenure.client.queues",
    "tenure.client.schedule",
    "tenure.client.settings",
    "tenure.client.sync_batches",
    "tenure.client.sync_queues",
    "tenure.client.sync_schedules",
    "tenure.client.sync_workers",
    "tenure.client.sync_workflows",
    "tenure.client.watch",
    "tenure.client.workers",
    "tenure.client.workflow",
    "tenure.v1.batches_pb2",
    "tenure.v1.queues_pb2",
    "tenure.v1.schedules_pb2",
    "tenure.v1.workers_pb2",
    "tenure.v1.workflows_pb2",
    "zoneinfo",
}


def test_what_few_need_is_imported_by_them() -> None:
    """Beyond what gRPC and msgspec bring, the client imports only what each program uses."""
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    imported = set(json.loads(said.stdout))
    assert "tenure.client.client" in imported
    assert imported & LATER == set()


def test_every_public_name_is_what_type_checkers_take_it_for() -> None:
    """Whether imported at once or when asked for, a name is that of the import that is written."""
    written: dict[str, str] = {}
    for node in ast.walk(ast.parse(inspect.getsource(tenure.client))):
        if isinstance(node, ast.ImportFrom) and node.module:
            written.update(dict.fromkeys((alias.name for alias in node.names), node.module))
    assert set(tenure.client.__all__) <= written.keys() & set(dir(tenure.client))
    for name in tenure.client.__all__:
        __import__(written[name])
        assert getattr(tenure.client, name) is getattr(sys.modules[written[name]], name), name


def test_a_name_that_is_not_there_is_an_ordinary_error() -> None:
    """What is imported when it is asked for changes nothing for a misspelt name."""
    with pytest.raises(AttributeError, match=r"module 'tenure\.client' has no attribute 'Clinet'"):
        tenure.client.Clinet  # type: ignore[attr-defined]  # noqa: B018
