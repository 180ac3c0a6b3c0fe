"""What goes as a whole and what does not: batches all or nothing, jobs with their callbacks."""

import random

import pytest

from tenure.client import AsyncClient, BatchFailed, Reason, Rejected, Unavailable, job
from tenure.client.job import JobDef
from tenure.client.row import Load, Member, fit_together
from tenure.protocol.ids import mint, partition_of, time_ms_of
from tenure.protocol.limits import BATCH_BYTES_MAX, BATCH_JOBS_MAX
from tenure.protocol.refusal import Refusal
from tenure.v1 import common_pb2, jobs_pb2
from tests.unit.client.fake_master import EPOCH_MS, FakeCluster
from tests.unit.client.test_submitter import play

FULL = Refusal(reason=Reason.QUEUE_FULL, message="full", metadata={"index": "3"})
#: A job elsewhere than the queues below, of two partitions.
AFAR = mint(0, EPOCH_MS, 9)


@job(name="app.echo", queue="sums")
def echo(text: str) -> str:
    """Returns what it is given."""
    return text


@job(name="app.tell", queue="sums")
def tell(text: str) -> None:
    """A callback."""


CALLED = echo.options(on_success=tell)


def wholes(cluster: FakeCluster) -> list[int]:
    """How many jobs each request had that was to be taken all or nothing."""
    return [len(request.jobs) for _, request in cluster.requests if request.all_or_nothing]


def parts(cluster: FakeCluster) -> list[int]:
    """The same of all other requests."""
    return [len(request.jobs) for _, request in cluster.requests if not request.all_or_nothing]


# What one request can carry.


def test_a_request_is_never_larger_than_it_was_reckoned() -> None:
    """By much neither, whatever rows have."""
    rng = random.Random(3)
    for _ in range(200):
        options = [common_pb2.JobOptions(name="n" * rng.randrange(1, 300)) for _ in range(5)]
        request, load = jobs_pb2.SubmitJobsRequest(all_or_nothing=True), Load()
        for n in range(rng.randrange(1, 30)):
            limit, sticky, key = ("é🎈a"[rng.randrange(3)] * rng.randrange(90) for _ in range(3))
            payload = rng.randbytes(rng.choice([0, 200, 20_000]))
            parents = [mint(0, EPOCH_MS, each) for each in range(rng.randrange(4))]
            job_id, of = mint(0, EPOCH_MS, 100 + n), rng.randrange(5)
            member = Member(job_id, options[of], payload, parents, "", limit, sticky)
            load.add(member, options[of], key, [AFAR] * (n % 2))
            if options[of] not in request.options:
                request.options.append(options[of])
            request.jobs.add(
                job_id=job_id,
                payload=payload,
                options=999,
                key=key,
                limit_key=limit,
                sticky_key=sticky,
                parents=[*parents, *[AFAR] * (n % 2)],
            )
        assert request.ByteSize() <= load.size <= request.ByteSize() + 70 * load.rows + 1_500


def test_what_fits_together() -> None:
    """The last row and the last byte that a request can carry, and one more."""
    options = common_pb2.JobOptions(name="app.echo")
    small = Member(AFAR, options, b"", ())
    assert fit_together([small] * BATCH_JOBS_MAX)
    assert not fit_together([small] * (BATCH_JOBS_MAX + 1))
    load = Load()
    load.add(small, options)
    room = BATCH_BYTES_MAX - load.size
    assert fit_together([small._replace(payload=b"x" * room)])
    assert not fit_together([small._replace(payload=b"x" * (room + 1))])


@pytest.mark.parametrize(
    ("called", "count"),
    [
        (echo.options(after=[mint(1, EPOCH_MS, n) for n in range(10)]), 1_000),
        (echo.options(limit_key="k" * 200, sticky_key="s" * 200), 1_000),
        (
            CALLED.options(on_success=tell.options(labels=dict.fromkeys("abcdef", "y" * 128))),
            450,
        ),
    ],
    ids=["parents", "keys", "callbacks"],
)
def test_all_or_nothing_is_one_request_or_refused(called: JobDef[..., str], count: int) -> None:
    """What its jobs have beside their arguments counts when it is measured: nothing is parted."""
    cluster = FakeCluster(partitions=2)

    async def work(client: AsyncClient) -> None:
        with pytest.raises(Rejected) as refused:
            await client.submit_many(called, [("x",)] * count, all_or_nothing=True)
        assert refused.value.field == "calls"
        assert cluster.requests == []
        taken = await client.submit_many(
            called,
            [("x",)] * (count * 7 // 10),
            all_or_nothing=True,
        )
        assert len(taken) == count * 7 // 10

    play(cluster, work)
    ((_, request),) = cluster.requests
    assert request.all_or_nothing
    assert 0.5 * BATCH_BYTES_MAX < request.ByteSize() <= BATCH_BYTES_MAX


# What cannot be a whole.


def test_what_waits_for_a_job_elsewhere_is_no_whole() -> None:
    """A silent partition may keep it waiting, and a whole is not answered in parts."""
    cluster = FakeCluster(partitions=2)
    ways = [
        CALLED.options(after=[AFAR]),
        echo.options(on_success=tell.options(after=[AFAR])),
        echo.options(on_success=tell.options(on_failure=tell.options(after=[AFAR]))),
    ]

    async def work(client: AsyncClient) -> None:
        for number, way in enumerate(ways):
            cluster.requests.clear()
            await client.submit(way, "x")
            assert wholes(cluster) == []
            assert parts(cluster) == [1] * (3 if number == 2 else 2)
            cluster.requests.clear()
            with pytest.raises(Rejected) as refused:
                await client.submit_many(way, [("x",)], all_or_nothing=True)
            assert refused.value.field == "after"
            assert cluster.requests == []
        await client.submit_many(echo.options(after=[AFAR]), [("x",)], all_or_nothing=True)
        assert wholes(cluster) == []

    play(cluster, work)


def test_a_job_too_large_for_its_callbacks_goes_first() -> None:
    """Each is small enough, and both are submitted; together they would be one request too many."""
    cluster = FakeCluster(partitions=2)
    called = echo.options(on_success=tell.bind("y" * 200_000))

    async def work(client: AsyncClient) -> None:
        handle = await client.submit(called, "x" * 250_000)
        assert handle.id in cluster.jobs
        with pytest.raises(Rejected) as refused:
            await client.submit_many(called, [("x" * 250_000,)], all_or_nothing=True)
        assert refused.value.field == "calls"

    play(cluster, work)
    assert wholes(cluster) == []
    assert len(cluster.jobs) == 2


@pytest.mark.parametrize("queue", ["sums", "mail"])
def test_a_map_of_jobs_with_callbacks_goes_in_batches(queue: str) -> None:
    """At home together or not: as many requests as the jobs need, and as their callbacks need."""
    cluster = FakeCluster(partitions=2)
    called = echo.options(on_success=tell.options(queue=queue))

    async def work(client: AsyncClient) -> None:
        handles = await client.map(called, ["x"] * 2_500)
        assert len({handle.id for handle in handles}) == 2_500
        # Each callback is sent once only.
        assert len(cluster.jobs) == 5_000

    play(cluster, work)
    assert wholes(cluster) == []
    assert sum(parts(cluster)) == 5_000
    assert len(parts(cluster)) < 40


def test_a_callback_of_a_map_that_is_refused_is_told_of() -> None:
    """Its job is there, and the error says which; all others have their callbacks."""
    cluster = FakeCluster(partitions=2)
    seen: list[str] = []

    def judge(spec: jobs_pb2.JobSpec) -> Refusal | None:
        if not spec.key:
            return None
        seen.append(spec.key)
        return FULL if len(seen) == 2 else None

    cluster.refuse_rows = judge

    async def work(client: AsyncClient) -> None:
        with pytest.raises(BatchFailed) as failed:
            await client.map(CALLED, ["a", "b", "c"])
        ((index, error),) = failed.value.errors.items()
        assert (index, error.reason) == (1, Reason.OUTCOME_UNKNOWN)
        assert error.metadata["job_id"] in cluster.jobs
        assert len(failed.value.handles) == 2
        with pytest.raises(Rejected):
            await client.map(echo.options(on_success=tell.bind(1, 2, 3)), ["a"])  # type: ignore[call-arg, arg-type]

    play(cluster, work)
    assert len(cluster.jobs) == 5


# What is a whole.


def test_a_refusal_names_the_call() -> None:
    """Not the job among those that were sent with it."""
    cluster = FakeCluster(partitions=2)

    async def work(client: AsyncClient) -> None:
        await client.submit(echo, "x")
        cluster.on_submit = lambda _: FULL
        calls = [("a",), ("b",), ("c",), ("d",)]
        with pytest.raises(Unavailable) as refused:
            await client.submit_many(CALLED, calls, all_or_nothing=True)
        assert refused.value.metadata["index"] == "1"
        with pytest.raises(Unavailable) as refused:
            await client.submit_many(echo, calls, all_or_nothing=True)
        assert refused.value.metadata["index"] == "3"
        with pytest.raises(Unavailable) as refused:
            await client.submit_many(echo, calls[:1], all_or_nothing=True)
        assert refused.value.metadata["index"] == "0"

    play(cluster, work)
    assert wholes(cluster) == [8, 4]


def test_a_whole_gets_new_ids_when_the_clocks_disagree() -> None:
    """As a plain job does, while no leader can have it; its callback waits for the new one."""
    cluster = FakeCluster(partitions=2)

    def judge(request: jobs_pb2.SubmitJobsRequest) -> Refusal | None:
        if abs(time_ms_of(request.jobs[0].job_id) - cluster.now_ms()) < 60_000:
            return None
        now = {"now_ms": str(cluster.now_ms()), "index": "0"}
        return Refusal(reason=Reason.REQUEST_TOO_OLD, message="too old", metadata=now)

    async def work(client: AsyncClient) -> None:
        await client.submit(echo, "x")
        cluster.on_submit = judge
        cluster.skew_ms = 3_600_000
        handle = await client.submit(CALLED, "x")
        own, callback = cluster.requests[-1][1].jobs
        assert own.job_id == handle.id
        assert {*callback.parents} == {handle.id}
        assert partition_of(callback.job_id) == partition_of(handle.id)

    play(cluster, work)
    assert wholes(cluster) == [2, 2]


def test_a_whole_that_a_leader_may_have_keeps_its_ids() -> None:
    """A second one could be a second job, so the caller is told; so too when it never fits."""
    cluster = FakeCluster(partitions=2)
    old = Refusal(reason=Reason.REQUEST_TOO_OLD, message="too old", metadata={"now_ms": "1"})
    answers = [old, Refusal(reason=Reason.OUTCOME_UNKNOWN, message="the store did not answer")]
    cluster.on_submit = lambda _: answers.pop() if answers else old

    async def work(client: AsyncClient) -> None:
        for _ in range(2):
            with pytest.raises(Rejected) as caught:
                await client.submit(CALLED, "x")
            assert caught.value.reason is Reason.REQUEST_TOO_OLD

    play(cluster, work)
    assert wholes(cluster) == [2] * 6
    first, again = (request for _, request in cluster.requests[:2])
    assert [each.job_id for each in first.jobs] == [each.job_id for each in again.jobs]
