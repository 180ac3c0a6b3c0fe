"""``tenure cluster backup|restore|raise-epoch|clear-halt|free-space``: against the loss of jobs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from tenure.cli import exits, terminal
from tenure.cli.command import Takes, argument, command, option, switch
from tenure.cli.invocation import Invocation
from tenure.cli.output import Format, message_data, print_json, print_json_line
from tenure.cli.settings import Role

if TYPE_CHECKING:
    from tenure.master.journal.backup import Contents

File = Annotated[str, argument(metavar="FILE", help="The backup.", type=click.Path())]
ColdStore = Annotated[
    str,
    option(
        "--store",
        metavar="URL",
        help="Read this store instead of asking a master; SQLite's only while no master runs.",
    ),
]
Partition = Annotated[
    int, argument(metavar="PARTITION", help="Its number.", type=click.IntRange(min=0))
]
NewId = Annotated[
    bool, switch("--new-cluster-id", help="Make a copy that nobody takes for the cluster itself.")
]


@command(
    "backup",
    takes=Takes.OUTPUT,
    examples=[
        ("tenure cluster backup jobs.backup", "while the cluster runs; any master gives it"),
        ("tenure cluster backup jobs.backup --store sqlite:///var/lib/tenure/jobs.db", "cold"),
    ],
)
def backup(cli: Invocation, file: File, store: ColdStore = "") -> int:
    """Writes all jobs into one checked file. A file that is there already is replaced at the end.

    Each partition is whole up to one moment; the moments of several lie seconds apart. It holds all
    payloads and results, so only its owner may read it.
    """
    with exits.extra("master"):
        from tenure.master import maintenance

    target = Path(file)
    part = target.with_name(target.name + ".part")
    try:
        if store:
            asyncio.run(_write(maintenance.backup(store), part))
        else:
            cli.with_client(lambda client: _write(client.cluster.backup(), part))
        contents = _checked(part)
        _publish(part, target)
    finally:
        # After a success it has another name; a place that took no file has none to remove.
        with suppress(OSError):
            part.unlink()
    _show(cli, target, contents)
    return exits.OK


@command(
    "restore",
    role=Role.OPERATOR,
    takes=Takes.OUTPUT | Takes.DRY_RUN,
    examples=[
        ("tenure cluster restore jobs.backup --store sqlite:///var/lib/tenure/new.db", "one node"),
        ("tenure cluster restore jobs.backup --store etcd://10.0.0.1:2379/new", "a cluster"),
        ("tenure cluster restore jobs.backup --store sqlite:///x --dry-run", "only check the file"),
    ],
)
def restore(cli: Invocation, file: File, new_cluster_id: NewId = False) -> int:
    """Makes a new store of a backup, after checking all of it, and raises the cluster's epoch.

    Stop all masters and workers of before first: what they still hold is void from then on.
    """
    with exits.extra("master"):
        from tenure.master import maintenance

    path, store = Path(file), _store(cli)
    if cli.dry_run:
        _show(cli, path, _checked(path))
        return exits.OK
    made = asyncio.run(maintenance.restore(store, path, new_cluster_id=new_cluster_id))
    _show(cli, path, made.contents, cluster_id=made.cluster_id, epoch=made.epoch)
    cli.say(f"restored into {store}; start masters with --store {store}")
    return exits.OK


@command(
    "raise-epoch",
    role=Role.OPERATOR,
    takes=Takes.CONFIRM,
    examples=[
        ("tenure cluster raise-epoch --store etcd://10.0.0.1:2379", "etcd was restored by itself"),
    ],
)
def raise_epoch(cli: Invocation) -> int:
    """Fences all masters and workers of before, for a store that was set back by other means.

    Stop them first. A master refuses such a store with STORE_MISMATCH until this has been done.
    """
    with exits.extra("master"):
        from tenure.master import maintenance

    cli.confirm(
        "Have all masters and workers of before been stopped?",
        "it ends the terms of all masters and voids what workers hold",
    )
    epoch = asyncio.run(maintenance.raise_epoch(_store(cli)))
    print(epoch, flush=True)
    cli.say(f"the epoch is {epoch} now; start the masters")
    return exits.OK


@command(
    "clear-halt",
    role=Role.OPERATOR,
    takes=Takes.CONFIRM,
    examples=[
        ("tenure cluster clear-halt 0 --store etcd://10.0.0.1:2379", "once its cause is gone"),
    ],
)
def clear_halt(cli: Invocation, partition: Partition) -> int:
    """Lets masters lead a halted partition again. Nothing of its journal is changed.

    A cause that is still there halts it again. SQLite: stop the master first.
    """
    with exits.extra("master"):
        from tenure.master import maintenance

    cli.confirm(
        f"Has what halted partition {partition} been put right?",
        f"it lets masters lead partition {partition} again",
    )
    record = asyncio.run(maintenance.clear_halt(_store(cli), partition))
    print(terminal.harmless(record.detail), flush=True)
    cli.say(f"partition {partition} may be led again; masters look every 5 s")
    return exits.OK


@command(
    "free-space",
    role=Role.OPERATOR,
    examples=[
        ("tenure cluster free-space --store etcd://10.0.0.1:2379,10.0.0.2:2379", "each member"),
    ],
)
def free_space(cli: Invocation) -> int:
    """Compacts etcd, defragments each member named in the URL, and disarms the NOSPACE alarm.

    A member answers nothing while it is defragmented, so they take turns.
    """
    with exits.extra("master"):
        from tenure.master import maintenance

    for member in asyncio.run(maintenance.free_space(_store(cli), cli.say)):
        print(f"{member.address} {member.before} -> {member.after} bytes", flush=True)
    return exits.OK


COMMANDS = (backup, restore, raise_epoch, clear_halt, free_space)


def _store(cli: Invocation) -> str:
    url: str = cli.config.values(Role.MASTER.value)["store"]
    return url


async def _write(pieces: AsyncIterator[bytes], path: Path) -> None:
    """Puts the pieces into a new file, durably. It is checked before it gets its name."""
    with _writing(path):
        # What a crash has left may be readable for others.
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            async for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())


def _publish(made: Path, path: Path) -> None:
    """Gives the finished file its name, durably."""
    with _writing(path):
        made.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tells a file that cannot be written as what it is: the command's argument is wrong."""
    from tenure.protocol.errors import Rejected
    from tenure.protocol.refusal import Reason

    try:
        yield
    except OSError as error:
        raise Rejected(
            f"expected to write {path}, but {error.strerror or error}",
            reason=Reason.INVALID_ARGUMENT,
            metadata={"path": str(path)},
            field="file",
        ) from error


def _checked(path: Path) -> Contents:
    with exits.extra("master"):
        from tenure.master.journal.backup import BackupFile
    return BackupFile(path).verify()


def _show(cli: Invocation, path: Path, contents: Contents, **more: Any) -> None:
    header, totals = contents.header, contents.totals
    data = {
        "file": str(path),
        **message_data(header),
        **more,
        "records": totals.records,
        "bytes": totals.bytes,
        "hash": bytes(totals.hash).hex(),
        "parts": [message_data(part) for part in contents.partitions],
    }
    match cli.form:
        case Format.JSON:
            print_json(data)
        case Format.JSONL:
            print_json_line(data)
        case Format.NAME:
            print(path)
        case Format.TABLE:
            print(
                f"{path}: cluster {data.get('cluster_id', header.cluster_id)},"
                f" {header.partitions} partitions, {totals.records} records,"
                f" {totals.bytes} bytes, whole",
                flush=True,
            )
