"""What a look at SQLite's write-ahead log tells: a log that was cut, and one that was damaged."""

import sqlite3

import pytest

from tenure.master.backend.wal import lost_commits

PAGE = 8192
COMMITS = 8


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The log of a few commits of a few pages each, of which an older round was longer."""
    path = tmp_path_factory.mktemp("log") / "store.db"
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in (f"page_size = {PAGE}", "journal_mode = WAL", "wal_autocheckpoint = 0"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute("CREATE TABLE note (text BLOB)")
    for _ in range(2 * COMMITS):
        connection.execute("INSERT INTO note VALUES (?)", (bytes(3 * PAGE),))
    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    for _ in range(COMMITS):
        connection.execute("INSERT INTO note VALUES (?)", (bytes(3 * PAGE),))
    content = path.with_name("store.db-wal").read_bytes()
    connection.close()
    return content


def test_a_whole_log_has_lost_nothing(log: bytes) -> None:
    """Frames of an older round behind the present one are no loss."""
    assert lost_commits(log, PAGE) == 0
    assert lost_commits(b"", PAGE) == 0


def test_a_cut_log_has_lost_nothing(log: bytes) -> None:
    """Wherever the log ends: what is not there was not finished."""
    for length in range(0, len(log), 9_973):
        assert lost_commits(log[:length], PAGE) == 0


def test_a_torn_end_is_at_most_one_commit(log: bytes) -> None:
    """A crash loses what was being written: all or some of the frames of one commit."""
    frames = [at for at in range(32, len(log), PAGE + 24) if log[at + 8 : at + 16] == log[16:24]]
    for at in frames[-4:]:
        torn = bytearray(log)
        torn[at + 512 : at + 1024] = b"\x07" * 512
        assert lost_commits(bytes(torn), PAGE) == 1


def test_a_damage_before_the_last_commit_is_told(log: bytes) -> None:
    """Any byte of the present round, up to the last commit: commits behind it are lost."""
    frames = [at for at in range(32, len(log), PAGE + 24) if log[at + 8 : at + 16] == log[16:24]]
    for at in range(0, frames[-5], 6_007):
        damaged = bytearray(log)
        damaged[at] ^= 0x10
        assert lost_commits(bytes(damaged), PAGE) > 1, at
