"""Dependencies across partitions, in one process on virtual time, with leaders that die."""

from __future__ import annotations

import asyncio
from random import Random

import msgspec
import pytest

from tenure.client import JobFailed, Retry, job
from tenure.master.backend.etcd import operation as op
from tenure.master.backend.etcd.client import EtcdClient
from tenure.master.backend.etcd.keyspace import ClusterKeys
from tenure.master.core.config import PartitionConfig
from tenure.master.core.partition import Partition
from tenure.master.journal.codec import decode_events
from tenure.master.journal.frame import Chain
from tenure.master.journal.port import SealedBatch
from tenure.master.maintenance import next_epoch
from tenure.protocol.errors import TenureError, Unavailable, error_of, refusal_from_wire
from tenure.protocol.ids import JobId, home_partition, mint, partition_of
from tenure.protocol.refusal import Reason
from tenure.protocol.vocabulary import TERMINAL, JobState, ParentFailure, RunIf
from tenure.testing.cluster import SimCluster, simulated_cluster
from tenure.testing.process import elapse, run_processes
from tenure.v1 import common_pb2, jobs_pb2

PARTITIONS = 3
SEEDS = [1, 2, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(3, 10))]
RUNS: dict[str, list[tuple[str, float]]] = {}


@job(name="step")
async def step(name: str, hold_s: float, fails: bool) -> str:
    """Takes a while, notes when it began and ended, and fails if it is told to."""
    loop = asyncio.get_running_loop()
    RUNS.setdefault(name, []).append(("start", loop.time()))
    await elapse(hold_s)
    RUNS[name].append(("end", loop.time()))
    if fails:
        raise ValueError(name)
    return name


class Builder:
    """Submits jobs with parents to any partition, for as long as it takes."""

    def __init__(self, cluster: SimCluster, seed: int) -> None:
        self._cluster = cluster
        self._rng = Random(seed)
        self._transport = cluster.network.transport("builder")
        self.queues = [
            next(
                name
                for name in (f"q{n}" for n in range(1_000))
                if home_partition("default", name, PARTITIONS) == number
            )
            for number in range(PARTITIONS)
        ]

    async def call(self, partition: int, method: str, request: object, kind: type) -> object:
        """Calls the leader, whoever that is by now."""
        deadline_s = asyncio.get_running_loop().time() + 120
        while True:
            leader = self._cluster.leader(partition)
            try:
                if leader is not None:
                    path = f"/tenure.v1.JobService/{method}"
                    return await self._transport.unary(leader.host, path, request, kind, 8.0)  # type: ignore[arg-type]
            except Unavailable:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
            await elapse(0.2)

    async def submit(
        self,
        partition: int,
        name: str,
        *parents: JobId,
        hold_s: float = 0.5,
        fails: bool = False,
        run_if: RunIf = RunIf.ALL_SUCCEEDED,
        on_failure: ParentFailure = ParentFailure.FAIL,
    ) -> JobId:
        """Submits one job; returns when it was acknowledged."""
        leader = await self._cluster.elected(partition)
        assert leader.node is not None
        job_id = mint(partition, leader.node.roster.now_ms(), self._rng.getrandbits(62))
        options = common_pb2.JobOptions(name="step", queue=self.queues[partition])
        options.retry.max_attempts = 1
        options.run_if = run_if  # type: ignore[assignment]
        options.on_parent_failure = on_failure  # type: ignore[assignment]
        spec = jobs_pb2.JobSpec(
            job_id=job_id,
            payload=msgspec.msgpack.encode([[name, hold_s, fails], {}]),
            parents=parents,
        )
        request = jobs_pb2.SubmitJobsRequest(options=[options], jobs=[spec])
        response = await self.call(partition, "SubmitJobs", request, jobs_pb2.SubmitJobsResponse)
        assert isinstance(response, jobs_pb2.SubmitJobsResponse)
        for error in response.errors:
            raise error_of(refusal_from_wire(error.refusal))
        assert list(response.job_ids) == [job_id]
        return job_id

    async def job(self, job_id: JobId) -> jobs_pb2.Job:
        """A job as it is now."""
        request = jobs_pb2.GetJobRequest(job_id=job_id)
        kind = jobs_pb2.GetJobResponse
        response = await self.call(partition_of(job_id), "GetJob", request, kind)
        assert isinstance(response, jobs_pb2.GetJobResponse)
        return response.job

    async def ended(self, job_id: JobId) -> JobState:
        """Waits for a job's end, as long as it takes."""
        while True:
            state = JobState((await self.job(job_id)).state)
            if state in TERMINAL:
                return state
            await elapse(0.5)


async def unrest(cluster: SimCluster, rng: Random, rounds: int) -> None:
    """Leaders die, hand over and stand still, one after the other."""
    for _ in range(rounds):
        await elapse(rng.uniform(0.2, 4))
        leader = await cluster.elected(rng.randrange(PARTITIONS))
        match rng.choice(("kill", "kill", "stop", "freeze")):
            case "kill":
                leader.kill()
                await leader.process.join()
                cluster.start(leader)
            case "stop":
                leader.stop()
                await leader.process.join()
                cluster.start(leader)
            case _:
                leader.freeze()
                await elapse(8)
                leader.thaw()


@pytest.mark.parametrize(
    "seed", [1, 2, *(pytest.param(n, marks=pytest.mark.nightly) for n in range(3, 10))]
)
def test_a_flow_across_partitions_lives_through_failovers(seed: int) -> None:
    """Each job runs after its parents have ended; failures take the branches that they should."""
    RUNS.clear()

    async def main() -> None:
        rng = Random(seed)
        async with simulated_cluster(
            seed=seed, jobs=[step], partitions=PARTITIONS, slots=8
        ) as cluster:
            builder = Builder(cluster, seed)
            async with asyncio.TaskGroup() as group:
                troubles = group.create_task(unrest(cluster, rng, 5))
                root = await builder.submit(0, "root", hold_s=3)
                pay = await builder.submit(1, "pay", root)
                pick = await builder.submit(2, "pick", root, hold_s=2)
                ship = await builder.submit(0, "ship", pay, pick)
                bad = await builder.submit(1, "bad", root, fails=True)
                lost = await builder.submit(2, "lost", bad)
                leaf = await builder.submit(0, "leaf", lost)
                mend = await builder.submit(0, "mend", bad, run_if=RunIf.ANY_FAILED)
                spare = await builder.submit(2, "spare", pay, run_if=RunIf.ANY_FAILED)
                last = await builder.submit(1, "last", ship, leaf, run_if=RunIf.ALWAYS)
                await troubles
            expected = {
                **dict.fromkeys((root, pay, pick, ship, mend, last), JobState.COMPLETED),
                **dict.fromkeys((bad, lost, leaf), JobState.FAILED),
                spare: JobState.CANCELLED,
            }
            for job_id, state in expected.items():
                assert await builder.ended(job_id) is state
            for child, *parents in (
                ("pay", "root"),
                ("ship", "pay", "pick"),
                ("mend", "bad"),
                ("last", "ship"),
            ):
                for parent in parents:
                    assert RUNS[child][0][1] >= RUNS[parent][-1][1]
            assert not {"lost", "leaf", "spare"} & RUNS.keys()
            assert cluster.network.failures == []
            assert hashes_differ(cluster) == []

    run_processes(main)


def test_an_unknown_parent_is_refused_after_its_partition_was_asked() -> None:
    """The submit waits for the parent's partition, without a leader for a while, and is refused."""

    async def main() -> None:
        async with simulated_cluster(seed=4, jobs=[step], partitions=PARTITIONS) as cluster:
            builder = Builder(cluster, 4)
            await cluster.elected(0)
            (await cluster.elected(1)).kill()
            nobody = mint(1, (await _now(cluster)), 7)
            with pytest.raises(TenureError) as refused:
                await builder.submit(0, "orphan", nobody)
            assert refused.value.reason is Reason.UNKNOWN_PARENT
            assert refused.value.field == "parents[0]"

    run_processes(main)


def test_a_silent_parents_partition_holds_up_only_its_children() -> None:
    """Jobs that are submitted together with one are acknowledged at once; it is when all is well.

    It runs once, however often its submit was sent again meanwhile.
    """
    RUNS.clear()

    async def main() -> None:
        async with simulated_cluster(seed=5, jobs=[step], partitions=PARTITIONS) as cluster:
            builder = Builder(cluster, 5)
            client, loop = cluster.client(), asyncio.get_running_loop()
            # Until masters have shared the partitions out.
            await elapse(30)
            parent = await builder.submit(1, "parent", hold_s=0)
            here, away = await cluster.elected(0), await cluster.elected(1)
            assert here is not away
            cluster.network.cut(here.host, away.host)
            near = step.options(queue=builder.queues[0])
            began_s = loop.time()
            async with asyncio.TaskGroup() as group:
                child = group.create_task(
                    client.submit(near.options(after=[parent]), "child", 0.0, False)
                )
                mates = [
                    group.create_task(client.submit(near, f"mate {n}", 0.0, False))
                    for n in range(20)
                ]
                for mate in mates:
                    await mate
                assert loop.time() - began_s < 1
                assert not child.done()
                await elapse(7)
                cluster.network.heal(here.host, away.host)
            await child.result().result()
            assert len(RUNS["child"]) == 2

    run_processes(main)


async def _now(cluster: SimCluster) -> int:
    leader = await cluster.elected(0)
    assert leader.node is not None
    return leader.node.roster.now_ms()


def hashes_differ(cluster: SimCluster) -> list[tuple[int, int]]:
    """S9: (partition, seq) where a leader's state was not what its journal says."""
    found = []
    for number in range(PARTITIONS):
        partition = Partition(PartitionConfig(partition=number, partitions=PARTITIONS))
        chain = Chain.start(number)
        for index, data in enumerate(cluster.journal(number)):
            batch = chain.follow(SealedBatch(number=index, data=data))
            for seq, event in enumerate(decode_events(batch.events), batch.first_seq):
                partition.replay(event, seq)
                live = cluster.state_hashes.get((number, seq))
                if live is not None and live != partition.state_hash().hex():
                    found.append((number, seq))
    return found


def test_partitions_talk_in_a_cluster_that_was_set_back() -> None:
    """Messages are numbered from the epoch on, which is a time then: journals and requests carry
    such numbers, between masters and within one.
    """
    RUNS.clear()

    async def main() -> None:
        async with simulated_cluster(seed=6, jobs=[step], partitions=PARTITIONS) as cluster:
            builder = Builder(cluster, 6)
            first = await builder.submit(0, "first", hold_s=0)
            second = await builder.submit(1, "second", first, hold_s=0)
            assert await builder.ended(second) is JobState.COMPLETED
            for master in cluster.masters.values():
                master.kill()
            await _raise_epoch(cluster)
            for master in cluster.masters.values():
                cluster.start(master)
            for lonely in (False, True):
                if lonely:
                    for master in [*cluster.masters.values()][1:]:
                        master.stop()
                # Until partitions are where they should be: with three masters, or with one.
                await elapse(30)
                leaders = {(await cluster.elected(number)).name for number in range(PARTITIONS)}
                assert len(leaders) == (1 if lonely else 3)
                parent = await builder.submit(0, "parent", second, hold_s=0)
                children = [await builder.submit(n, f"child {n}", parent) for n in (1, 2)]
                last = await builder.submit(0, "last", *children, hold_s=0)
                assert await builder.ended(last) is JobState.COMPLETED
            assert cluster.network.failures == []
            assert hashes_differ(cluster) == []

    run_processes(main)


async def _raise_epoch(cluster: SimCluster) -> None:
    """What the command does while no master runs."""
    member = next(iter(cluster.etcd.members.values()))
    operator = EtcdClient([member.host], dial=cluster.etcd.dialer("operator"))
    epoch = next_epoch(1)
    await operator.txn(success=[op.put(ClusterKeys().epoch, b"%d" % epoch)])
    await operator.close()


def test_a_chain_by_the_sdk() -> None:
    """``after=`` takes handles and ids; children of other queues wait, and fail with parents."""
    RUNS.clear()

    async def main() -> None:
        async with simulated_cluster(seed=8, jobs=[step], partitions=PARTITIONS) as cluster:
            client = cluster.client()
            first = await client.submit(step.options(queue="a"), "first", 1.0, False)
            second = await client.submit(
                step.options(queue="b", after=[first]), "second", 0.1, False
            )
            many = await client.submit_many(
                step.options(queue="c", after=[first.id, second]),
                [(f"many {number}", 0.1, number == 3) for number in range(5)],
            )
            once = step.options(queue="a", after=many, retry=Retry(max_attempts=1))
            last = await client.submit(once, "last", 0.1, False)
            mend = await client.submit(once.options(run_if="any_failed"), "mend", 0.1, False)
            (await cluster.elected(1)).kill()
            assert await mend.result() == "mend"
            with pytest.raises(JobFailed, match="parent"):
                await last.result()
            assert RUNS["second"][0][1] >= RUNS["first"][-1][1]
            assert all(RUNS[f"many {n}"][0][1] >= RUNS["second"][-1][1] for n in range(5))

    run_processes(main)
