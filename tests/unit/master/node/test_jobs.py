"""What goes in one piece to the store, or over the wire, stays below its limit."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from tenure.master.core.command import CancelJobs, PurgeJobs
from tenure.master.core.record import Policy, RetryPolicy
from tenure.master.election.port import Candidate
from tenure.master.node.jobs import JobApi
from tenure.master.node.roster import Roster
from tenure.protocol import limits
from tenure.protocol.errors import TenureError, Unavailable
from tenure.protocol.ids import JobId, mint
from tenure.protocol.refusal import Reason
from tenure.testing.clock import SimClock
from tenure.testing.loop import run_virtual
from tenure.v1 import common_pb2, jobs_pb2, worker_pb2
from tests.unit.master.node.fakes import settle
from tests.unit.master.node.term_rig import TermRig, leading, outcome

COMPLETED = common_pb2.ATTEMPT_OUTCOME_COMPLETED
JOB_ID = mint(0, 1_800_000_000_000, 1)


def refusal_of(request: jobs_pb2.SubmitJobsRequest) -> TenureError:
    """What a master that leads nothing says to a batch: NOT_LEADER if it finds nothing wrong."""
    me = Candidate(incarnation="1", name="m", address="127.0.0.1:1")
    roster = Roster(cluster_id="c", partitions=1, me=me, clock=SimClock())
    api = JobApi(roster=roster, rng=random.Random(1))
    with pytest.raises(TenureError) as refused:
        asyncio.run(api.submit_jobs(request))
    return refused.value


def batch(jobs: int, payload_bytes: int, options: int = 1) -> jobs_pb2.SubmitJobsRequest:
    """A batch of equal jobs."""
    return jobs_pb2.SubmitJobsRequest(
        options=[common_pb2.JobOptions(name="f")] * options,
        jobs=[jobs_pb2.JobSpec(payload=bytes(payload_bytes))] * jobs,
    )


async def results(
    rig: TermRig, job_ids: list[JobId], said: list[jobs_pb2.StreamResultsResponse]
) -> None:
    """Waits for jobs' results on a stream."""

    async def send(message: jobs_pb2.StreamResultsResponse) -> None:
        said.append(message)

    async def ask() -> AsyncIterator[jobs_pb2.StreamResultsRequest]:
        yield jobs_pb2.StreamResultsRequest(job_ids=job_ids)

    await JobApi(roster=rig.roster, rng=random.Random(1)).stream_results(ask(), send)


def test_a_batch_within_the_limits_is_looked_at() -> None:
    """The largest batch that the SDK makes gets past the checks."""
    assert refusal_of(batch(limits.BATCH_JOBS_MAX, 350)).reason is Reason.NOT_LEADER


def test_a_batch_of_too_many_jobs_is_refused() -> None:
    """One job more than the limit."""
    assert refusal_of(batch(limits.BATCH_JOBS_MAX + 1, 1)).reason is Reason.BATCH_TOO_LARGE


def test_a_batch_of_too_many_bytes_is_refused() -> None:
    """Few jobs, each small enough: together they would be more than etcd takes in one request."""
    refused = refusal_of(batch(7, limits.PAYLOAD_BYTES_DEFAULT))

    assert refused.reason is Reason.BATCH_TOO_LARGE
    assert str(limits.BATCH_BYTES_MAX) in refused.message


@pytest.mark.parametrize(
    ("parents", "field"),
    [
        ([JOB_ID] * (limits.PARENTS_MAX + 1), "jobs[0].parents"),
        ([JOB_ID, "42"], "jobs[0].parents[1]"),
        ([mint(1, 1_800_000_000_000, 1)], "jobs[0].parents[0]"),
    ],
)
def test_parents_that_cannot_be_are_refused_by_their_field(parents: list[str], field: str) -> None:
    """More than a job may have, what is no id, and ids of partitions that there are not."""

    async def main() -> object:
        async with leading() as rig:
            request = batch(1, 1)
            request.jobs[0].parents.extend(parents)
            api = JobApi(roster=rig.roster, rng=random.Random(1))
            return await outcome(api.submit_jobs(request))

    refused = run_virtual(main)
    assert isinstance(refused, TenureError)
    assert refused.field == field


def test_more_options_than_jobs_are_refused() -> None:
    """Options that no job names would grow the event for nothing."""
    refused = refusal_of(batch(1, 1, options=2))

    assert refused.reason is Reason.INVALID_ARGUMENT
    assert refused.field == "options"


def test_all_or_nothing() -> None:
    """One bad job refuses the whole batch and says which it is; without that, it alone is."""

    async def main() -> None:
        async with leading() as rig:
            api = JobApi(roster=rig.roster, rng=random.Random(1))
            request = batch(2, 1)
            request.jobs[1].job_id = mint(0, 1, 1)
            request.all_or_nothing = True
            refused = await outcome(api.submit_jobs(request))
            assert isinstance(refused, TenureError)
            assert refused.reason is Reason.REQUEST_TOO_OLD
            assert refused.metadata["index"] == "1"
            assert rig.partition.stats().jobs == 0
            request.all_or_nothing = False
            async with asyncio.TaskGroup() as tasks:
                answer = tasks.create_task(api.submit_jobs(request))
                await rig.commit()
            assert [error.index for error in answer.result().errors] == [1]
            assert rig.partition.stats().jobs == 1

    run_virtual(main)


def test_results_travel_in_messages_that_grpc_carries() -> None:
    """However large the results that are there at once, no message holds more than a few."""

    async def main() -> list[jobs_pb2.StreamResultsResponse]:
        async with leading() as rig:
            job_ids = rig.submit(count=30)
            await rig.commit()
            link = rig.connect(credit=30)
            await rig.commit()
            grants = [grant for part in rig.heard(link) for grant in part.assignment.grants]
            for grant in grants:
                report = worker_pb2.Report(outcome=COMPLETED, result=bytes(200_000))
                report.lease.job_id, report.lease.seq = grant.job_id, grant.seq
                rig.say(link, reports=[report])
            await rig.commit()
            await rig.commit()
            said: list[jobs_pb2.StreamResultsResponse] = []
            await results(rig, job_ids, said)
            return said

    said = run_virtual(main)
    assert sum(len(message.results) for message in said) == 30
    assert max(message.ByteSize() for message in said) < 1024 * 1024


def test_what_waits_is_bounded_in_bytes() -> None:
    """One stream of large batches does not fill a slow master's memory: they are refused."""

    async def main() -> list[jobs_pb2.StreamSubmitsResponse]:
        async with leading() as rig:
            said: list[jobs_pb2.StreamSubmitsResponse] = []

            async def send(message: jobs_pb2.StreamSubmitsResponse) -> None:
                said.append(message)

            async def ask() -> AsyncIterator[jobs_pb2.StreamSubmitsRequest]:
                for number in range(400):
                    yield jobs_pb2.StreamSubmitsRequest(number=number, request=batch(1, 200_000))
                rig.keeper.may_act = lambda: True  # type: ignore[method-assign]
                for _ in range(400):
                    rig.term.nudge()
                    await rig.commit()

            # The owner loop has other things to do.
            rig.keeper.may_act = lambda: False  # type: ignore[method-assign]
            await JobApi(roster=rig.roster, rng=random.Random(1)).stream_submits(ask(), send)
            return said

    said = run_virtual(main)
    refused = [message for message in said if message.HasField("refusal")]
    assert len(said) == 400
    assert len(refused) == 400 - 64 * 1024 * 1024 // batch(1, 200_000).ByteSize()
    assert {message.refusal.reason for message in refused} == {Reason.FROZEN.value}


def test_results_that_wait_are_bounded_in_bytes() -> None:
    """Reports are counted by what they carry; a worker keeps what is not acknowledged."""

    async def main() -> None:
        async with leading() as rig:
            link = rig.connect()
            await rig.commit()
            waiting = rig.term._inbox
            report = worker_pb2.Report(outcome=COMPLETED, result=bytes(256 * 1024))
            report.lease.job_id = rig.mint()
            for _ in range(300):
                rig.say(link, reports=[report])
            assert 250 < len(waiting) < 256

    run_virtual(main)


@pytest.mark.parametrize("known", [True, False])
def test_what_is_unknown_is_said_only_when_it_has_committed(known: bool) -> None:
    """A purge that may never commit, or a submit that may, is not told of before its commit."""

    async def main() -> None:
        async with leading() as rig:
            job_id = rig.mint()
            if known:
                rig.term.post(rig.submission([job_id]))
                rig.term.post(CancelJobs(job_ids=[job_id]))
                await rig.commit()
                rig.term.post(PurgeJobs(job_ids=[job_id]))
            else:
                rig.submit()
            await settle()
            said: list[jobs_pb2.StreamResultsResponse] = []
            async with asyncio.TaskGroup() as tasks:
                stream = tasks.create_task(results(rig, [job_id], said))
                await settle()
                assert not said
                assert not stream.done()
                await rig.commit()
            (message,) = said
            (result,) = message.results
            reason = Reason.RESULT_EXPIRED if known else Reason.NOT_FOUND
            assert (result.job_id, result.refusal.reason) == (job_id, reason.value)

    run_virtual(main)


def test_a_purge_that_never_commits_is_not_told() -> None:
    """Who waits for a job's result at a leader that is deposed amid its purge asks the next one."""
    said: list[jobs_pb2.StreamResultsResponse] = []

    async def main() -> None:
        async with leading() as rig:
            (job_id,) = rig.submit()
            rig.term.post(CancelJobs(job_ids=[job_id]))
            await rig.commit()
            rig.term.post(PurgeJobs(job_ids=[job_id]))
            await settle()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(results(rig, [job_id], said))
                await settle()
                rig.abandon()

    with pytest.raises(ExceptionGroup) as caught:
        run_virtual(main)
    assert caught.group_contains(Unavailable)
    assert not said


def test_who_asks_again_gets_a_result_once() -> None:
    """A client that polls names its job each time; it costs no memory, and its end comes once."""

    async def main() -> list[jobs_pb2.StreamResultsResponse]:
        async with leading() as rig:
            (job_id,) = rig.submit()
            await rig.commit()
            said: list[jobs_pb2.StreamResultsResponse] = []

            async def send(message: jobs_pb2.StreamResultsResponse) -> None:
                said.append(message)

            async def ask() -> AsyncIterator[jobs_pb2.StreamResultsRequest]:
                for _ in range(50):
                    yield jobs_pb2.StreamResultsRequest(job_ids=[job_id, job_id])
                rig.term.post(CancelJobs(job_ids=[job_id]))
                await rig.commit()

            await JobApi(roster=rig.roster, rng=random.Random(1)).stream_results(ask(), send)
            return said

    (message,) = run_virtual(main)
    assert len(message.results) == 1


async def listed(api: JobApi, text: str, page_size: int) -> list[list[str]]:
    """All pages of a list, as a client fetches them."""
    request = jobs_pb2.ListJobsRequest(filter=text, page_size=page_size)
    pages = []
    while True:
        page = await api.list_jobs(request)
        pages.append([job.job_id for job in page.jobs])
        if not page.next_page_token:
            return pages
        request.page_token = page.next_page_token


def test_pages_of_a_filtered_list() -> None:
    """Pages hold every job that matches once, newest first; the last one has no token."""

    async def main() -> None:
        async with leading() as rig:
            job_ids = rig.submit(count=7)
            await rig.commit()
            api = JobApi(roster=rig.roster, rng=random.Random(1))
            newest = [str(job_id) for job_id in reversed(job_ids)]
            for text in ("", "state = PENDING", "name:job AND -labels:x"):
                assert await listed(api, text, 3) == [newest[:3], newest[3:6], newest[6:]]
                assert await listed(api, text, 7) == [newest]
                assert await listed(api, text, 0) == [newest]
                assert await listed(api, text, 10**9) == [newest]
            assert await listed(api, "state = FAILED", 3) == [[]]
            assert await listed(api, f"job_id = {newest[0]}", 3) == [[newest[0]]]
            for text, count in (("queue = default", 7), ("attempts > 0", 0), ("attempts = 0", 7)):
                answer = await api.count_jobs(jobs_pb2.CountJobsRequest(filter=text))
                assert sum(row.count for row in answer.counts) == count

    run_virtual(main)


def test_pages_travel_in_messages_that_any_client_takes() -> None:
    """Errors are large: a page of them ends below 4 MiB, and the next one goes on behind it."""

    async def main() -> list[int]:
        async with leading() as rig:
            job_ids = rig.submit(Policy(name="job", retry=RetryPolicy(max_attempts=1)), count=200)
            await rig.commit()
            link = rig.connect(credit=200)
            await rig.commit()
            for grant in [grant for part in rig.heard(link) for grant in part.assignment.grants]:
                report = worker_pb2.Report(outcome=common_pb2.ATTEMPT_OUTCOME_FAILED)
                report.error.traceback = "x" * limits.TRACEBACK_BYTES_MAX
                report.lease.job_id, report.lease.seq = grant.job_id, grant.seq
                rig.say(link, reports=[report])
                await rig.commit()
            api = JobApi(roster=rig.roster, rng=random.Random(1))
            request = jobs_pb2.ListJobsRequest(page_size=1_000, filter="state = FAILED")
            sizes, found = [], []
            while True:
                page = await api.list_jobs(request)
                sizes.append(page.ByteSize())
                found += [job.job_id for job in page.jobs]
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
            assert found == job_ids[::-1]
            return sizes

    sizes = run_virtual(main)
    assert len(sizes) > 3
    assert max(sizes) < 4 * 1024 * 1024


def test_a_list_of_many_lets_others_work() -> None:
    """A filter that must look at each job does so in slices; others get their turn between."""

    async def main() -> int:
        async with leading() as rig:
            rig.submit(count=20_000)
            await rig.commit()
            api = JobApi(roster=rig.roster, rng=random.Random(1))
            turns = 0
            async with asyncio.TaskGroup() as tasks:
                listing = tasks.create_task(listed(api, "attempts > 0", 3))
                while not listing.done():
                    turns += 1
                    await asyncio.sleep(0)
            assert listing.result() == [[]]
            return turns

    assert run_virtual(main) >= 3


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (jobs_pb2.ListJobsRequest(page_size=-1), "page_size"),
        (jobs_pb2.ListJobsRequest(page_token="x"), "page_token"),
        (jobs_pb2.ListJobsRequest(page_token="1"), "page_token"),
        (jobs_pb2.ListJobsRequest(page_token="1.00000000", filter="run = 1"), "page_token"),
        (jobs_pb2.ListJobsRequest(filter="colour = red"), "filter"),
    ],
)
def test_bad_pages_are_refused(request_: jobs_pb2.ListJobsRequest, field: str) -> None:
    """AIP-158: a negative size, and a token that is no token of this very list."""

    async def main() -> TenureError:
        async with leading() as rig:
            api = JobApi(roster=rig.roster, rng=random.Random(1))
            with pytest.raises(TenureError) as refused:
                await api.list_jobs(request_)
            return refused.value

    refused = run_virtual(main)
    assert refused.reason is Reason.INVALID_ARGUMENT
    assert refused.field == field
