"""``tenure jobs explain`` on a job that is blocked by each kind of thing, as the README shows it.

Each screen of the README is taken from a real run, in which masters and workers are processes.
``make golden`` writes them anew; look at what has changed before you commit.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import timedelta
from time import monotonic
from typing import Final

import pytest

from tenure.cli import exits, main
from tenure.cli.explain_view import show_explanation
from tenure.cli.output import Format
from tenure.client import (
    BlockerKind,
    BreakerSettings,
    Client,
    Explanation,
    JobDef,
    JobHandle,
    JobState,
    RateLimit,
    Retry,
    named,
)
from tenure.protocol.prefetch import PREFETCH_JOBS_MAX
from tests.chaos.cluster import REPOSITORY, Cluster
from tests.integration.page import likeness
from tests.integration.shop import charge, fetch, pack, send

pytestmark = pytest.mark.timeout(120)

README: Final = REPOSITORY / "README.md"
OF_A_JOB: Final = "$ tenure jobs explain $job"
OF_A_WORKFLOW: Final = "$ tenure workflows explain $order"
#: What differs from run to run, beside ids and times.
VARIES: Final = (
    (re.compile(r"(?<=wait:)\s+about .* have begun while jobs waited$", re.M), " KNOWN"),
    (re.compile(r"(?<=wait:)\s+unknown: how fast .* is not known yet$", re.M), " KNOWN"),
    (re.compile(r"(?<=wait:)\s+about [^:]+"), " about SPAN"),
    (re.compile(r"(?<=ahead:)\s+\d+"), " N"),
)
ENDED: Final = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
WAIT_S: Final = 30.0
#: More than two workers take who have only met jobs that ended, or were cancelled, at once.
CROWD: Final = 2 * PREFETCH_JOBS_MAX + 100
#: So many short jobs that for a while there are slots free and others come first.
FLOOD: Final = 3_000
K = BlockerKind
Job = JobHandle[object]


class Shop:
    """A cluster with two workers: anna has four slots; bert has one, and is in the EU.

    Attributes:
        cluster: Its processes.
        client: Of it.
        ill: Workers in quarantine.
    """

    def __init__(self, cluster: Cluster, client: Client) -> None:
        self.cluster = cluster
        self.client = client
        self.ill: list[str] = []

    def keep(self, job: Job) -> Job:
        """Waits until a job runs."""
        self.cluster.until(lambda: job.status() is JobState.RUNNING, WAIT_S, f"{job.id} running")
        return job

    def crowd(self, job: JobDef[[int], object]) -> Job:
        """The last one of so many that it waits."""
        return self.client.map(job, range(CROWD))[-1]

    def explained(self, bring_about: Callable[[Shop], Job], kinds: set[BlockerKind]) -> Explanation:
        """What is said of a job, once these things keep it, and no others."""
        deadline = monotonic() + WAIT_S
        job = bring_about(self)
        while True:
            found = self.client.explain(job.id)
            if {blocker.kind for blocker in found.blockers} == kinds:
                return found
            if monotonic() > deadline:
                raise AssertionError(f"expected {kinds}, got {found}\n{self.cluster.story()}")
            if found.state in ENDED:
                # Whatever kept it was over before it was seen.
                job = bring_about(self)

    def clear(self) -> None:
        """Ends all jobs, and all quarantine."""
        while self.ill:
            self.client.workers.release(self.ill.pop())
        states = [state for state in JobState if state not in ENDED]
        self.client.cancel([job.job_id for job in self.client.list(states=states)])
        self.cluster.until(lambda: not any(self._open()), WAIT_S, "the end of all jobs")

    def _open(self) -> Iterator[int]:
        counts = self.client.count()
        yield from (count for state, count in counts.items() if state not in ENDED)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """See ``Shop``."""
    folder = tmp_path_factory.mktemp("shop")
    with Cluster(folder, f"sqlite://{folder}/store.db") as cluster:
        cluster.start_masters(1)
        for name, slots, flags in (("anna", 4, ()), ("bert", 1, ("--label", "zone=eu"))):
            cluster.start_worker(
                name, slots=slots, queues="", app="tests.integration.shop", flags=flags
            )
        for name in ("anna", "bert"):
            cluster.wait_said(cluster.processes[name], "registered")
        shop = Shop(cluster, Client(cluster.addresses))
        yield shop
        shop.client.close()


# What keeps a job: each function brings it about and gives the job; the README has its docstring.


def delay(shop: Shop) -> Job:
    """Submitted with --delay 1h."""
    return shop.client.submit(send.options(queue="mail", delay=timedelta(hours=1)), 1)


def backoff(shop: Shop) -> Job:
    """It has failed once, and backs off."""
    slow = Retry(backoff="fixed", base=timedelta(minutes=1), jitter="none")
    return shop.client.submit(fetch.options(queue="stock", retry=slow), 1)


def retry_budget(shop: Shop) -> Job:
    """It fails again and again, and its job type has --retry-budget 0.1."""
    shop.client.job_types.set(fetch.name, retry_budget=0.1)
    return shop.client.submit(fetch.options(queue="stock"), 1)


def quarantine(shop: Shop) -> Job:
    """An operator has put both workers into quarantine."""
    for name in ("anna", "bert"):
        shop.client.workers.quarantine(name, "a disk that fails")
        shop.ill.append(name)
    return shop.client.submit(send.options(queue="mail"), 1)


def parents(shop: Shop) -> Job:
    """Submitted with --after another one."""
    packed = shop.client.submit(pack.options(queue="shelf"), 1)
    return shop.client.submit(send.options(queue="mail", after=[packed]), 1)


def pauses(shop: Shop) -> Job:
    """Its tenant, its queue and its job type are paused."""
    shop.client.tenants.pause("acme")
    shop.client.queues.pause("mail", tenant="acme")
    shop.client.job_types.pause(send.name, tenant="acme")
    return shop.client.submit(send.options(queue="mail", tenant="acme"), 1)


def limits(shop: Shop) -> Job:
    """The queue has --concurrency 1 --rate 6/m, and both for each limit key, too."""
    ours = pack.options(queue="shelf", limit_key="customer-7")
    shop.client.queues.set("shelf", concurrency=1, key_concurrency=1)
    shop.keep(shop.client.submit(ours, 1))
    rate = RateLimit(count=6, per=timedelta(minutes=1), burst=1)
    shop.client.queues.set("shelf", rate=rate, key_rate=rate)
    return shop.client.submit(ours, 2)


def breaker(shop: Shop) -> Job:
    """Its breaker has opened."""
    fails_once = BreakerSettings(volume_min=1, open_for=timedelta(minutes=1))
    shop.client.job_types.set(charge.name, breaker=fails_once)
    shop.client.submit(charge.options(queue="bank"), 1).wait(WAIT_S)
    return shop.client.submit(charge.options(queue="bank"), 2)


def key_breaker(shop: Shop) -> Job:
    """Much of its limit key has failed, in a queue with --key-breaker 0.5."""
    fails_once = BreakerSettings(volume_min=1, open_for=timedelta(minutes=1))
    shop.client.queues.set("till", key_breaker=fails_once)
    ours = charge.options(queue="till", limit_key="customer-7")
    shop.client.submit(ours, 1).wait(WAIT_S)
    return shop.client.submit(ours, 2)


def no_worker(shop: Shop) -> Job:
    """No worker has its function."""
    return shop.client.submit(named("app.jobs.print", queue="paper"))


def no_labels(shop: Shop) -> Job:
    """Submitted with --require gpu=a100,h100."""
    return shop.client.submit(send.options(queue="mail", requires={"gpu": ["a100", "h100"]}), 1)


def sticky(shop: Shop) -> Job:
    """Its sticky key belongs to a worker that is busy."""
    first = pack.options(queue="carts", sticky_key="cart-7", requires={"zone": "eu"})
    shop.keep(shop.client.submit(first, 1))
    return shop.crowd(send.options(queue="carts", sticky_key="cart-7"))


def no_credit(shop: Shop) -> Job:
    """Submitted with --require zone=eu; the worker there is busy."""
    in_europe = pack.options(queue="europe", requires={"zone": "eu"})
    return shop.crowd(in_europe)


def reserved(shop: Shop) -> Job:
    """All that is free is kept: tenure queues set urgent --reserved 0.9."""
    shop.client.queues.set("urgent", reserved=0.9)
    return shop.client.submit(send.options(queue="letters"), 1)


def order(shop: Shop) -> Job:
    """There are free slots, and others come first."""
    shop.client.queues.pause("letters")
    shop.client.queues.set("urgent", reserved=0.0)
    flood = shop.client.map(send.options(queue="letters"), range(FLOOD))
    shop.client.queues.resume("letters")
    return flood[-1]


def waits_for_slots(job: Job) -> bool:
    """Whether a job is kept by nothing but those who are busy; at first there may be free slots."""
    return [blocker.kind for blocker in job.explain().blockers] == [K.NO_CREDIT]


def leader(shop: Shop) -> Job:
    """A new leader, a moment after kill -9."""
    # It waits for all workers to tell what they run, and one of them is frozen.
    job = shop.crowd(pack.options(queue="packets"))
    shop.cluster.until(lambda: waits_for_slots(job), WAIT_S, "no slot")
    shop.cluster.processes["bert"].freeze()
    killed_ms = shop.cluster.leader().kill()
    shop.client.close()
    shop.cluster.start_master("master-1")
    shop.cluster.wait_leader(after_ms=killed_ms)
    shop.client = Client(shop.cluster.addresses)
    return job


#: What brings a job into its state, and what keeps it there.
#: No job ends by itself before the new leader: workers that know brief ones take some in advance.
SCENES: Final[dict[Callable[[Shop], Job], set[BlockerKind]]] = {
    limits: {K.QUEUE_CONCURRENCY, K.KEY_CONCURRENCY, K.QUEUE_RATE, K.KEY_RATE},
    pauses: {K.TENANT_PAUSED, K.QUEUE_PAUSED, K.JOB_TYPE_PAUSED},
    delay: {K.NOT_DUE},
    parents: {K.PARENTS},
    no_worker: {K.NO_WORKER},
    no_labels: {K.NO_LABELS},
    quarantine: {K.QUARANTINE},
    no_credit: {K.NO_CREDIT},
    sticky: {K.STICKY_WORKER_BUSY},
    leader: {K.LEADER},
    backoff: {K.NOT_DUE},
    retry_budget: {K.RETRY_BUDGET},
    key_breaker: {K.KEY_CIRCUIT_BREAKER},
    breaker: {K.CIRCUIT_BREAKER},
    reserved: {K.RESERVED},
    order: {K.ORDER},
}


def test_the_readme_shows_all_kinds_of_blockers_as_they_are(shop: Shop) -> None:
    """Every kind, each of its screens as a cluster has just printed it."""
    seen: list[str] = []
    for bring_about, kinds in SCENES.items():
        found = shop.explained(bring_about, kinds)
        with redirect_stdout(io.StringIO()) as printed:
            show_explanation(found, Format.TABLE)
        seen.append(f"{OF_A_JOB}  # {bring_about.__doc__}\n{printed.getvalue()}")
        shop.cluster.processes["bert"].thaw()
        shop.clear()
    compare(OF_A_JOB, seen)


def test_the_readme_shows_how_far_a_workflow_is(shop: Shop) -> None:
    """What runs, and why what is next does not: one waits for its queue, one for its time."""
    mail = send.options(queue="mail")
    shop.client.queues.pause("mail")
    with shop.client.workflow("order") as order:
        packed = order.add(pack.options(queue="shelf-2"), 1)
        told = order.add(mail, 2)
        asked = order.add(mail.options(delay=timedelta(hours=1)), 3)
        order.add(mail.options(after=[packed, told, asked]), 4)
    shop.keep(packed)
    with redirect_stdout(io.StringIO()) as printed:
        code = main.run(["workflows", "explain", order.id, "--address", shop.cluster.addresses])
    shop.clear()
    shop.client.queues.resume("mail")
    assert code == exits.OK
    compare(OF_A_WORKFLOW, [f"{OF_A_WORKFLOW}\n{printed.getvalue()}"])


def test_there_is_a_screen_of_each_kind() -> None:
    """A kind of blocker that is added is shown, too."""
    assert set().union(*SCENES.values()) == set(BlockerKind)


def alike(text: str) -> str:
    """A screen without what may differ."""
    for pattern, name in VARIES:
        text = pattern.sub(name, text)
    return likeness(text)


def compare(command: str, seen: list[str]) -> None:
    """Holds the README's screens of a command to those that were seen, or takes these over."""
    block = re.compile(rf"^```text\n({re.escape(command)}.*?)^```$", re.M | re.S)
    if os.environ.get("RENEW_GOLDEN"):
        renew(block, seen)
    shown = block.findall(README.read_text("utf-8"))
    assert [alike(text) for text in shown] == [alike(text) for text in seen], "run `make golden`"


def renew(block: re.Pattern[str], seen: list[str]) -> None:
    """Puts the screens into the places that the page has for them."""
    text = README.read_text("utf-8")
    places = list(block.finditer(text))
    if len(places) != len(seen):
        raise AssertionError(f"expected {len(seen)} places for screens, found {len(places)}")
    for place, screen in zip(places[::-1], seen[::-1], strict=True):
        text = text[: place.start(1)] + screen + text[place.end(1) :]
    README.write_text(text, "utf-8")
