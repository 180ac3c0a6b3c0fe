"""Each refusal of the table says the same by the SDK, the command line, grpcurl and Node."""

from __future__ import annotations

import ast
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import grpc
import pytest

from tenure.cli import exits
from tenure.client import Client, cron, named
from tenure.protocol.errors import error_of
from tenure.protocol.refusal import Reason, Refusal
from tenure.v1 import cluster_pb2, cluster_pb2_grpc
from tests.chaos.cluster import REPOSITORY, Cluster
from tests.chaos.ports import free_port
from tests.integration.app import double
from tests.integration.commands import Outcome
from tests.integration.refusals import ways
from tests.integration.refusals.row import PARTITIONS, Call, Facts, Row
from tests.integration.refusals.schedules import TAKEN
from tests.integration.refusals.stand_in import StandIn
from tests.integration.refusals.table import rows
from tests.integration.refusals.tight_master import BYTES_MAX, QUEUE_DEPTH_MAX
from tests.integration.refusals.ways import Heard

TIGHT = [sys.executable, "-m", "tests.integration.refusals.tight_master"]
STRANGERS: Final = "integration/refusals/test_strangers.py"

#: Reasons without a row, and the tests that provoke them (or the errors that carry them): they
#: come when a node starts, inside a job, from a broken store, or with TLS and tokens.
ELSEWHERE: Final = {
    Reason.LEASE_EXPIRED: ("unit/client/test_context.py", "LEASE_EXPIRED"),
    Reason.SUPERSEDED: ("unit/client/test_context.py", "SUPERSEDED"),
    Reason.SERVER_CERTIFICATE_INVALID: (STRANGERS, "SERVER_CERTIFICATE_INVALID"),
    Reason.TLS_REQUIRED: (STRANGERS, "TLS_REQUIRED"),
    Reason.TLS_UNSUPPORTED: (STRANGERS, "TLS_UNSUPPORTED"),
    Reason.TOKEN_MISSING: (STRANGERS, "TOKEN_MISSING"),
    Reason.TOKEN_INVALID: (STRANGERS, "TOKEN_INVALID"),
    Reason.CLIENT_CERTIFICATE_REFUSED: (
        "integration/client/test_security.py",
        "CLIENT_CERTIFICATE_REFUSED",
    ),
    Reason.CREDENTIALS_UNUSABLE: ("integration/test_security.py", "CREDENTIALS_UNUSABLE"),
    Reason.APP_NOT_IMPORTABLE: ("integration/test_missing_parts.py", "APP_NOT_IMPORTABLE"),
    Reason.INSECURE_BIND: ("integration/test_missing_parts.py", "INSECURE_BIND"),
    Reason.ADDRESS_IN_USE: ("integration/test_missing_parts.py", "ADDRESS_IN_USE"),
    Reason.STORE_LOCKED: ("integration/test_missing_parts.py", "STORE_LOCKED"),
    Reason.STORE_CORRUPT: ("integration/test_missing_parts.py", "STORE_CORRUPT"),
    Reason.STORE_MISMATCH: ("conformance/test_sqlite_store.py", "StoreMismatch"),
    Reason.FORMAT_TOO_NEW: ("conformance/test_sqlite_store.py", "FormatTooNew"),
    Reason.FENCED: ("conformance/test_journal.py", "OfficeLost"),
    Reason.STORE_IO: ("integration/test_full_disk.py", "check the disk"),
    Reason.TOO_MANY_WATCHES: ("integration/test_health.py", "TOO_MANY_WATCHES"),
    Reason.WORKFLOW_SEALED: ("simulation/test_workflows.py", "WORKFLOW_SEALED"),
    Reason.WOULD_EXPIRE: ("unit/master/core/test_lateness.py", "WOULD_EXPIRE"),
    Reason.OUTBOX_FULL: ("unit/master/core/test_dependency.py", "OUTBOX_FULL"),
    Reason.OUT_OF_ORDER: ("unit/master/core/test_outbox.py", "OUT_OF_ORDER"),
    Reason.TOO_MANY_BACKUPS: ("unit/master/node/test_cluster.py", "TOO_MANY_BACKUPS"),
    Reason.TOO_MANY_LOG_READERS: ("unit/master/node/test_logs.py", "TOO_MANY_LOG_READERS"),
    Reason.WORKER_AMBIGUOUS: ("unit/master/node/test_workers.py", "WORKER_AMBIGUOUS"),
    Reason.COMMAND_NOT_FOUND: ("unit/worker/executor/test_command.py", "COMMAND_NOT_FOUND"),
}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    """A cluster with little room, a master whose journal is corrupt, and a stand-in."""
    folder = tmp_path_factory.mktemp("refusals")
    torn = folder / "torn" / "store.db"
    with (
        Cluster(folder / "tight", f"sqlite://{folder}/store.db") as tight,
        Cluster(torn.parent, f"sqlite://{torn}") as halted,
        StandIn() as stand_in,
    ):
        master = tight.start_master(
            "master-1", "--partitions", str(PARTITIONS), wrapper=[*TIGHT, "--"]
        )
        halted.start_masters(1)
        tight.wait_said(master, "serving")
        worker = tight.start_worker("worker-1", app="tests.integration.app")
        tight.wait_said(worker, "registered")
        halted.end()
        tear(torn)
        torn_master = halted.start_master("master-1")
        yield prepared(
            address=tight.addresses,
            halted=halted.addresses,
            stand_in=stand_in.address,
            closed=f"127.0.0.1:{free_port()}",
        )
        halted.wait_said(torn_master, "follower")


def tear(store: Path) -> None:
    """Flips one bit of a journal."""
    with closing(sqlite3.connect(store)) as database:
        number, data = database.execute(
            "SELECT number, data FROM batch WHERE number > 0 ORDER BY number LIMIT 1"
        ).fetchone()
        flipped = bytearray(data)
        flipped[len(flipped) // 2] ^= 0x01
        database.execute("UPDATE batch SET data = ? WHERE number = ?", (bytes(flipped), number))
        database.commit()


def prepared(*, address: str, halted: str, stand_in: str, closed: str) -> Facts:
    """The jobs that the rows are about."""
    with Client(address) as client:
        completed, purged = client.submit(double, 1), client.submit(double, 2)
        assert (completed.result(timeout=20), purged.result(timeout=20)) == (2, 4)
        assert [verdict.error for verdict in client.purge([purged.id])] == [None]
        # Twice as much is more than a result can be.
        failed = client.submit(double, 2**63)
        assert failed.wait(timeout=20)
        cancelled = client.submit(named("app.nobody"), 1)
        client.cancel([cancelled.id])
        # What is left of its partition's room is less than a payload of the largest size.
        pending = client.submit(named("app.nobody", key="taken"), "x" * (BYTES_MAX // 5))
        client.schedules.put(TAKEN, cron("@yearly", paused=True), named("double"), 1)
        client.submit_many(
            named("app.nobody", queue="full"), [(n,) for n in range(QUEUE_DEPTH_MAX)]
        )
    with grpc.insecure_channel(address) as channel:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        now_ms = stub.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=10).now_ms
    return Facts(
        address=address,
        halted=halted,
        stand_in=stand_in,
        closed=closed,
        now_ms=now_ms,
        completed=completed.id,
        failed=failed.id,
        cancelled=cancelled.id,
        purged=purged.id,
        pending=pending.id,
    )


@pytest.fixture(scope="module")
def table(facts: Facts) -> dict[str, Row]:
    """The rows, by name."""
    return {row.name: row for row in rows(facts)}


@pytest.fixture(scope="module")
def sdk(table: dict[str, Row]) -> dict[str, Heard]:
    """What the SDK heard."""
    return ways.ask_sdk(table.values())


@pytest.fixture(scope="module")
def cli(table: dict[str, Row]) -> dict[str, Outcome]:
    """How the commands ended."""
    return ways.ask_cli(table.values())


@pytest.fixture(scope="module")
def grpcurl(table: dict[str, Row]) -> dict[str, Heard]:
    """What grpcurl heard."""
    return ways.ask_grpcurl(table.values())


@pytest.fixture(scope="module")
def node(table: dict[str, Row]) -> dict[str, Heard]:
    """What Node heard."""
    return ways.ask_node(table.values())


def names(way: str) -> list[str]:
    """The rows that a way can provoke."""
    return [row.name for row in rows(Facts()) if not isinstance(getattr(row, way), str)]


def missing(row: Row, text: str) -> list[str]:
    """What the text should have and has not."""
    return [part for part in row.says if part not in text]


@pytest.mark.parametrize("name", names("sdk"))
def test_by_the_sdk(table: dict[str, Row], sdk: dict[str, Heard], name: str) -> None:
    """The reason, the field if the SDK looks first, and a text that says what to do."""
    row, heard = table[name], sdk[name]

    assert heard.reason == row.reason, heard
    assert missing(row, heard.text) == []
    assert heard.field in {row.field, row.field_here}
    assert heard.retry >= row.retry, heard


@pytest.mark.parametrize("name", names("cli"))
def test_by_the_command_line(table: dict[str, Row], cli: dict[str, Outcome], name: str) -> None:
    """One line on stderr that ends in the reason, nothing else there, and the exit code."""
    row, outcome = table[name], cli[name]

    assert outcome.code == row.code == exits_of(row), outcome
    assert outcome.stderr == f"{outcome.complaint}\n"
    assert outcome.complaint.endswith(f"[{row.reason}]"), outcome
    assert missing(row, outcome.complaint) == []


def exits_of(row: Row) -> int:
    """The exit code that docs/reasons.md has (a wait that was too short has its own)."""
    code = exits.code_of(error_of(Refusal(reason=row.reason, message="")))
    return exits.TIMED_OUT if row.reason is Reason.DEADLINE_EXCEEDED else code


@pytest.mark.parametrize("name", names("wire"))
def test_by_grpcurl_and_node(
    table: dict[str, Row], grpcurl: dict[str, Heard], node: dict[str, Heard], name: str
) -> None:
    """One ErrorInfo, the field's path, a time to come back; both are told the same."""
    row = table[name]

    for heard in (grpcurl[name], node[name]):
        assert heard.offences == ()
        assert heard.reason == row.reason, heard
        assert missing(row, heard.text) == []
        assert heard.field == row.field
        assert heard.retry is row.retry, heard


def test_every_reason_is_provoked() -> None:
    """Each has a row, or a test of its own that names it."""
    in_table = {row.reason for row in rows(Facts())}

    assert in_table | ELSEWHERE.keys() == set(Reason)
    assert in_table.isdisjoint(ELSEWHERE)
    for path, said in ELSEWHERE.values():
        assert said in (REPOSITORY / "tests" / path).read_text("utf-8"), (path, said)


def test_every_unavailable_says_when_to_come_back() -> None:
    """Each that a master makes has a time: RetryInfo where waiting helps."""
    silent = []
    for path in (REPOSITORY / "master/tenure/master/node").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        for made in (node for node in nodes if isinstance(node, ast.Call)):
            told = {keyword.arg for keyword in made.keywords}
            if ast.unparse(made.func) == "Unavailable" and "retry_after_ms" not in told:
                silent.append(f"{path.name}:{made.lineno}")

    assert silent == []


def test_what_a_way_cannot_provoke_has_its_reason() -> None:
    """Nothing is left out in silence."""
    for row in rows(Facts()):
        for way in (row.sdk, row.cli, row.wire):
            assert isinstance(way, Call | tuple) or callable(way) or len(way) > len("no"), row.name
