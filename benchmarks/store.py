"""The stores that measurements run on, each fresh: nothing, one SQLite file, one etcd member."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tenure.testing.etcd import EtcdCluster

StoreKind = Literal["none", "sqlite", "etcd"]


@contextmanager
def fresh_store(kind: StoreKind, folder: Path) -> Iterator[str]:
    """A store URL that is valid inside the scope."""
    if kind == "etcd":
        with EtcdCluster(1) as etcd:
            yield etcd.url()
    else:
        yield "none" if kind == "none" else f"sqlite://{folder / 'store.db'}"
