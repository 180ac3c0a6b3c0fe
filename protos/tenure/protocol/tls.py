"""What TLS is set up with: names of files, and what they hold. ``security`` reads them.

Everybody imports this; what reads and checks files, only who uses some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to trust a peer, and how to prove who one is: PEM files, read again when they change.

    Attributes:
        ca: Certificates of the authorities that may have issued the peer's certificate.
        cert: One's own certificate with its chain, if the peer demands one; with ``key``.
        key: The certificate's private key, without a passphrase.
    """

    ca: str | Path
    cert: str | Path | None = None
    key: str | Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pem:
    """What the files held when they were read last."""

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None
