"""Real etcd clusters on loopback, for tests, demos and benchmarks: started, killed and frozen.

    with EtcdCluster(3) as etcd:
        run_master(store=etcd.url())
        etcd.members[0].kill()

Everything here is synchronous and uses only the standard library (and trustme, when TLS is asked
for). Members are real processes in a temporary directory, stopped by their own pids.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_BINARY_VARIABLE = "TENURE_ETCD_BINARY"
_START_TIMEOUT_S = 30.0
_POLL_S = 0.05
# Below the range the kernel takes for outgoing connections: a dead member's port stays free.
_PORTS = range(20_000, 32_000)


class EtcdNotFound(RuntimeError):
    """No etcd server to run: install one, or name it in TENURE_ETCD_BINARY."""


class EtcdNotReady(RuntimeError):
    """An etcd cluster did not answer a linearizable read in time."""


def find_binary() -> str:
    """The etcd server to run: ``TENURE_ETCD_BINARY``, else ``etcd`` from PATH.

    Raises:
        EtcdNotFound: there is none; the message says how to install it.
    """
    named = os.environ.get(_BINARY_VARIABLE)
    found = shutil.which(named or "etcd")
    if found is None:
        tried = f"{_BINARY_VARIABLE}={named}" if named else "PATH"
        raise EtcdNotFound(
            f"expected to find an etcd server by {tried}, but there is none; install it"
            f" (Debian, Ubuntu: apt-get install etcd-server; others: a release of etcd 3.5.33 or"
            f" newer) or set {_BINARY_VARIABLE} to its path"
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files that let a client in."""

    ca: Path
    cert: Path
    key: Path


class EtcdMember:
    """One member: a process that can be killed, frozen and started again on the same data."""

    def __init__(self, cluster: EtcdCluster, name: str, client_port: int, peer_port: int) -> None:
        self._cluster = cluster
        self.name = name
        self.directory = cluster.directory / name
        self.address = f"127.0.0.1:{client_port}"
        self.peer_url = f"http://127.0.0.1:{peer_port}"
        #: Where the other members reach it.
        self.advertised_peer_url = cluster.peer_door(name, self.peer_url)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, if it has been started and not reaped since."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process is there (a frozen one is)."""
        return self._process is not None and self._process.poll() is None

    @property
    def client_url(self) -> str:
        """Where clients reach it, with the scheme."""
        return f"{'https' if self._cluster.tls else 'http'}://{self.address}"

    def start(self) -> None:
        """Start the process; it may take a moment until it answers."""
        if self.running:
            return
        self.directory.mkdir(exist_ok=True)
        # Only our flags decide: no ETCD_* setting from outside, but for the architecture's.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("ETCD_") or name == "ETCD_UNSUPPORTED_ARCH"
        }
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._cluster.binary, *self._flags()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        self._cluster.remember(self._process)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. A frozen member dies too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP, and wait until it stands: connections stay open, nothing is answered."""
        process = self._signal(signal.SIGSTOP)
        # Its threads run on until one of them has taken the signal.
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Kill -9 and start again on the same data."""
        self.kill()
        self.start()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        path = self.directory / "log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def post(self, path: str, body: dict[str, Any], timeout_s: float = 2.0) -> dict[str, Any]:
        """One call through etcd's JSON gateway, for example ``post("/v3/kv/range", {…})``.

        Raises:
            OSError: no answer, or not a good one.
        """
        request = urllib.request.Request(
            self.client_url + path, data=json.dumps(body).encode(), method="POST"
        )
        with self._cluster.opener().open(request, timeout=timeout_s) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def _signal(self, number: signal.Signals) -> subprocess.Popen[bytes]:
        if self._process is None or not self.running:
            raise RuntimeError(f"expected member {self.name} to run, but it does not")
        self._process.send_signal(number)
        return self._process

    def _flags(self) -> list[str]:
        cluster = self._cluster
        flags = [
            f"--name={self.name}",
            f"--data-dir={self.directory / 'data'}",
            f"--listen-client-urls={self.client_url}",
            f"--advertise-client-urls={self.client_url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.advertised_peer_url}",
            f"--initial-cluster={cluster.initial_cluster}",
            f"--initial-cluster-token={cluster.directory.name}",
            f"--snapshot-count={cluster.snapshot_count}",
            f"--quota-backend-bytes={cluster.quota_bytes}",
            "--logger=zap",
            "--log-outputs=stderr",
        ]
        if cluster.tls is not None:
            flags += [
                f"--cert-file={cluster.tls.cert}",
                f"--key-file={cluster.tls.key}",
                f"--trusted-ca-file={cluster.tls.ca}",
                "--client-cert-auth",
            ]
        return flags


class EtcdCluster:
    """Some etcd members on free loopback ports, with their data in a temporary directory.

    Args:
        size: how many members.
        tls: make certificates with trustme, and let only clients with one in (``tls`` has the
            files). Peers talk in clear text.
        snapshot_count: raft entries between snapshots; etcd keeps about that many in memory.
        quota_bytes: the database quota of each member; small values provoke NOSPACE.
        binary: the server; None finds it (``find_binary``).
        peer_door: given a member's name and its peer URL, where the others shall dial it (a proxy
            of yours); None: as it listens.

    Attributes:
        members: in the order of ``endpoints``.
        tls: the client's certificate files, if TLS was asked for.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        tls: bool = False,
        snapshot_count: int = 1_000,
        quota_bytes: int = 8 * 1024**3,
        binary: str | None = None,
        peer_door: Callable[[str, str], str] | None = None,
    ) -> None:
        self.binary = binary or find_binary()
        self.snapshot_count = snapshot_count
        self.quota_bytes = quota_bytes
        self.peer_door = peer_door or (lambda name, url: url)
        self.directory = Path(tempfile.mkdtemp(prefix="tenure-etcd-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        # Also runs when the interpreter ends, so that a failed script leaves nothing behind.
        self._finalizer = weakref.finalize(self, _clean, self._processes, self.directory)
        self.tls = _issue_certificates(self.directory) if tls else None
        ports = _free_ports(2 * size)
        self.members = [
            EtcdMember(self, f"m{index}", ports[2 * index], ports[2 * index + 1])
            for index in range(size)
        ]
        self.initial_cluster = ",".join(
            f"{member.name}={member.advertised_peer_url}" for member in self.members
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def endpoints(self) -> list[str]:
        """``host:port`` of every member."""
        return [member.address for member in self.members]

    def url(self, prefix: str = "") -> str:
        """The store URL of this cluster, with the certificates if it wants them.

        Args:
            prefix: the path under which keys go, for example ``/test-1``.
        """
        url = f"etcd://{','.join(self.endpoints)}{prefix}"
        if self.tls is None:
            return url
        return f"{url}?ca={self.tls.ca}&cert={self.tls.cert}&key={self.tls.key}"

    def start(self) -> None:
        """Start every member and wait until the cluster answers.

        Raises:
            EtcdNotReady: it does not; the message has the end of a member's log.
        """
        for member in self.members:
            member.start()
        self.wait_ready()

    def stop(self) -> None:
        """Kill every member and remove the data. Idempotent."""
        for member in self.members:
            member.kill()
        self._finalizer()

    def wait_ready(self, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Wait until every running member answers a linearizable read (frozen ones do not)."""
        deadline = time.monotonic() + timeout_s
        waiting = [member for member in self.members if member.running]
        while waiting:
            waiting = [member for member in waiting if not self._reads(member)]
            if waiting and time.monotonic() > deadline:
                raise EtcdNotReady(
                    f"expected etcd member {waiting[0].name} to answer within {timeout_s} s, but"
                    f" it did not; its log ends:\n{waiting[0].log_tail()}"
                )
            if waiting:
                time.sleep(_POLL_S)

    def leader(self) -> EtcdMember:
        """The member that leads the raft group now, as most recently known by one of them.

        Raises:
            EtcdNotReady: no running member knows one.
        """
        newest, leader_id = -1, ""
        ids: dict[str, EtcdMember] = {}
        for member in self.members:
            if not member.running:
                continue
            try:
                status = member.post("/v3/maintenance/status", {}, timeout_s=1.0)
            except OSError:
                continue
            ids[status["header"]["member_id"]] = member
            if status.get("leader") and int(status["raftTerm"]) > newest:
                newest, leader_id = int(status["raftTerm"]), status["leader"]
        if leader_id not in ids:
            raise EtcdNotReady("expected a running member to lead, but none is known to")
        return ids[leader_id]

    def remember(self, process: subprocess.Popen[bytes]) -> None:
        """Note a process to be killed at the latest when this object goes."""
        self._processes.append(process)

    def opener(self) -> urllib.request.OpenerDirector:
        """An HTTP client for the JSON gateway, with the certificate if one is needed."""
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self.tls is not None:
            context = ssl.create_default_context(cafile=str(self.tls.ca))
            context.load_cert_chain(self.tls.cert, self.tls.key)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        return urllib.request.build_opener(*handlers)

    def _reads(self, member: EtcdMember) -> bool:
        if not member.running:
            raise EtcdNotReady(
                f"expected etcd member {member.name} to run, but it ended; its log ends:\n"
                f"{member.log_tail()}"
            )
        try:
            member.post("/v3/kv/range", {"key": base64.b64encode(b"ready").decode()})
        except OSError:
            return False
        return True


def _clean(processes: list[subprocess.Popen[bytes]], directory: Path) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
    shutil.rmtree(directory, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, distinct."""
    ports: list[int] = []
    sockets: list[socket.socket] = []
    try:
        for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
            candidate = socket.socket()
            sockets.append(candidate)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    finally:
        for candidate in sockets:
            candidate.close()
    raise EtcdNotReady(f"expected {count} free ports on loopback, but found {len(ports)}")


def _issue_certificates(directory: Path) -> TlsFiles:
    """One certificate of a new authority, for the members and the client alike."""
    try:
        # Only those who ask for TLS need the library.
        import trustme
    except ModuleNotFoundError as error:
        raise RuntimeError(
            "expected to make certificates, but trustme is not installed; pip install trustme"
        ) from error

    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = TlsFiles(
        ca=directory / "ca.pem", cert=directory / "cert.pem", key=directory / "key.pem"
    )
    authority.cert_pem.write_to_path(str(files.ca))
    files.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(files.key))
    return files
