"""Settings of TLS and token, as the SDK takes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tenure.cli.configuration import BadSetting

_FILES: Final = frozenset({"token_file", "tls_ca", "tls_cert", "tls_key"})


def arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What ``Client`` and ``WorkerConfig`` take: ``token`` and ``tls`` in place of their files.

    Args:
        settings: What the table ``client`` of the configuration holds.

    Raises:
        BadSetting: A certificate of one's own, and nobody to trust.
    """
    others = {name: value for name, value in settings.items() if name not in _FILES}
    token_file, ca = settings.get("token_file"), settings.get("tls_ca")
    cert, key = settings.get("tls_cert"), settings.get("tls_key")
    if token_file is not None:
        others["token"] = Path(token_file)
    if ca is not None:
        from tenure.client import Tls

        others["tls"] = Tls(ca=ca, cert=cert, key=key)
    elif cert is not None or key is not None:
        raise BadSetting("expected --tls-ca with --tls-cert and --tls-key, but it is missing")
    return others
