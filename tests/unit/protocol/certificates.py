"""Certificates for tests, as the files that a node is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import trustme

from tenure.protocol.tls import Tls

LONG_AGO = datetime(2019, 1, 1, tzinfo=UTC)
AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """Issues certificates into a folder.

    Attributes:
        ca: Its own certificate's file.
        pem: What it wrote there.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.ca = directory / f"{name}.pem"
        self.pem = self._authority.cert_pem.bytes()
        self.ca.write_bytes(self.pem)

    def issue(self, name: str, *hosts: str, expired: bool = False) -> Pair:
        """Writes ``name.pem`` and ``name.key``; over those of that name, if there are any."""
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        dates = {"not_before": LONG_AGO, "not_after": AGO} if expired else {}
        issued = self._authority.issue_cert(*(hosts or ("127.0.0.1", "localhost")), **dates)
        pair.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        pair.key.write_bytes(issued.private_key_pem.bytes())
        return pair

    def trusted(self, pair: Pair | None = None) -> Tls:
        """What a client is given that trusts this authority, and shows a certificate."""
        return Tls(ca=self.ca, cert=pair.cert if pair else None, key=pair.key if pair else None)
