"""``tenure cluster``: the masters, who leads what, the workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from tenure.cli import exits
from tenure.cli.flags import TIMEOUT_S, Address, Output, Timeout
from tenure.cli.output import Format, View, message_data, print_json, print_json_line, print_table
from tenure.cli.session import with_client

if TYPE_CHECKING:
    from tenure.client import AsyncClient
    from tenure.v1 import cluster_pb2

app = typer.Typer(
    help="The cluster: masters, leaders, workers.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def status(
    output: Output = Format.TABLE,
    address: Address = None,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Shows each master's partitions and workers. Exits 4 if a master does not answer."""

    async def work(client: AsyncClient) -> int:
        masters, failed = await client.cluster.status()
        match output:
            case Format.TABLE:
                _show_tables(masters)
            case Format.JSON:
                print_json([message_data(master) for master in masters])
            case Format.JSONL:
                for master in masters:
                    print_json_line(message_data(master))
            case Format.NAME:
                for master in masters:
                    print(master.name)
        for error in failed.values():
            exits.explain(error)
        return exits.UNAVAILABLE if failed else exits.OK

    return with_client(address, timeout, work)


@app.command()
def members(
    output: Output = Format.TABLE,
    address: Address = None,
    timeout: Timeout = TIMEOUT_S,
) -> int:
    """Lists the masters that live."""

    async def work(client: AsyncClient) -> int:
        _MEMBERS.show(await client.cluster.members(), output)
        return exits.OK

    return with_client(address, timeout, work)


def _show_tables(masters: Sequence[cluster_pb2.GetStatusResponse]) -> None:
    from tenure.v1 import cluster_pb2

    rows: list[Sequence[object]] = []
    workers: dict[str, cluster_pb2.WorkerStatus] = {}
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
                    partition.jobs,
                    partition.ready,
                    partition.running,
                    partition.detail,
                )
            )
        for worker in master.workers:
            # A worker keeps a session with every master; the busiest view of it is the leader's.
            known = workers.get(worker.incarnation)
            if known is None or worker.leases > known.leases:
                workers[worker.incarnation] = worker
    print_table(
        ("MASTER", "ADDRESS", "PARTITION", "ROLE", "TERM", "JOBS", "READY", "RUNNING", "DETAIL"),
        rows,
    )
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
    )


_MEMBERS: View[cluster_pb2.Member] = View(
    ("NAME", "ADDRESS", "VERSION", "INCARNATION"),
    row=lambda member: (member.name, member.address, member.version, member.incarnation),
    data=message_data,
    name=lambda member: member.name,
)
