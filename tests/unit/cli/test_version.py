"""What the command says is installed, and from which commit."""

from importlib import metadata
from pathlib import Path

from tenure.cli.version import commit_of, installed
from tenure.master.journal.frame import FORMAT
from tenure.protocol.limits import PROTOCOL_REVISION

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_versions_are_those_of_this_code() -> None:
    """What it speaks and writes is taken from where that is defined."""
    told = installed()

    assert told["version"] == metadata.version("tenure")
    assert told["protocol_revision"] == PROTOCOL_REVISION
    assert told["journal_format"] == FORMAT
    assert set(told) == {
        "version",
        "commit",
        "python",
        "protocol_revision",
        "journal_format",
        "grpc",
        "protobuf",
    }


def test_commit_of_an_installation_from_git() -> None:
    """pip notes the commit that it checked out."""
    origin = {
        "url": "https://example.org/tenure.git",
        "vcs_info": {"vcs": "git", "commit_id": COMMIT},
    }

    assert commit_of(origin) == COMMIT


def test_commit_of_a_checkout(tmp_path: Path) -> None:
    """An editable installation is whatever its checkout's HEAD is; without one, null."""
    checkout = tmp_path / "a checkout"
    git = checkout / ".git"
    for folder in ("objects", "refs"):
        (git / folder).mkdir(parents=True)
    (git / "HEAD").write_text(COMMIT)
    origin = {"url": checkout.as_uri(), "dir_info": {"editable": True}}

    assert commit_of(origin) == COMMIT
    assert commit_of({"url": tmp_path.as_uri(), "dir_info": {"editable": True}}) is None


def test_a_release_has_no_commit() -> None:
    """A wheel knows only its version, which is its tag."""
    assert commit_of({"url": "https://example.org/t.whl", "archive_info": {}}) is None
    assert commit_of({}) is None
