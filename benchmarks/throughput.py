"""Jobs a second and CPU per job, on each store: the bare pipe first, then Tenure beside it.

One client, one master, one worker, 100 bytes of payload, a job that does nothing. CPU is user and
system time of those processes while the measured jobs ran; etcd's own is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from benchmarks.process import Process, ProcessGroup, workplace
from benchmarks.store import StoreKind, fresh_store
from benchmarks.table import Line, at_least, at_most

#: Of the worker.
SLOTS: Final = 512
#: A run that takes longer has failed.
END_S: Final = 300.0
_PIPE_CPU_US: Final = 45.0
_TENURE_CPU_US: Final = 60.0
_RATIO: Final = 0.3
_RATE: Final = 15_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """What one run showed."""

    jobs_per_s: float
    client_us: float
    master_us: float
    worker_us: float
    violations: tuple[str, ...] = ()

    @property
    def total_us(self) -> float:
        """CPU per job over all processes."""
        return self.client_us + self.master_us + self.worker_us

    def split(self) -> str:
        """The total and its parts, for the table."""
        parts = f"{self.client_us:.1f} + {self.master_us:.1f} + {self.worker_us:.1f}"
        return f"{parts} = {self.total_us:.1f} µs"


def measure(kind: StoreKind, jobs: int) -> tuple[list[Line], list[str]]:
    """Measures both on one store. Returns the lines and the broken promises."""
    pipe = measure_pipe(kind, jobs)
    lines = [
        Line(what="pipe, jobs/s", value=f"{pipe.jobs_per_s:,.0f}"),
        Line(
            what="pipe, CPU/job: client + master + worker",
            value=pipe.split(),
            target=f"≤ {_PIPE_CPU_US:g} µs",
            met=pipe.total_us <= _PIPE_CPU_US,
        ),
    ]
    if kind == "none":
        return lines, []
    tenure = measure_tenure(kind, jobs)
    ratio = tenure.jobs_per_s / pipe.jobs_per_s
    lines += [
        at_least("Tenure, jobs/s", tenure.jobs_per_s, _RATE, ""),
        Line(
            what="Tenure, CPU/job: client + master + worker",
            value=tenure.split(),
            target=f"≤ {_TENURE_CPU_US:g} µs",
            met=tenure.total_us <= _TENURE_CPU_US,
        ),
        at_least("Tenure / pipe, jobs/s", ratio, _RATIO, "", digits=2),
        at_most("Tenure / pipe, CPU", tenure.total_us / pipe.total_us, 1 / _RATIO, "×"),
        Line(
            what="S1, S3, checksums: broken",
            value=str(len(tenure.violations)),
            target="0",
            met=not tenure.violations,
            breaks=True,
        ),
    ]
    return lines, list(tenure.violations)


def measure_pipe(kind: StoreKind, jobs: int) -> Throughput:
    """The bare pipe."""
    with workplace() as folder, fresh_store(kind, folder) as store, ProcessGroup(folder) as group:
        master = group.start("pipe-master", "benchmarks.pipe.master", "--store", store)
        address = master.expect("serving")["address"]
        worker = group.start("pipe-worker", "benchmarks.pipe.worker", "--master", address)
        worker.expect("registered")
        client = group.start("pipe-client", "benchmarks.pipe.client", *_client(address, jobs))
        # The client checks every result itself and fails on a wrong one.
        return sample(client, master, worker)


def measure_tenure(kind: StoreKind, jobs: int) -> Throughput:
    """The same jobs through Tenure, read back and checked at the end."""
    with workplace() as folder, fresh_store(kind, folder) as store, ProcessGroup(folder) as group:
        master = group.tenure("master", "master", "--store", store, "--listen", "127.0.0.1:0")
        address = master.expect("serving")["address"]
        master.expect("leader")
        worker = group.tenure(
            "worker", "worker", "benchmarks.jobs", "--master", address, "--slots", str(SLOTS)
        )
        worker.expect("registered")
        client = group.start("client", "benchmarks.client", *_client(address, jobs))
        found = sample(client, master, worker)
        checked = client.expect("checked", timeout_s=END_S)
        more = checked["count"] - len(checked["violations"])
        violations = checked["violations"] + ([f"and {more} more"] if more else [])
        return replace(found, violations=tuple(violations))


def sample(client: Process, master: Process, worker: Process, **fields: str) -> Throughput:
    """Measures from the client's next `begin` to its `end`, both with these fields."""
    client.expect("begin", timeout_s=END_S, **fields)
    before = [process.cpu_seconds() for process in (client, master, worker)]
    end = client.expect("end", timeout_s=END_S, **fields)
    after = [process.cpu_seconds() for process in (client, master, worker)]
    used = [(late - early) / end["jobs"] * 1e6 for early, late in zip(before, after, strict=True)]
    return Throughput(
        jobs_per_s=end["jobs"] / end["seconds"],
        client_us=used[0],
        master_us=used[1],
        worker_us=used[2],
    )


def _client(address: str, jobs: int) -> tuple[str, ...]:
    return ("--master", address, "--jobs", str(jobs))
