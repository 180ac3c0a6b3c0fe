"""The jobs of a small office, and the report on them."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice

from tenure.client import Client, JobState, Permanent, job

#: So many failures of a queue are looked at, and so many kinds of them are told.
FAILURES_MAX = 1_000
KINDS_MAX = 3


@job(queue="invoices")
def send_invoice(number: int) -> str:
    """The day's work; some of it fails."""
    if number % 5 == 0:
        raise Permanent(f"the customer of invoice {number} has no address")
    return f"invoice {number} was sent"


@job(queue="backups")
def back_up(folder: str) -> str:
    """More of it."""
    return f"{folder} was backed up"


@job(queue="reports", timeout=timedelta(minutes=5))
def report(hours: int = 24) -> str:
    """Says what became of the jobs of the last hours, by queue.

    It is a client of the cluster that it runs on (TENURE_ADDRESS).
    """
    since = datetime.now(UTC) - timedelta(hours=hours)
    recent = f"submitted_at >= {since:%Y-%m-%dT%H:%M:%SZ}"
    lines = [f"jobs of the last {hours} hours"]
    with Client() as client:
        for queue in client.queues.list():
            counts = client.count(filter=recent, queue=queue.name, tenant=queue.tenant)
            lines.append(f"{queue.name:<12} {bar(counts)} {told(counts)}")
            failed = client.list(
                filter=recent, states=[JobState.FAILED], queue=queue.name, tenant=queue.tenant
            )
            errors = Counter(
                each.error.type.rpartition(".")[2] for each in islice(failed, FAILURES_MAX)
            )
            lines += [f"{'':<12} {n} × {kind}" for kind, n in errors.most_common(KINDS_MAX)]
    return "\n".join(lines)


def bar(counts: dict[JobState, int]) -> str:
    """A column of the picture: what went well, what did not, what is not over."""
    good, bad = counts.get(JobState.COMPLETED, 0), counts.get(JobState.FAILED, 0)
    rest = sum(counts.values()) - good - bad
    scale = max(1, (good + bad + rest) // 40)
    return "█" * (good // scale) + "x" * (bad // scale) + "·" * (rest // scale)


def told(counts: dict[JobState, int]) -> str:
    """The same in words."""
    return ", ".join(f"{n} {state.name}" for state, n in sorted(counts.items())) or "nothing"
