"""Submits on a virtual-time loop against a fake cluster: batches, re-sends, deadlines."""

import asyncio
import gc
import random
import weakref
from collections.abc import Awaitable, Callable

import pytest

from tenure.client import AsyncClient, Reason, Rejected, Unavailable, job
from tenure.client.codec import decode_args
from tenure.client.row import Call, Row
from tenure.client.submitter import ACK_TIMEOUT_S
from tenure.protocol.ids import partition_of, time_ms_of
from tenure.protocol.limits import BATCH_BYTES_MAX, BATCH_JOBS_MAX
from tenure.protocol.refusal import Refusal
from tenure.testing.loop import run_virtual
from tenure.v1 import common_pb2
from tests.unit.client.fake_master import EPOCH_MS, FakeCluster


@job(name="app.add", queue="sums")
def add(left: int, right: int = 0) -> int:
    """Adds."""
    return left + right


def play(
    cluster: FakeCluster,
    work: Callable[[AsyncClient], Awaitable[None]],
    *,
    timeout: float = 30.0,
) -> None:
    """Runs a piece of work with a client of the fake cluster, on virtual time.

    The work may start tasks in ``cluster.tasks``.
    """

    async def main() -> None:
        async with (
            asyncio.TaskGroup() as cluster.tasks,
            AsyncClient(
                ",".join(cluster.masters),
                timeout=timeout,
                transport=cluster,
                rng=random.Random(7),
            ) as client,
        ):
            await work(client)

    run_virtual(main, limit_s=600)


def sent_ids(cluster: FakeCluster) -> list[str]:
    """Every id that was ever sent, in order, repeats included."""
    return [spec.job_id for _, request in cluster.requests for spec in request.jobs]


def test_submit_returns_a_handle_of_the_accepted_job() -> None:
    """A submit's handle names a job that the cluster holds, minted by the cluster's clock."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1, right=2)
        assert cluster.jobs[handle.id].options.name == "app.add"
        assert handle.name == "app.add"
        assert 0 <= time_ms_of(handle.id) - EPOCH_MS < 1_000

    play(cluster, work)


def test_concurrent_submits_share_requests() -> None:
    """What waits while a request is on its way goes next: 200 submits take 2 requests."""
    cluster = FakeCluster()
    arrived = asyncio.Event()
    cluster.on_submit = lambda _: arrived.set()

    async def work(client: AsyncClient) -> None:
        first = cluster.tasks.create_task(client.submit(add, 0))
        await arrived.wait()
        others = await asyncio.gather(*(client.submit(add, n) for n in range(1, 200)))
        assert len({handle.id for handle in [await first, *others]}) == 200

    play(cluster, work)
    assert [len(request.jobs) for _, request in cluster.requests] == [1, 199]
    assert [len(request.options) for _, request in cluster.requests] == [1, 1]


def test_batches_keep_the_limits_and_the_order() -> None:
    """Many rows are split by count and by bytes, and arrive in the order of the items."""
    cluster = FakeCluster()

    @job(name="app.echo")
    def echo(text: str) -> str:
        return text

    texts = ["x" * (1_000 if n % 2 else 10) + str(n) for n in range(3_000)]

    async def work(client: AsyncClient) -> None:
        handles = await client.map(echo, texts)
        payloads = [cluster.jobs[handle.id].payload for handle in handles]
        assert [decode_args(payload, "", echo)[0][0] for payload in payloads] == texts

    play(cluster, work)
    assert sum(len(request.jobs) for _, request in cluster.requests) == 3_000
    for _, request in cluster.requests:
        assert len(request.jobs) <= BATCH_JOBS_MAX
        assert request.ByteSize() <= BATCH_BYTES_MAX


def test_limit_and_sticky_keys_travel_with_their_rows() -> None:
    """Jobs of one map have their own, made of their arguments; the options are shared."""
    cluster = FakeCluster()

    @job(name="app.mail", limit_key=lambda user: f"u{user % 2}", sticky_key="s")
    def mail(user: int) -> None:
        """By user."""

    async def work(client: AsyncClient) -> None:
        await client.map(mail, range(3))
        await client.submit(mail.options(sticky_key=""), 3)

    play(cluster, work)
    specs = [spec for _, request in cluster.requests for spec in request.jobs]
    assert [spec.limit_key for spec in specs] == ["u0", "u1", "u0", "u1"]
    assert [spec.sticky_key for spec in specs] == ["s", "s", "s", ""]
    assert [len(request.options) for _, request in cluster.requests] == [1, 1]


def test_options_are_shared_by_identity_and_keys_belong_to_rows() -> None:
    """Jobs that differ only in their key share one entry of the options table."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        await client.submit(add, 0)
        await asyncio.gather(
            *(client.submit(add.options(key=f"k{n}"), n) for n in range(50)),
            client.submit(add.options(priority=1), 1),
        )

    play(cluster, work)
    request = cluster.requests[1][1]
    assert len(request.options) == 2
    assert [spec.key for spec in request.jobs[:50]] == [f"k{n}" for n in range(50)]


def test_the_same_key_is_the_same_job() -> None:
    """A handle of a keyed submit names the job that the key already has."""
    cluster = FakeCluster()

    async def work(client: AsyncClient) -> None:
        keyed = add.options(key="once")
        first = await client.submit(keyed, 1)
        second = await client.submit(keyed, 1)
        assert first.id == second.id

    play(cluster, work)
    assert len(cluster.jobs) == 1


def test_jobs_go_to_the_leader_of_their_partition() -> None:
    """Each queue's jobs go to its home partition's leader, and their ids name that partition."""
    cluster = FakeCluster(partitions=4, masters=("a:1", "b:1"))
    cluster.leaders = {0: "a:1", 1: "b:1", 2: "a:1", 3: "b:1"}

    async def work(client: AsyncClient) -> None:
        for n in range(20):
            handle = await client.submit(add.options(queue=f"q{n}"), n)
            assert handle.id in cluster.jobs

    play(cluster, work)
    for address, request in cluster.requests:
        for spec in request.jobs:
            assert cluster.leaders[partition_of(spec.job_id)] == address


def test_a_lost_answer_makes_no_second_job() -> None:
    """When the leader dies after accepting, the same ids go to the new leader: one job each."""
    cluster = FakeCluster(masters=("a:1", "b:1"))
    cluster.lose_answers = 1

    async def work(client: AsyncClient) -> None:
        handles = await client.map(add, range(10))
        assert {handle.id for handle in handles} == set(cluster.jobs)

    play(cluster, work)
    assert len(cluster.jobs) == 10
    ids = sent_ids(cluster)
    assert len(ids) == 20
    assert ids[:10] == ids[10:]


def test_submits_survive_the_leaders_death() -> None:
    """Submits made while nobody leads are accepted by the next leader, each once."""
    cluster = FakeCluster(masters=("a:1", "b:1"))

    async def work(client: AsyncClient) -> None:
        await client.submit(add, 0)
        cluster.kill("a:1")
        del cluster.leaders[0]
        pending = [cluster.tasks.create_task(client.submit(add, n)) for n in range(1, 50)]
        await cluster.pass_time(12)
        assert not any(future.done() for future in pending)
        cluster.lead("b:1")
        handles = await asyncio.gather(*pending)
        assert {handle.id for handle in handles} < set(cluster.jobs)

    play(cluster, work)
    assert len(cluster.jobs) == 50


def test_a_hint_is_followed_at_once() -> None:
    """NOT_LEADER with a hint costs no backoff."""
    cluster = FakeCluster(masters=("a:1", "b:1"))

    async def work(client: AsyncClient) -> None:
        await client.submit(add, 0)
        cluster.leaders[0] = "b:1"
        began = asyncio.get_running_loop().time()
        await client.submit(add, 1)
        assert asyncio.get_running_loop().time() - began < 0.05

    play(cluster, work)
    assert [address for address, _ in cluster.requests] == ["a:1", "a:1", "b:1"]


def test_outcome_unknown_is_sent_again_under_the_same_id() -> None:
    """OUTCOME_UNKNOWN from a living leader means: ask again with the same id."""
    cluster = FakeCluster()
    unknown = [Refusal(reason=Reason.OUTCOME_UNKNOWN, message="the store did not answer")] * 3
    cluster.on_submit = lambda _: unknown.pop() if unknown else None

    async def work(client: AsyncClient) -> None:
        await client.submit(add, 1)

    play(cluster, work)
    assert len(cluster.requests) == 4
    assert len(set(sent_ids(cluster))) == 1


def test_silence_ends_in_outcome_unknown() -> None:
    """A job that was sent and never answered is reported as unknown, not as failed."""
    cluster = FakeCluster()
    cluster.silent = True

    async def work(client: AsyncClient) -> None:
        with pytest.raises(Unavailable) as caught:
            await client.submit(add, 1)
        assert caught.value.reason is Reason.OUTCOME_UNKNOWN
        assert asyncio.get_running_loop().time() < 20

    play(cluster, work, timeout=15)


def test_a_stuck_leader_is_left() -> None:
    """A leader that takes requests and never answers loses the client to the next one."""
    cluster = FakeCluster(masters=("a:1", "b:1"))
    cluster.silent = True

    async def work(client: AsyncClient) -> None:
        pending = cluster.tasks.create_task(client.submit(add, 1))
        await cluster.pass_time(ACK_TIMEOUT_S - 1)
        cluster.silent = False
        cluster.leaders[0] = "b:1"
        await pending

    play(cluster, work)
    assert [address for address, _ in cluster.requests] == ["a:1", "b:1"]


def test_without_any_master_a_submit_is_unreachable() -> None:
    """A wrong address ends in UNREACHABLE after the client's timeout."""
    cluster = FakeCluster()
    cluster.dead.add("a:1")

    async def work(client: AsyncClient) -> None:
        with pytest.raises(Unavailable) as caught:
            await client.submit(add, 1)
        assert caught.value.reason is Reason.UNREACHABLE
        assert 1 < asyncio.get_running_loop().time() < 6

    play(cluster, work, timeout=5)


def test_without_a_leader_nothing_is_reported_as_accepted() -> None:
    """When no leader took the job before the deadline, the error says so."""
    cluster = FakeCluster()
    del cluster.leaders[0]

    async def work(client: AsyncClient) -> None:
        with pytest.raises(Unavailable, match="nothing was accepted") as caught:
            await client.submit(add, 1)
        assert caught.value.reason is Reason.UNREACHABLE

    play(cluster, work, timeout=5)
    assert cluster.requests == []


def test_a_halted_partition_is_no_reason_to_wait() -> None:
    """When only an operator can help, submits and waits are told so at once."""
    cluster = FakeCluster(masters=("a:1", "b:1"))

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(add, 1)
        waiting = handle.wait()
        await cluster.pass_time(1)
        del cluster.leaders[0]
        cluster.halted.add(0)
        cluster.kill("a:1")
        for call in (waiting, client.submit(add, 2)):
            with pytest.raises(Unavailable) as caught:
                await call
            assert caught.value.reason is Reason.PARTITION_HALTED
        assert asyncio.get_running_loop().time() < 10

    play(cluster, work)


@pytest.mark.parametrize("reason", [Reason.REQUEST_TOO_OLD, Reason.ID_FROM_FUTURE])
def test_a_wrong_clock_is_corrected_by_the_leaders(reason: Reason) -> None:
    """An id that no leader took is minted anew on the leader's clock, and later ids too."""
    cluster = FakeCluster()

    def judge(spec: object) -> Refusal | None:
        if abs(time_ms_of(spec.job_id) - cluster.now_ms()) < 60_000:  # type: ignore[attr-defined]
            return None
        return Refusal(
            reason=reason, message="wrong time", metadata={"now_ms": str(cluster.now_ms())}
        )

    async def work(client: AsyncClient) -> None:
        await client.submit(add, 0)
        cluster.skew_ms = 3_600_000 if reason is Reason.REQUEST_TOO_OLD else -3_600_000
        cluster.refuse_rows = judge
        await client.submit(add, 1)
        await client.submit(add, 2)

    play(cluster, work)
    assert len(sent_ids(cluster)) == 4


def test_an_unanswered_id_is_never_replaced() -> None:
    """After an unanswered send a second id could be a second job, so the caller is told."""
    cluster = FakeCluster()
    refusals = [
        Refusal(reason=Reason.REQUEST_TOO_OLD, message="too old", metadata={"now_ms": "1"}),
        Refusal(reason=Reason.OUTCOME_UNKNOWN, message="the store did not answer"),
    ]
    cluster.on_submit = lambda _: refusals.pop() if refusals else None

    async def work(client: AsyncClient) -> None:
        with pytest.raises(Rejected) as caught:
            await client.submit(add, 1)
        assert caught.value.reason is Reason.REQUEST_TOO_OLD

    play(cluster, work)
    assert len(set(sent_ids(cluster))) == 1


def test_refused_rows_do_not_take_the_others_down() -> None:
    """One refused row of a batch is its own caller's error only."""
    cluster = FakeCluster()

    def judge(spec: object) -> Refusal | None:
        if spec.key == "bad":  # type: ignore[attr-defined]
            return Refusal(reason=Reason.QUEUE_FULL, message="full", retry_after_ms=500)
        return None

    cluster.refuse_rows = judge

    async def work(client: AsyncClient) -> None:
        outcomes = await asyncio.gather(
            client.submit(add, 1),
            client.submit(add.options(key="bad"), 2),
            client.submit(add, 3),
            return_exceptions=True,
        )
        assert isinstance(outcomes[1], Unavailable)
        assert outcomes[1].reason is Reason.QUEUE_FULL
        assert outcomes[1].retry_after_ms == 500
        assert len(cluster.jobs) == 2

    play(cluster, work)


def test_a_cancelled_submit_that_waits_is_withdrawn() -> None:
    """A submit cancelled before it was sent never reaches a leader."""
    cluster = FakeCluster()
    del cluster.leaders[0]

    async def work(client: AsyncClient) -> None:
        pending = cluster.tasks.create_task(client.submit(add, 1))
        await cluster.pass_time(1)
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
        cluster.leaders[0] = "a:1"
        await client.submit(add, 2)

    play(cluster, work)
    assert len(sent_ids(cluster)) == 1


def test_closing_calls_nothing_refused_that_was_sent() -> None:
    """What is on its way when the client closes may be accepted; what waits was never sent."""
    cluster = FakeCluster()
    cluster.silent = True

    async def main() -> None:
        client = AsyncClient("a:1", transport=cluster)

        async def submit(number: int, reason: Reason) -> None:
            with pytest.raises(Unavailable) as refused:
                await client.submit(add, number)
            assert refused.value.reason is reason

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(submit(1, Reason.OUTCOME_UNKNOWN))
            await cluster.pass_time(1)
            tasks.create_task(submit(2, Reason.UNREACHABLE))
            await cluster.pass_time(1)
            await client.close()

    run_virtual(main)
    assert len(sent_ids(cluster)) == 1


def test_closing_ends_the_search_for_a_master() -> None:
    """Who looks for the cluster gives up when the client closes, not when the time is up."""
    cluster = FakeCluster()
    cluster.silent = True
    cluster.dead = set(cluster.masters)

    async def main() -> None:
        client = AsyncClient("a:1", transport=cluster)
        loop = asyncio.get_running_loop()

        async def submit() -> None:
            with pytest.raises(Unavailable):
                await client.submit(add, 1)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(submit())
            await cluster.pass_time(1)
            closed_s = loop.time()
            await client.close()
        assert loop.time() - closed_s < 10

    run_virtual(main)


def test_closing_tells_those_who_wait() -> None:
    """When the client closes, a submit that waits ends with Unavailable, and none hangs."""
    cluster = FakeCluster()
    del cluster.leaders[0]

    async def main() -> None:
        client = AsyncClient("a:1", transport=cluster)

        async def submit() -> None:
            with pytest.raises(Unavailable, match="closed"):
                await client.submit(add, 1)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(submit())
            await cluster.pass_time(1)
            await client.close()
        with pytest.raises(Unavailable, match="closed"):
            await client.submit(add, 1)

    run_virtual(main)


def test_a_call_that_is_given_up_is_collected_with_its_rows() -> None:
    """A row refers to who waits for it, who holds the row: the collector sees that cycle."""

    def give_up(answered: asyncio.Future[None]) -> weakref.ref[asyncio.Future[None]]:
        rows = [Row(Call(common_pb2.JobOptions(), "", 0, answered, 1), b"")]
        answered.add_done_callback(lambda _: rows.clear())
        return weakref.ref(answered)

    with asyncio.Runner() as runner:
        given_up = give_up(runner.get_loop().create_future())
        gc.collect()
        assert given_up() is None
