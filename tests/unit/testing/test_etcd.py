"""Finding an etcd server to run."""

from pathlib import Path

import pytest

from tenure.testing.etcd import EtcdNotFound, find_binary


def test_the_named_binary_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TENURE_ETCD_BINARY is taken before what PATH has."""
    for name in ("etcd", "mine"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TENURE_ETCD_BINARY", raising=False)
    assert find_binary() == str(tmp_path / "etcd")
    monkeypatch.setenv("TENURE_ETCD_BINARY", str(tmp_path / "mine"))
    assert find_binary() == str(tmp_path / "mine")


def test_a_missing_binary_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names what was tried and how to install a server."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TENURE_ETCD_BINARY", raising=False)
    with pytest.raises(EtcdNotFound, match="apt-get install etcd-server"):
        find_binary()
    monkeypatch.setenv("TENURE_ETCD_BINARY", "/no/such/etcd")
    with pytest.raises(EtcdNotFound, match="TENURE_ETCD_BINARY=/no/such/etcd"):
        find_binary()
