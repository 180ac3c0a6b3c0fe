"""Store URLs: a wrong one is refused in one readable line, before anything is opened."""

import asyncio
from pathlib import Path

import pytest

from tenure.master.election.port import Candidate
from tenure.master.sqlite_store import parse_url
from tenure.master.store import open_store
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason

ME = Candidate(incarnation="i", name="n", address="a:1")


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///var/lib/tenure/store.db", "/var/lib/tenure/store.db"),
        ("sqlite:////double/slash.db", "//double/slash.db"),
        ("sqlite:///with%20space%3F.db", "/with space?.db"),
        ("sqlite:///./odd", "/odd"),
    ],
)
def test_a_path_is_read(url: str, path: str) -> None:
    """Three slashes, then the path from the root; percent signs escape."""
    assert parse_url(url) == Path(path)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "sqlite:///path/to/store.db, or etcd://"),
        ("/var/lib/store.db", "sqlite:///path/to/store.db, or etcd://"),
        ("redis://h:6379", "sqlite:///path/to/store.db, or etcd://"),
        ("sqlite:store.db", "sqlite:///path/to/store.db, or etcd://"),
        ("sqlite://", "it names no file; write sqlite:///path/to/store.db"),
        ("sqlite:///", "it names no file"),
        ("sqlite://store.db", "it needs a third slash; write sqlite:///store.db"),
        ("sqlite:///var/lib/", "it names a directory; write sqlite:///var/lib/store.db"),
        ("sqlite:///a?mode=memory", "it takes no parameters"),
        ("etcd://", "etcd://HOST:PORT"),
    ],
)
def test_a_wrong_url_is_refused(url: str, why: str) -> None:
    """The error quotes the URL and says what to write instead."""
    with pytest.raises(Rejected) as caught:
        asyncio.run(open_store(url, candidate=ME, wall_ms=0))
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert caught.value.field == "store"
    assert repr(url) in caught.value.message
    assert why in caught.value.message
    assert "\n" not in caught.value.message
