"""``tenure queues``: how queues, tenants and job types do, and how they are run."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import click

from tenure.cli import exits
from tenure.cli.command import Group, Takes, argument, command, option
from tenure.cli.flags import duration
from tenure.cli.invocation import Invocation
from tenure.cli.queue_view import JOB_TYPES, QUEUES, TENANTS, show_one
from tenure.cli.texts import parse_rate

if TYPE_CHECKING:
    from tenure.client import AsyncClient, JobType, Queue, RateLimit, Tenant

app = Group(
    "queues",
    help="Queues, tenants and job types: how they do, and how they are run.",
    no_args_is_help=True,
    examples=[
        ("tenure queues list", "every queue, with its jobs and its limits"),
        ("tenure queues set mail --concurrency 10 --rate 100/m", "at most so many"),
        ("tenure queues pause mail", "nothing of it begins"),
        ("tenure queues pause --job app.jobs.send", "none of these jobs begins"),
        ("tenure queues pause --tenant acme", "nothing of this tenant begins"),
    ],
)

QueueName = Annotated[str, argument(metavar="[QUEUE]", help="A queue's name.")]
JobName = Annotated[
    str,
    option("--job", metavar="NAME", help="The jobs of this name instead of a queue."),
]
TenantName = Annotated[
    str,
    option(
        "--tenant",
        metavar="TENANT",
        help="Whose queue or job it is; by itself, the tenant.  [default: default]",
    ),
]
Weight = Annotated[
    float | None,
    option("--weight", metavar="W", help="Its share of grants, more than 0.", type=float),
]
FairBy = Annotated[
    str | None,
    option(
        "--fair-by",
        metavar="WHAT",
        help="What the share is counted in: grants or time.",
        type=click.Choice(["grants", "time"]),
    ),
]
Concurrency = Annotated[
    int | None,
    option("--concurrency", metavar="N", help="Jobs that may run at once; 0: any.", type=int),
]
KeyConcurrency = Annotated[
    int | None,
    option("--key-concurrency", metavar="N", help="The same, of each limit key.", type=int),
]
KeyStrategy = Annotated[
    str | None,
    option(
        "--key-strategy",
        metavar="WHAT",
        help="For a job whose key is full: queue, cancel-in-progress or cancel-newest.",
        type=click.Choice(["queue", "cancel-in-progress", "cancel-newest"]),
    ),
]
Rate = Annotated[
    str | None,
    option("--rate", metavar="RATE", help="How many may begin: 10/s, 100/m, 5/30s; or none."),
]
Burst = Annotated[
    int | None,
    option("--burst", metavar="N", help="With --rate: so many at once.", type=int),
]
KeyRate = Annotated[
    str | None, option("--key-rate", metavar="RATE", help="The same, of each limit key; or none.")
]
KeyBurst = Annotated[
    int | None,
    option("--key-burst", metavar="N", help="With --key-rate: so many at once.", type=int),
]
Reserved = Annotated[
    float | None,
    option("--reserved", metavar="SHARE", help="Of the slots, only for it: 0.25.", type=float),
]
ReservedPriority = Annotated[
    int | None,
    option(
        "--reserved-priority",
        metavar="N",
        help="Of its jobs, those of this priority and before use it.",
        type=int,
    ),
]
DepthMax = Annotated[
    int | None,
    option(
        "--depth-max", metavar="N", help="Jobs that may wait; 0: the cluster's limit.", type=int
    ),
]
RefuseLate = Annotated[
    str | None,
    option(
        "--refuse-late",
        metavar="yes|no",
        help="Refuse jobs that would not begin within their schedule timeout.",
        type=click.Choice(["yes", "no"]),
    ),
]
KeyBreaker = Annotated[
    str | None,
    option(
        "--key-breaker",
        metavar="SHARE",
        help="Stop a limit key when this share of its attempts has failed: 0.5; or none.",
    ),
]
KeyOverride = Annotated[
    str | None,
    option(
        "--key-breaker-override",
        metavar="KEY=WHAT",
        help="Keep the breaker of a limit key closed or open; or none.",
    ),
]
Breaker = Annotated[
    str | None,
    option(
        "--breaker",
        metavar="SHARE",
        help="With --job: stop it when this share of its attempts has failed: 0.5; or none.",
    ),
]
BreakerWindow = Annotated[
    str | None,
    option("--breaker-window", metavar="DURATION", help="Of a breaker: of so long."),
]
BreakerVolume = Annotated[
    int | None,
    option("--breaker-volume", metavar="N", help="Of a breaker: of so many or more.", type=int),
]
BreakerOpenFor = Annotated[
    str | None,
    option("--breaker-open-for", metavar="DURATION", help="Of a breaker: stop it for so long."),
]
BreakerProbes = Annotated[
    int | None,
    option("--breaker-probes", metavar="N", help="Of a breaker: then try so many.", type=int),
]
Override = Annotated[
    str | None,
    option(
        "--breaker-override",
        metavar="WHAT",
        help="With --job: keep its breaker closed or open; or none.",
        type=click.Choice(["none", "closed", "open"]),
    ),
]
RetryBudget = Annotated[
    float | None,
    option(
        "--retry-budget",
        metavar="SHARE",
        help="With --job: at most this share of grants may be retries: 0.2; 0: any.",
        type=float,
    ),
]
AdaptiveRetry = Annotated[
    str | None,
    option(
        "--adaptive-retry",
        metavar="yes|no",
        help="With --job: wait longer for retries when much has failed lately.",
        type=click.Choice(["yes", "no"]),
    ),
]


class _Kind(Enum):
    QUEUE = auto()
    TENANT = auto()
    JOB = auto()


class _Target(NamedTuple):
    """What a command is about."""

    kind: _Kind
    name: str
    tenant: str

    async def get(self, client: AsyncClient) -> Queue | Tenant | JobType:
        """It, as it is."""
        match self.kind:
            case _Kind.QUEUE:
                return await client.queues.get(self.name, tenant=self.tenant)
            case _Kind.TENANT:
                return await client.tenants.get(self.name)
            case _Kind.JOB:
                return await client.job_types.get(self.name, tenant=self.tenant)

    async def set(self, client: AsyncClient, changes: dict[str, Any]) -> Queue | Tenant | JobType:
        """Changes how it is run; it, as it is then."""
        match self.kind:
            case _Kind.QUEUE:
                return await client.queues.set(self.name, tenant=self.tenant, **changes)
            case _Kind.TENANT:
                return await client.tenants.set(self.name, **changes)
            case _Kind.JOB:
                return await client.job_types.set(self.name, tenant=self.tenant, **changes)


def _target(name: str, job: str, tenant: str) -> _Target:
    """A queue, the jobs of a name, or a whole tenant.

    Raises:
        BadParameter: None of them was named, or two.
    """
    if name and job:
        raise click.BadParameter("expected a queue or --job, got both")
    if name:
        return _Target(_Kind.QUEUE, name, tenant or "default")
    if job:
        return _Target(_Kind.JOB, job, tenant or "default")
    if tenant:
        return _Target(_Kind.TENANT, tenant, tenant)
    raise click.BadParameter("expected a queue, --job or --tenant")


@command(
    "list",
    group=app,
    takes=Takes.OUTPUT | Takes.WATCH,
    examples=[
        ("tenure queues list", "queues, with their jobs and limits"),
        ("tenure queues list --by job", "job types, with their breakers"),
        ("tenure queues list --by tenant --watch", "tenants, as it changes"),
    ],
)
def list_queues(
    cli: Invocation,
    by: Annotated[
        str,
        option(
            "--by",
            metavar="WHAT",
            help="queue, tenant or job.  [default: queue]",
            type=click.Choice(["queue", "tenant", "job"]),
        ),
    ] = "queue",
    tenant: Annotated[str, option("--tenant", metavar="TENANT", help="Only this one's.")] = "",
) -> int:
    """Lists queues, tenants or job types that have jobs or settings."""
    match by:
        case "queue":
            return cli.answer(
                lambda client: client.queues.list(tenant=tenant),
                lambda found: cli.show(QUEUES, found),
            )
        case "tenant":
            return cli.answer(
                lambda client: client.tenants.list(),
                lambda found: cli.show(
                    TENANTS, [each for each in found if tenant in ("", each.name)]
                ),
            )
        case _:
            return cli.answer(
                lambda client: client.job_types.list(tenant=tenant),
                lambda found: cli.show(JOB_TYPES, found),
            )


@command(
    "get",
    group=app,
    takes=Takes.OUTPUT | Takes.WATCH,
    examples=[
        ("tenure queues get mail", "its settings, its jobs, how fast they go"),
        ("tenure queues get --job app.jobs.send", "a job type and its breaker"),
        ("tenure queues get --tenant acme", "a tenant"),
    ],
)
def get(cli: Invocation, name: QueueName = "", job: JobName = "", tenant: TenantName = "") -> int:
    """Shows everything about one queue, job type or tenant."""
    target = _target(name, job, tenant)

    return cli.answer(target.get, lambda found: show_one(found, cli.form))


@command(
    "set",
    group=app,
    takes=Takes.OUTPUT,
    examples=[
        ("tenure queues set mail --weight 3 --concurrency 10", "a larger share, ten at once"),
        ("tenure queues set mail --key-concurrency 1", "one at once of each limit key"),
        ("tenure queues set mail --rate 100/m --burst 10", "at most so many begin"),
        ("tenure queues set mail --key-breaker 0.5", "stop a limit key when it fails"),
        ("tenure queues set --tenant acme --weight 2", "a tenant's share"),
        ("tenure queues set --job app.jobs.send --breaker 0.5", "stop it when it fails"),
    ],
)
def set_queue(
    cli: Invocation,
    name: QueueName = "",
    job: JobName = "",
    tenant: TenantName = "",
    weight: Weight = None,
    fair_by: FairBy = None,
    concurrency: Concurrency = None,
    key_concurrency: KeyConcurrency = None,
    key_strategy: KeyStrategy = None,
    rate: Rate = None,
    burst: Burst = None,
    key_rate: KeyRate = None,
    key_burst: KeyBurst = None,
    reserved: Reserved = None,
    reserved_priority: ReservedPriority = None,
    depth_max: DepthMax = None,
    refuse_late: RefuseLate = None,
    key_breaker: KeyBreaker = None,
    key_breaker_override: KeyOverride = None,
    breaker: Breaker = None,
    breaker_window: BreakerWindow = None,
    breaker_volume: BreakerVolume = None,
    breaker_open_for: BreakerOpenFor = None,
    breaker_probes: BreakerProbes = None,
    breaker_override: Override = None,
    retry_budget: RetryBudget = None,
    adaptive_retry: AdaptiveRetry = None,
) -> int:
    """Changes how a queue, a tenant or a job type is run; what is not given stays.

    A tenant has a weight only; a job type what is said to be for --job. In force from the next
    grant on, and through every failover.
    """
    target = _target(name, job, tenant)
    breaker_fields = {
        "window": None if breaker_window is None else duration(breaker_window),
        "volume_min": breaker_volume,
        "open_for": None if breaker_open_for is None else duration(breaker_open_for),
        "probes": breaker_probes,
    }
    changes = {
        "weight": weight,
        "fair_by": fair_by,
        "concurrency": concurrency,
        "key_concurrency": key_concurrency,
        "key_strategy": None if key_strategy is None else key_strategy.replace("-", "_"),
        "rate": _rate("rate", rate, burst),
        "key_rate": _rate("key-rate", key_rate, key_burst),
        "reserved": reserved,
        "reserved_priority": reserved_priority,
        "depth_max": depth_max,
        "refuse_late": _flag(refuse_late),
        **_breakers({"breaker": breaker, "key_breaker": key_breaker}, breaker_fields),
        "key_breaker_overrides": _override(key_breaker_override),
        "breaker_override": breaker_override,
        "retry_budget": retry_budget,
        "adaptive_retry": _flag(adaptive_retry),
    }
    return _set(cli, target, {name: value for name, value in changes.items() if value is not None})


#: Given to take something away.
_NONE = "none"


def _rate(name: str, text: str | None, burst: int | None) -> RateLimit | str | None:
    """A rate, ``none``, or None if it was not given."""
    from tenure.client import RateLimit

    if text is None:
        if burst is not None:
            word = "burst" if name == "rate" else "key-burst"
            raise click.BadParameter(f"expected --{name} with --{word}")
        return None
    if text == _NONE:
        return _NONE
    try:
        count, seconds = parse_rate(text)
    except ValueError as error:
        raise click.BadParameter(f"expected {error}, or none, got {text!r}") from None
    return RateLimit(count=count, per=timedelta(seconds=seconds), burst=burst)


def _breakers(shares: dict[str, str | None], fields: dict[str, Any]) -> dict[str, Any]:
    """Settings of breakers by their names: ``none``, or None of one that was not given."""
    given = {name: value for name, value in fields.items() if value is not None}
    if given and not any(shares.values()):
        raise click.BadParameter(
            "expected --breaker or --key-breaker with --breaker-… options that say when it opens"
        )
    return {name: None if text is None else _breaker(text, given) for name, text in shares.items()}


def _breaker(text: str, given: dict[str, Any]) -> Any:
    from tenure.client import BreakerSettings

    if text == _NONE:
        return _NONE
    try:
        share = float(text)
    except ValueError:
        raise click.BadParameter(f"expected a share such as 0.5, or none, got {text!r}") from None
    return BreakerSettings(failure_rate=share, **given)


def _override(text: str | None) -> dict[str, str] | None:
    """What becomes of the breaker of one limit key, as ``KEY=open``."""
    if text is None:
        return None
    key, equals, what = text.rpartition("=")
    if not (key and equals) or what not in ("none", "closed", "open"):
        raise click.BadParameter(f"expected KEY=open, KEY=closed or KEY=none, got {text!r}")
    return {key: what}


def _flag(text: str | None) -> bool | None:
    return None if text is None else text == "yes"


_FIELDS = {
    _Kind.TENANT: frozenset({"weight", "paused"}),
    _Kind.JOB: frozenset(
        {"paused", "breaker", "breaker_override", "retry_budget", "adaptive_retry"}
    ),
}


def _set(cli: Invocation, target: _Target, changes: dict[str, Any]) -> int:
    """Changes settings and shows what they are then."""
    if not changes:
        raise click.BadParameter("expected something to set; see `tenure queues set --help`")
    kind, job_fields = target.kind, _FIELDS[_Kind.JOB] - {"paused"}
    for name in changes:
        fits = name not in job_fields if kind is _Kind.QUEUE else name in _FIELDS[kind]
        if not fits:
            what = {_Kind.QUEUE: "a queue", _Kind.TENANT: "a tenant", _Kind.JOB: "a job type"}[kind]
            raise click.BadParameter(f"expected what {what} has, got --{name.replace('_', '-')}")
    values: dict[str, Any] = {
        name: None if value == _NONE and name != "breaker_override" else value
        for name, value in changes.items()
    }

    async def work(client: AsyncClient) -> int:
        show_one(await target.set(client, values), cli.form)
        return exits.OK

    return cli.with_client(work)


@command(
    "pause",
    group=app,
    takes=Takes.OUTPUT,
    examples=[
        ("tenure queues pause mail", "a queue"),
        ("tenure queues pause --job app.jobs.send", "the jobs of one name, whatever their queue"),
        ("tenure queues pause --tenant acme", "a tenant"),
    ],
)
def pause(cli: Invocation, name: QueueName = "", job: JobName = "", tenant: TenantName = "") -> int:
    """Lets nothing of a queue, job type or tenant begin. What runs goes on; what waits stays."""
    return _set(cli, _target(name, job, tenant), {"paused": True})


@command(
    "resume",
    group=app,
    takes=Takes.OUTPUT,
    examples=[
        ("tenure queues resume mail", "a queue"),
        ("tenure queues resume --job app.jobs.send", "the jobs of one name"),
        ("tenure queues resume --tenant acme", "a tenant"),
    ],
)
def resume(
    cli: Invocation, name: QueueName = "", job: JobName = "", tenant: TenantName = ""
) -> int:
    """Lets jobs begin again; they have kept their places."""
    return _set(cli, _target(name, job, tenant), {"paused": False})


@command(
    "purge",
    group=app,
    takes=Takes.DRY_RUN | Takes.CONFIRM,
    examples=[
        ("tenure queues purge mail", "says how many, and asks first"),
        ("tenure queues purge mail --dry-run", "only says how many"),
    ],
)
def purge(
    cli: Invocation,
    name: Annotated[str, argument(metavar="QUEUE", help="A queue's name.")],
    tenant: Annotated[
        str, option("--tenant", metavar="TENANT", help="Whose it is.  [default: default]")
    ] = "default",
) -> int:
    """Empties a queue: cancels what waits, then forgets all that has ended. What runs goes on."""
    from tenure.protocol.vocabulary import JobState

    async def count(client: AsyncClient) -> int:
        queue = await client.queues.get(name, tenant=tenant)
        return sum(n for state, n in queue.counts.items() if state is not JobState.RUNNING)

    jobs = cli.with_client(count)
    what = "1 job" if jobs == 1 else f"{jobs} jobs"
    if cli.dry_run:
        cli.say(f"dry run: {what} of queue {name} would be cancelled or forgotten")
        return exits.OK
    cli.confirm(f"Cancel and forget {what} of queue {name} for ever?", "there is no undo")

    async def work(client: AsyncClient) -> int:
        forgotten = await client.queues.purge(name, tenant=tenant)
        cli.say(f"forgot {forgotten} jobs of queue {name}")
        return exits.OK

    return cli.with_client(work)
