"""Settings of TLS and token, as the SDK takes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tenure.cli.configuration import BadSetting

#: The keys that ``credentials`` reads.
KEYS: Final = frozenset({"token_file", "tls_ca", "tls_cert", "tls_key"})


def credentials(values: Mapping[str, Any]) -> dict[str, Any]:
    """What ``Client`` and ``WorkerConfig`` take as ``token`` and ``tls``.

    Args:
        values: Of the table ``client``; others than ``KEYS`` are let alone.

    Raises:
        BadSetting: A certificate of one's own, and nobody to trust.
    """
    from tenure.client import Tls

    token_file, ca = values.get("token_file"), values.get("tls_ca")
    cert, key = values.get("tls_cert"), values.get("tls_key")
    if ca is None and (cert is not None or key is not None):
        raise BadSetting("expected --tls-ca with --tls-cert and --tls-key, but it is missing")
    return {
        "token": Path(token_file) if token_file is not None else None,
        "tls": Tls(ca=ca, cert=cert, key=key) if ca is not None else None,
    }
