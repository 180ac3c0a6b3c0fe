"""``tenure dev``, ``tenure master`` and ``tenure worker``: the long-running commands."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from tenure.cli.flags import comma_separated, parse_label

Listen = Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0: any.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Allow an address that others can reach.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more, to stderr.")]


def dev(
    app: Annotated[
        str | None, typer.Argument(metavar="[APP]", help="Module of @job functions to serve.")
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Where the jobs are kept.")] = Path(".tenure"),
    listen: Listen = "127.0.0.1:7400",
    workers: Annotated[int, typer.Option(min=0, max=64, help="Worker processes.")] = 1,
    slots: Annotated[int | None, typer.Option(min=1, help="Jobs each runs at once.")] = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Keep nothing: a directory that is removed.")
    ] = False,
    insecure: Insecure = False,
    verbose: Verbose = False,
) -> int:
    """Runs a whole cluster here: a master on an embedded store, and a worker for APP.

    Example: tenure dev app.jobs
    """
    from tenure.cli import dev as tree

    return tree.run(
        tree.DevConfig(
            app=app,
            data_dir=data_dir,
            listen=listen,
            workers=workers if app else 0,
            slots=slots,
            ephemeral=ephemeral,
            insecure=insecure,
            verbose=verbose,
        )
    )


def master(
    store: Annotated[
        str, typer.Option(metavar="URL", help="sqlite:///path or etcd://host:port,…[/prefix]")
    ],
    name: Annotated[str, typer.Option(help="For people; unique in the cluster.")] = "",
    cluster: Annotated[
        str | None, typer.Option(help="Refuse a store that is not this cluster's.")
    ] = None,
    listen: Listen = "127.0.0.1:7400",
    advertise: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where others reach it.")
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, max=4096, help="For a new store; fixed for ever.")
    ] = None,
    insecure: Insecure = False,
    verbose: Verbose = False,
) -> int:
    """Runs a master.

    Example: tenure master --store etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
    """
    _log_to_stderr(verbose)
    with _extra("master"):
        from tenure.master.main import MasterConfig, run

    return run(
        MasterConfig(
            store=store,
            name=name,
            cluster=cluster,
            listen=listen,
            advertise=advertise,
            partitions=partitions,
            insecure=insecure,
        )
    )


def worker(
    app: Annotated[str, typer.Argument(metavar="APP", help="Module of @job functions to serve.")],
    masters: Annotated[
        str | None,
        typer.Option(
            "--master",
            envvar="TENURE_ADDRESS",
            metavar="HOST:PORT[,…]",
            help="Any masters of the cluster.  [default: 127.0.0.1:7400]",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="For people.")] = "",
    queues: Annotated[str, typer.Option(metavar="Q,…", help="Serve only these; none: all.")] = "",
    slots: Annotated[int | None, typer.Option(min=1, help="Jobs to run at once.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="May be given several times.")
    ] = None,
    build_id: Annotated[str, typer.Option(help="Which build of the application this is.")] = "",
    drain_timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="On TERM, let jobs end for so long.")
    ] = 30.0,
    verbose: Verbose = False,
) -> int:
    """Runs a worker that serves the @job functions of an importable module.

    Example: tenure worker app.jobs --master 127.0.0.1:7400 --slots 8
    """
    _log_to_stderr(verbose)

    with _extra("worker"):
        from tenure.worker.config import WorkerConfig
        from tenure.worker.runtime import main

    from tenure.client.topology import parse_addresses
    from tenure.protocol.limits import DEFAULT_ADDRESS

    settings: dict[str, Any] = {} if slots is None else {"slots": slots}
    return main(
        WorkerConfig(
            app=app,
            masters=parse_addresses(masters or DEFAULT_ADDRESS),
            name=name,
            queues=comma_separated(queues),
            labels=dict(map(parse_label, label or [])),
            build_id=build_id,
            drain_timeout_s=drain_timeout,
            **settings,
        )
    )


@contextlib.contextmanager
def _extra(name: str) -> Iterator[None]:
    """Says which extra to install when a node's package is missing."""
    from tenure.protocol.errors import Rejected
    from tenure.protocol.refusal import Reason

    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tenure."):
            raise
        raise Rejected(
            f"expected the packages that a {name} needs, but {error.name} is not installed; "
            f"run: pip install 'tenure[{name}]'",
            reason=Reason.INVALID_ARGUMENT,
        ) from None


def _log_to_stderr(verbose: bool) -> None:
    """A node logs to stderr; stdout is for its JSON lines."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
