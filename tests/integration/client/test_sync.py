"""``Client`` over loopback: the same client for plain code, from any thread."""

import asyncio
import gc
import inspect
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tenure.client import (
    AsyncClient,
    AsyncJobHandle,
    Client,
    JobHandle,
    Rejected,
    Unavailable,
    WaitTimeout,
    job,
)
from tenure.client.batches import AsyncBatches
from tenure.client.cluster import ClusterView
from tenure.client.context import JobContext, activate
from tenure.client.queues import AsyncJobTypes, AsyncQueues, AsyncTenants
from tenure.client.schedule import AsyncSchedules
from tenure.client.sync import Cluster
from tenure.client.sync_batches import Batches
from tenure.client.sync_queues import JobTypes, Queues, Tenants
from tenure.client.sync_schedules import Schedules
from tenure.client.sync_workers import Workers
from tenure.client.sync_workflows import StartedFlow, Workflow, Workflows
from tenure.client.workers import AsyncWorkers
from tenure.client.workflow import AsyncStartedFlow, AsyncWorkflow, AsyncWorkflows
from tenure.protocol.fence import NO_TOKEN, Lease
from tenure.protocol.vocabulary import JobState
from tests.chaos.process import until
from tests.integration.client.bridge import Bridge


@job(name="app.add")
def add(left: int, right: int = 0) -> int:
    """Adds."""
    return left + right


class Served:
    """A bridge on a loop of its own thread, since the client under test blocks its caller."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        self._ready.wait()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with Bridge(partitions=2) as bridge:
            self.bridge = bridge
            self._ready.set()
            await self._stop.wait()

    def complete(self, job_id: str, value: object) -> None:
        """A job ends, as seen by the server's loop."""
        self._loop.call_soon_threadsafe(self.bridge.cluster.complete, job_id, value)

    def wait_awaited(self, job_id: str) -> None:
        """Returns when a client waits for the job's result."""
        if until(lambda: self._awaits(job_id), 10) is None:
            raise AssertionError(f"expected somebody to wait for {job_id}")

    def _awaits(self, job_id: str) -> bool:
        return any(job_id in stream.awaited for stream in list(self.bridge.cluster.streams))

    def close(self) -> None:
        """Ends the server."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


@pytest.fixture
def served() -> Iterator[Served]:
    """A running server."""
    server = Served()
    yield server
    server.close()


def test_submit_and_result(served: Served) -> None:
    """Plain code submits, waits, looks and stops, without an event loop of its own."""
    with Client(served.bridge.address) as client:
        handle = client.submit(add, 1, right=2)
        assert isinstance(handle, JobHandle)
        assert handle.status() is JobState.PENDING
        assert not handle.wait(timeout=0.05)
        with pytest.raises(WaitTimeout):
            handle.result(timeout=0.05)
        served.complete(handle.id, 3)
        assert handle.result(timeout=10) == 3
        assert client.get(handle.id, add).result(timeout=10) == 3
        assert client.describe(handle.id).options.name == "app.add"
        assert client.submit(add, 5).cancel() is JobState.CANCELLED


def test_many_jobs(served: Served) -> None:
    """``map``, ``as_completed``, ``list`` and ``count`` are plain iterables and dictionaries."""
    with Client(served.bridge.address) as client:
        handles = client.map(add, range(20))
        for value, handle in enumerate(handles):
            served.complete(handle.id, value)
        results = [done.result() for done in client.as_completed(handles)]
        assert sorted(results) == list(range(20))
        assert {found.job_id for found in client.list()} == {handle.id for handle in handles}
        assert client.count() == {JobState.COMPLETED: 20}
        left = client.list()
        assert next(left).job_id in {handle.id for handle in handles}
    left.close()  # Left early, and closed later than the client.


@pytest.mark.parametrize("locked", [False, True])
def test_an_iterator_that_the_collector_ends(served: Served, locked: bool) -> None:
    """It may be found in the client's own thread, or in one that is about to call the client."""
    with Client(served.bridge.address) as client:
        client.submit(add, 1)
        left = client.list()
        next(left)
        cycle: list[object] = [left]
        cycle.append(cycle)
        del left, cycle

        async def collect() -> None:
            gc.collect()

        with ThreadPoolExecutor(1) as pool:
            if locked:
                with client._portal._lock:
                    gc.collect()
            else:
                pool.submit(client._portal.run, collect()).result(timeout=10)
        assert client.count() == {JobState.PENDING: 1}


def test_from_many_threads(served: Served) -> None:
    """Threads share one client."""
    with Client(served.bridge.address) as client, ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(lambda n: client.submit(add, n), range(100)))
    assert len({handle.id for handle in handles}) == 100


def test_inside_a_running_loop(served: Served) -> None:
    """A notebook has a loop in its main thread; the plain client works there all the same."""

    async def cell() -> str:
        with Client(served.bridge.address) as client:
            return client.submit(add, 1).id

    assert asyncio.run(cell()) in served.bridge.cluster.jobs


def test_a_closed_client_says_so(served: Served) -> None:
    """After close every call is refused at once; closing twice is nothing."""
    client = Client(served.bridge.address)
    handle = client.submit(add, 1)
    client.close()
    client.close()
    for call in (lambda: client.submit(add, 1), lambda: handle.status()):
        with pytest.raises(Unavailable, match="closed"):
            call()


def test_waits_end_in_time(served: Served) -> None:
    """Every wait has a timeout; what it waited for goes on."""
    with Client(served.bridge.address) as client:
        handles = client.map(add, range(3))
        assert client.wait_any(handles, timeout=0.05) is None
        assert not client.wait_all(handles, timeout=0.05)
        with pytest.raises(WaitTimeout, match="2 others"):
            next(client.as_completed(handles, timeout=0.05))
        served.complete(handles[1].id, 1)
        assert client.wait_any(handles, timeout=10) is handles[1]
        served.complete(handles[0].id, 0)
        served.complete(handles[2].id, 2)
        assert client.wait_all(handles, timeout=10)
        assert [handle.result() for handle in handles] == [0, 1, 2]
        assert [done.id for done in client.as_completed([handles[2]] * 2)] == [handles[2].id] * 2


def test_a_handle_tells_what_its_job_does(served: Served) -> None:
    """Events of a job that has ended are its end; progress is a number."""
    with Client(served.bridge.address) as client:
        handle = client.submit(add, 1)
        assert handle.progress() == 0
        served.complete(handle.id, 1)
        assert [event.state for event in handle.events()] == [JobState.COMPLETED]
        assert [member.address for member in client.cluster.members()] == [served.bridge.address]


def test_a_handle_keeps_its_client_open(served: Served) -> None:
    """A client that is kept by its handles only is not closed behind their back."""
    handle = Client(served.bridge.address).submit(add, 1)
    served.complete(handle.id, 1)
    assert handle.result(timeout=10) == 1
    listed = Client(served.bridge.address).list()
    assert [found.job_id for found in listed] == [handle.id]


def test_who_waits_in_another_thread_is_told_of_the_end(served: Served) -> None:
    """Closing a client wakes all that wait in it, with an error that says why."""
    client = Client(served.bridge.address)
    handle = client.submit(add, 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handle.result)
        served.wait_awaited(handle.id)
        client.close()
        with pytest.raises(Unavailable, match="closed"):
            waiting.result(timeout=10)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises, also where the tests run in the background of a shell that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_a_wait_and_nothing_else(served: Served) -> None:
    """Ctrl-C in a blocking call raises at once; the job and the client go on."""
    main = threading.get_ident()

    def interrupt(job_id: str) -> None:
        served.wait_awaited(job_id)
        signal.pthread_kill(main, signal.SIGINT)

    with Client(served.bridge.address) as client, ThreadPoolExecutor(1) as pool:
        handle = client.submit(add, 1)
        interrupting = pool.submit(interrupt, handle.id)
        with pytest.raises(KeyboardInterrupt):
            handle.result()
        interrupting.result(timeout=10)
        served.complete(handle.id, 1)
        assert handle.result(timeout=10) == 1


def test_calls_that_meet_a_close_end(served: Served) -> None:
    """Threads that call while another one closes the client get an answer or an error, all."""

    def call_until_it_fails(client: Client, begun: threading.Barrier) -> None:
        begun.wait()
        while True:
            client.count()

    def call(client: Client, begun: threading.Barrier) -> None:
        with pytest.raises(Unavailable, match="closed"):
            call_until_it_fails(client, begun)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            client = Client(served.bridge.address)
            client.count()
            begun = threading.Barrier(5)
            calls = [pool.submit(call, client, begun) for _ in range(4)]
            begun.wait()
            client.close()
            for done in calls:
                done.result(timeout=10)


def test_a_coroutine_job_waits_with_the_async_client(served: Served) -> None:
    """Blocking the loop of a worker's coroutine jobs is refused with advice; a submit is not."""

    async def running(client: Client) -> JobHandle[int]:
        handle = client.submit(add, 1)
        with pytest.raises(Rejected, match="AsyncClient"):
            handle.result(timeout=10)
        return handle

    with Client(served.bridge.address) as client:
        context = JobContext(id="x", name="parent", attempt=1, lease=Lease(NO_TOKEN, 1, 0))
        with activate(context):
            handle = asyncio.run(running(client))
            assert not handle.wait(timeout=0.01)


def test_a_coroutine_job_may_look_at_jobs(served: Served) -> None:
    """A list or a count waits for no job, but for an answer, as a submit does; a watch waits."""

    async def running(client: Client) -> None:
        handle = client.submit(add, 1)
        assert [found.job_id for found in client.list()] == [handle.id]
        assert client.count() == {JobState.PENDING: 1}
        with pytest.raises(Rejected, match="AsyncClient"):
            next(iter(client.watch()))

    with Client(served.bridge.address) as client:
        context = JobContext(id="x", name="parent", attempt=1, lease=Lease(NO_TOKEN, 1, 0))
        with activate(context):
            asyncio.run(running(client))


def surface(kind: type) -> dict[str, tuple[str, list[tuple[str, object, object, str]], str]]:
    """Public methods: the first line of the docstring, the parameters, what comes back."""

    def plain(annotation: object) -> str:
        """A type without what makes it that of an async client."""
        return re.sub(
            r"Async(?=Batches|Client|Job|Iterator|Queues|Schedules|StartedFlow|Tenants|Worker|Workflow)"
            r"|ClusterView|^Cluster$",
            "",
            str(annotation),
        )

    found = {}
    for name, member in vars(kind).items():
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        signature = inspect.signature(function)
        parameters = [
            (p.name, p.kind, p.default, plain(p.annotation)) for p in signature.parameters.values()
        ]
        summary = (function.__doc__ or "").partition("\n")[0]
        found[name] = summary, parameters, plain(signature.return_annotation)
    return found


#: What other modules of the client call.
PLUMBING = {
    *("completions", "follow", "wait_for_result", "outcome", "known", "take"),
    *("core", "layers", "router", "started_core", "timeout_s"),
}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Client, AsyncClient),
        (JobHandle, AsyncJobHandle),
        (Cluster, ClusterView),
        (Batches, AsyncBatches),
        (Queues, AsyncQueues),
        (Schedules, AsyncSchedules),
        (StartedFlow, AsyncStartedFlow),
        (Workflow, AsyncWorkflow),
        (Workflows, AsyncWorkflows),
        (Tenants, AsyncTenants),
        (JobTypes, AsyncJobTypes),
        (Workers, AsyncWorkers),
    ],
)
def test_both_clients_have_the_same_surface(ours: type, theirs: type) -> None:
    """Names, parameters, defaults, types and summaries are equal; what only the async one has is
    its plumbing.
    """
    plain, plumbed = surface(ours), surface(theirs)
    assert {name: plumbed.get(name) for name in plain} == plain
    assert plumbed.keys() - plain.keys() <= PLUMBING
