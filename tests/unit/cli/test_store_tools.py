"""What the tools for whole stores leave on the operator's disk."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tenure.cli import exits, main
from tenure.master import maintenance
from tenure.master.backend.errors import StoreUnavailable
from tenure.master.election.port import Candidate
from tenure.master.store import open_store
from tenure.protocol.refusal import Reason


@pytest.fixture
def store(tmp_path: Path) -> str:
    """The URL of a store that nobody has open."""
    url = f"sqlite://{tmp_path / 'jobs.db'}"
    me = Candidate(incarnation="i", name="m", address="m:1")

    async def make() -> None:
        await (await open_store(url, candidate=me, wall_ms=1)).close()

    asyncio.run(make())
    return url


def backup(folder: Path, store: str) -> int:
    """The command, by a user whose files all may read."""
    before = os.umask(0)
    try:
        return main.run(["cluster", "backup", str(folder / "file"), "--store", store])
    finally:
        os.umask(before)


def test_a_backup_is_its_owners_alone(tmp_path: Path, store: str) -> None:
    """It holds all payloads; also where an earlier try has left a file that all may read."""
    (tmp_path / "file.part").write_bytes(b"half")
    (tmp_path / "file.part").chmod(0o666)
    assert backup(tmp_path, store) == exits.OK
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert not (tmp_path / "file.part").exists()


def test_a_backup_is_durable_under_its_name(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is synced after the rename: the name outlives a loss of power, too."""
    seen: list[bool] = []
    fsync = os.fsync

    def watching(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            seen.append((tmp_path / "file").exists())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watching)
    assert backup(tmp_path, store) == exits.OK
    assert seen[-1:] == [True]


def test_a_backup_that_fails_leaves_nothing(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither half of it, nor anything in the place of the one before."""
    (tmp_path / "file").write_bytes(b"the one before")

    async def failing(url: str) -> AsyncIterator[bytes]:
        yield b"tenure backup"
        raise StoreUnavailable("it went away", reason=Reason.STORE_UNAVAILABLE)

    monkeypatch.setattr(maintenance, "backup", failing)
    assert backup(tmp_path, store) != exits.OK
    assert (tmp_path / "file").read_bytes() == b"the one before"
    assert not (tmp_path / "file.part").exists()


def test_a_backup_that_is_not_whole_leaves_nothing(
    tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is checked before it gets its name, and is gone if it is not what it should be."""

    async def short(url: str) -> AsyncIterator[bytes]:
        yield b"tenure backup 1\n"

    monkeypatch.setattr(maintenance, "backup", short)
    assert backup(tmp_path, store) != exits.OK
    assert [path.name for path in tmp_path.glob("file*")] == []


def test_a_place_that_takes_no_file_is_named(
    tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A directory of that name is the operator's mistake, and no traceback."""
    (tmp_path / "file").mkdir()
    assert backup(tmp_path, store) != exits.OK
    assert str(tmp_path / "file") in capsys.readouterr().err
    assert not (tmp_path / "file.part").exists()
    assert backup(tmp_path / "jobs.db", store) != exits.OK
    assert str(tmp_path / "jobs.db" / "file") in capsys.readouterr().err
