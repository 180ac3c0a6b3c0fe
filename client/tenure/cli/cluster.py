"""``tenure cluster``: the masters, who leads what, the workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import click

from tenure.cli import exits, store_tools, terminal
from tenure.cli.command import Group, Takes, argument, command
from tenure.cli.invocation import Invocation
from tenure.cli.output import Format, View, message_data, print_json, print_json_line, print_table

if TYPE_CHECKING:
    from tenure.client import AsyncClient, TenureError
    from tenure.v1 import cluster_pb2

    Status = tuple[Sequence[cluster_pb2.GetStatusResponse], Mapping[str, TenureError]]

Partition = Annotated[
    int,
    argument(metavar="PARTITION", type=click.IntRange(min=0), help="Its number, from 0 on."),
]
Master = Annotated[
    str, argument(metavar="[MASTER]", required=False, help="Who should lead it; its --name.")
]

app = Group(
    "cluster",
    help="The cluster: masters, leaders, workers.",
    no_args_is_help=True,
    examples=[("tenure cluster status", "who leads what, and which workers there are")],
)


@command(
    "status",
    group=app,
    takes=Takes.OUTPUT | Takes.WATCH,
    examples=[
        ("tenure cluster status", "partitions and workers of each master"),
        ("tenure cluster status --watch", "the same, as it changes"),
        ("tenure cluster status -o json", "the API's own answers"),
    ],
)
def status(cli: Invocation) -> int:
    """Shows each master's partitions and workers. Exits 4 if a master does not answer."""

    async def fetch(client: AsyncClient) -> Status:
        return await client.cluster.status()

    def show(found: Status) -> int:
        masters, failed = found
        match cli.form:
            case Format.TABLE:
                _show_tables(masters, headers=cli.headers)
                if masters and not any(master.workers for master in masters):
                    cli.say(
                        "no worker is connected; to start one: "
                        f"tenure worker APP --master {masters[0].address}"
                    )
            case Format.JSON:
                print_json([message_data(master) for master in masters])
            case Format.JSONL:
                for master in masters:
                    print_json_line(message_data(master))
            case Format.NAME:
                for master in masters:
                    print(terminal.harmless(master.name))
        for error in failed.values():
            exits.explain(error)
        return exits.UNAVAILABLE if failed else exits.OK

    return cli.answer(fetch, show)


@command(
    "members",
    group=app,
    takes=Takes.OUTPUT | Takes.WATCH,
    examples=[("tenure cluster members -o name", "the masters' names alone")],
)
def members(cli: Invocation) -> int:
    """Lists the masters that live."""

    async def fetch(client: AsyncClient) -> Sequence[cluster_pb2.Member]:
        return await client.cluster.members()

    return cli.answer(fetch, lambda found: cli.show(_MEMBERS, found))


@command(
    "transfer-leader",
    group=app,
    takes=Takes.OUTPUT,
    examples=[
        ("tenure cluster transfer-leader 0", "to whom its leader chooses"),
        ("tenure cluster transfer-leader 2 m3", "to the master named m3, which keeps it"),
    ],
)
def transfer_leader(cli: Invocation, partition: Partition, master: Master = "") -> int:
    """Has a partition's leader hand it over, in order: nothing is lost, and jobs go on."""

    async def ask(client: AsyncClient) -> cluster_pb2.TransferLeaderResponse:
        return await client.cluster.transfer_leader(partition, master)

    def show(found: cluster_pb2.TransferLeaderResponse) -> int:
        match cli.form:
            case Format.JSON:
                print_json(message_data(found))
            case Format.JSONL:
                print_json_line(message_data(found))
            case Format.NAME:
                print(terminal.harmless(found.master))
            case Format.TABLE if found.master == found.from_master:
                print(f"{terminal.harmless(found.master)} leads partition {partition} already")
            case Format.TABLE:
                print(
                    f"{terminal.harmless(found.from_master)} has handed partition {partition} "
                    f"over to {terminal.harmless(found.master)}"
                )
        return exits.OK

    return cli.answer(ask, show)


for _command in store_tools.COMMANDS:
    app.add_command(_command)


def _show_tables(masters: Sequence[cluster_pb2.GetStatusResponse], *, headers: bool) -> None:
    from tenure.v1 import cluster_pb2

    rows: list[Sequence[object]] = []
    workers: dict[str, cluster_pb2.WorkerStatus] = {}
    led = {p.partition: p.applied_seq for m in masters for p in m.partitions if p.token.revision}
    for master in masters:
        for partition in master.partitions:
            token = partition.token
            rows.append(
                (
                    master.name,
                    master.address,
                    partition.partition,
                    cluster_pb2.PartitionRole.Name(partition.role).removeprefix("PARTITION_ROLE_"),
                    f"{token.epoch}.{token.revision}" if token.revision else "-",
                    _behind(partition, led.get(partition.partition, 0)),
                    partition.jobs,
                    partition.ready,
                    partition.running,
                    _share(partition.payload_bytes, partition.payload_bytes_max),
                    partition.detail,
                )
            )
        for worker in master.workers:
            # A worker keeps a session with every master; the busiest view of it is the leader's.
            known = workers.get(worker.incarnation)
            if known is None or worker.leases > known.leases:
                workers[worker.incarnation] = worker
    print_table(
        (
            "MASTER",
            "ADDRESS",
            "PARTITION",
            "ROLE",
            "TERM",
            "STANDBY",
            "JOBS",
            "READY",
            "RUNNING",
            "BYTES",
            "DETAIL",
        ),
        rows,
        headers=headers,
    )
    _show_store(masters)
    print()
    print_table(
        ("WORKER", "SLOTS", "LEASES", "HEARTBEAT", "DRAINING", "JOBS"),
        [
            (
                worker.name,
                worker.slots,
                worker.leases,
                f"{worker.heartbeat_age_ms / 1000:.1f} s ago",
                "yes" if worker.draining else "no",
                ",".join(worker.job_names),
            )
            for worker in sorted(workers.values(), key=lambda each: each.name)
        ],
        headers=headers,
    )


def _behind(partition: cluster_pb2.PartitionStatus, applied_seq: int) -> str:
    """How many events a standby has yet to replay, as far as its leader had come."""
    if partition.token.revision or not partition.applied_seq:
        return "-"
    return f"{max(0, applied_seq - partition.applied_seq):,} behind"


def _show_store(masters: Sequence[cluster_pb2.GetStatusResponse]) -> None:
    """How full the store is, as one of them saw it, and what each has to complain about."""
    for space in [master.space for master in masters if master.HasField("space")][:1]:
        file = 100 * space.file_bytes / space.quota_bytes
        print(f"\nstore: {_share(space.used_bytes, space.quota_bytes)}, its file {file:.0f}%")
    for master in masters:
        for alarm in master.alarms:
            print(f"alarm: {terminal.harmless(master.name)}: {terminal.harmless(alarm)}")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}% of {_size(whole)}" if whole else "-"


def _size(count: int) -> str:
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count >= _UNITS[unit]:
            return f"{count / _UNITS[unit]:.3g} {unit}"
    return f"{count} B"


_UNITS: Final = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_MEMBERS: View[cluster_pb2.Member] = View(
    ("NAME", "ADDRESS", "VERSION", "INCARNATION"),
    row=lambda member: (member.name, member.address, member.version, member.incarnation),
    data=message_data,
    name=lambda member: member.name,
)
