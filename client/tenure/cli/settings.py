"""The one table of settings: each row is a flag, an environment variable and a key of a TOML file.

``command`` makes the flags from it, ``configuration`` reads the variables and the files, and
``reference`` writes the documents. A new setting is one row here, and a field of the same name
(``Setting.field_name``) in what the row's role is started with.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from tenure.protocol.limits import DEFAULT_ADDRESS, PARTITIONS_MAX

#: What a setting may be: by its kind text, a number, a switch, a list or pairs; None: not set.
Value = str | int | float | bool | list[str] | dict[str, str] | dict[str, int] | None


class Role(Enum):
    """Who reads a setting."""

    CLIENT = "client"  # every command that talks to a cluster
    WORKER = "worker"
    MASTER = "master"
    DEV = "dev"
    OPERATOR = "operator"  # what works on a store without a master


class Kind(Enum):
    """How a setting's text is understood; ``configuration`` has a parser for each."""

    TEXT = "text"
    PATH = "path"
    INTEGER = "integer"
    SECONDS = "seconds"
    BYTES = "bytes"
    SWITCH = "switch"
    LIST = "list"
    PAIRS = "pairs"
    COUNTS = "counts"
    ADDRESSES = "addresses"
    RANGE = "range"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """One setting.

    Attributes:
        table: The TOML file's table.
        key: Its key there; also names the variable and the flag.
        kind: What it is.
        help: One sentence for people.
        roles: Who reads it.
        default: Taken when nobody sets it; None: ``unset`` says what happens then.
        unset: What no value means, for people.
        metavar: What the flag's value is called; empty for switches.
        flags: The flag where it is not ``--key``, by role; empty: the role takes it as its
            argument.
        short: A one-letter flag, with its dash.
        minimum: Of a number.
        maximum: Of a number.
        required: The role cannot start without it.
        field_name: What it is called in the role's configuration object; empty: as ``key``.
        overruled_by: A variable that the SDK reads by itself; if it is set, files say nothing.
        example: A value for the reference file where the default would show little.
    """

    table: str
    key: str
    kind: Kind
    help: str
    roles: tuple[Role, ...]
    default: Value = None
    unset: str = ""
    metavar: str = ""
    flags: Mapping[Role, str] = field(default_factory=dict)
    short: str = ""
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False
    field_name: str = ""
    overruled_by: str = ""
    example: Value = None

    @property
    def name(self) -> str:
        """``table.key``, as ``tenure config show`` says it."""
        return f"{self.table}.{self.key}"

    @property
    def variable(self) -> str:
        """The environment variable: TENURE_ADDRESS, TENURE_WORKER_SLOTS."""
        owner = "" if self.table == Role.CLIENT.value else f"{self.table}_"
        return f"TENURE_{owner}{self.key}".upper()

    @property
    def attribute(self) -> str:
        """Its name in Python."""
        return self.field_name or self.key

    def flag(self, role: Role) -> str:
        """The long flag; empty if the role takes it as its argument."""
        return self.flags.get(role, f"--{self.key.replace('_', '-')}")


_CLIENTS: Final = (Role.CLIENT, Role.WORKER)
_MASTER, _WORKER, _DEV = (Role.MASTER,), (Role.WORKER,), (Role.DEV,)
_LISTEN: Final = "127.0.0.1:7400"

SETTINGS: Final = (
    # ------------------------------------------------------------------ whoever calls a cluster
    Setting(
        table="client",
        key="address",
        kind=Kind.ADDRESSES,
        help="Any masters of the cluster; one that answers names the others.",
        roles=_CLIENTS,
        default=DEFAULT_ADDRESS,
        metavar="HOST:PORT[,…]",
        flags={Role.WORKER: "--master"},
    ),
    Setting(
        table="client",
        key="timeout",
        kind=Kind.SECONDS,
        help="Limit of one operation, failovers included.",
        roles=(Role.CLIENT,),
        default=10.0,
        metavar="SECONDS",
        minimum=0.001,
    ),
    Setting(
        table="client",
        key="token_file",
        kind=Kind.PATH,
        help="Has the cluster's bearer token in its first line; read again when it changes.",
        roles=_CLIENTS,
        unset="no token, unless TENURE_TOKEN has one",
        metavar="FILE",
        overruled_by="TENURE_TOKEN",
        example="/etc/tenure/token",
    ),
    Setting(
        table="client",
        key="tls_ca",
        kind=Kind.PATH,
        help="Certificates (PEM) of the authorities that issue masters' certificates.",
        roles=_CLIENTS,
        unset="plaintext",
        metavar="FILE",
        example="/etc/tenure/ca.pem",
    ),
    Setting(
        table="client",
        key="tls_cert",
        kind=Kind.PATH,
        help="One's own certificate (PEM), for masters that demand one.",
        roles=_CLIENTS,
        unset="none",
        metavar="FILE",
        example="/etc/tenure/client.pem",
    ),
    Setting(
        table="client",
        key="tls_key",
        kind=Kind.PATH,
        help="The private key of that certificate.",
        roles=_CLIENTS,
        unset="none",
        metavar="FILE",
        example="/etc/tenure/client.key",
    ),
    # ----------------------------------------------------------------------------------- masters
    Setting(
        table="master",
        key="store",
        kind=Kind.TEXT,
        help="sqlite:///path, or etcd://host:port,…[/prefix].",
        roles=(Role.MASTER, Role.OPERATOR),
        metavar="URL",
        required=True,
        example="etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379",
    ),
    Setting(
        table="master",
        key="name",
        kind=Kind.TEXT,
        help="For people; unique in the cluster.",
        roles=_MASTER,
        unset="made from host and port",
        metavar="NAME",
        example="master-1",
    ),
    Setting(
        table="master",
        key="cluster",
        kind=Kind.TEXT,
        help="Refuse a store that is not this cluster's.",
        roles=_MASTER,
        unset="any cluster",
        metavar="ID",
        example="0199c3f2-8a51-7c3e-9d1b-5e2f4a6b7c8d",
    ),
    Setting(
        table="master",
        key="listen",
        kind=Kind.TEXT,
        help="Where to listen; port 0: any.",
        roles=_MASTER,
        default=_LISTEN,
        metavar="HOST:PORT",
    ),
    Setting(
        table="master",
        key="advertise",
        kind=Kind.TEXT,
        help="Where others reach it.",
        roles=_MASTER,
        unset="as it listens",
        metavar="HOST:PORT",
        example="10.0.0.1:7400",
    ),
    Setting(
        table="master",
        key="partitions",
        kind=Kind.INTEGER,
        help="For a new store; fixed for ever.",
        roles=_MASTER,
        unset="what the store has; 1 for a new one",
        metavar="N",
        minimum=1,
        maximum=PARTITIONS_MAX,
        example=4,
    ),
    Setting(
        table="master",
        key="memory_max",
        kind=Kind.BYTES,
        help="Payloads, results and errors it keeps, all partitions together, as 512MiB or 2GiB.",
        roles=_MASTER,
        unset="1GiB",
        metavar="BYTES",
        minimum=1024**2,
        field_name="memory_bytes_max",
        example="4GiB",
    ),
    Setting(
        table="master",
        key="quarantine_failures",
        kind=Kind.INTEGER,
        help="Of a worker's last 20 attempts, so many failures quarantine it; 0: never.",
        roles=_MASTER,
        default=16,
        metavar="N",
        minimum=0,
        maximum=20,
    ),
    Setting(
        table="master",
        key="store_quota",
        kind=Kind.BYTES,
        help="How large the store may grow; for etcd before 3.6: its --quota-backend-bytes.",
        roles=_MASTER,
        unset="what etcd tells; 2GiB for one that does not; none for SQLite",
        metavar="BYTES",
        minimum=1024**2,
        field_name="store_quota_bytes",
        example="8GiB",
    ),
    Setting(
        table="master",
        key="insecure",
        kind=Kind.SWITCH,
        help="Listen where others can reach it without TLS and a token.",
        roles=_MASTER,
        default=False,
    ),
    Setting(
        table="master",
        key="tls_cert",
        kind=Kind.PATH,
        help="Its certificate with its chain (PEM); read again when it changes.",
        roles=_MASTER,
        unset="plaintext",
        metavar="FILE",
        example="/etc/tenure/master.pem",
    ),
    Setting(
        table="master",
        key="tls_key",
        kind=Kind.PATH,
        help="The private key of that certificate, without a passphrase.",
        roles=_MASTER,
        unset="plaintext",
        metavar="FILE",
        example="/etc/tenure/master.key",
    ),
    Setting(
        table="master",
        key="tls_client_ca",
        kind=Kind.PATH,
        help="Demand a certificate of these authorities (PEM) from whoever calls.",
        roles=_MASTER,
        unset="callers need no certificate",
        metavar="FILE",
        example="/etc/tenure/ca.pem",
    ),
    Setting(
        table="master",
        key="tls_ca",
        kind=Kind.PATH,
        help="Authorities of the other masters' certificates (PEM), for calls among masters.",
        roles=_MASTER,
        unset="those of tls_client_ca; without them, its own certificate",
        metavar="FILE",
        example="/etc/tenure/ca.pem",
    ),
    Setting(
        table="master",
        key="token_file",
        kind=Kind.PATH,
        help="Demand one of the bearer tokens in this file, one a line, from whoever calls.",
        roles=_MASTER,
        unset="callers need no token",
        metavar="FILE",
        example="/etc/tenure/token",
    ),
    # ----------------------------------------------------------------------------------- workers
    Setting(
        table="worker",
        key="app",
        kind=Kind.TEXT,
        help="Module of @job functions to serve.",
        roles=_WORKER,
        metavar="APP",
        flags={Role.WORKER: ""},
        required=True,
        example="app.jobs",
    ),
    Setting(
        table="worker",
        key="name",
        kind=Kind.TEXT,
        help="For people.",
        roles=_WORKER,
        unset="made from host and process id",
        metavar="NAME",
        example="worker-1",
    ),
    Setting(
        table="worker",
        key="queues",
        kind=Kind.LIST,
        help="Serve only these.",
        roles=_WORKER,
        unset="all",
        metavar="Q,…",
        example=["default", "media"],
    ),
    Setting(
        table="worker",
        key="slots",
        kind=Kind.INTEGER,
        help="Jobs to run at once, those of pools not counted.",
        roles=_WORKER,
        default=10,
        metavar="N",
        minimum=1,
    ),
    Setting(
        table="worker",
        key="pools",
        kind=Kind.COUNTS,
        help="Slots of its own for a class of jobs (@job(pool=…), or an executor); 0: none of them "
        "here; the flag may be given several times.",
        roles=_WORKER,
        unset="none",
        metavar="NAME=N",
        flags={Role.WORKER: "--pool"},
        example={"cpu": 2, "io": 50},
    ),
    Setting(
        table="worker",
        key="recycle_jobs",
        kind=Kind.INTEGER,
        help="Replace a child process that has run so many process jobs.",
        roles=_WORKER,
        unset="never",
        metavar="N",
        minimum=1,
        example=10_000,
    ),
    Setting(
        table="worker",
        key="recycle_memory",
        kind=Kind.BYTES,
        help="Replace a child process that has so much more memory than at its start.",
        roles=_WORKER,
        unset="never",
        metavar="BYTES",
        minimum=1024**2,
        field_name="recycle_bytes",
        example="512MiB",
    ),
    Setting(
        table="worker",
        key="labels",
        kind=Kind.PAIRS,
        help="What it has, for jobs that ask for it; the flag may be given several times.",
        roles=_WORKER,
        unset="none",
        metavar="K=V",
        flags={Role.WORKER: "--label"},
        example={"zone": "eu"},
    ),
    Setting(
        table="worker",
        key="build_id",
        kind=Kind.TEXT,
        help="Which build of the application this is.",
        roles=_WORKER,
        unset="none",
        metavar="V",
        example="2025.11.1",
    ),
    Setting(
        table="worker",
        key="drain_timeout",
        kind=Kind.SECONDS,
        help="On TERM, let jobs go on for so long before they are handed back.",
        roles=_WORKER,
        default=30.0,
        metavar="SECONDS",
        minimum=0,
        field_name="drain_timeout_s",
    ),
    Setting(
        table="worker",
        key="lost_slots_max",
        kind=Kind.INTEGER,
        help="Restart with more jobs than this that were given up and still run.",
        roles=_WORKER,
        unset="a quarter of the slots, at least 2",
        metavar="N",
        minimum=0,
        example=4,
    ),
    Setting(
        table="worker",
        key="memory_headroom",
        kind=Kind.BYTES,
        help="Take no job while the machine or the container has less memory left, as 512MiB.",
        roles=_WORKER,
        unset="whatever is left",
        metavar="BYTES",
        minimum=1024**2,
        field_name="memory_headroom_bytes",
        example="512MiB",
    ),
    Setting(
        table="worker",
        key="memory_max",
        kind=Kind.BYTES,
        help="Take no job while the worker itself takes more memory; restart if nothing runs then.",
        roles=_WORKER,
        unset="however large it is",
        metavar="BYTES",
        minimum=1024**2,
        field_name="memory_bytes_max",
        example="1GiB",
    ),
    Setting(
        table="worker",
        key="health",
        kind=Kind.TEXT,
        help="Answer GET /livez, /readyz and /metrics there; port 0: any.",
        roles=_WORKER,
        unset="nowhere",
        metavar="HOST:PORT",
        example="127.0.0.1:7480",
    ),
    Setting(
        table="worker",
        key="insecure",
        kind=Kind.SWITCH,
        help="Let --health listen where others can reach it.",
        roles=_WORKER,
        default=False,
    ),
    Setting(
        table="worker",
        key="processes",
        kind=Kind.RANGE,
        help="Run so many worker processes under a supervisor: N, or MIN:MAX by the backlog.",
        roles=_WORKER,
        unset="one, without a supervisor",
        metavar="MIN:MAX",
        minimum=1,
        maximum=256,
        example="2:8",
    ),
    Setting(
        table="worker",
        key="reload",
        kind=Kind.SWITCH,
        help="Start it again when a source file below the current folder changes.",
        roles=_WORKER,
        default=False,
    ),
    # ------------------------------------------------------------ a whole cluster on one machine
    Setting(
        table="dev",
        key="app",
        kind=Kind.TEXT,
        help="Module of @job functions to serve.",
        roles=_DEV,
        unset="a master alone",
        metavar="APP",
        flags={Role.DEV: ""},
        example="app.jobs",
    ),
    Setting(
        table="dev",
        key="data_dir",
        kind=Kind.PATH,
        help="Where the jobs are kept.",
        roles=_DEV,
        default=".tenure",
        metavar="DIR",
    ),
    Setting(
        table="dev",
        key="listen",
        kind=Kind.TEXT,
        help="Where its master listens; port 0: any.",
        roles=_DEV,
        default=_LISTEN,
        metavar="HOST:PORT",
    ),
    Setting(
        table="dev",
        key="workers",
        kind=Kind.INTEGER,
        help="Worker processes.",
        roles=_DEV,
        default=1,
        metavar="N",
        minimum=0,
        maximum=64,
    ),
    Setting(
        table="dev",
        key="slots",
        kind=Kind.INTEGER,
        help="Jobs that each worker runs at once.",
        roles=_DEV,
        unset="a worker's own default",
        metavar="N",
        minimum=1,
        example=4,
    ),
    Setting(
        table="dev",
        key="ephemeral",
        kind=Kind.SWITCH,
        help="Keep nothing: use a directory that is removed.",
        roles=_DEV,
        default=False,
    ),
    Setting(
        table="dev",
        key="reload",
        kind=Kind.SWITCH,
        help="Start workers again when a source file below the current folder changes.",
        roles=_DEV,
        default=False,
    ),
    Setting(
        table="dev",
        key="insecure",
        kind=Kind.SWITCH,
        help="Allow an address that others can reach.",
        roles=_DEV,
        default=False,
    ),
)

#: What the tables of a file are about.
TABLES: Final = {
    "client": "Whoever calls a cluster: commands such as `tenure jobs`, and workers.",
    "master": "`tenure master`.",
    "worker": "`tenure worker`; where its masters are is in [client].",
    "dev": "`tenure dev`, which reads nothing else.",
}


def settings_of(role: Role, settings: Iterable[Setting] = SETTINGS) -> list[Setting]:
    """What a role reads, in the table's order."""
    return [setting for setting in settings if role in setting.roles]
