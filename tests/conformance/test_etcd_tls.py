"""The store over mutual TLS: what opens it, what is said to who cannot, renewed files."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.errors import Unavailable
from tenure.master.election.port import Candidate
from tenure.master.etcd_store import EtcdUrl, open_etcd_store
from tenure.protocol import security
from tenure.protocol.errors import Rejected
from tenure.protocol.refusal import Reason
from tenure.protocol.security import read_trust
from tenure.protocol.tls import Tls
from tenure.testing.etcd import EtcdCluster, TlsFiles
from tests.unit.protocol.certificates import Authority

pytestmark = pytest.mark.etcd

ME = Candidate(incarnation="i", name="n", address="a:1")


@pytest.fixture
def files(tls_cluster: EtcdCluster) -> TlsFiles:
    """The files that let in."""
    if tls_cluster.tls is None:
        raise AssertionError("expected the cluster to speak TLS")
    return tls_cluster.tls


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Before anything is dialled."""
    with pytest.raises(Rejected, match="no-such-file") as caught:
        EtcdUrl.parse(f"etcd://h1:1?ca={tmp_path}/no-such-file").trust()
    assert caught.value.reason is Reason.CREDENTIALS_UNUSABLE


def test_who_cannot_open_the_store_is_told_why(
    tls_cluster: EtcdCluster, files: TlsFiles, tmp_path: Path
) -> None:
    """Another authority, no certificate, plaintext: one line that names the cause."""
    plain = f"etcd://{tls_cluster.endpoints[0]}/refused"
    other = Authority(tmp_path).issue("other")
    urls = {
        f"{plain}?ca={tmp_path}/ca.pem": Reason.SERVER_CERTIFICATE_INVALID,
        f"{plain}?ca={files.ca}": Reason.CLIENT_CERTIFICATE_REFUSED,
        f"{plain}?ca={files.ca}&cert={other.cert}&key={other.key}": (
            Reason.CLIENT_CERTIFICATE_REFUSED
        ),
        plain: Reason.TLS_REQUIRED,
    }

    async def refusal(url: str) -> Rejected:
        with pytest.raises(Rejected) as caught:
            await open_etcd_store(url, ME, partitions=None, wall_ms=0)
        return caught.value

    async def main() -> None:
        found = await asyncio.gather(*map(refusal, urls))
        assert [error.reason for error in found] == list(urls.values())
        for error in found:
            assert f"etcd at {tls_cluster.endpoints[0]}" in str(error)
            assert "\n" not in str(error)

    asyncio.run(main())


def test_renewed_files_are_used_without_a_restart(
    tls_cluster: EtcdCluster, files: TlsFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that was refused is let in with the files that are there now."""
    monkeypatch.setattr(security, "LOOK_S", 0.0)
    mine = Authority(tmp_path).issue("mine")
    trust = read_trust(Tls(ca=files.ca, cert=mine.cert, key=mine.key))

    async def main() -> None:
        async with EtcdClient(tls_cluster.endpoints, tls=trust) as client:
            with pytest.raises(Unavailable):
                await client.range(b"/tls")
            shutil.copy(files.cert, mine.cert)
            shutil.copy(files.key, mine.key)
            await client.range(b"/tls")

    asyncio.run(main())
