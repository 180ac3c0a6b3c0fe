"""Real processes that ask each other for certificates and a token, and what outsiders are told.

The cluster is set up by the commands of ``docs/security.md``, as a reader would do it.
"""

from __future__ import annotations

import argparse
import re
import shlex
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tenure.client import Client
from tenure.protocol.errors import STATUS_DETAILS_METADATA
from tenure.testing.etcd import EtcdCluster
from tests.chaos.cluster import REPOSITORY, Cluster
from tests.chaos.process import Process
from tests.integration.app import double
from tests.integration.commands import Outcome, run
from tests.unit.protocol.certificates import Authority

APP = "tests.integration.app"
PAGE = REPOSITORY / "docs" / "security.md"


@dataclass(frozen=True, slots=True)
class Secured:
    """A cluster, and the folder of the files by which it is reached."""

    cluster: Cluster
    master: Process
    directory: Path

    def channel(self) -> grpc.Channel:
        """A foreign client with a certificate and no token."""
        ca, key, cert = (
            (self.directory / name).read_bytes() for name in ("ca.pem", "client.key", "client.pem")
        )
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        return grpc.secure_channel(self.cluster.address_of(self.master), credentials)

    def shown(self) -> str:
        """The certificate that the master shows to a new connection."""
        host, _, port = self.cluster.address_of(self.master).rpartition(":")
        return ssl.get_server_certificate((host, int(port)), timeout=5)


def page(first: str) -> list[str]:
    """The commands of the page's shell block that begins with this."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    (block,) = [block for block in blocks if first in block.partition("\n")[0]]
    return block.splitlines()


def follow(directory: Path, *firsts: str) -> None:
    """Runs such blocks in a folder."""
    for first in firsts:
        script = "\n".join(["set -e", *page(first)])
        subprocess.run(["sh", "-c", script], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """One master that demands both, one worker, and an environment that has both."""
    directory = tmp_path_factory.mktemp("secured")
    follow(directory, "tenure authority", "CN=master-1", "CN=worker", "openssl rand")
    parser = argparse.ArgumentParser()
    parser.add_argument("--store")
    parser.add_argument("--listen")
    (start,) = page("tenure master")
    _, flags = parser.parse_known_args(shlex.split(start)[2:])
    files = {path.name: str(path) for path in directory.iterdir()}
    variables, *_ = page("export ")
    with (
        pytest.MonkeyPatch.context() as patch,
        Cluster(directory / "cluster", f"sqlite://{directory}/store.db") as cluster,
    ):
        for variable, _, name in (part.partition("=") for part in shlex.split(variables)[1:]):
            patch.setenv(variable, files[name])
        master = cluster.start_master("master-1", *(files.get(flag, flag) for flag in flags))
        cluster.wait_leader()
        cluster.wait_said(cluster.start_worker("worker-1", app=APP), "registered")
        yield Secured(cluster, master, directory)


def count(secured: Secured, *flags: str) -> Outcome:
    """``tenure jobs count`` with other files than the environment has."""
    return run("jobs", "count", "--address", secured.cluster.addresses, *flags)


def test_jobs_run(secured: Secured) -> None:
    """The SDK and the command line take the files from the environment, as the worker did."""
    with Client(secured.cluster.addresses) as client:
        assert client.submit(double, 21).result(timeout=20) == 42
    outcome = run("submit", "--address", secured.cluster.addresses, "double", "4", "--wait")

    assert (outcome.code, outcome.stdout.strip()) == (0, "8")


def test_outsiders_are_told_why_in_one_line(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another token, another authority, plaintext, a foreign key: the cause, and its exit code."""
    other = Authority(tmp_path, "other")
    stranger = other.issue("stranger")
    wrong = tmp_path / "wrong"
    wrong.write_text("not-this-one")
    for flags, code, reason, says in (
        (["--token-file", str(wrong)], 5, "TOKEN_INVALID", "another one"),
        (["--tls-ca", str(other.ca)], 4, "SERVER_CERTIFICATE_INVALID", "not issued by"),
        (["--tls-key", str(stranger.key)], 2, "CREDENTIALS_UNUSABLE", str(stranger.key)),
    ):
        outcome = count(secured, *flags)
        assert (outcome.code, reason in outcome.complaint) == (code, True), outcome
        assert says in outcome.complaint
        assert outcome.stderr.count("\n") == 1

    worker = run(
        *("worker", APP, "--master", secured.cluster.addresses, "--token-file", str(wrong))
    )
    assert (worker.code, "TOKEN_INVALID" in worker.complaint) == (5, True), worker
    for variable in ("TENURE_TOKEN_FILE", "TENURE_TLS_CERT", "TENURE_TLS_KEY"):
        monkeypatch.delenv(variable)
    monkeypatch.delenv("TENURE_TLS_CA")
    plain = count(secured)
    assert (plain.code, "TLS_REQUIRED" in plain.complaint) == (4, True)
    assert plain.stderr.count("\n") == 1


def test_probes_need_no_token_and_others_do(secured: Secured) -> None:
    """Health is open; a call of any kind without a token is refused with exactly one ErrorInfo."""
    with secured.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("liveness", "readiness"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

        unary = channel.unary_unary("/tenure.v1.ClusterService/GetTopology")
        with pytest.raises(grpc.RpcError) as caught:
            unary(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert reasons(caught.value) == ["TOKEN_MISSING"]

        stream = channel.stream_stream("/tenure.v1.WorkerService/Session")
        with pytest.raises(grpc.RpcError) as caught:
            list(stream(iter([]), timeout=10, metadata=[("authorization", "Bearer nonsense")]))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert reasons(caught.value) == ["TOKEN_INVALID"]

        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as caught:
            list(reflection.ServerReflectionInfo(iter([request]), timeout=10))
        assert reasons(caught.value) == ["TOKEN_MISSING"]


def test_a_certificate_is_renewed_without_a_restart(secured: Secured) -> None:
    """New connections get the new certificate; the worker's stream and its jobs go on."""
    before = secured.shown()
    with Client(secured.cluster.addresses) as client:
        assert client.submit(double, 1).result(timeout=20) == 2
        follow(secured.directory, "CN=master-1")

        after = secured.cluster.until(
            lambda: shown if (shown := secured.shown()) != before else None, 20, "a renewal"
        )

        assert client.submit(double, 2).result(timeout=20) == 4
    with Client(secured.cluster.addresses) as client:
        assert client.submit(double, 3).result(timeout=20) == 6
    assert after == secured.shown()
    said = [event.name for event in secured.cluster.timeline.events()]
    assert said.count("registered") == 1, "the worker's stream was cut"


def test_what_a_master_refuses_to_start_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open address without both, and files that do not fit: exit code 2, one line."""
    pair, other = Authority(tmp_path).issue("one"), Authority(tmp_path, "b").issue("two")
    start = ("master", "--store", f"sqlite://{tmp_path}/store.db", "--listen", "0.0.0.0:0")
    tls = ("--tls-cert", str(pair.cert), "--tls-key", str(pair.key))

    for flags, reason, says in (
        ((), "INSECURE_BIND", "neither TLS nor a token"),
        (tls, "INSECURE_BIND", "a token is missing"),
        ((*tls[:3], str(other.key)), "CREDENTIALS_UNUSABLE", "another certificate's"),
        (tls[:2], "CREDENTIALS_UNUSABLE", "--tls-key"),
    ):
        outcome = run(*start, *flags)
        assert (outcome.code, reason in outcome.complaint) == (2, True), outcome
        assert says in outcome.complaint


@pytest.mark.etcd
def test_a_cluster_on_etcd_with_tls(tmp_path: Path) -> None:
    """The master reaches its store by mutual TLS, its callers reach it by TLS and token."""
    pair = Authority(tmp_path).issue("master")
    token = tmp_path / "token"
    token.write_text("5e2f4a6b7c8d")
    with EtcdCluster(1, tls=True) as etcd, Cluster(tmp_path / "cluster", etcd.url()) as cluster:
        master = cluster.start_master(
            "master-1",
            *("--tls-cert", str(pair.cert), "--tls-key", str(pair.key)),
            *("--token-file", str(token)),
        )
        cluster.wait_leader()
        flags = ("--address", cluster.address_of(master), "--token-file", str(token))
        outcome = run("cluster", "status", *flags, "--tls-ca", str(tmp_path / "ca.pem"))

    assert outcome.code == 0, outcome


def reasons(error: grpc.RpcError) -> list[str]:
    """The reasons of all ErrorInfos in a status."""
    found = []
    for key, value in error.trailing_metadata():  # type: ignore[attr-defined]
        if key == STATUS_DETAILS_METADATA:
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    found.append(info.reason)
    return found
