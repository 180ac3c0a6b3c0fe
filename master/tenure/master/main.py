"""``tenure master``: one process from its flags to its exit code."""

import asyncio
import json
import logging
import os
import random
import signal
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from tenure.master.backend.errors import StoreIoError, StoreMismatch
from tenure.master.election.port import Candidate
from tenure.master.node.clock import SystemClock
from tenure.master.node.collector import calm_collector
from tenure.master.node.master import MEMORY_BYTES_DEFAULT, QUARANTINE_FAILURES_DEFAULT, Master
from tenure.master.node.space import demand_quota
from tenure.master.node.trace import Trace
from tenure.master.rpc.peers import GrpcPeers
from tenure.master.rpc.security import SecurityFiles, ServerSecurity
from tenure.master.rpc.server import RpcServer
from tenure.master.store import open_store
from tenure.protocol import loop
from tenure.protocol.errors import Rejected, first_of
from tenure.protocol.refusal import Reason
from tenure.protocol.systemd import Notifier

_log = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_STORE_IO: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterConfig:
    """What a master is started with.

    Attributes:
        store: ``sqlite:///path`` or ``etcd://host:port,…[/prefix]``.
        name: For people; unique in the cluster. Empty: made from host and port.
        cluster: If given, the store must belong to this cluster id.
        listen: ``HOST:PORT``; port 0 takes a free one.
        advertise: Where others reach it; None: as it listens.
        partitions: For the bootstrap; None: whatever the store has (1 for a new one).
        memory_bytes_max: Payloads, results and errors that it keeps, all partitions together;
            None: 1 GiB.
        quarantine_failures: Of a worker's last 20 attempts so many failures that others do not
            have put it into quarantine; 0: never.
        store_quota_bytes: How large the store may grow; None: what it says itself.
        insecure: Allow an address that is not loopback without TLS and token.
        tls_cert: Its certificate with its chain (PEM), read again when it changes, as all files
            here; with ``tls_key``. None: it listens in plaintext.
        tls_key: The certificate's private key.
        tls_client_ca: Authorities, one of which must have issued each caller's certificate; None:
            callers need no certificate.
        tls_ca: Authorities of the other masters' certificates, which messages between partitions
            are sent to; None: ``tls_client_ca``, and if that is None, its own certificate.
        token_file: Bearer tokens, one a line, of which each call must have one; None: none is
            asked for.
    """

    store: str
    name: str = ""
    cluster: str | None = None
    listen: str = "127.0.0.1:7400"
    advertise: str | None = None
    partitions: int | None = None
    memory_bytes_max: int | None = None
    quarantine_failures: int = QUARANTINE_FAILURES_DEFAULT
    store_quota_bytes: int | None = None
    insecure: bool = False
    tls_cert: str | Path | None = None
    tls_key: str | Path | None = None
    tls_client_ca: str | Path | None = None
    tls_ca: str | Path | None = None
    token_file: str | Path | None = None

    def security(self) -> SecurityFiles:
        """The files that protect the listener."""
        return SecurityFiles(
            cert=_path(self.tls_cert),
            key=_path(self.tls_key),
            client_ca=_path(self.tls_client_ca),
            token=_path(self.token_file),
        )


def announce(event: str, fields: Mapping[str, object]) -> None:
    """Prints one JSON line on stdout."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def run(config: MasterConfig) -> int:
    """Runs a master until SIGTERM or SIGINT.

    Returns:
        The exit code.

    Raises:
        TenureError: It cannot start; the message says what to do.
    """
    if not __debug__:
        raise Rejected(
            "expected to run with safety checks, but Python was started with -O; start without it",
            reason=Reason.INVALID_ARGUMENT,
        )
    calm_collector()
    return loop.run(serve(config))


async def serve(config: MasterConfig) -> int:
    """As ``run``, inside an event loop."""
    host, port = parsed_address(config.listen)
    security = ServerSecurity(config.security())
    if not config.insecure:
        security.check_bind(host)
    # Before a new store is made with so many partitions, for ever.
    demand_quota(config.store_quota_bytes, config.partitions or 1)
    clock = SystemClock()
    rng = random.Random()
    peers = GrpcPeers(config.security(), _path(config.tls_ca))
    server = RpcServer(host, port, security)
    await server.bind()
    address = config.advertise or f"{host}:{server.port}"
    name = config.name or f"{socket.gethostname()}-{server.port}"
    me = Candidate(incarnation=str(uuid.UUID(int=rng.getrandbits(128))), name=name, address=address)
    trace_path = os.environ.get("TENURE_TRACE")
    trace = Trace(Path(trace_path) if trace_path else None, clock)
    try:
        store = await open_store(
            config.store,
            candidate=me,
            wall_ms=clock.wall_ms(),
            partitions=config.partitions,
            cluster_id=config.cluster,
            quota_bytes=config.store_quota_bytes,
        )
    except BaseException:
        await server.stop()
        raise
    master = Master(
        store=store,
        me=me,
        clock=clock,
        rng=rng,
        peers=peers,
        announce=announce,
        version=metadata.version("tenure"),
        store_name=config.store,
        trace=trace,
        memory_bytes_max=config.memory_bytes_max or MEMORY_BYTES_DEFAULT,
        quarantine_failures=config.quarantine_failures,
    )
    try:
        demand_quota(config.store_quota_bytes, store.partitions)
        await server.start(master)
        # Whoever hears that it serves may stop it at once.
        notifier = Notifier()
        _stop_on_signals(master, notifier)
        announce("serving", {"address": address, "name": name, "cluster": store.cluster_id})
        notifier.ready()
        notifier.status(f"serving on {address}")
        with notifier.watched():
            return await _run(master)
    finally:
        master.hub.close_all()
        await server.stop()
        await peers.close()
        await store.close()
        trace.close()


async def _run(master: Master) -> int:
    """Runs a master to its end; returns the exit code.

    Raises:
        StoreMismatch: The store was restored under its hands.
    """
    code = EXIT_OK
    restored: BaseException | None = None
    try:
        await master.run()
    except* StoreIoError as failed:
        _log.critical(
            "The store failed, stopping at once so that nothing false is acknowledged: %s",
            first_of(failed),
            extra={"action": "store_io"},
        )
        code = EXIT_STORE_IO
    except* StoreMismatch as mismatch:
        restored = first_of(mismatch)
    if restored is not None:
        raise restored
    return code


def _stop_on_signals(master: Master, notifier: Notifier) -> None:
    def stop() -> None:
        notifier.stopping()
        master.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def parsed_address(text: str) -> tuple[str, int]:
    """Host and port of a listen address.

    Raises:
        Rejected: It is no address.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise Rejected(
            f"expected a listen address like 127.0.0.1:7400, got {text!r}",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"listen": text},
            field="listen",
        )
    return host, int(port)


def _path(text: str | Path | None) -> Path | None:
    return Path(text) if text is not None else None
