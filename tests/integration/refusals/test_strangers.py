"""Who is not let in for want of a token or of TLS is told why, by the command line and others.

grpcurl and Node fail a handshake in their own words. The tests hold the words that name the cause,
so that a way that stops naming it is noticed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tenure.protocol.refusal import Reason
from tenure.v1 import cluster_pb2
from tests.chaos.cluster import Cluster
from tests.integration.refusals import ways
from tests.integration.refusals.row import Call
from tests.unit.protocol.certificates import Authority

TOPOLOGY = Call("GetTopology", cluster_pb2.GetTopologyRequest(), "", "ClusterService")


@dataclass(frozen=True, slots=True)
class Masters:
    """Addresses of masters, and the folder of the files by which they are reached."""

    secured: str
    expired: str
    plain: str
    folder: Path

    def file(self, name: str) -> str:
        """A file's path; "" stays "": none is given."""
        return str(self.folder / name) if name else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """One that is not let in.

    Attributes:
        name: For people.
        asks: Which of the masters.
        ca: The authority that it trusts; "": it speaks plaintext.
        token: The file of its token; "": it has none.
        reason: What the command line says; and a code.
        says: The cause in its words.
        others: The cause in the words of grpcurl and of Node; "": they cannot know it.
    """

    name: str
    asks: str
    ca: str = ""
    token: str = ""
    reason: Reason
    code: int
    says: str
    others: tuple[str, str]


NO_TOKEN = "expected a bearer token with the call, but it has none"
WRONG_TOKEN = "expected the cluster's bearer token, but the call's is another one"
STRANGERS = [
    Stranger(
        name="no token",
        asks="secured",
        ca="ca.pem",
        reason=Reason.TOKEN_MISSING,
        code=5,
        says=NO_TOKEN,
        others=(NO_TOKEN, NO_TOKEN),
    ),
    Stranger(
        name="another token",
        asks="secured",
        ca="ca.pem",
        token="wrong",
        reason=Reason.TOKEN_INVALID,
        code=5,
        says=WRONG_TOKEN,
        others=(WRONG_TOKEN, WRONG_TOKEN),
    ),
    Stranger(
        name="another authority",
        asks="secured",
        ca="other.pem",
        token="token",
        reason=Reason.SERVER_CERTIFICATE_INVALID,
        code=4,
        says="not issued by",
        others=("unknown authority", "unable to verify the first certificate"),
    ),
    Stranger(
        name="expired certificate",
        asks="expired",
        ca="ca.pem",
        token="token",
        reason=Reason.SERVER_CERTIFICATE_INVALID,
        code=4,
        says="has expired",
        others=("certificate has expired", "certificate has expired"),
    ),
    Stranger(
        name="plaintext to TLS",
        asks="secured",
        reason=Reason.TLS_REQUIRED,
        code=4,
        says="it speaks TLS",
        others=("", ""),
    ),
    Stranger(
        name="TLS to plaintext",
        asks="plain",
        ca="ca.pem",
        reason=Reason.TLS_UNSUPPORTED,
        code=4,
        says="it speaks plaintext",
        others=("does not look like a TLS handshake", "wrong version number"),
    ),
]


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Masters]:
    """One with TLS and a token, one whose certificate has expired, and one with neither."""
    folder = tmp_path_factory.mktemp("strangers")
    authority = Authority(folder)
    Authority(folder, "other")
    (folder / "token").write_text("5e2f4a6b7c8d")
    (folder / "wrong").write_text("0123456789ab")
    good, late = authority.issue("good"), authority.issue("late", expired=True)
    flags = {
        name: (
            *("--tls-cert", str(pair.cert), "--tls-key", str(pair.key)),
            *("--token-file", str(folder / "token")),
        )
        for name, pair in (("secured", good), ("expired", late))
    }
    with ExitStack() as clusters:
        started = {}
        for name in ("secured", "expired", "plain"):
            cluster = Cluster(folder / name, f"sqlite://{folder}/{name}.db")
            started[name] = clusters.enter_context(cluster)
            cluster.start_master("master-1", *flags.get(name, ()))
        for cluster in started.values():
            cluster.wait_leader()
        # The certificates are for this name too; Node warns of names that are numbers.
        where = {
            name: cluster.addresses.replace("127.0.0.1", "localhost")
            for name, cluster in started.items()
        }
        yield Masters(**where, folder=folder)


@pytest.fixture(params=STRANGERS, ids=lambda stranger: stranger.name)
def stranger(request: pytest.FixtureRequest) -> Stranger:
    """Each of them."""
    found: Stranger = request.param
    return found


def test_by_the_command_line(masters: Masters, stranger: Stranger) -> None:
    """One line with the cause and its reason, and the exit code."""
    ca, token = masters.file(stranger.ca), masters.file(stranger.token)
    flags = [*(("--tls-ca", ca) if ca else ()), *(("--token-file", token) if token else ())]
    outcome = ways.here(["jobs", "count", *flags], getattr(masters, stranger.asks))

    assert outcome.code == stranger.code
    assert outcome.stderr == f"{outcome.complaint}\n"
    assert stranger.says in outcome.complaint
    assert outcome.complaint.endswith(f"[{stranger.reason}]")


def test_by_grpcurl(masters: Masters, stranger: Stranger) -> None:
    """It fails, in one line for a handshake; a token's refusal is the master's own."""
    ca, token = masters.file(stranger.ca), masters.file(stranger.token)
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "grpcurl"),
            *(("-cacert", ca) if ca else ("-plaintext",)),
            *(("-H", f"authorization: Bearer {Path(token).read_text()}") if token else ()),
            *("-connect-timeout", "2", "-max-time", "10", getattr(masters, stranger.asks), "list"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert stranger.others[0] in done.stderr


def test_by_node(masters: Masters, stranger: Stranger) -> None:
    """The same for the stubs of the examples, which take files from TENURE_* variables."""
    environment = {
        "TENURE_TLS_CA": masters.file(stranger.ca),
        "TENURE_TOKEN_FILE": masters.file(stranger.token),
    }
    (said,) = ways.node_calls(
        [("stranger", getattr(masters, stranger.asks), TOPOLOGY)], environment
    )

    assert stranger.others[1] in said["message"]
    if stranger.others[1] in (NO_TOKEN, WRONG_TOKEN):
        assert ways.of_node(said).reason == stranger.reason
