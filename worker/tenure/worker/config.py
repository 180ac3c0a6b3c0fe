"""What a worker is told at its start."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tenure.protocol.tls import Tls


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """How to run a worker.

    Attributes:
        app: The module whose jobs it serves, for example ``app.jobs``.
        masters: Addresses of masters; one that answers is enough, it names the others.
        name: A label for people; empty: made from the host's name and the process id.
        queues: The queues it serves; empty: all.
        slots: How many jobs run at once, those of ``pools`` not counted.
        pools: The same by class of jobs, for classes with slots of their own.
        recycle_jobs: A child process is replaced when it has run so many jobs; None: never.
        recycle_bytes: The same when it has so much more memory than at its start.
        labels: For people.
        build_id: The version of the application.
        drain_timeout_s: How long jobs may go on after SIGTERM before they are handed back.
        health: Where it answers probes and tells its metrics, ``HOST:PORT``; None: nowhere.
        insecure: Allow ``health`` a host that others can reach.
        processes: ``MIN:MAX``: a supervisor runs so many worker processes; None: this is one.
        reload: A supervisor starts the worker again when a source file changes.
        lost_slots_max: Restart with more jobs than this that were given up and still run; None: a
            quarter of the slots, at least 2.
        memory_headroom_bytes: Take no job while less memory than this is available; None: whatever.
        memory_bytes_max: Take no job while the process is larger than this; None: whatever.
        token: The cluster's bearer token, or the path of its file; None: as the environment says.
        tls: Files for TLS; None: as the environment says.
    """

    app: str
    masters: list[str]
    name: str = ""
    queues: list[str] = field(default_factory=list)
    slots: int = 10
    pools: Mapping[str, int] = field(default_factory=dict)
    recycle_jobs: int | None = None
    recycle_bytes: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    build_id: str = ""
    drain_timeout_s: float = 30.0
    health: str | None = None
    insecure: bool = False
    processes: str | None = None
    reload: bool = False
    lost_slots_max: int | None = None
    memory_headroom_bytes: int | None = None
    memory_bytes_max: int | None = None
    token: str | Path | None = None
    tls: Tls | None = None
