"""What is missing, or somebody else's: one readable line, the right exit code, nothing lost."""

from __future__ import annotations

import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tenure.client import Client, Reason, TenureError, Unavailable
from tests.chaos.cluster import Cluster
from tests.chaos.ports import free_port
from tests.integration.app import double
from tests.integration.commands import run


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A place for a cluster on SQLite; nothing runs yet."""
    with Cluster(tmp_path, f"sqlite://{tmp_path}/store.db") as cluster:
        yield cluster


def rows(path: Path) -> list[tuple[int, bytes]]:
    """The batches in a store whose master has ended."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT number, data FROM batch ORDER BY number").fetchall()


def work(cluster: Cluster, count: int) -> list[str]:
    """Have some jobs done; returns their ids."""
    with Client(cluster.addresses) as client:
        handles = [client.submit(double, number) for number in range(count)]
        assert [handle.result(timeout=20) for handle in handles] == [2 * n for n in range(count)]
    return [handle.id for handle in handles]


def test_wrong_address() -> None:
    """Nobody listens there: unavailable, with the address in the line; no address: usage."""
    nobody = f"127.0.0.1:{free_port()}"

    missing = run("submit", "double", "1", "--address", nobody, "--timeout", "1")
    malformed = run("submit", "double", "1", "--address", "127.0.0.1")
    with pytest.raises(Unavailable) as refused, Client(nobody, timeout=1.0) as client:
        client.submit(double, 1)

    assert missing.code == 4
    assert nobody in missing.complaint
    assert malformed.code == 2
    assert "127.0.0.1" in malformed.complaint
    assert refused.value.reason is Reason.UNREACHABLE


@pytest.mark.parametrize("url", ["mysql://here/db", "nonsense", "etcd://", "sqlite://"])
def test_wrong_store_url(url: str) -> None:
    """A store that is none of ours: usage, and the line shows how to write one."""
    outcome = run("master", "--store", url, "--listen", "127.0.0.1:0")

    assert outcome.code == 2
    assert "sqlite:///" in outcome.complaint or "etcd://" in outcome.complaint
    assert outcome.stdout == ""


def test_store_path_that_cannot_be_used(tmp_path: Path) -> None:
    """The parent of the database is a file: the line names the path."""
    (tmp_path / "file").write_text("not a directory")

    outcome = run("master", "--store", f"sqlite://{tmp_path}/file/db", "--listen", "127.0.0.1:0")

    assert outcome.code == 2
    assert f"{tmp_path}/file" in outcome.complaint


def test_etcd_down_at_start() -> None:
    """Nobody answers at the store's address: unavailable, and the line names it."""
    nobody = f"127.0.0.1:{free_port()}"

    outcome = run("master", "--store", f"etcd://{nobody}", "--listen", "127.0.0.1:0")

    assert outcome.code == 4
    assert nobody in outcome.complaint
    assert "STORE_UNAVAILABLE" in outcome.complaint
    assert outcome.stdout == ""


def test_port_in_use(tmp_path: Path) -> None:
    """Another listens there: conflict, and the line names the address."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        outcome = run("master", "--store", f"sqlite://{tmp_path}/store.db", "--listen", address)

    assert outcome.code == 6
    assert address in outcome.complaint
    assert "ADDRESS_IN_USE" in outcome.complaint


def test_public_address_is_refused(tmp_path: Path) -> None:
    """Without TLS and a token only loopback is served, unless the user insists."""
    outcome = run("master", "--store", f"sqlite://{tmp_path}/store.db", "--listen", "0.0.0.0:0")

    assert outcome.code == 2
    assert "--insecure" in outcome.complaint
    assert "INSECURE_BIND" in outcome.complaint


def test_data_directory_locked_by_another_process(cluster: Cluster) -> None:
    """A second master on one store is refused and names the first, which is not disturbed."""
    (first,) = cluster.start_masters(1)
    cluster.start_worker("worker-1", app="tests.integration.app")

    outcome = run("master", "--store", cluster.store, "--listen", "127.0.0.1:0")

    assert outcome.code == 6
    assert str(first.pid) in outcome.complaint
    assert "STORE_LOCKED" in outcome.complaint
    work(cluster, 3)


def test_corrupt_journal_is_refused_and_kept(cluster: Cluster) -> None:
    """One flipped byte: the partition is halted and says which batch; not a byte is deleted."""
    path = cluster.directory / "store.db"
    cluster.start_masters(1)
    cluster.start_worker("worker-1", app="tests.integration.app")
    work(cluster, 20)
    cluster.end()
    with closing(sqlite3.connect(path)) as database:
        number, data = database.execute(
            "SELECT number, data FROM batch WHERE number > 0 ORDER BY number LIMIT 1"
        ).fetchone()
        flipped = bytearray(data)
        flipped[len(flipped) // 2] ^= 0x01
        database.execute("UPDATE batch SET data = ? WHERE number = ?", (bytes(flipped), number))
        database.commit()
    before = rows(path)

    master = cluster.start_master("master-1")
    halted = cluster.wait_said(master, "follower")
    with pytest.raises(TenureError) as refused, Client(cluster.addresses, timeout=3.0) as client:
        client.submit(double, 1)
    shown = run("submit", "double", "1", "--address", cluster.addresses, "--timeout", "3")
    cluster.end()

    assert halted.fields["why"] == "halted"
    assert refused.value.reason is Reason.PARTITION_HALTED
    assert shown.code == 4
    assert "PARTITION_HALTED" in shown.complaint
    assert f"batch {number}" in master.log_tail(50)
    assert rows(path) == before


def test_damaged_database_file_is_refused_and_kept(cluster: Cluster) -> None:
    """The file is no database any more: the master does not start, and does not touch it."""
    path = cluster.directory / "store.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)
    before = path.read_bytes()

    outcome = run("master", "--store", cluster.store, "--listen", "127.0.0.1:0")

    assert outcome.code != 0
    assert "STORE_CORRUPT" in outcome.complaint
    assert str(path) in outcome.complaint
    assert path.read_bytes() == before


def test_worker_module_that_does_not_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such module, one that raises, one without a job: usage, and the line says which."""
    (tmp_path / "broken_app.py").write_text("import no_such_package\n")
    (tmp_path / "empty_app.py").write_text('"""No jobs here."""\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    for app, cause in (
        ("no_such_app", "no_such_app"),
        ("broken_app", "no_such_package"),
        ("empty_app", "no job"),
    ):
        outcome = run("worker", app, "--master", "127.0.0.1:1")
        assert outcome.code == 2, outcome
        assert cause in outcome.complaint
        assert "APP_NOT_IMPORTABLE" in outcome.complaint


def test_safety_checks_cannot_be_switched_off(tmp_path: Path) -> None:
    """Python's -O drops assertions of libraries too: a master does not start under it."""
    import subprocess

    done = subprocess.run(
        [sys.executable, "-O", "-m", "tenure.cli", "master", "--store", f"sqlite://{tmp_path}/db"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 2
    assert "-O" in done.stderr
