"""Which pool a job's slots are of."""

from collections.abc import Mapping

import pytest

from tenure.client import Rejected, job
from tenure.client.middleware import Finish, Middleware
from tenure.worker.attempt import JobTable
from tenure.worker.middleware import Application
from tenure.worker.pools import share_out


@job(name="plain")
def plain() -> None:
    """Of no class."""


@job(name="crunch", pool="cpu", executor="process")
def crunch() -> None:
    """Of a class."""


@job(name="isolated", executor="process")
def isolated() -> None:
    """Of no class, in a child."""


@job(name="fetch", pool="io")
async def fetch() -> None:
    """Of another class."""


class Ends(Middleware):
    """Wants to know of ends."""

    def on_finish(self, finish: Finish) -> None:
        """Takes it."""


JOBS: JobTable = {job.name: job for job in (plain, crunch, isolated, fetch)}


@pytest.mark.parametrize(
    ("sizes", "pools"),
    [
        pytest.param({}, {"default": (4, [*JOBS])}, id="none"),
        pytest.param(
            {"cpu": 2},
            {"default": (4, ["plain", "isolated", "fetch"]), "cpu": (2, ["crunch"])},
            id="a class of its own",
        ),
        pytest.param(
            {"process": 2},
            {"default": (4, ["plain", "fetch"]), "process": (2, ["crunch", "isolated"])},
            id="an executor, also for those whose class has no slots",
        ),
        pytest.param(
            {"cpu": 1, "process": 2, "io": 50},
            {
                "default": (4, ["plain"]),
                "cpu": (1, ["crunch"]),
                "process": (2, ["isolated"]),
                "io": (50, ["fetch"]),
            },
            id="a class comes before the executor",
        ),
        pytest.param(
            {"cpu": 0},
            {"default": (4, ["plain", "isolated", "fetch"])},
            id="none of them here",
        ),
        pytest.param(
            {"thread": 1, "cpu": 2, "process": 3, "async": 8},
            {
                "thread": (1, ["plain"]),
                "cpu": (2, ["crunch"]),
                "process": (3, ["isolated"]),
                "async": (8, ["fetch"]),
            },
            id="nothing is left for the default",
        ),
    ],
)
def test_who_takes_whose_slots(
    sizes: Mapping[str, int], pools: Mapping[str, tuple[int, list[str]]]
) -> None:
    """A job's own pool, else its executor's, else the default one; without jobs there is none."""
    shared = share_out(JOBS, 4, sizes)
    assert {pool.name: (pool.slots, [*pool.jobs]) for pool in shared} == pools


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"cpo": 2}, "named are: cpu, io"),
        ({"default": 2}, "--slots"),
        ({"thread": 0, "process": 0, "io": 0}, "0 slots"),
    ],
)
def test_pools_that_are_a_slip_are_refused(sizes: Mapping[str, int], says: str) -> None:
    """One that no job names, the default one, and a worker that would serve nothing."""
    with pytest.raises(Rejected, match=says) as caught:
        share_out(JOBS, 4, sizes)
    assert (caught.value.reason, caught.value.field) == ("INVALID_ARGUMENT", "pools")


def test_middleware_is_around_every_pool() -> None:
    """Jobs are wrapped once, and each pool tells of its jobs' ends."""
    ends = Ends()
    application = Application(JOBS, [ends])
    for pool in share_out(application, 4, {"cpu": 2}):
        assert isinstance(pool.jobs, Application)
        assert pool.jobs.finishers == (ends,)
        assert all(pool.jobs[name] is application[name] for name in pool.jobs)


def test_a_job_with_other_settings_is_of_the_same_pool() -> None:
    """``options`` changes what is said of a job, not its class; a class must be a name."""
    assert crunch.options(priority=1).pool == "cpu"
    with pytest.raises(Rejected, match="got 'c p u'"):
        job(name="bad", pool="c p u")(lambda: None)
